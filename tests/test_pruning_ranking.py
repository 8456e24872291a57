"""Ranking of units: every kind of reader, every criterion, and no more memory than is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest

from graphopt.ir.channels import find_groups
from graphopt.ir.graph import Constant
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.numerics.obs import Removal, damped
from graphopt.numerics.streaming import GramSpec, Sampling
from graphopt.optimizer import optimize
from graphopt.pass_base import Context, Skip
from graphopt.passes.pruning._channels import moments
from graphopt.passes.pruning._channels.moments import inquiries, portions
from graphopt.passes.pruning._channels.ranking import Candidate, Importance, candidate_of, removals
from graphopt.passes.pruning._channels.readers import Reader
from graphopt.passes.pruning._fitting.layers import Layer, layer_of, layers_of
from graphopt.quality.data import DataOptions
from graphopt.quality.gate import Budget
from graphopt.runtime.native import Native
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Stream
from graphopt.testing import parse

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(3)
HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '

Feeds = Mapping[str, np.ndarray]


def feeds_of(model: Model, batch: int = 64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {
        tensor.name: rng.standard_normal(
            [size if isinstance(size, int) else batch for size in tensor.shape]
        ).astype(np.float32)
        for tensor in model.graph.inputs
    }


def run(model: Model, feeds: Feeds) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.to_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(feeds)))


def candidates_of(model: Model) -> list[Candidate]:
    found = [
        candidate_of(g, {n.uid: n for n in model.nodes()})
        for g in find_groups(model)
        if not g.locked
    ]
    return [entry for entry in found if isinstance(entry, Candidate)]


def rank(
    model: Model,
    candidates: Sequence[Candidate],
    importance: Importance,
    native: Native | None,
    feeds: Feeds | None = None,
) -> tuple[list[Removal], list[Skip]]:
    """The result of ``removals`` and what it yields."""
    context = Context(model, infer(model.graph, model.functions))
    if native is not None:
        batch = feeds if feeds is not None else feeds_of(model)
        context.observe = Observer(native, Stream(lambda: [batch]))
    steps, skips = removals(candidates, importance, context), []
    while True:
        try:
            skips.append(next(steps))
        except StopIteration as end:
            return end.value, skips


def weight(model: Model, name: str) -> Constant:
    return next(
        tensor
        for node in model.nodes()
        for tensor in node.inputs
        if isinstance(tensor, Constant) and tensor.name == name
    )


READERS = {
    # reader: graph, its weights, the weight that makes the units, and where of it unit 2 is
    "MatMul": (
        "(float[N,5] x, float[5,6] w, float[6,3] v) => (float[N,3] y) {"
        "h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }",
        "w v",
        np.s_[:, 2],
    ),
    "Gemm, all transposed": (
        "(float[5,N] x, float[6,5] w, float[3,6] v) => (float[N,3] y) {"
        "h = MatMul(w, x) r = Relu(h) y = Gemm<transA = 1, transB = 1, alpha = 0.5>(r, v) }",
        "w v",
        np.s_[2],
    ),
    "Conv": (
        "(float[N,3,6,6] x, float[6,3,1,1] w, float[4,6,3,3] v) => (float[N,4,4,4] y) {"
        "h = Conv(x, w) r = Relu(h) y = Conv(r, v) }",
        "w v",
        np.s_[2],
    ),
    "ConvTranspose": (
        "(float[N,3,4,4] x, float[6,3,1,1] w, float[6,4,3,3] v) => (float[N,4,9,9] y) {"
        "h = Conv(x, w) r = Relu(h) y = ConvTranspose<strides = [2,2]>(r, v) }",
        "w v",
        np.s_[2],
    ),
    "weights as the first operand": (
        "(float[5,7] x, float[6,5] w, float[3,6] v) => (float[3,7] y) {"
        "h = MatMul(w, x) r = Relu(h) y = MatMul(v, r) }",
        "w v",
        np.s_[2],
    ),
    "weights with leading axes": (
        "(float[1,N,5] x, float[5,6] w, float[1,6,3] v) => (float[1,N,3] y) {"
        "h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }",
        "w v",
        np.s_[:, 2],
    ),
    "a stack of weights": (
        "(float[4,7,5] x, float[5,6] w, float[4,6,3] v) => (float[4,7,3] y) {"
        "h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }",
        "w v",
        np.s_[:, 2],
    ),
    "a vector of weights": (
        "(float[N,5] x, float[5,6] w, float[6] v) => (float[N] y) {"
        "h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }",
        "w v",
        np.s_[:, 2],
    ),
    "shared weights": (
        "(float[N,5] x, float[N,5] z, float[5,6] w, float[5,6] u, float[6,3] v)"
        " => (float[N,3] y, float[N,3] q) {"
        "h = MatMul(x, w) r = Relu(h) y = MatMul(r, v)"
        "k = MatMul(z, u) s = Relu(k) q = MatMul(s, v) }",
        "w u v",
        np.s_[:, 2],
    ),
    "Einsum": (
        "(float[N,5] x, float[5,6] w, float[3,6] v) => (float[N,3] y) {"
        'h = MatMul(x, w) r = Relu(h) y = Einsum<equation = "ni,oi->no">(r, v) }',
        "w v",
        np.s_[:, 2],
    ),
    "ReduceSum": (
        "(float[N,5] x, float[5,6] w) => (float[N,1] y) {"
        "a = Constant<value_ints = [1]>() h = MatMul(x, w) r = Relu(h) y = ReduceSum(r, a) }",
        "w",
        np.s_[:, 2],
    ),
    "a product of activations": (
        "(float[4,7,5] x, float[5,6] w, float[5,6] u) => (float[4,7,7] y) {"
        "q = MatMul(x, w) k = MatMul(x, u) t = Transpose<perm = [0,2,1]>(k) y = MatMul(q, t) }",
        "w u",
        np.s_[:, 2],
    ),
    "the input of an LSTM": (
        "(float[5,N,4] x, float[4,6] w, float[1,12,6] v, float[1,12,3] u) => (float[5,1,N,3] y) {"
        "h = MatMul(x, w) y = LSTM<hidden_size = 3>(h, v, u) }",
        "w v u",
        np.s_[:, 2],
    ),
    "the state of a GRU": (
        "(float[5,N,4] x, float[1,18,4] w, float[1,18,6] r, float[6,3] v) => (float[1,N,3] y) {"
        "a, h = GRU<hidden_size = 6>(x, w, r) y = MatMul(h, v) }",
        "w r v",
        np.s_[:, 2::6],
    ),
    "the state of an RNN that returns the last one": (
        "(float[5,N,4] x, float[1,6,4] w, float[1,6,6] r, float[6,3] v) => (float[1,N,3] y) {"
        ", h = RNN<hidden_size = 6>(x, w, r) y = MatMul(h, v) }",
        "w r v",
        np.s_[:, 2],
    ),
}


def with_dead_unit(kind: str) -> Model:
    """A model in which unit 2 of its first group is always 0, while its readers' weights are large."""
    text, names, where = READERS[kind]
    model = parse(HEAD + text, tuple(names.split()))
    made = weight(model, "w")
    values = made.values.copy()
    values[where] = 0
    made.values = values
    if kind.startswith("the state"):
        state = weight(model, "r")
        values = state.values.copy()
        values[where] = 0  # its rows; others still read it
        state.values = values
    return model


@pytest.mark.parametrize("importance", ["obs", "activation"])
@pytest.mark.parametrize("kind", READERS)
def test_a_unit_that_is_always_zero_goes_first(
    kind: str, importance: Importance, native: Native
) -> None:
    model = with_dead_unit(kind)
    candidate = candidates_of(model)[0]
    assert candidate.group.size == 6
    (found,), skips = rank(model, [candidate], importance, native)
    assert not skips
    assert found.order[0] == 2
    assert found.errors[0] < 0.02 * found.errors[1]
    assert sorted(found.order) == list(range(6))


def test_computed_weights_are_read_as_what_they_are(native: Native) -> None:
    text = (
        "(float[N,3,5,5] x, float[6,3,1,1] w, int8[4,6,3,3] v) => (float[N,4,3,3] y) {"
        "s = Constant<value_float = 0.5>() d = DequantizeLinear(v, s)"
        "h = Conv(x, w) r = Relu(h) y = Conv(r, d) }"
    )
    model = parse(HEAD + text, ("w", "v"))
    values = weight(model, "w").values.copy()
    values[2] = 0
    weight(model, "w").values = values
    (found,), skips = rank(model, candidates_of(model)[:1], "obs", native)
    assert not skips
    assert found.order[0] == 2
    assert found.errors[0] < 0.02 * found.errors[1]


@pytest.mark.parametrize(
    ("reader", "bias"),
    [
        ("y = Gemm(r, v, b)", True),
        ("k = MatMul(r, v) y = Add(b, k)", True),
        ("y = MatMul(r, v)", False),
        ("k = MatMul(r, v) y = Add(k, e)", False),
    ],
)
def test_the_error_is_that_of_least_squares(reader: str, bias: bool, native: Native) -> None:
    text = (
        "(float[N,5] x, float[N,3] e, float[5,6] w, float[6,3] v, float[3] b) => (float[N,3] y) {"
        f"h = MatMul(x, w) r = Relu(h) {reader} }}"
    )
    model = parse(HEAD + text, ("w", "v", "b"))
    feeds = feeds_of(model)
    (found,), _ = rank(model, candidates_of(model), "obs", native, feeds)
    x = np.maximum(feeds["x"].astype(np.float64) @ weight(model, "w").values, 0)
    x = x - x.mean(axis=0) if bias else x
    second = x.T @ x / len(x)
    c = damped(second)[0, 0] - second[0, 0]
    rows = np.concatenate([x / np.sqrt(len(x)), np.sqrt(c) * np.eye(6)])
    target = rows @ weight(model, "v").values.astype(np.float64)
    for gone in range(1, 6):
        kept = np.sort(found.order[gone:])
        fitted, *_ = np.linalg.lstsq(rows[:, kept], target, rcond=None)
        lost = np.square(target - rows[:, kept] @ fitted).sum() / np.square(target).sum()
        assert found.errors[gone - 1] == pytest.approx(lost, rel=1e-4)


def test_a_reader_that_keeps_its_weights_loses_what_the_unit_gave_it(native: Native) -> None:
    model = parse(HEAD + READERS["a product of activations"][0], ("w", "u"))
    feeds = feeds_of(model)
    (found,), _ = rank(model, candidates_of(model), "obs", native, feeds)
    q, k = (feeds["x"].reshape(-1, 5) @ weight(model, name).values for name in "wu")
    parts = np.square(q).mean(axis=0) * np.square(k).mean(axis=0)
    np.testing.assert_allclose(found.errors, np.cumsum(np.sort(parts)) / parts.sum(), rtol=1e-4)


def test_a_depthwise_convolution_loses_nothing_for_its_channel_leaves_too(native: Native) -> None:
    text = (
        "(float[N,3,5,5] x, float[6,3,1,1] w, float[6,1,3,3] d, float[4,6,1,1] v)"
        " => (float[N,4,3,3] y) {"
        "h = Conv(x, w) k = Conv<group = 6>(h, d) y = Conv(k, v) }"
    )
    model = parse(HEAD + text, ("w", "d", "v"))
    (candidate,) = candidates_of(model)
    assert [reader.node.outputs[0].name for reader in candidate.readers] == ["y"]


def test_a_grouped_convolution_that_stays_does_lose(native: Native) -> None:
    text = (
        "(float[N,3,5,5] x, float[6,3,1,1] w, float[4,3,3,3] d) => (float[N,4,3,3] y) {"
        "h = Conv(x, w) y = Conv<group = 2>(h, d) }"
    )
    model = parse(HEAD + text, ("w", "d"))
    (candidate,) = candidates_of(model)
    assert candidate.group.size == 3  # the same place of each group
    (found,), _ = rank(model, [candidate], "obs", native)
    assert 0 < found.errors[0] < found.errors[-1] == pytest.approx(1)


def test_without_data_the_l2_norm_ranks_and_says_so() -> None:
    model = with_dead_unit("Conv")
    found, skips = rank(model, candidates_of(model), "obs", None)
    assert ["obs needs data" in skip.why for skip in skips] == [True]
    (same,), _ = rank(model, candidates_of(model), "l2", None)
    np.testing.assert_array_equal(found[0].order, same.order)


def test_what_cannot_be_observed_counts_by_its_weights(native: Native) -> None:
    model = with_dead_unit("Conv")
    (candidate,) = candidates_of(model)
    weight(model, "v").values = np.full((4, 6, 3, 3), 1e-3, np.float32)
    feeds = feeds_of(model)
    feeds["x"][:] = np.nan
    (found,), skips = rank(model, [candidate], "obs", native, feeds)
    assert [skip.why for skip in skips] == [
        "what it reads, 'r', counts by its weights alone: no row of it is finite"
    ]
    np.testing.assert_allclose(found.errors, np.arange(1, 7) / 6)


def test_magnitudes_are_shares_of_each_weight() -> None:
    """A weight of many or large elements counts no more than another; vectors do not count."""
    text = (
        "(float[N,2] x, float[2,3] w, float[3] b, float[3,2] v) => (float[N,2] y) {"
        "h = Gemm(x, w, b) r = Relu(h) y = MatMul(r, v) }"
    )
    model = parse(HEAD + text, ("w", "b", "v"))
    weight(model, "w").values = np.array([[300, 100, 0], [300, -300, 0]], np.float32)
    weight(model, "b").values = np.array([0, 0, 1e9], np.float32)
    weight(model, "v").values = np.array([[0, 0], [1, 0], [0, -3]], np.float32)
    (l1,), _ = rank(model, candidates_of(model), "l1", None)
    (l2,), _ = rank(model, candidates_of(model), "l2", None)
    np.testing.assert_allclose(l1.errors * 2, np.cumsum([0.6, 0.4 + 0.25, 0.75]))
    np.testing.assert_array_equal(l1.order, [0, 1, 2])
    np.testing.assert_allclose(l2.errors * 2, np.cumsum([10 / 28 + 0.1, 18 / 28, 0.9]))
    np.testing.assert_array_equal(l2.order, [1, 0, 2])


def test_weights_that_are_not_finite_are_refused() -> None:
    model = with_dead_unit("Conv")
    weight(model, "v").values = np.full((4, 6, 3, 3), np.nan, np.float32)
    (group,) = [group for group in find_groups(model) if not group.locked]
    assert "not finite" in str(candidate_of(group, {n.uid: n for n in model.nodes()}))


LAYERS = {
    "Conv": "(float[3,4,6,5] x, float[6,2,3,2] w, float[6] b) => (float[3,6,N,M] y) {"
    "y = Conv<group = 2, strides = [2,1], pads = [1,0,1,1]>(x, w, b) }",
    "ConvTranspose": "(float[3,4,5,4] x, float[4,3,3,2] w, float[3] b) => (float[3,3,N,M] y) {"
    "y = ConvTranspose<strides = [2,1], pads = [1,0,0,1], output_padding = [1,0]>(x, w, b) }",
    "ConvTranspose in groups": "(float[3,4,5] x, float[4,3,3] w, float[6] b) => (float[3,6,N] y) {"
    "y = ConvTranspose<strides = [2], group = 2>(x, w, b) }",
    "Gemm": "(float[4,9] x, float[3,4] w, float[3] b) => (float[9,3] y) {"
    "y = Gemm<transA = 1, transB = 1, alpha = 0.5>(x, w, b) }",
    "MatMul": "(float[2,9,4] x, float[1,4,3] w) => (float[2,9,3] y) { y = MatMul(x, w) }",
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_is_its_matrices(kind: str) -> None:
    model = parse(HEAD + LAYERS[kind], ("w", "b"))
    layer = layer_of(model.graph.nodes[0])
    assert isinstance(layer, Layer)
    feeds = feeds_of(model)
    matrices = layer.matrices()
    rows = layer.rows.table(feeds["x"])
    rows = rows.take(np.arange(rows.count)).reshape(rows.count, layer.groups, -1)
    bias = weight(model, "b").values if "b" in LAYERS[kind].split("=>")[0] else 0
    found = np.einsum("ngf,gfo->ngo", rows, matrices).reshape(len(rows), -1) + bias
    wanted = layer.outputs.table(run(model, feeds)[0])
    np.testing.assert_allclose(found, wanted.take(np.arange(wanted.count)), rtol=1e-4, atol=1e-5)
    before = layer.weight.values.copy()
    layer.assign(matrices, None)
    np.testing.assert_array_equal(layer.weight.values, before)
    layer.assign(matrices + 1, np.zeros(found.shape[1]))
    np.testing.assert_allclose(layer.matrices(), matrices + 1, rtol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        READERS["shared weights"][0],
        "(float[4,9] x, float[9,3] b, float[4,3] w) => (float[9,3] y) {"
        "y = Gemm<transA = 1>(x, w, b) }",
    ],
)
def test_layers_that_must_keep_their_weights(text: str) -> None:
    model = parse(HEAD + text, ("w", "u", "v"))
    assert not [layer for layer in layers_of(model).values() if layer.weight.name == "v"]
    if "b)" in text:
        assert not layers_of(model)


def wide(channels: int, count: int) -> Model:
    convolutions = " ".join(f"y{n} = Conv(r, v{n})" for n in range(count))
    weights = "".join(f", float[1,{channels},3,3] v{n}" for n in range(count))
    results = ", ".join(f"float[N,1,4,4] y{n}" for n in range(count))
    text = (
        f"(float[N,1,6,6] x, float[{channels},1,1,1] w{weights}) => ({results}) {{"
        f"h = Conv(x, w) r = Relu(h) {convolutions} }}"
    )
    return parse(HEAD + text, ("w", *(f"v{n}" for n in range(count))))


@pytest.mark.parametrize("limit", [1 << 30, 8 * 8 * 72 * 72, 8 * 8 * 72 * 20, 8 * 8 * 72 * 2, 1])
def test_matrices_of_one_group_fit_into_what_may_be_held(
    limit: int, native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moments, "HELD_BYTES", limit)
    model = wide(8, 3)
    candidates = candidates_of(model)
    asked = inquiries(candidates[0].readers, False, Sampling)
    total = sum(inquiry.nbytes for inquiry in asked)
    assert total <= limit or all(inquiry.nbytes == 8 * 72 for inquiry in asked)
    (found,), skips = rank(model, candidates, "obs", native)
    assert not skips
    assert sorted(found.order) == list(range(8))
    assert found.errors[-1] == pytest.approx(3, rel=1e-3)


def test_a_wide_convolution_is_split_by_the_positions_of_its_kernel() -> None:
    (candidate,) = candidates_of(wide(1024, 1))  # 9216 features: 680 MB in one matrix
    (asked,) = inquiries(candidate.readers, False, Sampling)
    spec = asked.requests[0].what
    assert isinstance(spec, GramSpec)
    assert spec.blocks == "position"
    assert asked.nbytes == 8 * 9 * 1024 * 1024


def test_no_more_is_asked_for_at_once_than_may_be_held(
    native: Native, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = " ".join(f"h{n + 1} = MatMul(h{n}, w{n}) " for n in range(8))
    weights = ", ".join(f"float[4,4] w{n}" for n in range(8))
    text = f"(float[N,4] h0, {weights}) => (float[N,4] h8) {{ {chain} }}"
    model = parse(HEAD + text, tuple(f"w{n}" for n in range(8)))
    candidates = candidates_of(model)
    assert len(candidates) == 7
    whole, _ = rank(model, candidates, "obs", native)
    monkeypatch.setattr(moments, "HELD_BYTES", 3 * 8 * 16)
    calls: list[int] = []

    class Counting(Observer):
        def __call__(self, m: Model, requests: Sequence[Any], *rest: Any) -> Any:
            calls.append(len(requests))
            return super().__call__(m, requests, *rest)

    observe = Counting(native, Stream(lambda: [feeds_of(model)]))
    context = Context(model, infer(model.graph, model.functions), observe=observe)
    with pytest.raises(StopIteration) as end:
        next(removals(candidates, "obs", context))
    assert calls == [3, 3, 1]
    for one, other in zip(whole, end.value.value, strict=True):
        np.testing.assert_array_equal(one.order, other.order)
        np.testing.assert_allclose(one.errors, other.errors)


def test_one_group_may_be_more_than_a_portion() -> None:
    reader = candidates_of(with_dead_unit("MatMul"))[0].readers[0]
    asked = inquiries([reader], False, Sampling)
    assert [len(portion) for portion in portions([asked] * 3)] == [3]


PRUNED = {
    "a stack of LSTMs": (
        "(float[8,N,4] x, float[1,48,4] w, float[1,48,12] r, float[12,10] p, float[1,32,10] u,"
        " float[1,32,8] q, float[8,3] v) => (float[1,N,3] y) {"
        "a = LSTM<hidden_size = 12>(x, w, r) s = Squeeze(a) b = MatMul(s, p)"
        "c, h = LSTM<hidden_size = 8>(b, u, q) y = MatMul(h, v) }",
        "w r p u q v",
        3,
    ),
    "a decoder": (
        "(float[N,3,8,8] x, float[12,3,3,3] w, float[12,8,2,2] u, float[8] b, float[8,2,3,3] v)"
        " => (float[N,2,25,25] y) {"
        "a = Conv<strides = [1,1]>(x, w) h = Relu(a)"
        "c = ConvTranspose<strides = [2,2]>(h, u, b) k = Relu(c)"
        "y = ConvTranspose<strides = [2,2]>(k, v) }",
        "w u b v",
        2,
    ),
    "weights as the first operand": (
        "(float[N,5,7] x, float[6,5] w, float[3,6] v) => (float[N,3,7] y) {"
        "h = MatMul(w, x) r = Relu(h) y = MatMul(v, r) }",
        "w v",
        1,
    ),
}


@pytest.mark.parametrize("kind", PRUNED)
def test_models_of_such_readers_are_pruned(kind: str) -> None:
    text, names, groups = PRUNED[kind]
    model = parse(
        HEAD + text.replace("s = Squeeze(a)", "i = Constant<value_ints = [1]>() s = Squeeze(a, i)"),
        tuple(names.split()),
    )
    feeds = feeds_of(model, 1)
    rng = np.random.default_rng(1)
    samples = {
        name: rng.standard_normal((32, *value.shape)).astype(np.float32)
        for name, value in feeds.items()
    }
    axis = 1 if "LSTM" in kind else 0
    samples = {name: np.moveaxis(v.squeeze(axis + 1), 0, 0) for name, v in samples.items()}
    found = optimize(
        model,
        passes=["prune-channels:amount=0.3,objective=params"],
        data=DataOptions(source=samples),
        budget=Budget(None),
    )
    onnx.checker.check_model(found.model.to_proto(), full_check=True)
    before, after = found.report.input.parameters, found.report.output.parameters
    assert after <= 0.7 * before
    cut = [edit for step in found.report.steps for edit in step.edits if "were cut" in str(edit)]
    assert len(cut) == groups


@pytest.mark.parametrize("importance", get_args(Importance))
def test_every_criterion_prunes_a_real_model(importance: str) -> None:
    folder = ROOT / "models" / "digits_cnn"
    with np.load(folder / "digits_test.npz") as data:
        samples = {"x": data["x"][:64]}
    found = optimize(
        folder / "digits_cnn.onnx",
        passes=[f"prune-channels:amount=0.3,refit=none,importance={importance}"],
        data=DataOptions(source=samples),
        budget=Budget(None),
    )
    before, after = found.report.input.macs, found.report.output.macs
    assert before
    assert after
    assert after <= 0.7 * before


def test_readers_are_compared_by_identity() -> None:
    reader = candidates_of(with_dead_unit("MatMul"))[0].readers[0]
    assert reader != Reader(reader.node, reader.operands, reader.units)
