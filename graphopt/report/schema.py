"""Dataclass trees as JSON: reading one back, and its JSON Schema."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal


def read(kind: Any, value: Any) -> Any:
    """Build a value of an annotated type from plain JSON."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {f.name for f in dataclasses.fields(kind)}
        return kind(**{k: read(hints[k], v) for k, v in value.items() if k in known})  # type: ignore[operator]
    if origin is list:
        return [read(args[0], entry) for entry in value]
    if origin is dict:
        return {key: read(args[1], entry) for key, entry in value.items()}
    if origin in (types.UnionType, typing.Union) and value is not None:
        inner = [
            arg for arg in args if typing.get_origin(arg) is list or dataclasses.is_dataclass(arg)
        ]
        return read(inner[0], value) if inner else value
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
