"""Whether the names on a command line exist, with the nearest ones for those that do not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, OverrideType, QuotedString
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from launch.composing import Composer, keys_of
from launch.conf import entries, groups
from launch.grammar import is_sweep, parse_override
from launch.values import TRUSTED
from utils.nearby import nearest_names

REFUSED = (HydraException, OmegaConfBaseException, yaml.YAMLError)
"""What composing raises: names and values that do not fit, and a file of the user's that is no YAML."""

FACTS = ("env.name", "env.env_action_dim", "env.proprio_dim", "env.state_dim")
"""What an environment is; its file says it, and nothing else can."""


class Names:
    """Checks the overrides of one command line.

    Args:
        composer: Of the config that they are for.
        settings: The overrides, without Hydra's own.
        adds: Whether ``+group.name=`` may add what nothing here knows, to groups of the user's making.
    """

    def __init__(self, composer: Composer, settings: Sequence[str], adds: bool = False) -> None:
        self.composer, self.adds = composer, adds
        self.groups = groups(composer.folders)
        if composer.name not in entries(composer.folders):
            near = nearest_names(composer.name, entries(composer.folders))
            raise ValueError(f"--config-name {composer.name}: there is no such file in conf/{near}")
        self.overrides = [_parsed(text) for text in settings]
        self.chosen = [o for o in self.overrides if o.key_or_group in self.groups]

    def check(self, sweep: bool) -> dict[str, str]:
        """Check them all; returns what to write for those that Hydra would refuse though they fit a sweep's members.

        Raises:
            ValueError: Naming the first that is wrong, and what is near.
        """
        for override in self.chosen:
            self._check_option(override)
        alternatives = self._alternatives()
        trees = [self._keys(overrides) for overrides in alternatives]
        # at first Hydra composes the sweep without the groups that are swept, where their settings are unknown
        fixed = [o.input_line or "" for o in self.chosen if not o.is_sweep_override()]
        before = self._keys(fixed) if sweep and len(trees) > 1 else trees[0]
        replaced = {}
        for override in self.overrides:
            if override in self.chosen or override.key_or_group == TRUSTED:
                continue
            text = override.input_line or ""
            fits = [self._fits(override, keys) for keys in trees]
            if not any(fits):
                raise ValueError(self._unknown(override, trees[0]))
            fact = trees[0].get(override.key_or_group) if override.key_or_group in FACTS else None
            if fact not in (None, override.value()) and f"${{{override.key_or_group}}}" not in trees[0].values():
                raise ValueError(f"{text}: this environment has {fact}; leave it out, or choose another env")
            if not all(fits):
                lacking = ", ".join(alternatives[fits.index(False)]) or self.composer.name
                raise ValueError(f"{text}: with {lacking} there is no such setting; sweep over those that have it")
            if not self._fits(override, before):
                replaced[text] = f"++{text}"
        return replaced

    def _check_option(self, override: Override) -> None:
        group, known = override.key_or_group, self.groups[override.key_or_group]
        for name in _options(override, known):
            if name is None and group == "env":  # other groups follow it, and Hydra would only miss it there
                raise ValueError(f"env=null: there must be one; choose among {', '.join(known)}")
            if name is not None and name not in known:
                raise ValueError(
                    f"{override.input_line}: {group} has no option {name}{nearest_names(name, known)} "
                    f"There are {', '.join(known)}"
                )

    def _alternatives(self) -> list[list[str]]:
        """Choices of groups, one list for each option that a sweep goes over."""
        first = [_choosing(o, _options(o, self.groups[o.key_or_group])[0]) for o in self.chosen]
        found = [first]
        for place, override in enumerate(self.chosen):
            for option in _options(override, self.groups[override.key_or_group])[1:]:
                found.append([*first[:place], _choosing(override, option), *first[place + 1 :]])
        return found

    def _keys(self, overrides: Sequence[str]) -> dict[str, Any]:
        try:
            return keys_of(self.composer.compose(overrides))
        except REFUSED as error:
            raise ValueError(" ".join(str(error).split())) from None

    def _fits(self, override: Override, keys: Mapping[str, Any]) -> bool:
        key = override.key_or_group
        parent = key.rpartition(".")[0]
        if override.type is OverrideType.CHANGE:
            return key in keys or _is_reference(parent, keys)
        if isinstance(inside := keys.get(parent), dict) and ("_target_" in inside or self.adds):
            return True
        return override.type is not OverrideType.DEL and key in keys

    def _unknown(self, override: Override, keys: Mapping[str, Any]) -> str:
        key = override.key_or_group
        if override.type is OverrideType.DEL:
            return f"{override.input_line}: a setting cannot be removed; give it a value, null if it allows none"
        elsewhere = self._options_with(key)
        more = f" It is a setting of {', '.join(elsewhere)}." if elsewhere else ""
        near = nearest_names(key, [*keys, *self.groups])
        if override.type is not OverrideType.CHANGE:
            return f"+{key}: nothing reads a setting of that name{near}{more}"
        return f"{override.input_line}: there is no such setting{near}{more} All of them: --help"

    def _options_with(self, key: str) -> list[str]:
        """Options of which a setting of that name would be one, if they were chosen."""
        found = []
        for folder in self.composer.folders:
            for path in sorted(folder.glob("*/*.yaml")):
                text = path.read_text(encoding="utf-8", errors="replace")
                header = re.search(r"@package ([\w.]+)", text)
                package = header[1] if header else path.parent.name
                name = key if package == "_global_" else key.removeprefix(f"{package}.")
                if (name != key or package == "_global_") and name in _own_keys(path):
                    found.append(f"{path.parent.name}={path.stem}")
        return found


def _own_keys(path: Path) -> set[str]:
    """Keys in an option's file, and in those beside it that it builds on."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeError):  # a file of the user's; composing says so, if it is chosen
        return set()
    if not isinstance(content, dict):
        return set()
    found = set(keys_of(content))
    for base in content.get("defaults") or []:
        if isinstance(base, str) and (beside := path.with_name(f"{base}.yaml")).is_file():
            found |= _own_keys(beside)
    return found


def check_all(composer: Composer, overrides: Sequence[str], argv: Sequence[str]) -> None:
    """Let Hydra compose everything once, for what else may be wrong.

    Raises:
        ValueError: In its words.
    """
    try:
        composer.compose(overrides, sweep=is_sweep(argv))
    except REFUSED as error:
        raise ValueError(" ".join(str(error).split())) from None


def _parsed(text: str) -> Override:
    override = parse_override(text)
    if override is None:
        raise ValueError(f"{text} cannot be read: a setting is key=value; other characters need quotes: key=\"'...'\"")
    return override


def _options(override: Override, known: Sequence[str]) -> list[str | None]:
    value = override._value
    if isinstance(value, Glob):
        return [*value.filter([*known])] or [None]
    names = value.list if isinstance(value, ChoiceSweep) else value if isinstance(value, list) else [value]
    return [None if n is None else n.text if isinstance(n, QuotedString) else str(n) for n in names] or [None]


def _choosing(override: Override, option: str | None) -> str:
    """The override, of the options of a sweep only this one."""
    start = (override.input_line or "").split("=", 1)[0]
    if override.type is OverrideType.DEL:
        return override.input_line or ""
    listed = f"[{','.join(map(str, override._value))}]" if isinstance(override._value, list) else None
    return f"{start}={listed or ('null' if option is None else option)}"


def _is_reference(key: str, keys: Mapping[str, Any]) -> bool:
    """Whether some group on the way is written as a reference to another, so that its keys are not known here."""
    parts = key.split(".")
    ways = (".".join(parts[: count + 1]) for count in range(len(parts)))
    return any(isinstance(keys.get(way), str) and "${" in keys[way] for way in ways)
