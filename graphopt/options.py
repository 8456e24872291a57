"""The options of passes: typed fields are their one source, for every door they can come in by."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from graphopt.errors import UsageError, printable
from graphopt.pass_base import Pass


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a pass, read off its field.

    Attributes:
        name: the field's name.
        kind: its type for people, as in ``float`` or ``'a' | 'b'``.
        default: its default value.
        help: what it does, from the field's metadata.
    """

    name: str
    kind: str
    default: Any
    help: str


def options_of(step: type[Pass]) -> list[Option]:
    """The options that a pass has."""
    hints = typing.get_type_hints(step)
    return [
        Option(f.name, _shown(hints[f.name]), _default(f), str(f.metadata.get("help", "")))
        for f in dataclasses.fields(typing.cast(Any, step))
    ]


def values_of(step: Pass) -> dict[str, Any]:
    """The values that the options of a pass have."""
    return {f.name: getattr(step, f.name) for f in dataclasses.fields(typing.cast(Any, step))}


def build(step: type[Pass], values: Mapping[str, Any]) -> Pass:
    """Make a pass with options given as text or as plain values.

    Args:
        step: the class of the pass.
        values: options by name; text is read as the field's type.

    Raises:
        UsageError: an option is unknown or its value does not fit.
    """
    hints = typing.get_type_hints(step)
    known = {f.name: f for f in dataclasses.fields(typing.cast(Any, step))}
    made: dict[str, Any] = {}
    for name, value in values.items():
        field = name.replace("-", "_")
        if field not in known:
            has = f"It has: {', '.join(sorted(known))}" if known else "It has none"
            raise UsageError(f"the pass {step.name!r} has no option {printable(name)!r}", has)
        try:
            made[field] = _within(convert(value, hints[field]), known[field].metadata.get("within"))
        except ValueError as error:
            raise UsageError(
                f"option {name!r} of the pass {step.name!r}: {error}",
                f"It wants {_shown(hints[field])}",
            ) from None
    try:
        return step(**made)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the pass {step.name!r} cannot be set up: {error}") from None


def parse_choice(text: str) -> tuple[str, dict[str, str]]:
    """Read ``NAME[:field=value,...]``.

    Raises:
        UsageError: a part after the colon is not of the form ``field=value``.
    """
    name, _, rest = text.partition(":")
    values: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise UsageError(
                f"cannot read the option {printable(part)!r} of the pass {printable(name)!r}",
                "Write NAME:field=value,field=value",
            )
        values[key.strip()] = value.strip()
    return name.strip(), values


def convert(value: Any, kind: Any) -> Any:
    """Read a value as a field's type; text comes from a command line, the rest from TOML.

    Raises:
        ValueError: it does not fit.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _first_fitting(value, args)
    if origin is Literal:
        if value not in args and str(value) not in map(str, args):
            raise ValueError(f"{value!r} is not one of {', '.join(map(repr, args))}")
        return next(arg for arg in args if value == arg or str(value) == str(arg))
    if kind is bool:
        return _boolean(value)
    if kind in (int, float):
        return _number(value, kind)
    if kind is str:
        return str(value)
    if origin in (tuple, list):
        parts = value.split("+") if isinstance(value, str) else list(value)
        made = [convert(part, args[0]) for part in parts]
        return tuple(made) if origin is tuple else made
    raise ValueError(f"options of the type {kind} are not supported")


def _within(value: Any, bounds: tuple[float, float] | None) -> Any:
    """A value, if it lies between the bounds that its field names.

    Raises:
        ValueError: it does not.
    """
    if bounds is not None and not bounds[0] <= value <= bounds[1]:
        raise ValueError(f"{value!r} does not lie between {bounds[0]:g} and {bounds[1]:g}")
    return value


def _first_fitting(value: Any, kinds: tuple[Any, ...]) -> Any:
    if type(None) in kinds and (value is None or value in ("", "none")):
        return None
    for kind in kinds:
        if kind is not type(None):
            try:
                return convert(value, kind)
            except ValueError:
                continue
    raise ValueError(f"{value!r} does not fit")


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError(f"{value!r} is neither true nor false")
    return words[str(value).lower()]


def _number(value: Any, kind: type) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a number")
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError(f"{value!r} is not a whole number")
    try:
        made = kind(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is not a {'whole ' if kind is int else ''}number") from None
    if isinstance(made, float) and not math.isfinite(made):
        raise ValueError(f"{value!r} is not finite")
    return made


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _shown(kind: Any) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " | ".join(map(repr, args))
    if origin in (types.UnionType, typing.Union):
        return " | ".join(_shown(arg) for arg in args)
    if kind is type(None):
        return "none"
    if origin in (tuple, list):
        return f"{_shown(args[0])}+{_shown(args[0])}+..."
    return getattr(kind, "__name__", str(kind))
