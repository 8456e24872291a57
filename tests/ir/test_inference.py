from __future__ import annotations

import itertools

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from fact_checking import N, check, facts_of, load, named
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.ir.inference import infer
from graphopt.ir.inference.indexing import slice_length
from graphopt.numerics.dims import evaluate, symbol


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def test_declared_shapes_in_between_and_of_outputs_are_not_believed():
    facts, t = facts_of(
        "g (float[n, 3] x) => (float[7, 7] y) <float[9] z> { z = Relu(x) y = Identity(z) }"
    )
    assert facts.shape(t["z"]) == facts.shape(t["y"]) == (N, 3)
    assert facts.static_shape(t["y"]) is None
    assert facts.rank(t["y"]) == 2
    assert facts.dtype(t["y"]) == np.float32


def test_equal_names_and_odd_dims_of_inputs_are_all_different_symbols():
    facts, t = facts_of("g (float[n, n] x, float[n] w) => (float[n] y) { y = Add(x, w) }")
    a, b = facts.shape(t["x"])
    assert a != b
    assert facts.shape(t["w"])[0] not in (a, b)


def test_a_reshape_target_computed_from_the_shape_is_followed():
    text = """g (float[n, 16, h, w] x) => (float[a, b, c] y) {
        s = Shape(x)
        two = Constant<value = int64[1] {2}>()
        zero = Constant<value = int64[1] {0}>()
        four = Constant<value = int64[1] {4}>()
        head = Slice(s, zero, two)
        tail = Slice(s, two, four)
        area = ReduceProd<keepdims = 1>(tail)
        target = Concat<axis = 0>(head, area)
        half = Cast<to = 6>(target)
        back = Cast<to = 7>(half)
        y = Reshape(x, back)
        minus = Constant<value = int64[2] {0, -1}>()
        z = Reshape(y, minus)
    }"""
    facts, t = facts_of(text, 12)
    n, _, h, w = facts.shape(t["x"])
    assert facts.shape(t["y"]) == (n, 16, h * w)
    assert facts.shape(t["z"]) == (n, 16 * h * w)
    check(text, {"x": ones(2, 16, 3, 5)}, {"x": ones(1, 16, 7, 2)}, opset=12)


def test_the_expand_idiom_of_exporters_is_followed():
    text = """g (float[n, 1] x) => (float[a, b] y) {
        i = Constant<value = int64 {0}>()
        s = Shape(x)
        n1 = Gather<axis = 0>(s, i)
        axes = Constant<value = int64[1] {0}>()
        n2 = Unsqueeze(n1, axes)
        five = Constant<value = int64[1] {5}>()
        wanted = Concat<axis = 0>(n2, five)
        k = Constant<value = int64[1] {2}>()
        one = ConstantOfShape<value = int64[1] {1}>(k)
        minus = Constant<value = int64 {-1}>()
        sign = Mul(one, minus)
        open = Equal(wanted, sign)
        target = Where(open, one, wanted)
        y = Expand(x, target)
    }"""
    facts, t = facts_of(text)
    assert facts.shape(t["y"]) == (N, 5)
    assert list(facts.constant_value(t["open"])) == [0, 0]
    check(text, {"x": ones(3, 1)})


def test_convolutions_and_pools_of_open_sizes():
    text = """g (float[n, 3, h, w] x, float[8, 3, 3, 3] k) => (float[a, b, c, d] y) {
        c1 = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, k)
        p1 = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(c1)
        c2 = ConvTranspose<strides = [2, 2]>(x, k0)
        same = AveragePool<kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_UPPER">(x)
        up = MaxPool<kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1>(x)
        g1 = GlobalAveragePool(p1)
        y = Flatten(g1)
    }""".replace("k0", "kt")
    text = text.replace("float[8, 3, 3, 3] k)", "float[8, 3, 3, 3] k, float[3, 4, 2, 2] kt)")
    facts, t = facts_of(text)
    n, _, h, w = facts.shape(t["x"])
    assert facts.shape(t["c1"]) == (n, 8, (h + 1) // 2, (w + 1) // 2)
    assert facts.shape(t["p1"]) == (n, 8, (h + 1) // 4, (w + 1) // 4)
    assert facts.shape(t["c2"]) == (n, 4, 2 * h, 2 * w)
    assert facts.shape(t["same"]) == (n, 3, (h + 1) // 2, (w + 1) // 2)
    assert facts.shape(t["y"]) == (n, 8)
    feeds = [
        {"x": ones(2, 3, h, w), "k": ones(8, 3, 3, 3), "kt": ones(3, 4, 2, 2)}
        for h, w in ((8, 9), (11, 6))
    ]
    check(text, *feeds)


def test_a_window_that_runtimes_disagree_about_is_unknown():
    for stride, extra in itertools.product((1, 2, 3), ("ceil_mode = 1, pads = [1, 1], ", "")):
        text = f"""g (float[1, 2, w] x) => (float[a, b, c] y) {{
            y = MaxPool<kernel_shape = [2], {extra} strides = [{stride}]>(x) }}"""
        check(text, *({"x": ones(1, 2, w)} for w in range(2, 9)))


BOUND = st.one_of(st.integers(-12, 12), st.sampled_from([2**63 - 1, 2**31 - 1, -(2**63), -(2**31)]))


@settings(deadline=None, max_examples=500)
@given(st.integers(0, 9), BOUND, BOUND, st.sampled_from([-3, -2, -1, 1, 2, 3]))
def test_slices_are_those_of_python(size, start, end, step):
    wanted = len(range(size)[slice(start, end, step)])
    if step < 0 and start < -max(size, 1):
        return  # the specification clamps to the first element, its reference does not
    open_dim = symbol("d")
    assert slice_length(size, start, end, step) == wanted
    length = slice_length(open_dim, start, end, step)
    assert length is None or evaluate(length, {"d": size}) == wanted


def test_branches_keep_what_they_have_in_common():
    text = """g (float[n, 4] x, bool c) => (float[a, b] y, float[d] z) {
        y, z = If(c) <
            then_branch = t () => (float[p, q] ty, float[r] tz) {
                ty = Relu(x) tz = ReduceSum<keepdims = 0>(x) },
            else_branch = e () => (float[p, q] ey, float[r] ez) {
                h = Concat<axis = 1>(x, x) ey = Abs(h) ez = Identity(x) }
        >
    }"""
    facts, t = facts_of(text)
    first, second = facts.shape(t["y"])
    assert first == N
    assert not isinstance(second, int)
    assert facts.shape(t["z"]) is None
    assert facts.dtype(t["z"]) == np.float32
    assert facts.shape(t["h"]) == (N, 8)


def test_a_known_condition_takes_its_branch():
    facts, t = facts_of(
        """g (float[n, 4] x) => (float[a, b] y) {
        s = Size(x) zero = Constant<value = int64 {0}>() c = Greater(s, zero)
        y = If(c) <
            then_branch = t () => (float[p] ty) { ty = Concat<axis = 1>(x, x) },
            else_branch = e () => (float[p] ey) { ey = ReduceSum<keepdims = 0>(x) }
        >
    }"""
    )
    assert facts.shape(t["y"]) == (N, 8)


LOOP = """g (int64 m, float[n, 4] x, float[n, 2] grows, float[k] scalar) =>
        (float[a, b] keep, float[a, c] grown, float[e, f, h] stack) {
    yes = Constant<value = bool {1}>()
    keep, grown, ranks, stack, loose = Loop(m, yes, x, grows, scalar) <
        body = b (int64 i, bool ci, float[q] s1, float[q] s2, float[q] s3) =>
                (bool co, float[r] t1, float[r] t2, float[r] t3, float[r] scan, float[r] scan2) {
            co = Identity(ci) t1 = Relu(s1) t2 = Concat<axis = 1>(s2, x)
            axes = Constant<value = int64[1] {0}>()
            t3 = Unsqueeze(s3, axes) scan = Abs(t1) ix = Shape(s2) scan2 = Cast<to = 1>(ix) }
    >
}"""


def test_a_loop_forgets_what_an_iteration_changes():
    facts, t = facts_of(LOOP)
    assert facts.shape(t["keep"]) == (N, 4)
    first, second = facts.shape(t["grown"])
    assert first == facts.shape(t["grows"])[0]
    assert not isinstance(second, int)
    assert second not in facts.shape(t["t2"]) + facts.shape(t["s2"] if "s2" in t else t["t2"])
    assert facts.shape(t["ranks"]) is None
    assert facts.rank(t["stack"]) == 3
    assert facts.shape(t["stack"])[2] == 4
    assert facts.static_shape(t["ix"]) == (2,)
    assert facts.rank(t["loose"]) == 2


def test_loops_and_scans_hold_in_runs():
    text = """g (int64 m, float[n, 4] x) => (float[a, b] y, float[c, d, e] z) {
        yes = Constant<value = bool {1}>()
        y, z = Loop(m, yes, x) <
            body = b (int64 i, bool ci, float[q, 4] s)
                    => (bool co, float[r, 4] t, float[o, 4] scan) {
                co = Identity(ci) t = Concat<axis = 0>(s, x) scan = Add(x, x) }
        >
        f, stack = Scan<num_scan_inputs = 1, body = sb (float[q] s, float[q] row) =>
            (float[r] t, float[r] o) { t = Add(s, row) o = Concat<axis = 0>(t, t) }>(zero, x)
    }""".replace("float[n, 4] x)", "float[n, 4] x, float[4] zero)")
    facts, t = facts_of(text)
    assert facts.shape(t["stack"]) == (N, 8)
    assert facts.shape(t["f"]) == (4,)
    feeds = [
        {"m": np.array(m), "x": ones(n, 4), "zero": ones(4)} for m, n in ((1, 2), (3, 5), (2, 1))
    ]
    check(text, *feeds)


FUNCTION = """g (float[n, 4] x) => (float[a, b] y, float[a, b] z) {
    y = local.twice<ax = 1>(x) z = Relu(x) w = local.twice<ax = 0>(x) d = local.plain(x)
}
<domain: "local", opset_import: ["" : 17]>
twice <ax> (v) => (o) { o = Concat<axis: int = @ax>(v, v) }
<domain: "local", opset_import: ["" : 17]>
plain <ax: int = 0> (v) => (o) { o = Concat<axis: int = @ax>(v, v) }
<domain: "", opset_import: ["" : 17]>
Relu (v) => (o) { s = Shape(v) o = Cast<to = 1>(s) }
"""


def test_local_functions_are_inferred_for_each_call_and_shadow_operators():
    model = load(FUNCTION)
    facts, t = infer(model.graph, model.functions), named(model)
    assert facts.shape(t["y"]) == (N, 8)
    assert facts.shape(t["w"]) == (2 * N, 4)
    assert facts.shape(t["z"]) == (2,)
    assert facts.shape(t["d"]) == (2 * N, 4)
    for function in model.functions:
        inner = infer(function, model.functions)
        assert inner.shape(function.inputs[0]) is None
        assert inner.shape(function.outputs[0]) is None or function.name == "Relu"


def test_calls_that_multiply_are_cut_off():
    parts = ["g (float[n] x) => (float[n] y) { y = local.f0(x) }"]
    for level in range(28):
        inner = f"local.f{level + 1}" if level < 27 else "Relu"
        parts.append(
            f'<domain: "local", opset_import: ["" : 17, "local" : 1]>\n'
            f"f{level} (v) => (o) {{ a = {inner}(v) b = {inner}(a) o = Add(a, b) }}"
        )
    facts, t = facts_of("\n".join(parts))
    assert facts.shape(t["y"]) is None or facts.rank(t["y"]) == 1


def test_nodes_out_of_order_and_in_a_circle():
    x, a, b, c = (gs.Variable(name) for name in "xabc")
    x.shape, x.dtype = ("n", 2), np.dtype(np.float32)
    nodes = [
        gs.Node("Relu", inputs=[b], outputs=[c]),
        gs.Node("Abs", inputs=[a], outputs=[b]),
        gs.Node("Neg", inputs=[x], outputs=[a]),
    ]
    facts = infer(gs.Graph(nodes, [x], [c], opset=13))
    assert facts.shape(c) == (N, 2)
    loop = [gs.Node("Add", inputs=[x, b], outputs=[a]), gs.Node("Abs", inputs=[a], outputs=[b])]
    facts = infer(gs.Graph(loop, [x], [b], opset=13))
    assert facts.shape(b) is None
    assert facts.shape(gs.Variable("never seen")) is None


def test_contents_of_large_or_overflowing_tensors_are_not_followed():
    facts, t = facts_of(
        """g (int64[n] x) => (float[a] y) {
        big = Constant<value = int64[1] {9223372036854775807}>() one = Constant<value_int = 1>()
        over = Add(big, one) k = Constant<value = int64[1] {1000000000}>()
        y = ConstantOfShape(k) r = Mul(big, big)
        unknown = Cast<to = 6>(x) target = Concat<axis = 0>(unknown, k)
    }"""
    )
    assert facts.value(t["over"]) is None
    assert facts.value(t["r"]) is None
    assert facts.shape(t["y"]) == (10**9,)
    assert facts.value(t["y"]) is None
    assert facts.rank(t["target"]) == 1


def test_inputs_of_unknown_sign_do_not_become_dims():
    text = """g (float[n, 6] x, int64[2] want) => (float[a, b] y) {
        y = Reshape(x, want)
        k = Constant<value = int64[1] {3}>() mixed = Concat<axis = 0>(want, k) z = Reshape(x, mixed)
    }"""
    facts, t = facts_of(text)
    assert facts.rank(t["y"]) == 2
    assert facts.shape(t["z"])[2] == 3
    want = [np.array(pair, np.int64) for pair in ((-1, 2), (2, -1), (0, -1))]
    check(text, *({"x": ones(4, 6), "want": entry} for entry in want))


@pytest.mark.parametrize("scale", [0.5, 2.0, 1.5, 0.3, 2.7])
def test_resize_by_scales(scale):
    text = f"""g (float[1, 1, h, w] x) => (float[a, b, c, d] y) {{
        roi = Constant<value_floats = [0.0]>()
        empty = Constant<value = float[0] {{}}>()
        s = Constant<value = float[4] {{1.0, 1.0, {scale}, {scale}}}>()
        y = Resize<mode = "nearest">(x, empty, s)
    }}"""
    check(text, *({"x": ones(1, 1, h, h + 3)} for h in range(2, 20)))
