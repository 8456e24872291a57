"""Reports as runs would write them."""

from __future__ import annotations

import dataclasses
import math
import random
from itertools import pairwise
from typing import Any

from graphopt.numerics.statistics import Ratio, Spread
from graphopt.report import (
    SCHEMA,
    BudgetInfo,
    DataInfo,
    EditInfo,
    GateInfo,
    GraphInfo,
    HistogramInfo,
    LatencyInfo,
    LayerInfo,
    MeasureInfo,
    ModelInfo,
    NodeInfo,
    NodeTime,
    QuantizedInfo,
    RangeInfo,
    Report,
    SensitivityInfo,
    SensitivityReport,
    SkipInfo,
    StepReport,
    StoredInfo,
    TensorInfo,
    VerdictInfo,
)

TOOL = {"name": "graphopt", "version": "0.1.0"}
ENVIRONMENT = {"python": "3.12.4", "platform": "linux x86_64", "cpus": "8", "onnxruntime": "1.24.0"}
LIMIT = 0.01


def _model(path: str, **figures: Any) -> ModelInfo:
    tensors = (
        [TensorInfo("x", "float", ["N", 1, 28, 28])],
        [TensorInfo("logits", "float", ["N", 10])],
    )
    given: dict[str, Any] = {
        "file_bytes": 702_400,
        "ir_version": 8,
        "opset": 17,
        "nodes": 64,
        "parameters": 174_970,
        "weight_bytes": 699_880,
        "macs": 31_500_000,
    }
    return ModelInfo(path, "ab" * 32, **{**given, **figures}, inputs=tensors[0], outputs=tensors[1])


def _step(name: str, **more: Any) -> StepReport:
    given = {"status": "applied", "exact": True, "options": {}, "seconds": 0.012}
    return StepReport(name=name, **{**given, **more})


def minimal() -> Report:
    """Only folding, no data."""
    edits = [EditInfo(f"BatchNormalization_{i}", f"folded into Conv_{i}") for i in range(9)]
    steps = [
        _step("lift-constants", edits=[EditInfo("Constant_0", "became an initializer")] * 3),
        _step(
            "fold-batchnorm", edits=edits, nodes=-9, weight_bytes=-3250, largest_difference=1.9e-6
        ),
        _step("inline-if", status="unchanged"),
    ]
    return Report(
        schema=SCHEMA,
        tool=TOOL,
        command=["graphopt", "optimize", "models/my model.onnx"],
        input=_model("models/my model.onnx"),
        output=_model(
            "models/my model.opt.onnx", nodes=55, file_bytes=690_000, weight_bytes=696_630
        ),
        steps=steps,
        verdict=VerdictInfo("equal", "", 1.9e-6, 9e-7, {"logits": 1.9e-6}, 4, "ort"),
        seconds=0.41,
        environment=ENVIRONMENT,
    )


def gate(step: str, what: str, drop: float, half: float, **more: Any) -> GateInfo:
    """A candidate whose drop has an interval of so much to either side."""
    low, high = drop - half, drop + half
    verdict = "pass" if high <= LIMIT else "fail" if low > LIMIT else "unsure"
    given: dict[str, Any] = {
        "accepted": verdict == "pass",
        "weight_bytes": 400_000,
        "macs": 31_500_000,
        "why": f"drop {100 * drop:.3g} %, between {100 * low:.3g} % and {100 * high:.3g} %",
        "more": 1200 if verdict == "unsure" else None,
    }
    return GateInfo(
        step, what, verdict, metric="top1", before=0.984, after=0.984 - drop, drop=drop, low=low, high=high,
        limit=LIMIT, confidence=0.98, samples=2000, **{**given, **more},
    )  # fmt: skip


def bell(bins: int, spikes: list[float] | None = None, wide: float = 0.3) -> HistogramInfo:
    """Weights between -1 and 1; heaped at some values where spikes are given."""
    edges = [2 * i / bins - 1 for i in range(bins + 1)]
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    counts = [round(4000 * math.exp(-0.5 * (m / wide) ** 2)) for m in middles]
    if spikes is not None:
        heaped = [0] * bins
        for middle, count in zip(middles, counts, strict=True):
            nearest = min(spikes, key=lambda value: abs(value - middle))
            heaped[min(bins - 1, int((nearest + 1) / 2 * bins))] += count
        counts = heaped
    return HistogramInfo(edges, counts)


def layers(count: int, rng: random.Random) -> list[LayerInfo]:
    """Convolutions, some clustered, some pruned, some as they were."""
    found = []
    for i in range(count):
        weights = 9 * 16 * (i + 1)
        wide = 0.15 + 0.3 * rng.random()
        book = sorted(rng.uniform(-0.9, 0.9) for _ in range(2 ** (2 + i % 3)))
        kind = i % 4
        found.append(
            LayerInfo(
                name=f"/features/stage{i // 2}/block{i % 2}/conv1/Conv",
                op="Conv",
                weight=f"w{i}",
                parameters=weights,
                parameters_after=weights // 2 if kind == 1 else weights,
                weight_bytes=4 * weights,
                weight_bytes_after=weights
                if kind == 0
                else 2 * weights
                if kind == 1
                else 4 * weights,
                before=bell(48, wide=wide),
                after=None if kind == 3 else bell(48, book if kind == 0 else None, wide * 0.8),
                codebook=book if kind == 0 else None,
                sqnr_db=None if kind == 3 else 46 - 30 * rng.random(),
            )
        )
    return found


def sensitivity(names: list[str], rng: random.Random) -> list[SensitivityInfo]:
    """Layers that lose more the harder they are pressed."""
    strengths = {
        "sparsity": [0.3, 0.5, 0.7, 0.9],
        "bits": [8, 6, 4, 3, 2],
        "clusters": [256, 64, 16, 4],
    }
    rows = []
    for layer in names:
        weak = rng.random() ** 3
        for kind, steps in strengths.items():
            for place, strength in enumerate(steps):
                drop = 0.4 * weak * ((place + 1) / len(steps)) ** 4 - 0.0004
                rows.append(
                    SensitivityInfo(
                        layer,
                        "Conv",
                        kind,
                        strength,
                        drop,
                        drop - 0.003,
                        drop + 0.003,
                        None if place == 0 else 50 - 9 * place,
                        18_432,
                    )
                )
    return rows


def graphs(blocks: int) -> tuple[GraphInfo, GraphInfo]:
    """Residual blocks whose batch normalizations are folded and whose convolutions changed."""
    before, after = _Drawing(), _Drawing()
    for drawing in (before, after):
        last = drawing.add("Conv", "changed", [], "took the batch normalization in")
        for i in range(blocks):
            last = _block(drawing, i, last, folded=drawing is after)
        drawing.add("Gemm", "kept", [drawing.add("Flatten", "kept", [last])])
    return GraphInfo(before.nodes), GraphInfo(after.nodes)


class _Drawing:
    def __init__(self) -> None:
        self.nodes: list[NodeInfo] = []

    def add(self, op: str, status: str, inputs: list[int], what: str = "") -> int:
        level = max((self.nodes[source].level + 1 for source in inputs), default=0)
        name = f"/model/layer{len(self.nodes) // 12}/{op}_{len(self.nodes)}"
        self.nodes.append(NodeInfo(name, op, status, level, inputs, what))  # type: ignore[arg-type]
        return len(self.nodes) - 1


def _block(drawing: _Drawing, index: int, last: int, folded: bool) -> int:
    side = last
    for _ in range(2):
        last = drawing.add("Conv", "changed", [last], "folded bn in")
        if not folded:
            last = drawing.add("BatchNormalization", "removed", [last], "folded into its Conv")
        last = drawing.add("Relu", "kept", [last])
    if index % 3 == 2:
        if folded:
            last = drawing.add("HardSwish", "added", [last], "made of Add, Clip, Mul, Div")
        else:
            for op in ("Add", "Clip", "Mul", "Div"):
                last = drawing.add(op, "removed", [last], "became HardSwish")
    for _ in range(4 if index % 2 else 0):
        last = drawing.add("Identity", "kept", [last])
    return drawing.add("Add", "kept", [last, side])


def activation(name: str, kept: float, low: float = -1.0) -> RangeInfo:
    """Values about 0 of which the middle is kept; none below 0 where nothing may be."""
    seen = bell(96, wide=0.25)
    edges = [max(edge, low) * 8 for edge in seen.edges]
    first = next(i for i, edge in enumerate(edges) if edges[i + 1] > edge)
    counts = seen.counts[first:]
    scale = kept * 8 * (1 - low) / 255
    zero = round(-low * 8 * kept / scale)
    return RangeInfo(
        name, -zero * scale, (255 - zero) * scale, scale, zero, 256, low * 8, 8.0, kept,
        max(0.0, 0.02 * (1 - kept)),
        0.4 if low == 0 else 0.0, "auto", 2e-5 * (1 - kept) + 1e-6, HistogramInfo(edges[first:], counts),
    )  # fmt: skip


KINDS: list[Any] = [
    (
        "integers",
        "u8s8 int8 per channel",
        "it is faster on integers, and loses little enough for that",
    ),
    ("integers", "u8 int8", "alone it is not faster, but it spares going back to floats beside it"),
    (
        "stored",
        "float, stored in 8 bits",
        "alone it is faster on integers, but not with going there",
    ),
    ("floats", "float", "the runtime has no integer kernel for it here"),
]


def quantized(count: int) -> list[QuantizedInfo]:
    """Nodes of every kind: on integers, stored, on floats; with and without weights and times."""
    rows = []
    for i in range(count):
        given = activation(f"/stage{i}/out", (0.5, 1.0, 1.25)[i % 3], -1.0 if i % 2 else 0.0)
        read = dataclasses.replace(activation(f"/stage{i}/in", 1.0), histogram=None)
        weights = [StoredInfo(f"w{i}", 8, 0, "int8 per channel", 41.5 - i % 7, None)]
        computes, precision, why = KINDS[i % 4]
        rows.append(
            QuantizedInfo(
                f"/features/stage{i}/conv/Conv" if i % 5 else f"Add_{i}",
                "Conv" if i % 5 else "Add", computes, precision, why, given.tensor, False, given,
                [read] * (1 + i % 2), weights if i % 4 < 3 else [], 1.3e-6 * (i + 1), 12.1e-6,
                5.4e-6 if i % 4 < 3 else None, None if i % 9 == 8 else 44.0 - 0.7 * i,
            )
        )  # fmt: skip
    moves = QuantizedInfo(
        "Reshape_1", "Reshape", "integers", "u8 int8", "it moves", "r", moves=True
    )
    return [*rows, moves]


def _lossy_steps() -> list[StepReport]:
    cut = [EditInfo(f"/stage{i}/Conv", f"{8 * i} of 64 channels removed") for i in range(1, 8)]
    kept = [SkipInfo(f"/head/Gemm_{i}", "its output is an output of the model") for i in range(3)]
    heaped = [EditInfo(f"Conv_{i}", "16 values") for i in range(14)]
    lost = [EditInfo("Conv_3", "lost 0.4 % alone"), EditInfo("Conv_9", "lost 0.3 % alone")]
    why = "a quarter of its strength: at half strength the interval reached beyond the limit"
    made = [EditInfo("Div_3", "made of Add, Clip, Mul, Div")] * 2
    lossy: dict[str, Any] = {"exact": False}
    return [
        _step("fuse-hard-swish", edits=made, nodes=-6),
        _step("prune-channels", status="eased", **lossy, weight_bytes=-136_630, macs=-3_500_000, eased=why,
              options={"sparsity": 0.5, "criterion": "taylor"}, seconds=12.2, edits=cut, skips=kept),
        _step("cluster-weights", status="eased", **lossy, nodes=28, weight_bytes=-370_000, seconds=4.1,
              eased="3 of 17 places left out", edits=heaped, taken_back=lost),
        _step("quantize-weights", **lossy, nodes=4, weight_bytes=-19_000, seconds=1.4,
              made=["Cast_1", "Mul_2"], edits=[EditInfo("Gemm_61", "8 bits by channel")]),
        _step("quantize-qdq", **lossy, nodes=0, weight_bytes=0, seconds=2.5,
              edits=[EditInfo("/features/stage1/conv/Conv", "Conv on 8-bit integers")],
              quantized=quantized(26)),
        _step("binarize", status="rolled back", **lossy, seconds=0.9,
              taken_back=[EditInfo("Conv_0", "over the budget at every strength")]),
        _step("fold-pad", status="failed", error="IndexError: list index out of range"),
        *(_step(f"fuse-pattern-{i}", status="unchanged") for i in range(20)),
        _step("fold-affine", status="unchanged",
              skips=[SkipInfo("Mul_3", "its scale is not constant")] * 5),
    ]  # fmt: skip


CANDIDATES: list[Any] = [
    ("prune-channels", "at full strength", 0.031, 0.006, 310_000, 18_000_000),
    ("prune-channels", "at half strength", 0.0085, 0.0035, 480_000, 24_000_000),
    ("prune-channels", "at a quarter of its strength", 0.003, 0.003, 560_000, 28_000_000),
    ("cluster-weights", "at full strength", 0.0125, 0.0045, 175_000, 28_000_000),
    ("cluster-weights", "without 3 of 17 places", 0.0045, 0.004, 190_000, 28_000_000),
    ("quantize-weights", "at full strength", 0.006, 0.0036, 171_000, 28_000_000),
]


def full() -> Report:
    """Everything there is."""
    rng = random.Random(7)
    found = layers(22, rng)
    before, after = graphs(8)
    gates = [gate(*tried, weight_bytes=size, macs=macs) for *tried, size, macs in CANDIDATES]
    gates[-1] = dataclasses.replace(gates[-1], accepted=True)
    steps = [*minimal().steps, *_lossy_steps()]
    return dataclasses.replace(
        minimal(),
        command=["graphopt", "optimize", "models/my model.onnx", "--data", "d.npz", "--max-drop", "1%"],
        input=_model("models/my model.onnx", runtime_bytes=1_200_000, sparse_rate=0.001, shared_rate=0.02),
        output=_model(
            "models/my model.opt.onnx", nodes=81, file_bytes=176_300, weight_bytes=171_000, macs=28_000_000,
            parameters=150_000, runtime_bytes=1_100_000, sparse_rate=0.24, shared_rate=0.91,
        ),
        steps=steps,
        verdict=VerdictInfo("different", "logits differs by 3.1", 3.1, 0.2, {"logits": 3.1}, 4, "ort"),
        seconds=41.9,
        warnings=["the last 12 samples do not fill a batch and are left out"],
        data=DataInfo("d.npz", "cd" * 32, 2512, 512, 2000, "y", 0),
        budget=BudgetInfo("top1", "labels, and a score for each class", LIMIT, None, 0.95),
        gates=gates,
        gate=gate("", "the whole result", 0.006, 0.0036, weight_bytes=171_000, macs=28_000_000),
        measures=[
            MeasureInfo("top1", "logits", 0.984, 0.978),
            MeasureInfo("agreement", "logits", 1.0, 0.9855),
            MeasureInfo("sqnr", "logits", None, 21.7, unit="dB"),
            MeasureInfo("kl", "logits", 0.0, 0.0132, higher_is_better=False),
        ],
        latency=latency(),
        simplification=176_300 / 702_400,
        layers=found,
        graph_before=before,
        graph_after=after,
        sensitivity=sensitivity([layer.name for layer in found[:12]], rng),
        seed=7,
    )  # fmt: skip


def latency() -> LatencyInfo:
    """A gain that can be claimed."""
    ops = [
        ("Conv", 21, 0.0031),
        ("Gemm", 1, 0.0002),
        ("Relu", 12, 0.0004),
        ("ReorderOutput", 3, 0.0001),
    ]
    return LatencyInfo(
        "cpu", 1, 80, Spread(0.00412, 0.00401, 0.00466), Spread(0.00335, 0.00329, 0.00371),
        Ratio(0.812, 0.801, 0.824), Ratio(1.001, 0.993, 1.009), "faster", {"x": [32, 1, 28, 28]},
        [NodeTime(op, op, t, t / 0.0041, n) for op, n, t in ops],
        [NodeTime(op, op, 0.8 * t, t / 0.0041, n) for op, n, t in [*ops[:3], ("Gather", 2, 1e-6)]],
        [NodeTime(f"/stage{i}/Conv", "Conv", 0.001 / (i + 1), 0.2 / (i + 1)) for i in range(10)],
        [NodeTime(f"/stage{i}/Conv", "Conv", 0.0008 / (i + 1), 0.2 / (i + 1)) for i in range(10)],
    )  # fmt: skip


def failing() -> Report:
    """A budget that does not hold, and a step that failed."""
    lost = gate("", "the whole result", 0.031, 0.006)
    return dataclasses.replace(
        full(), gate=lost, gates=full().gates[:1], exit_code=3, latency=None, sensitivity=[], layers=[],
        warnings=["nothing was written: the budget does not hold"],
    )  # fmt: skip


def large() -> Report:
    """5,000 nodes, 300 layers, and as many refusals."""
    rng = random.Random(1)
    found = layers(300, rng)
    before, after = graphs(700)
    nodes = [
        dataclasses.replace(node, status="changed") if i % 3 else node
        for i, node in enumerate(after.nodes)
    ]
    report = full()
    many = _step(
        "fold-everything",
        edits=[
            EditInfo(f"/model/layers.{i}/q_proj/MatMul", f"kind {i % 500}") for i in range(5000)
        ],
        skips=[SkipInfo(f"/model/layers.{i}/mlp/MatMul", f"reason {i}") for i in range(5000)],
        made=[f"/model/made_{i}" for i in range(5000)],
    )
    return dataclasses.replace(
        report,
        steps=[*report.steps, *(dataclasses.replace(many, name=f"fold-{i}") for i in range(8))],
        layers=found,
        graph_before=before,
        graph_after=GraphInfo(nodes, left_out=1234),
        sensitivity=sensitivity([layer.name for layer in found], rng),
        gates=[gate(f"pass-{i}", "at full strength", 0.0001 * i, 0.002) for i in range(300)],
        warnings=[f"warning {i}: " + "something odd " * 60 for i in range(500)],
    )


def sensitivity_report() -> SensitivityReport:
    """What ``graphopt sensitivity`` would write."""
    rng = random.Random(3)
    names = [f"/features/stage{i}/conv1/Conv" for i in range(14)]
    return SensitivityReport(
        "graphopt.sensitivity/1", TOOL, ["graphopt", "sensitivity", "m.onnx"], "m.onnx", "ab" * 32,
        DataInfo("d.npz", "cd" * 32, 2512, 512, 2000, "y", 0), "top1", "", 0.984, 2000,
        sensitivity(names, rng), ENVIRONMENT,
    )  # fmt: skip
