"""Reading and writing single overrides of Hydra's."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

MULTIRUN = ("-m", "--multirun", "hydra.mode=MULTIRUN")


def parse_override(text: str) -> Override | None:
    """An override as Hydra reads it; None if it cannot."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None


def quoted(text: str) -> str:
    """A text as a value of an override, whatever is in it."""
    return QuotedString(text, Quote.single).with_quotes()


def text_of(argv: Sequence[str], key: str) -> str | None:
    """The text that a command line gives a key, the last one, out of its quotes; None if it gives none."""
    found = [override._value for text in argv if text.startswith(f"{key}=") and (override := parse_override(text))]
    value = found[-1] if found else None
    return value.text if isinstance(value, QuotedString) else None if value is None else str(value)


def is_sweep(argv: Sequence[str]) -> bool:
    """Whether a command line asks for a sweep."""
    return any(argument in MULTIRUN or _is_short_for_multirun(argument) for argument in argv)


def _is_short_for_multirun(argument: str) -> bool:
    """argparse takes unambiguous beginnings of an option."""
    return len(argument) > 3 and "--multirun".startswith(argument)


def key_of(text: str) -> str:
    """What an override sets, without signs, package and value: "num_hist", "encoder", "training.batch_size"."""
    return text.lstrip("+~").split("=", 1)[0].split("@", 1)[0]


def is_hydras(text: str) -> bool:
    """Whether an override sets something of Hydra's own."""
    return text.lstrip("+~").startswith(("hydra.", "hydra/"))
