"""The report: one tree of dataclasses. JSON is its dict; what people read is drawn from it alone."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from graphopt.errors import UsageError

SCHEMA = "graphopt.report/1"
"""The version of the report's form. Fields may be added within a version, never changed or removed."""

Status = Literal["applied", "unchanged", "eased", "rolled back", "failed"]


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model: name, element type and dimensions as declared."""

    name: str
    dtype: str
    shape: list[int | str] | None


@dataclass(frozen=True)
class ModelInfo:
    """A model in figures.

    Attributes:
        path: where it stands; empty for a model in memory.
        sha256: of the file.
        file_bytes: of the model file, without data files beside it.
        ir_version: of the format.
        opset: of the standard operators.
        nodes: in all scopes, Constant nodes not counted.
        parameters: weights.
        weight_bytes: of all constants.
        macs: multiply-accumulates of one run, dynamic dimensions as in the first inputs judged with; None
            where a shape that they depend on is not proven.
        inputs: what a caller gives.
        outputs: what a caller gets.
    """

    path: str
    sha256: str
    file_bytes: int
    ir_version: int
    opset: int
    nodes: int
    parameters: int
    weight_bytes: int
    macs: int | None
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]


@dataclass(frozen=True)
class EditInfo:
    """A change: the node it is about and what was done."""

    node: str
    what: str


@dataclass(frozen=True)
class SkipInfo:
    """A change that was refused: the node it is about and why."""

    node: str
    why: str


@dataclass(frozen=True)
class StepReport:
    """What one pass did.

    Attributes:
        name: of the pass.
        status: applied; unchanged (nothing to do); eased (some edits taken back); rolled back (all
            edits taken back); failed (it raised an error and was left out).
        exact: whether the pass promises equal results up to rounding.
        options: its fields.
        edits: what it changed, in order.
        skips: what it refused, and why.
        taken_back: edits that made the result wrong, with what went wrong.
        nodes: change in the number of nodes.
        weight_bytes: change in bytes of constants.
        macs: change in multiply-accumulates.
        seconds: spent in the pass.
        largest_difference: of any output of its stage from the original; None if not measured.
        error: why it failed.
    """

    name: str
    status: Status
    exact: bool
    options: dict[str, Any]
    edits: list[EditInfo] = field(default_factory=list)
    skips: list[SkipInfo] = field(default_factory=list)
    taken_back: list[EditInfo] = field(default_factory=list)
    nodes: int = 0
    weight_bytes: int = 0
    macs: int = 0
    seconds: float = 0.0
    largest_difference: float | None = None
    error: str = ""


@dataclass(frozen=True)
class VerdictInfo:
    """The judgement of the result against the original.

    Attributes:
        verdict: equal; different; or unproven, when nothing could run the original.
        why: what differs or why nothing is proven.
        largest_difference: the largest absolute difference of any output.
        relative_difference: the same in units of the output's size.
        outputs: the largest absolute difference by output.
        samples: sets of inputs compared.
        runtime: what ran the models.
    """

    verdict: Literal["equal", "different", "unproven"]
    why: str
    largest_difference: float
    relative_difference: float
    outputs: dict[str, float]
    samples: int
    runtime: str


@dataclass(frozen=True)
class Report:
    """Everything that came of one run."""

    schema: str
    tool: dict[str, str]
    command: list[str]
    input: ModelInfo
    output: ModelInfo
    steps: list[StepReport]
    verdict: VerdictInfo
    seconds: float
    environment: dict[str, str]
    warnings: list[str] = field(default_factory=list)
    exit_code: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts and lists."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """The report as JSON text, ending with a newline."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read a report back.

        Raises:
            UsageError: the text is no report of this version.
        """
        try:
            tree = json.loads(text)
            if tree.get("schema") != SCHEMA:
                raise UsageError(f"not a report of the form {SCHEMA}")
            return typing.cast("Report", _read(cls, tree))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"the report cannot be read: {error}") from None


def _read(kind: Any, value: Any) -> Any:
    """Build a value of an annotated type from plain JSON."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {f.name for f in dataclasses.fields(kind)}
        return kind(**{k: _read(hints[k], v) for k, v in value.items() if k in known})  # type: ignore[operator]
    if origin is list:
        return [_read(args[0], entry) for entry in value]
    if origin is dict:
        return {key: _read(args[1], entry) for key, entry in value.items()}
    if origin in (types.UnionType, typing.Union) and value is not None:
        inner = [
            arg for arg in args if typing.get_origin(arg) is list or dataclasses.is_dataclass(arg)
        ]
        return _read(inner[0], value) if inner else value
    return value


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the report."""
    definitions: dict[str, Any] = {}
    root = _schema(Report, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA,
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
