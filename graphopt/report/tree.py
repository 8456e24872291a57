"""The report: one tree of dataclasses. JSON is its dict; what people read is drawn from it alone."""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from graphopt.errors import UsageError
from graphopt.report.judgement import (
    BudgetInfo,
    DataInfo,
    GateInfo,
    MeasureInfo,
    SensitivityInfo,
    VerdictInfo,
)
from graphopt.report.models import (
    GraphInfo,
    LatencyInfo,
    LayerInfo,
    ModelInfo,
    PackingInfo,
    SpeedInfo,
)
from graphopt.report.quantized import QuantizedInfo
from graphopt.report.schema import read

SCHEMA = "graphopt.report/1"
"""The version of the report's form. Fields may be added within a version, never changed or removed."""

WITHIN = "within tolerances"
"""What outputs are that a lossy pass moved, but no further than rounding might have."""

Status = Literal["applied", "unchanged", "eased", "rolled back", "failed"]


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
        status: applied; unchanged (nothing to do); eased (milder than asked for, or some edits taken
            back); rolled back (all edits taken back); failed (it raised an error and was left out).
        exact: whether the pass promises equal results up to rounding.
        options: its fields.
        edits: what it changed, in order.
        skips: what it refused, and why.
        taken_back: edits that made the result wrong or too lossy, with what went wrong.
        nodes: change in the number of nodes.
        weight_bytes: change in bytes of constants.
        macs: change in multiply-accumulates.
        seconds: spent in the pass.
        largest_difference: of any output of its stage from the original; None if not measured.
        error: why it failed.
        eased: what was eased, in words; empty where nothing was.
        made: names of nodes that are there since this pass.
        removed: names of nodes that are gone since this pass.
        speed: what came of its promise to make the model faster; None where it promised nothing, or changed
            nothing.
        quantized: in which numbers each node that it could have quantized computes, in the model's order.
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
    eased: str = ""
    made: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    speed: SpeedInfo | None = None
    quantized: list[QuantizedInfo] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """Everything that came of one run.

    Attributes:
        schema: the version of this form.
        tool: name and version.
        command: the command line that reproduces the run.
        input: the original.
        output: the result.
        steps: what each pass did, in order.
        verdict: whether result and original are equal.
        seconds: of the whole run.
        environment: versions and hardware.
        warnings: what else to know.
        exit_code: of the command.
        data: what was judged on; None where no data was given.
        budget: what could be lost; None where no lossy pass ran.
        gates: every candidate of a lossy pass, in the order judged.
        gate: the result as a whole against the budget; None where there was no data to judge with, or no
            reason to.
        measures: metrics of the result, by output.
        latency: None where it was not measured.
        simplification: bytes of the result / bytes of the original.
        layers: layers with weights, in order.
        graph_before: the original's graph; None where it was not asked for.
        graph_after: the result's graph.
        sensitivity: loss by layer and strength, where it was measured.
        seed: of everything that is random.
        packing: what original and result take when they are packed; None where that was not asked for.
    """

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
    data: DataInfo | None = None
    budget: BudgetInfo | None = None
    gates: list[GateInfo] = field(default_factory=list)
    gate: GateInfo | None = None
    measures: list[MeasureInfo] = field(default_factory=list)
    latency: LatencyInfo | None = None
    simplification: float | None = None
    layers: list[LayerInfo] = field(default_factory=list)
    graph_before: GraphInfo | None = None
    graph_after: GraphInfo | None = None
    sensitivity: list[SensitivityInfo] = field(default_factory=list)
    seed: int = 0
    packing: PackingInfo | None = None

    @property
    def equality(self) -> str:
        """The verdict on the outputs in words; of a lossy result it is never equality."""
        changed = any(
            not s.exact and s.edits and s.status in ("applied", "eased") for s in self.steps
        )
        moved = self.verdict.largest_difference != 0
        if self.verdict.verdict == "equal" and changed and moved:
            return WITHIN
        return self.verdict.verdict

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
            return typing.cast("Report", read(cls, tree))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"the report cannot be read: {error}") from None
