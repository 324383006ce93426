"""The command line of studies in Hydra's words: ``compare models=...`` is ``--config-name compare models=...``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from launch.conf import CONF
from launch.grammar import quoted, text_of
from utils.nearby import nearest_names

GIVEN = tuple(sys.argv[1:])
"""The command line as it was, before anything is put into other words."""

LIST = re.compile(r"models=\[([^'\"{}\[\]]+)\]")

DEFAULT = "wall"
"""The environment of ``demo``, ``results`` and the like, if none is given."""


def in_hydras_words(argv: Sequence[str]) -> list[str]:
    """Take the study's name from the first word, and ``env=``, which Hydra would read as one of its groups.

    Args:
        argv: ``demo env=pusht`` is the config ``demo_pusht``; a config of that very name may ask for an environment.

    Raises:
        ValueError: If there is no such study.
    """
    env = text_of(argv, "env")
    rest = [LIST.sub(_readable, text) for text in argv if not text.startswith("env=")]
    asked = [f"environment={env}"] if env is not None else []
    if not rest or "=" in rest[0] or rest[0].startswith("-"):
        return [*rest, *asked]
    word, *rest = rest
    known = [path.stem for folder in (CONF, *_own(rest)) for path in folder.glob("*.yaml")]
    if word in known:
        return ["--config-name", word, *rest, *asked]
    if (name := f"{word}_{env or DEFAULT}") in known:
        return ["--config-name", name, *rest]
    studies = [stem for stem in known if not stem.startswith(("plan", "train", "collect", "preview"))]
    raise ValueError(
        f"{word}: there is no such study{nearest_names(word, studies)} There are {', '.join(sorted(studies))}; "
        "a config of your own is found with --config-dir"
    )


def _readable(found: re.Match[str]) -> str:
    """Put folders in quotes, which Hydra would not read as they stand: ``~/wall``, a name with a space."""
    return f"models=[{','.join(quoted(path.strip()) for path in found[1].split(','))}]"


def _own(argv: Sequence[str]) -> list[Path]:
    """The folder that ``--config-dir`` names."""
    for place, text in enumerate(argv):
        option, _, value = text.partition("=")
        if option in ("--config-dir", "-cd"):
            return [Path(value or next(iter(argv[place + 1 :]), ""))]
    return []
