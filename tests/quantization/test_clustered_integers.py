"""Quantized weights that share integers: the kernels that stay, the grid, zeros, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from qdq_models import build, feeds_of, initializers, quantized, run

import graphopt
from graphopt.ir.model import Model
from graphopt.passes.clustering.cluster_weights import ClusterWeights
from graphopt.quality.gate import Budget
from graphopt.stage import Stage

BODY = """
  c = Conv<pads = [1,1,1,1]>(x, w1, b1)
  r = Relu(c)
  d = Conv(r, w2, b2)
  p = GlobalAveragePool(d)
  f = Flatten(p)
  y = Gemm<transB = 1>(f, w3, b3)
"""
NAMED = "w1 b1 w2 b2 w3 b3"
SHAPES = """float[N,8,8,8] x, float[16,8,3,3] w1, float[16] b1, float[24,16,3,3] w2, float[24] b2,
 float[32,24] w3, float[32] b3"""


def on_integers(opset: int = 21, **given: object) -> Model:
    random = " ".join(name for name in NAMED.split() if name not in given)
    model = build(SHAPES, "float[N,32] y", BODY, random, opset, **given)
    return quantized(model, feeds_of(model, size=32))[0]


def clustered(model: Model, **options: object) -> Model:
    return Stage([ClusterWeights(**options)]).run(model).model


def weights(model: Model) -> dict[str, np.ndarray]:
    """The integers that each DequantizeLinear of a weight reads, as ONNX Runtime computes them."""
    proto = model.to_proto()
    names = [
        node.input[0]
        for node in proto.graph.node
        if node.op_type == "DequantizeLinear" and node.output[0].startswith("w")
    ]
    held = initializers(proto)
    if all(name in held for name in names):
        return {name: held[name] for name in names}
    for name in names:
        if name not in held:
            proto.graph.output.add(name=name)
    found, _ = run(proto, feeds_of(model))
    return dict(zip([n for n in names if n not in held], found[1:], strict=True))


@pytest.mark.parametrize("clusters", [2, 4, 16])
def test_integer_kernels_stay_and_the_file_shrinks(clusters: int) -> None:
    before = on_integers()
    after = clustered(before, clusters=clusters)
    floats = clustered(before, clusters=clusters, materialize=True)
    feeds = feeds_of(before, seed=3)
    was, ops = run(before.to_proto(), feeds, optimized=True)
    given, kept = run(after.to_proto(), feeds, optimized=True)
    assert kept == ops
    assert ops["QLinearConv"] == 2
    wanted, _ = run(floats.to_proto(), feeds, optimized=True)
    np.testing.assert_array_equal(given[0], wanted[0])
    assert not np.array_equal(given[0], was[0])
    bits = {2: 1, 4: 2, 16: 4}[clusters]
    saved = before.weight_bytes() - after.weight_bytes()
    stored = 16 * 72 + 24 * 144 + 32 * 24
    assert saved >= stored * (1 - bits / 8) - 3 * 256 - 64


def test_values_are_few_and_on_the_grid() -> None:
    before = on_integers()
    for old, new in zip(
        weights(before).values(), weights(clustered(before, clusters=8)).values(), strict=True
    ):
        assert new.dtype == old.dtype == np.int8
        assert new.shape == old.shape
        assert len(np.unique(new)) <= 8
        assert new.min() >= old.min()
        assert new.max() <= old.max()


def test_zeros_stay_zeros() -> None:
    rng = np.random.default_rng(0)
    w2 = rng.standard_normal((24, 16, 3, 3)) * (rng.random((24, 16, 3, 3)) < 0.4)
    before = on_integers(w2=w2)
    old, new = (weights(model) for model in (before, clustered(before, clusters=4)))
    was, now = list(old.values())[1], list(new.values())[1]
    assert (was == 0).mean() > 0.5
    assert not now[was == 0].any()
    assert now.any()


def test_with_data_outputs_change_less() -> None:
    before = on_integers()
    mixed = np.random.default_rng(5).standard_normal((6, 8 * 64))
    drawn = np.random.default_rng(6).standard_normal((96, 6)) @ mixed
    data = {"x": drawn.reshape(96, 8, 8, 8).astype(np.float32)}
    fitted = graphopt.optimize(
        before, passes=[ClusterWeights(clusters=4)], data=data, budget=Budget(None)
    )
    edits = [edit.what for step in fitted.report.steps for edit in step.edits]
    assert sum("fitted to what its layer reads" in what for what in edits) == 3
    wanted, given, plain = (
        run(model.to_proto(), data)[0][0]
        for model in (before, fitted.model, clustered(before, clusters=4))
    )
    lost, alone = (float(np.square(part - wanted).sum()) for part in (given, plain))
    assert lost < 0.7 * alone


@pytest.mark.parametrize(
    ("nodes", "given", "why"),
    [
        ("w = DequantizeLinear<axis = 0>(q, s, z)", {"z": np.arange(16)}, "its zero points differ"),
        (
            "w = DequantizeLinear<axis = 1>(q, s, z)",
            {"z": np.zeros(16)},
            "its scale does not fit it",
        ),
        (
            "w = DequantizeLinear<axis = 0>(q, s, z)\n v = DequantizeLinear<axis = 0>(q, s, z)",
            {"z": np.zeros(16)},
            "several nodes read it",
        ),
    ],
)
def test_what_is_refused_says_why(nodes: str, given: dict[str, np.ndarray], why: str) -> None:
    model = build(
        "float[N,32] x, int8[16,32] q, float[16] s, int8[16] z",
        "float[N,16] y",
        f"{nodes}\n y = Gemm<transB = 1>(x, w)",
        q=np.random.default_rng(0).integers(-127, 128, (16, 32)),
        s=np.full(16, 0.01),
        **given,
    )
    result = Stage([ClusterWeights()]).run(model)
    assert not result.edits
    assert result.skips["cluster-weights"]["q"] == why


def test_blocks_of_scales_and_a_zero_point_of_unsigned_integers() -> None:
    q = np.random.default_rng(0).integers(0, 256, (32, 16))
    q[np.random.default_rng(1).random((32, 16)) < 0.3] = 128
    model = build(
        "float[N,32] x, uint8[32,16] q, float[4,16] s, uint8[4,16] z",
        "float[N,16] y",
        "w = DequantizeLinear<axis = 0, block_size = 8>(q, s, z)\n y = MatMul(x, w)",
        opset=21,
        q=q,
        s=np.linspace(0.01, 0.1, 64).reshape(4, 16),
        z=np.full((4, 16), 128),
    )
    new = next(iter(weights(clustered(model, clusters=8)).values()))
    assert new.dtype == np.uint8
    assert len(np.unique(new)) <= 8
    assert (new[q == 128] == 128).all()
