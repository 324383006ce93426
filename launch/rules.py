"""Rules for single settings: which type and which range a value must have, in the words of an error."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from launch.conf import dotted, own_classes
from utils.printable import printable

NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text without control characters",
    list: "a list",
}
MOST_SHOWN = 60  # characters of a value
LONGEST_TEXT = 4096
GROUP = "a group of settings, key: value"


@dataclass(frozen=True)
class Rule:
    """What a setting may be.

    Attributes:
        kind: type of the value, ``dict`` for a group of settings. low, high: range of a number, or of a list's length.
        above: whether ``low`` itself is excluded. words: what else is allowed, such as None or "auto".
        item: rule for each entry of a list. alone: whether one entry may stand for a list of it.
    """

    kind: type
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    words: tuple[object, ...] = ()
    item: Rule | None = None
    alone: bool = False

    def allows(self, value: object) -> bool:
        """Whether a value is of the type and in the range, or one of the words."""
        if any(type(value) is type(word) and value == word for word in self.words):
            return True
        if self.kind in (int, float):
            return self._is_number(value) and self._in_range(value)
        if self.kind is list:
            if self.alone and self._takes(value):
                return True
            return isinstance(value, list) and self._in_range(len(value)) and all(map(self._takes, value))
        return isinstance(value, self.kind) and (not isinstance(value, str) or _is_text(value))

    def _is_number(self, value: object) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole or (self.kind is float and isinstance(value, float) and math.isfinite(value))

    def _in_range(self, value: Any) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def _takes(self, entry: object) -> bool:
        return self.item is None or self.item.allows(entry)

    def __str__(self) -> str:
        """The rule as the end of "... must be"."""
        return " or ".join([self._described(), *map(shown, self.words)])

    def _described(self) -> str:
        if self.kind is dict:
            return GROUP
        if self.kind is list:
            entries = "" if self.item is None else f" of {self.item}, {self.low:g} to {self.high:g} of them"
            return ("" if not self.alone else f"{self.item} or ") + NAMES[list] + entries
        limits = [f"{'above' if self.above else 'at least'} {self.low:.15g}"] if self.low > -math.inf else []
        limits += [f"at most {self.high:.15g}"] if self.high < math.inf else []
        return ", ".join([NAMES[self.kind], *limits])


def _is_text(value: str) -> bool:
    """Whether a text is not empty, not endless, and nothing in it steers a terminal."""
    return 0 < len(value) <= LONGEST_TEXT and not any(unicodedata.category(letter) == "Cc" for letter in value)


def whole(low: int, high: int, *words: object) -> Rule:
    """A whole number from ``low`` to ``high``."""
    return Rule(int, low, high, words=words)


def number(low: float, high: float, *words: object, above: bool = False) -> Rule:
    """A finite number from ``low`` (excluded if ``above``) to ``high``."""
    return Rule(float, low, high, above, words)


def truth(*words: object) -> Rule:
    """True or false."""
    return Rule(bool, words=words)


def text(*words: object) -> Rule:
    """A text that is not empty; which ones there are is its reader's affair."""
    return Rule(str, words=words)


def several(item: Rule, least: int, most: int, *words: object) -> Rule:
    """A list of ``least`` to ``most`` values."""
    return Rule(list, least, most, words=words, item=item)


GROUP_RULE = Rule(dict)


def check_values(config: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Hold every setting against its rule; one without a rule, of a user's own class say, may be anything.

    Args:
        config: composed, as plain data.
        rules: by "Class.setting" or the end of a key. "Class.setting" comes first, then the longest end.

    Raises:
        ValueError: Naming the key, the value and what is allowed.
    """
    for key, value, owner in _settings(config):
        rule = rule_of(key, owner, rules)
        if rule is not None and not rule.allows(value):
            raise ValueError(f"{key}={shown(value)} must be {rule}; correct it, or leave it out for the default")


def rule_of(key: str, owner: str, rules: Mapping[str, Rule]) -> Rule | None:
    """The rule of a setting; ``owner`` is the class that takes it, "" if none does."""
    parts = key.split(".")
    ends = [".".join(parts[start:]) for start in range(len(parts))]
    return next((rules[name] for name in (f"{owner}.{parts[-1]}", *ends) if name in rules), None)


def shown(value: object) -> str:
    """A value as a user would write it, short, and without anything that a terminal obeys."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    written = printable(str(value), MOST_SHOWN)
    return written if len(written) <= MOST_SHOWN else f"{written[: MOST_SHOWN - 3]}..."


def _settings(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every setting and group with its key and the class that takes it; nothing of a class that is not ours."""
    target = node.get("_target_")
    ours = target is None or (isinstance(target, str) and dotted(target) in own_classes())
    owner = target.rpartition(".")[2] if isinstance(target, str) else ""
    for name, value in node.items():
        key = f"{prefix}{name}"
        if ours and name != "_target_":
            yield key, value, owner
        if isinstance(value, Mapping):
            yield from _settings(value, f"{key}.")
