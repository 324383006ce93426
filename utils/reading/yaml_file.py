"""Reading YAML as data: plain dicts, lists, numbers and strings."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from utils.printable import printable
from utils.reading.opening import FileError, read_regular

MAX_BYTES = 128_000  # real ones have 3,000; this much takes the parser seconds
MAX_DEPTH = 32
FLOAT = re.compile(r"[-+]?\d+\.?\d*[eE][-+]?\d+")
PLAIN_KEYS = (str, int, float)
PLAIN = (*PLAIN_KEYS, list, dict, type(None))

T = TypeVar("T", dict, list)


class _Loader(yaml.SafeLoader):
    """Loads plain data, without the means to write much in little: anchors, aliases, deep nesting.

    As in OmegaConf, which wrote these files, 1e-4 is a number, a date is text, and no key comes twice.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  (as in the base class)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:  # of an alias too
            raise yaml.composer.ComposerError(None, None, "anchors and aliases are not supported", event.start_mark)
        if self.depth == MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_DEPTH} levels", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no text or number", key.start_mark)
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} comes twice", key.start_mark)
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789"))


def read_yaml(path: Path, kind: type[T], remedy: str = "restore it from a copy") -> T:
    """Read a YAML file of plain data. Nothing in it is resolved or imported: ``${...}`` and ``_target_`` stay text.

    Args:
        path: The file.
        kind: Of its outermost value.
        remedy: What to do about a broken one, for the message.

    Raises:
        FileError: If it is too large, or no YAML of that kind.
        OSError: If it cannot be read.
    """
    content = read_regular(path, MAX_BYTES)
    try:
        value = yaml.load(content.decode(), _Loader)
        _check_plain(value)
    except Exception as error:  # damaged text makes anything of the parser
        reason = " ".join(str(error).replace('in "<unicode string>", ', "").split()) or type(error).__name__
        raise FileError(f"{path} is no readable YAML ({printable(reason, 300)}); {remedy}") from None
    if not isinstance(value, kind):
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise FileError(f"{path} holds {found} instead of {'settings' if kind is dict else 'a list'}; {remedy}")
    return value


def _check_plain(value: Any) -> None:
    """Refuse what YAML can write by explicit tags, sets for instance."""
    if not isinstance(value, PLAIN):
        raise ValueError(f"a value is of type {type(value).__name__}")
    odd = [type(key).__name__ for key in value if not isinstance(key, PLAIN_KEYS)] if isinstance(value, dict) else []
    if odd:
        raise ValueError(f"a key is of type {odd[0]}")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_plain(part)
