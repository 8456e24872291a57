"""The report's parts that describe models: figures, operators, layers, the graph, latency."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from graphopt.numerics.statistics import Ratio, Spread


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
        runtime_bytes: what a run holds at its peak: the constants as a runtime keeps them after its own
            folding, and the activations alive at once; None where a shape is not proven.
        sparse_rate: zero weights / weights.
        shared_rate: weights that share their stored value with another / weights.
        data_bytes: of the data files beside the model file.
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
    runtime_bytes: int | None = None
    sparse_rate: float | None = None
    shared_rate: float | None = None
    data_bytes: int = 0

    @property
    def disk_bytes(self) -> int:
        """Bytes on disk: of the model file and of the data files beside it."""
        return self.file_bytes + self.data_bytes


@dataclass(frozen=True)
class PackedInfo:
    """What a model takes when it is packed without loss (``graphopt.packing``).

    Attributes:
        path: the archive; empty where none was kept.
        sha256: of the archive, in hex.
        stored_bytes: of the files that are packed.
        packed_bytes: of the archive.
        bound_bytes: the order-0 entropy of each tensor's symbols, and what the rest takes in the archive.
    """

    path: str
    sha256: str
    stored_bytes: int
    packed_bytes: int
    bound_bytes: int


@dataclass(frozen=True)
class PackingInfo:
    """The original and the result, packed.

    Attributes:
        before: the original.
        after: the result.
    """

    before: PackedInfo
    after: PackedInfo


@dataclass(frozen=True)
class NodeTime:
    """What a node, or all nodes of one operator, took in a profiled run.

    Attributes:
        name: of the node as the runtime runs it (after its own fusions), or of the operator.
        op: the operator.
        seconds: of one run, the median over runs.
        share: of the whole run.
        count: nodes that this row stands for.
    """

    name: str
    op: str
    seconds: float
    share: float
    count: int = 1


@dataclass(frozen=True)
class LatencyInfo:
    """The measured latency of the original and the result, interleaved.

    Attributes:
        provider: what ran them, as in ``cpu`` or ``cuda:0``.
        threads: for one operator.
        rounds: interleaved rounds.
        before: of the original.
        after: of the result.
        ratio: seconds of the result over seconds of the original, round by round.
        control: the same ratio of the original with itself; what it is off by is noise.
        claim: what the figures allow to say of the result.
        shapes: of the inputs.
        operators_before: time by operator of the original.
        operators_after: time by operator of the result.
        nodes_before: the dearest nodes of the original.
        nodes_after: the dearest nodes of the result.
    """

    provider: str
    threads: int
    rounds: int
    before: Spread
    after: Spread
    ratio: Ratio
    control: Ratio
    claim: Literal["faster", "slower", "no difference beyond noise"]
    shapes: dict[str, list[int]] = field(default_factory=dict)
    operators_before: list[NodeTime] = field(default_factory=list)
    operators_after: list[NodeTime] = field(default_factory=list)
    nodes_before: list[NodeTime] = field(default_factory=list)
    nodes_after: list[NodeTime] = field(default_factory=list)


@dataclass(frozen=True)
class SpeedInfo:
    """What came of a pass's promise to make the model faster.

    Attributes:
        ratio: seconds after the pass over seconds before it, timed in turns; None where it was not timed.
        control: the same ratio of the model before with itself; what it is off 1 is noise.
        claim: what the figures allow to say; None where it was not timed.
        predicted: the ratio that the pass expected; None where it expected none.
        why: why it was not timed.
    """

    ratio: Ratio | None = None
    control: Ratio | None = None
    claim: Literal["faster", "slower", "no difference beyond noise"] | None = None
    predicted: float | None = None
    why: str = ""

    @property
    def faster(self) -> bool:
        """Whether the promise was kept."""
        return self.claim == "faster"

    def __str__(self) -> str:
        """What came of it, in words."""
        if self.ratio is None or self.control is None:
            return f"not known to be faster: {self.why}"
        how = "faster" if self.faster else "not faster on this machine"
        expected = "" if self.predicted is None else f"; predicted {self.predicted:.3f}"
        return (
            f"{how}: {self.ratio.median:.3f} of the time before "
            f"({self.ratio.low:.3f} to {self.ratio.high:.3f} at 95 % confidence; the model before against "
            f"itself {self.control.low:.3f} to {self.control.high:.3f}{expected})"
        )


@dataclass(frozen=True)
class HistogramInfo:
    """How values are distributed: ``len(edges) == len(counts) + 1``, edges rising."""

    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class LayerInfo:
    """One layer with weights, before and after.

    Attributes:
        name: of the node.
        op: its operator.
        weight: the name of its weight tensor in the original.
        parameters: weights before.
        parameters_after: weights after; None where the layer is gone.
        weight_bytes: bytes of the weights before.
        weight_bytes_after: after, as stored; None where the layer is gone.
        before: distribution of the weights; the edges are those of ``after`` too.
        after: distribution of the weights that the layer computes with; None where they are as before
            or gone.
        codebook: the values that the weights take, rising, where these are few (at most 256) and
            fewer than the weights; None otherwise.
        sqnr_db: signal-to-noise ratio of its output against the original's on the evaluation data, in
            dB; None where the output's tensor is in one of both only, or nothing was measured.
    """

    name: str
    op: str
    weight: str
    parameters: int
    parameters_after: int | None
    weight_bytes: int
    weight_bytes_after: int | None
    before: HistogramInfo
    after: HistogramInfo | None = None
    codebook: list[float] | None = None
    sqnr_db: float | None = None


NodeStatus = Literal["kept", "changed", "removed", "added"]


@dataclass(frozen=True)
class NodeInfo:
    """A node of a drawn graph.

    Attributes:
        name: its name, or ``Op 12`` where it has none.
        op: its operator.
        status: whether it is in both models, in both but changed, only in the original, only in the result.
        level: its row: one more than the lowest row of what it reads.
        inputs: positions in the list of nodes of those whose results it reads.
        what: what was done to it, in words; empty where nothing was.
    """

    name: str
    op: str
    status: NodeStatus
    level: int
    inputs: list[int] = field(default_factory=list)
    what: str = ""


@dataclass(frozen=True)
class GraphInfo:
    """The main graph as it is drawn.

    Attributes:
        nodes: in topological order.
        left_out: nodes that are not listed because there are too many.
    """

    nodes: list[NodeInfo]
    left_out: int = 0
