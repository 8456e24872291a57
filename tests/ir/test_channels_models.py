"""Channel groups of larger pieces: attention, recurrence, quantized graphs, bodies, computed "
"sizes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from channel_proof import Case, check, compare_outputs, prove
from onnx import helper
from test_channels import CASES as BY_OPERATOR

from graphopt.ir.channel_masking import mask_group
from graphopt.ir.channel_slicing import slice_group, slice_groups
from graphopt.ir.channel_tracing import Tracer
from graphopt.ir.channels import find_groups
from graphopt.ir.costs import count_parameters, known_macs
from graphopt.ir.inference import infer
from graphopt.ir.model import Model

CASES_BY_OPERATOR = {case.name: case for case in BY_OPERATOR}

TOKENS = "float[N,5,12] x"
HEADS = (
    "h = Constant <value = int64[4] {0, 5, 3, 4}> () m = Constant <value = int64[3] {0, 5, 12}> () "
    "d = Constant <value = float {2.0}> () "
)
SEPARATE = (
    "float[12,12] wq, float[12,12] wk, float[12,12] wv, float[12,12] wo, float[12] bq, float[12] bv"
)


def attention(scores: str = "s") -> str:
    """Scaled products of heads of q, k and v."""
    return (
        "qt = Transpose <perm=[0,2,1,3]> (q) kt = Transpose <perm=[0,2,3,1]> (k) "
        "vt = Transpose <perm=[0,2,1,3]> (v) s = MatMul (qt, kt) e = Div (s, d) "
        f"p = Softmax <axis=-1> ({scores}) o = MatMul (p, vt) ot = Transpose <perm=[0,2,1,3]> (o) "
        "om = Reshape (ot, m) "
    )


CASES = [
    Case(
        "attention with separate projections",
        TOKENS,
        "float[N,5,12] y",
        SEPARATE,
        HEADS
        + "a = MatMul (x, wq) b = Add (a, bq) q = Reshape (b, h) c = MatMul (x, wk) k = Reshape (c, h) "
        "f = MatMul (x, wv) g = Add (f, bv) v = Reshape (g, h) "
        + attention("e")
        + "y = MatMul (om, wo)",
        (("a:2", 3),),
    ),
    Case(
        "attention with packed projections, heads last",
        TOKENS,
        "float[N,5,12] y",
        "float[12,36] w, float[36] b, float[12,12] wo",
        HEADS
        + "n = Constant <value = int64[5] {0, 5, 3, 3, 4}> () i = Constant <value = int64 {0}> () "
        "j = Constant <value = int64 {1}> () l = Constant <value = int64 {2}> () a = MatMul (x, "
        "w) c = Add (a, b) "
        "r = Reshape (c, n) t = Transpose <perm=[2,0,1,3,4]> (r) q = Gather (t, i) k = Gather "
        "(t, j) "
        "v = Gather (t, l) " + attention("e") + "y = MatMul (om, wo)",
        (("a:2", 3),),
    ),
    Case(
        "attention with packed projections that are split",
        TOKENS,
        "float[N,5,12] y",
        "float[12,36] w, float[36] b, float[12,12] wo",
        HEADS + "n = Constant <value = int64[3] {12, 12, 12}> () a = MatMul (x, w) c = Add (a, b) "
        "f, g, i = Split <axis=2> (c, n) q = Reshape (f, h) k = Reshape (g, h) v = Reshape (i, h) "
        + attention("e")
        + "y = MatMul (om, wo)",
        (("a:2", 3),),
    ),
    Case(
        "attention with packed projections, each head its own q, k and v",
        TOKENS,
        "float[N,5,12] y",
        "float[12,36] w, float[12,12] wo",
        HEADS
        + "n = Constant <value = int64[4] {0, 5, 3, 12}> () o4 = Constant <value = int64[3] {4, 4, 4}> () "
        "a = MatMul (x, w) r = Reshape (a, n) q, k, v = Split <axis=3> (r, o4) "
        + attention("e")
        + "y = MatMul (om, wo)",
        (("a:2", 3),),
    ),
    Case(
        "attention as products of stacks [N heads, T, D]",
        "float[2,5,12] x",
        "float[2,5,12] y",
        "float[12,12] wq, float[12,12] wk, float[12,12] wv, float[12,12] wo",
        "h = Constant <value = int64[4] {2, 5, 3, 4}> () f = Constant <value = int64[3] {6, 5, "
        "4}> () "
        "u = Constant <value = int64[4] {2, 3, 5, 4}> () m = Constant <value = int64[3] {2, 5, "
        "12}> () "
        "a = MatMul (x, wq) a1 = Reshape (a, h) a2 = Transpose <perm=[0,2,1,3]> (a1) q = Reshape "
        "(a2, f) "
        "b = MatMul (x, wk) b1 = Reshape (b, h) b2 = Transpose <perm=[0,2,1,3]> (b1) b3 = "
        "Reshape (b2, f) "
        "k = Transpose <perm=[0,2,1]> (b3) "
        "c = MatMul (x, wv) c1 = Reshape (c, h) c2 = Transpose <perm=[0,2,1,3]> (c1) v = Reshape "
        "(c2, f) "
        "s = MatMul (q, k) p = Softmax <axis=-1> (s) o = MatMul (p, v) o1 = Reshape (o, u) "
        "o2 = Transpose <perm=[0,2,1,3]> (o1) o3 = Reshape (o2, m) y = MatMul (o3, wo)",
        (("a:2", 3),),
    ),
    Case(
        "grouped-query attention: a key head leaves with its queries",
        TOKENS,
        "float[N,5,12] y",
        "float[12,16] wq, float[12,8] wk, float[12,8] wv, float[16,12] wo",
        "hq = Constant <value = int64[4] {0, 5, 4, 4}> () hk = Constant <value = int64[4] {0, 5, "
        "2, 4}> () "
        "ax = Constant <value = int64[1] {2}> () ex = Constant <value = int64[5] {1, 1, 1, 2, "
        "1}> () "
        "fl = Constant <value = int64[4] {0, 4, 5, 4}> () m = Constant <value = int64[3] {0, 5, "
        "16}> () "
        "a = MatMul (x, wq) a1 = Reshape (a, hq) q = Transpose <perm=[0,2,1,3]> (a1) "
        "b = MatMul (x, wk) b1 = Reshape (b, hk) b2 = Transpose <perm=[0,2,1,3]> (b1) b3 = "
        "Unsqueeze (b2, ax) "
        "ey = Constant <value = int64[5] {1, 2, 2, 5, 4}> () b4 = Expand (b3, ey) b5 = Reshape "
        "(b4, fl) "
        "k = Transpose <perm=[0,1,3,2]> (b5) "
        "c = MatMul (x, wv) c1 = Reshape (c, hk) c2 = Transpose <perm=[0,2,1,3]> (c1) c3 = "
        "Unsqueeze (c2, ax) "
        "c4 = Expand (c3, ey) v = Reshape (c4, fl) "
        "s = MatMul (q, k) p = Softmax <axis=-1> (s) o = MatMul (p, v) o1 = Transpose "
        "<perm=[0,2,1,3]> (o) "
        "o2 = Reshape (o1, m) y = MatMul (o2, wo)",
        (("a:2", 2),),
    ),
    Case(
        "attention whose sizes are computed from shapes",
        "float[N,T,12] x",
        "float[N,T,12] y",
        SEPARATE,
        "i = Constant <value = int64 {0}> () j = Constant <value = int64 {1}> () l = Constant "
        "<value = int64 {2}> () "
        "z = Constant <value = int64[1] {0}> () n3 = Constant <value = int64 {3}> () d = "
        "Constant <value = float {2.0}> () "
        "a = MatMul (x, wq) b = Add (a, bq) sh = Shape (b) s0 = Gather (sh, i) s1 = Gather (sh, "
        "j) s2 = Gather (sh, l) "
        "hd = Div (s2, n3) u0 = Unsqueeze (s0, z) u1 = Unsqueeze (s1, z) u2 = Unsqueeze (hd, z) "
        "u3 = Unsqueeze (n3, z) h = Concat <axis=0> (u0, u1, u3, u2) q = Reshape (b, h) "
        "c = MatMul (x, wk) k = Reshape (c, h) f = MatMul (x, wv) g = Add (f, bv) v = Reshape "
        "(g, h) "
        "w2 = Mul (hd, n3) w3 = Unsqueeze (w2, z) m = Concat <axis=0> (u0, u1, w3) "
        + attention("e")
        + "y = MatMul (om, wo)",
        (("a:2", 3),),
    ),
    Case(
        "an LSTM of two directions with states and peepholes",
        "float[T,N,3] x",
        "float[T,N,2] y",
        "float[2,20,3] w, float[2,20,5] r, float[2,40] b, float[2,1,5] h0, float[2,1,5] c0, "
        "float[2,15] p, float[10,2] o",
        "n = Constant <value = int64[4] {0, 1, 2, 5}> () e = Constant <value = int64[3] {2, 1, "
        "5}> () "
        "m = Constant <value = int64[3] {0, 0, -1}> () "
        'l, h, c = LSTM <hidden_size=5, direction="bidirectional"> (x, w, r, b, , h0, c0, p) '
        "t = Transpose <perm=[0,2,1,3]> (l) f = Reshape (t, m) y = MatMul (f, o)",
        (("l:3", 5),),
    ),
    Case(
        "stacked GRUs with a state that is expanded to the batch",
        "float[T,N,3] x",
        "float[N,2] y",
        "float[1,15,3] w, float[1,15,5] r, float[1,30] b, float[1,12,5] w2, float[1,12,4] r2, "
        "float[4,2] o",
        "i = Constant <value = int64[1] {1}> () k = Constant <value = int64[1] {5}> () "
        "u = Constant <value = int64[1] {1}> () sh = Shape (x) nb = Gather (sh, i) "
        "st = Concat <axis=0> (u, nb, k) z = ConstantOfShape <value = float[1] {0.5}> (st) "
        "a, ah = GRU <hidden_size=5, linear_before_reset=1> (x, w, r, b, , z) s = Squeeze (a, i) "
        "c, ch = GRU <hidden_size=4> (s, w2, r2) q = Squeeze (ch) y = Gemm (q, o)".replace(
            "Squeeze (ch)", "Squeeze (ch, v0)"
        ).replace("i = Constant", "v0 = Constant <value = int64[1] {0}> () i = Constant", 1),
        (("a:3", 5), ("c:3", 4)),
    ),
    Case(
        "an RNN with the batch first",
        "float[N,T,3] x",
        "float[N,T,2] y",
        "float[1,5,3] w, float[1,5,5] r, float[1,10] b, float[5,2] o",
        "i = Constant <value = int64[1] {2}> () a, ah = RNN <hidden_size=5, layout=1> (x, w, r, b) "
        "s = Squeeze (a, i) y = MatMul (s, o)",
        (("a:3", 5),),
    ),
    Case(
        "a state that the caller gives and takes",
        "float[T,N,3] x, float[1,N,5] h0",
        "float[T,1,N,5] y, float[1,N,5] h",
        "float[1,15,3] w, float[1,15,5] r",
        "y, h = GRU <hidden_size=5> (x, w, r, , , h0)",
        (),
        (("y:3", "graph input 'h0' keeps its shape"),),
    ),
    Case(
        "a quantized graph: scales and zero points of each channel",
        "float[N,3,8,8] x",
        "float[N,2,6,6] y",
        "float[6] s, int8[6,3,3,3] w, int8[6] z, int32[6] b, float[6] t, float[2,6,1,1] o, float "
        "as, float bs",
        "q = QuantizeLinear (x, as) d = DequantizeLinear (q, as) e = DequantizeLinear <axis=0> "
        "(w, s, z) "
        "f = DequantizeLinear <axis=0> (b, t) c = Conv (d, e, f) r = Relu (c) g = QuantizeLinear "
        "(r, bs) "
        "h = DequantizeLinear (g, bs) y = Conv (h, o)",
        (("c:1", 6),),
        positive="s t as bs",
    ),
    Case(
        "clustered weights",
        "float[N,3] x",
        "float[N,2] y",
        "float[16] k, float[6,2] o",
        "i = Constant <value = int64[3,6] {0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,0,1}> () w = "
        "Gather (k, i) "
        "c = MatMul (x, w) r = Relu (c) y = MatMul (r, o)",
        (("c:1", 6),),
    ),
    Case(
        "a body reads a tensor",
        "float[N,3] x, bool b",
        "float[N,2] y",
        "float[3,6] v, float[3,4] u, float[6,2] w, float[4,2] t",
        "c = MatMul (x, v) d = MatMul (x, u) e = MatMul (d, t) "
        "g = If (b) <then_branch = one () => (float[N,2] p) { r = Relu (c) p = MatMul (r, w) }, "
        "else_branch = two () => (float[N,2] q) { q = Identity (e) }> y = Add (g, e)",
        (("d:1", 4),),
        (("c:1", "a body of If 'If→g' reads it"),),
    ),
    Case(
        "channels inside of bodies",
        "float[N,3] x, bool b",
        "float[N,2] y",
        "float[3,6] v, float[6,2] w, float[3,4] u, float[4,2] t",
        "y = If (b) <then_branch = one () => (float[N,2] p) { c = MatMul (x, v) r = Relu (c) p = "
        "MatMul (r, w) }, "
        "else_branch = two () => (float[N,2] q) { d = MatMul (x, u) e = Sigmoid (d) q = MatMul "
        "(e, t) }>",
        (("c:1", 6), ("d:1", 4)),
        (("p:1", "If body output 'p' keeps its shape"),),
    ),
    Case(
        "what a loop carries",
        "float[N,3] x",
        "float[N,2] y",
        "float[3,6] v, float[6,6] u, float[6,4] a, float[4,6] e, float[6,2] w",
        "b = Constant <value = bool {1}> () n = Constant <value = int64 {3}> () c = MatMul (x, v) "
        "d = Loop (n, b, c) <body = one (int64 i, bool go, float[N,6] s) => (bool on, float[N,6] "
        "z) "
        "{ on = Identity (go) k = MatMul (s, a) l = Relu (k) m = MatMul (l, e) z = Add (m, s) }> "
        "y = MatMul (d, w)",
        (("k:1", 4),),
        (("c:1", "Loop 'Loop→d' is not followed"),),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_slicing_equals_masking(case, native) -> None:
    check(case, native)


def residual() -> Model:
    """A residual connection around two convolutions."""
    return Case(
        "residual",
        "float[2,3,8,8] x",
        "float[2,5] y",
        "float[6,3,3,3] a, float[8,6,1,1] b, float[6,8,1,1] c, float[6,5] d",
        "k = Constant <value = int64[2] {2, 3}> () e = Conv (x, a) f = Conv (e, b) g = Relu (f) "
        "h = Conv (g, c) i = Add (e, h) p = ReduceSum <keepdims=0> (i, k) y = MatMul (p, d)",
    ).model()


def test_what_leaves_with_a_unit_is_told() -> None:
    model = residual()
    facts = infer(model.graph, model.functions)
    for group in find_groups(model, facts)[:2]:
        cut = model.copy()
        slice_group(cut, group, range(1, group.size))
        left = known_macs(cut, infer(cut.graph, cut.functions), {})
        assert known_macs(model, facts, {}) - left == group.macs
        assert count_parameters(model) - count_parameters(cut) == group.parameters
    first, second = find_groups(model)[:2]
    assert first.producers == ("Conv→e", "Conv→h")
    assert first.consumers == ("Conv→f", "MatMul→y")
    assert (second.producers, second.consumers) == (("Conv→f",), ("Conv→h",))
    assert second.macs_of_all == 2 * 36 * (6 * 8 * 2) == second.size * second.macs


def test_groups_of_a_copy_are_the_same_and_fit_it(native) -> None:
    model = residual()
    found, again = find_groups(model), find_groups(model.copy())
    assert (
        [group.name for group in found] == [group.name for group in again] == ["e:1", "f:1", "y:1"]
    )
    cut, other = model.copy(), model.copy()
    slice_group(cut, found[0], [1, 4])
    slice_group(other, again[0], [4, 1])
    assert cut.to_bytes() == other.to_bytes()
    sizes = [group.size for group in find_groups(cut)]
    assert sizes == [2, 8, 5]
    prove(cut, [(find_groups(cut)[1], [0, 7])], native)


def test_what_cannot_be_cut_is_refused() -> None:
    model = residual()
    free, locked = find_groups(model)[0], find_groups(model)[-1]
    for group, keep, said in (
        (free, [], "at least one"),
        (free, [1, 1], "named once"),
        (free, [0, 6], "units 0 to 5"),
        (locked, [0], "is locked: graph output 'y' keeps its shape"),
    ):
        with pytest.raises(ValueError, match=said):
            slice_group(model, group, keep)
    with pytest.raises(ValueError, match="named twice"):
        slice_groups(model, [(free, [0]), (free, [1])])
    other = CASES[0].model()
    with pytest.raises(ValueError, match="find its groups anew"):
        mask_group(other, free, [0])


def test_keeping_everything_changes_nothing() -> None:
    model = residual()
    cut = model.copy()
    slice_groups(cut, [(group, range(group.size)) for group in find_groups(model)])
    assert cut.to_bytes() == model.to_bytes()


def test_a_masked_unit_counts_for_nothing(native) -> None:
    """The values that a masked unit is made of may be anything, even infinite."""
    model = CASES_BY_OPERATOR["what does not keep a zero"].model()
    group = find_groups(model)[0]
    masked, spoilt = model.copy(), model.copy()
    mask_group(masked, group, [0, 2, 3, 4, 5])
    weight = next(c for c in spoilt.constants() if c.name == "a")
    weight.values = np.where(np.arange(6) == 1, np.float32(np.nan), weight.values)
    mask_group(spoilt, group, [0, 2, 3, 4, 5])
    compare_outputs(masked, spoilt, native, "ort")


def test_shared_weights_stay_shared() -> None:
    model = CASES_BY_OPERATOR["large weights that two nodes share stay one"].model()
    slice_group(model, find_groups(model)[0], range(0, 48, 2))
    products = [node for node in model.graph.nodes if node.op == "MatMul"]
    assert products[1].inputs[1] is products[2].inputs[1]
    assert products[1].inputs[1].shape == (24, 24)


def test_declared_shapes_go_with_the_channels() -> None:
    proto = residual().to_proto()
    inferred = onnx.shape_inference.infer_shapes(proto)
    model = Model.load(inferred)
    group = find_groups(model)[1]
    slice_group(model, group, [0, 3, 5])
    onnx.checker.check_model(model.to_proto(), full_check=True)
    declared = {info.name for info in model.to_proto().graph.value_info}
    assert {info.name for info in inferred.graph.value_info} - declared == {"f", "g"}


def test_axes_that_are_too_long_are_not_followed() -> None:
    """An axis may claim any length; nothing of that size is made."""
    zeros = np.zeros((0, 1 << 40), np.float32)
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "w"], ["m"]),
                helper.make_node("Concat", ["m", "m"], ["c"], axis=1),
                helper.make_node("ReduceSum", ["c"], ["y"], keepdims=0),
            ],
            "g",
            [helper.make_tensor_value_info("x", 1, ["N", 0])],
            [helper.make_tensor_value_info("y", 1, [])],
            [helper.make_tensor("w", 1, zeros.shape, b"", raw=True)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    assert find_groups(Model.load(proto)) == []


def test_many_splits_share_few_rounds() -> None:
    """Every block has a split to settle; all are settled together, not one by one."""
    blocks = "".join(
        f"a{i} = MatMul (x{i}, w) b{i} = Reshape (a{i}, s) c{i} = Transpose <perm=[0,2,1,3]> (b{i}) "
        f"d{i} = Reshape (c{i}, t) e{i} = MatMul (d{i}, v) x{i + 1} = Relu (e{i}) "
        for i in range(60)
    )
    case = Case(
        "blocks",
        "float[N,12] x0",
        "float[N,12] y",
        "float[12,12] w, float[12,12] v",
        "s = Constant <value = int64[4] {0, 3, 4, 1}> () t = Constant <value = int64[2] {0, 12}> "
        "() "
        f"{blocks} y = Identity (x60)",
    )
    model = case.model()
    tracer = Tracer(model, infer(model.graph, model.functions))
    tracer.scope(model.graph, "graph")
    table = tracer.trace.atoms
    calls = []
    classes = table._classes
    table._classes = lambda: calls.append(1) or classes()  # type: ignore[method-assign]
    table.solve()
    assert len(calls) < 8
