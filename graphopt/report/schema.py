"""Dataclass trees as JSON: reading one back, and its JSON Schema."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from typing import Any, Literal


def read(kind: Any, value: Any) -> Any:
    """Build a value of an annotated type from plain JSON.

    Raises:
        ValueError: the JSON does not fit the type; the message says in which field.
        TypeError: a field is missing.
    """
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _read_fields(kind, _checked(value, dict))
    if origin is list:
        return [read(args[0], entry) for entry in _checked(value, list)]
    if origin is dict:
        return {key: read(args[1], entry) for key, entry in _checked(value, dict).items()}
    if origin in (types.UnionType, typing.Union):
        return _read_union(args, value)
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{str(value)[:40]!r} is none of {', '.join(map(repr, args))}")
        return value
    return _checked(value, kind) if kind in _PLAIN else value


def _read_fields(kind: Any, value: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    made = {}
    for field in dataclasses.fields(kind):
        if field.name in value:
            try:
                made[field.name] = read(hints[field.name], value[field.name])
            except ValueError as error:
                raise ValueError(f"{field.name}: {error}") from None
    return kind(**made)


def _read_union(args: tuple[Any, ...], value: Any) -> Any:
    """The first type of several that fits; None is said by itself."""
    if value is None and type(None) in args:
        return None
    wrong = ValueError("does not fit")
    for arg in args:
        if arg is not type(None):
            try:
                return read(arg, value)
            except ValueError as error:
                wrong = error
    raise wrong


def _checked(value: Any, kind: type) -> Any:
    wanted: Any = (int, float) if kind is float else kind
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"expected {kind.__name__}, found {type(value).__name__}")
    if kind is float and isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ValueError("the number is too large")
    return value


def json_schema(kind: Any, identifier: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a tree.

    Args:
        kind: the dataclass at its root.
        identifier: the version of its form.
    """
    definitions: dict[str, Any] = {}
    root = _schema(kind, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": identifier,
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        name = kind.__name__ if isinstance(kind, type) else type(kind).__name__
        if name not in definitions:
            definitions[name] = {}
            hints = typing.get_type_hints(kind)
            definitions[name] = {
                "type": "object",
                "properties": {
                    f.name: _schema(hints[f.name], definitions) for f in dataclasses.fields(kind)
                },
                "required": [f.name for f in dataclasses.fields(kind)],
            }
        return {"$ref": f"#/$defs/{name}"}
    if origin is Literal:
        return {"enum": list(args)}
    if origin is list:
        return {"type": "array", "items": _schema(args[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(args[1], definitions)}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_schema(arg, definitions) for arg in args]}
    return {"type": _PLAIN[kind]} if kind in _PLAIN else {}
