"""Look into checkpoints and convert them: ``python -m models.checkpoint inspect|convert``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from models.checkpoints.convert import LAYOUTS, convert
from models.checkpoints.native import LATEST, locate_weights
from models.checkpoints.summary import summarise, summarise_foreign
from models.foreign.facts import Facts
from models.foreign.layouts import recognise
from utils.printable import exit_with, printable_logs, write_printable
from utils.schema import parsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; what goes wrong is one line on standard error and exit code 1."""
    given = _parser().parse_args(arguments)
    printable_logs()
    try:
        facts = parsed(Facts, dict(given.foreign), "foreign")
        found = recognise(given.path)
        path = found[1].path if found else locate_weights(given.path, given.epoch)
        if given.command == "inspect":
            summary = summarise_foreign(*found, facts) if found else summarise(path)
            text = json.dumps(summary.as_dict(), indent=2) if given.json else summary.as_text()
            write_printable(text + "\n", sys.stdout)
            sys.exit(1 if summary.problem else 0)
        like = given.like and locate_weights(given.like)
        done = convert(path, given.out, given.to, like, facts, given.license, given.transformers)
        write_printable(done + "\n", sys.stdout)
    except (ValueError, OSError) as error:
        exit_with(f"{given.command}: {error}")


def _fact(text: str) -> tuple[str, int | str]:
    key, _, value = text.partition("=")
    return key.removeprefix("foreign."), int(value) if value.isdecimal() else value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.checkpoint", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    inspect = commands.add_parser("inspect", help="list parts, shapes, parameter counts, epoch and config")
    change = commands.add_parser("convert", help="write a checkpoint in another layout; never overwrites")
    for command in (inspect, change):
        command.add_argument("path", type=Path, help="a model directory or a weights file")
        command.add_argument(
            "--foreign",
            action="append",
            default=[],
            type=_fact,
            metavar="KEY=VALUE",
            help=f"what a file of another program leaves open, of {', '.join(field.name for field in fields(Facts))}",
        )
        command.add_argument("--epoch", default=LATEST, help="which epoch of a model directory (default: latest)")
    inspect.add_argument("--json", action="store_true", help="the same as JSON, every tensor on its own")
    change.add_argument("out", type=Path, help="a new model directory, or a .safetensors or .pth file")
    change.add_argument(
        "--to",
        choices=LAYOUTS,
        help="safetensors (default unless OUT is a .pth file), state-dict (plain tensors, default for a .pth file), "
        "dino-wm (a file that the earlier release reads: a copy of the original with these weights in it), hub (a "
        "folder with a model card, for a model hub), or stable-worldmodel (its weights.pt and config.json)",
    )
    change.add_argument("--like", type=Path, help="with --to dino-wm: the original; default: the parent it names")
    change.add_argument("--license", default="unknown", help="with --to hub: what the card says, e.g. mit")
    change.add_argument(
        "--transformers",
        type=int,
        choices=(4, 5),
        default=5,
        help="with --to stable-worldmodel: the "
        "generation of transformers there, on which the names of the encoder's tensors depend",
    )
    return parser
