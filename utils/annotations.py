"""What an annotation allows, judged by pydantic, and said in the words of an error."""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Interval, Len
from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError

STRICT = ConfigDict(strict=True, str_min_length=1, str_max_length=4096)
PLAIN: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text without control characters",
    Path: "a path",
    types.NoneType: "null",
    list: "a list",
    dict: "names with values",
}
OBJECT = "a group of settings, key: value"


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union; of anything else, itself."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def validated(value: Any, kinds: Sequence[Any]) -> Any:
    """Return a value that one of ``kinds`` allows.

    Raises:
        ValueError: If none does.
    """
    if not kinds:
        raise ValueError("nothing is allowed")
    return _adapter(functools.reduce(operator.or_, kinds)).validate_python(value)


@functools.cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint, config=STRICT)
    except PydanticUserError:  # an annotation of a user's own that says nothing about plain data
        return TypeAdapter(Any)


def describe(hint: Any) -> str:
    """Say what an annotation allows, as the end of "... must be"."""
    return " or ".join(dict.fromkeys(map(_described, alternatives(hint))))


def _described(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return " or ".join(map(str, get_args(kind)))
    if origin is Annotated:
        inner, *limits = get_args(kind)
        return "".join([describe(inner), *map(_limited, limits)])
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return f"a list of {describe(get_args(kind)[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return PLAIN[dict]
    return PLAIN.get(kind, OBJECT)


def _limited(limit: object) -> str:
    if isinstance(limit, Interval):
        above, least, most = limit.gt, limit.ge, limit.le
        words = [f", above {above:.15g}"] if above is not None else []
        words += [f", at least {least:.15g}"] if least is not None else []
        return "".join([*words, *([f", at most {most:.15g}"] if most is not None else [])])
    if not isinstance(limit, Len):
        return ""
    few, many = limit.min_length, limit.max_length
    return f", {few} of them" if few == many else f", {few} to {many} of them"
