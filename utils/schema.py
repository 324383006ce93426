"""Plain data, held against the annotations of the class that takes them: a schema of ours, or a group's option."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from hydra.utils import get_object, instantiate
from torch import nn

from utils.annotations import PLAIN, alternatives, describe, validated
from utils.nearby import nearest_names
from utils.printable import shown

# the annotations of a class as types: reading them takes most of the time of a check
_read: Callable[[Any], Mapping[str, Any]] = functools.cache(functools.partial(get_type_hints, include_extras=True))

T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S", bound="Settings")


class SettingError(ValueError):
    """A setting that is not what it must be.

    Attributes:
        key: Of the setting.
        reason: What follows the key in the message.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}{reason}")
        self.key, self.reason = key, reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all schemas: frozen dataclasses whose fields are settings."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenSettings(Settings):
    """A schema that allows settings beside its fields: an option may bring some that others refer to.

    Attributes:
        recorded: The plain data that the schema was made of, as a run keeps them.
    """

    recorded: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)


@dataclasses.dataclass(frozen=True)
class Component(Generic[T_co]):
    """An object that a config describes: a class and its arguments, checked, not built yet.

    Attributes:
        settings: ``_target_`` and arguments, as they are recorded.
    """

    settings: Mapping[str, Any]

    def kind(self) -> Any:
        """Return the class itself."""
        return get_object(self.settings["_target_"])

    def build(self, **more: Any) -> T_co:
        """Call the class with its arguments and ``more``."""
        built: T_co = instantiate(self.settings, **more)
        return built


def parsed(schema: type[S], node: Mapping[str, Any], key: str = "") -> S:
    """Make a ``schema`` of plain data.

    Args:
        schema: What the settings must be.
        node: Settings by name; where one is missing, null is meant.
        key: Of ``node`` itself; "" for a whole config.

    Raises:
        SettingError: Naming the key, the value and what is allowed, or the nearest name.
    """
    hints = dict(_read(schema))
    values = {}
    if hints.pop("recorded", None):
        values["recorded"] = node
    else:
        _refuse_unknown(node, hints, key)
    for name, hint in hints.items():
        values[name] = _checked(_join(key, name), node.get(name), hint)
    return schema(**values)


def check_arguments(node: Mapping[str, Any], key: str) -> None:
    """Hold the arguments of a group's option against the constructor of its class.

    Raises:
        SettingError: As ``parsed``; also for an argument that the class does not take.
    """
    try:
        hints, takes_more = arguments_of(get_object(node["_target_"]))
    except Exception:  # whatever importing it raises: building it says so
        return
    arguments = {name: value for name, value in node.items() if not name.startswith("_")}
    if not takes_more:
        _refuse_unknown(arguments, hints, key)
    for name, value in arguments.items():
        _checked(_join(key, name), value, hints.get(name, Any))


def _checked(key: str, value: Any, hint: Any) -> Any:
    """The value as a schema keeps it."""
    if isinstance(value, Mapping):
        for kind in alternatives(hint):
            if isinstance(kind, type) and issubclass(kind, Settings):
                return parsed(kind, value, key)
            origin = get_origin(kind)
            if isinstance(origin, type) and issubclass(origin, Mapping):
                return {name: _checked(_join(key, str(name)), each, get_args(kind)[1]) for name, each in value.items()}
        if "_target_" in value and any(kind is Any or is_object(kind) for kind in alternatives(hint)):
            check_arguments(value, key)
            return Component(value)
    try:
        return validated(value, [kind for kind in alternatives(hint) if not is_object(kind)])
    except ValueError:
        must = f"must be {describe(hint)}; correct it, or leave it out for the default"
        raise SettingError(key, f"={shown(value)} {must}") from None


def is_object(kind: Any) -> bool:
    """Whether values of a kind are described by a class and its arguments."""
    return get_origin(kind) is Component or (isinstance(kind, type) and kind not in (*PLAIN, Any, object))


def _refuse_unknown(node: Mapping[str, Any], known: Mapping[str, Any], key: str) -> None:
    for name in node:
        if name not in known:
            wrong, right = _join(key, name), [_join(key, other) for other in known]
            raise SettingError(wrong, f": there is no such setting{nearest_names(wrong, right)}")


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def arguments_of(target: Any) -> tuple[dict[str, Any], bool]:
    """Annotations of all arguments that a class takes, and whether it takes others too."""
    found: dict[str, Any] = {}
    takes_more = False
    for constructor, annotated in _constructors(target):
        parameters = [each for each in inspect.signature(constructor).parameters.values() if each.name != "self"]
        hints = _hints(annotated)
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                found.setdefault(parameter.name, hints.get(parameter.name, _kind_of(parameter.default)))
        takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        if not takes_more:
            break  # else what is left goes to the next class in line
    return found, takes_more


def _constructors(target: Any) -> Iterator[tuple[Callable[..., Any], Any]]:
    """Constructors, the class's own first, each with what its annotations are to be read from."""
    if not isinstance(target, type):
        yield target, target
        return
    for each in target.__mro__[:-1]:
        if "__init__" in vars(each) and each is not nn.Module:  # which says that it takes anything, and refuses it
            yield each.__init__, each if dataclasses.is_dataclass(each) else each.__init__  # type: ignore[misc]


def _hints(annotated: Any) -> Mapping[str, Any]:
    try:
        return _read(annotated)
    except Exception:  # names that only a type checker knows
        return {}


def _kind_of(default: Any) -> Any:
    """What an argument without annotation is likely to be."""
    return {bool: bool, int: float, float: float, str: str}.get(type(default), Any)
