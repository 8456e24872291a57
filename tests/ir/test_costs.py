"""Multiply-accumulates against formulas worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphopt.ir.costs import count_macs, known_macs, macs_by_node
from graphopt.ir.frames import Frame
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.testing import parse

FLOAT = TensorProto.FLOAT
MS = "com.microsoft"


def one(op, shapes, domain="", opset=24, **attributes) -> Model:
    """A model of one node whose inputs have these shapes; None for one that is omitted."""
    names = [f"i{index}" if shape is not None else "" for index, shape in enumerate(shapes)]
    inputs = [
        helper.make_tensor_value_info(name, FLOAT, shape)
        for name, shape in zip(names, shapes, strict=True)
        if name
    ]
    node = helper.make_node(op, names, ["y"], domain=domain, **attributes)
    graph = helper.make_graph(
        [node], "g", inputs, [helper.make_tensor_value_info("y", FLOAT, None)]
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(domain or MS, 1)]
    return Model.load(helper.make_model(graph, opset_imports=imports, ir_version=10))


def macs(model: Model, **bindings: int) -> int | None:
    named = {f"{name[:-1]}[{name[-1]}]": size for name, size in bindings.items()}
    facts = infer(model.graph, model.functions)
    total = count_macs(model, facts, named)
    parts = [part for _, part in macs_by_node(model.graph, Frame.of(model, facts, named))]
    if all(node.op != "If" for node in model.nodes()):
        unknown = any(part.unknown for part in parts)
        assert total == (None if unknown else sum(part.known for part in parts))
    return total


CONVOLUTIONS = [
    # outputs 2 x 8 x 30, each a sum over 3 channels x 3
    ("Conv", [(2, 3, 32), (8, 3, 3)], {}, 2 * 8 * 30 * 3 * 3),
    ("Conv", [(1, 3, 32, 32), (16, 3, 3, 3)], {"pads": [1] * 4}, 16 * 32 * 32 * 27),
    ("Conv", [(1, 3, 33, 33), (16, 3, 3, 3)], {"strides": [2, 2]}, 16 * 16 * 16 * 27),
    ("Conv", [(1, 8, 10, 10), (8, 1, 3, 3)], {"group": 8}, 8 * 8 * 8 * 9),
    ("Conv", [(1, 8, 10, 10), (12, 4, 3, 3)], {"group": 2}, 12 * 8 * 8 * 36),
    ("Conv", [(1, 2, 6, 6, 6), (4, 2, 3, 3, 3)], {"dilations": [2] * 3}, 4 * 8 * 54),
    ("ConvInteger", [(1, 3, 8, 8), (4, 3, 1, 1)], {}, 4 * 64 * 3),
    # every input element meets 6 channels x 2 x 2
    ("ConvTranspose", [(1, 4, 5, 5), (4, 6, 2, 2)], {"strides": [2, 2]}, 4 * 25 * 24),
    ("ConvTranspose", [(1, 4, 5), (4, 1, 3)], {"group": 4}, 4 * 5 * 3),
    ("DeformConv", [(1, 3, 8, 8), (4, 3, 3, 3), (1, 18, 6, 6)], {}, 4 * 36 * 27),
    (
        "QLinearConv",
        [(1, 3, 8, 8), (), (), (4, 3, 3, 3), (), (), (), ()],
        {"pads": [1] * 4},
        4 * 64 * 27,
    ),
]


@pytest.mark.parametrize(("op", "shapes", "attributes", "expected"), CONVOLUTIONS)
def test_convolutions(op, shapes, attributes, expected) -> None:
    assert macs(one(op, shapes, opset=19, **attributes)) == expected


PRODUCTS = [
    ("MatMul", [(4, 5), (5, 6)], {}, 120),
    ("MatMul", [(5,), (5,)], {}, 5),
    ("MatMul", [(5,), (5, 6)], {}, 30),
    ("MatMul", [(4, 5), (5,)], {}, 20),
    ("MatMul", [(5,), (3, 5, 6)], {}, 90),
    ("MatMul", [(7, 4, 5), (5, 6)], {}, 840),
    ("MatMul", [(7, 1, 4, 5), (3, 5, 6)], {}, 7 * 3 * 120),
    ("MatMulInteger", [(4, 5), (5, 6)], {}, 120),
    ("QLinearMatMul", [(2, 4, 5), (), (), (5, 6), (), (), (), ()], {}, 240),
    ("Gemm", [(4, 5), (5, 6), (6,)], {}, 120),
    ("Gemm", [(5, 4), (6, 5)], {"transA": 1, "transB": 1}, 120),
    ("Einsum", [(4, 5), (5, 6)], {"equation": "ij,jk->ik"}, 120),
    ("Einsum", [(4, 5), (5, 6)], {"equation": "ij, jk"}, 120),
    ("Einsum", [(2, 3, 4, 5), (2, 3, 6, 5)], {"equation": "bhqd,bhkd->bhqk"}, 6 * 4 * 6 * 5),
    ("Einsum", [(2, 1, 4, 5), (3, 5, 6)], {"equation": "...ij,...jk->...ik"}, 6 * 120),
    ("Einsum", [(4, 5)], {"equation": "ij->ji"}, 0),
    ("Einsum", [(4,), (5,)], {"equation": "i,j->ij"}, 20),
    # first ij,jk (120, j is gone), then ik,kl
    ("Einsum", [(4, 5), (5, 6), (6, 7)], {"equation": "ij,jk,kl->il"}, 120 + 4 * 6 * 7),
    # j is needed to the end, so both products run over it
    ("Einsum", [(4, 5), (5, 6), (5,)], {"equation": "ij,jk,j->ik"}, 120 + 120),
]


@pytest.mark.parametrize(("op", "shapes", "attributes", "expected"), PRODUCTS)
def test_products(op, shapes, attributes, expected) -> None:
    assert macs(one(op, shapes, opset=13, **attributes)) == expected


SEQUENCES = [
    # 7 steps x batch 2 x (weights of the input + weights of the state)
    ("LSTM", [(7, 2, 5), (1, 12, 5), (1, 12, 3)], {"hidden_size": 3}, 14 * (60 + 36)),
    (
        "LSTM",
        [(7, 2, 5), (2, 12, 5), (2, 12, 3)],
        {"hidden_size": 3, "direction": "bidirectional"},
        14 * 2 * (60 + 36),
    ),
    ("GRU", [(2, 7, 5), (1, 9, 5), (1, 9, 3)], {"hidden_size": 3, "layout": 1}, 14 * (45 + 27)),
    ("RNN", [(7, 2, 5), (1, 3, 5), (1, 3, 3)], {"hidden_size": 3}, 14 * (15 + 9)),
    ("Attention", [(2, 4, 6, 8), (2, 4, 9, 8), (2, 4, 9, 10)], {}, 2 * 4 * 6 * 9 * (8 + 10)),
    # two heads share each key
    ("Attention", [(2, 4, 6, 8), (2, 2, 9, 8), (2, 2, 9, 8)], {}, 2 * 4 * 6 * 9 * 16),
    (
        "Attention",
        [(2, 6, 32), (2, 9, 16), (2, 9, 20)],
        {"q_num_heads": 4, "kv_num_heads": 2},
        2 * 4 * 6 * 9 * (8 + 10),
    ),
    (
        "Attention",
        [(1, 4, 1, 8), (1, 4, 1, 8), (1, 4, 1, 8), None, (1, 4, 11, 8), (1, 4, 11, 8)],
        {},
        4 * 12 * 16,
    ),
]


@pytest.mark.parametrize(("op", "shapes", "attributes", "expected"), SEQUENCES)
def test_sequences(op, shapes, attributes, expected) -> None:
    assert macs(one(op, shapes, **attributes)) == expected


CONTRIBUTED = [
    ("FusedConv", [(1, 3, 8, 8), (4, 3, 3, 3)], {"activation": "Relu"}, 4 * 36 * 27),
    ("NhwcFusedConv", [(1, 8, 8, 3), (4, 3, 3, 3)], {}, 4 * 36 * 27),
    ("QLinearConv", [(1, 8, 8, 3), (), (), (4, 3, 3, 3)], {"channels_last": 1}, 4 * 36 * 27),
    ("FusedGemm", [(4, 5), (6, 5)], {"transB": 1}, 120),
    ("FusedMatMul", [(3, 5, 4), (3, 6, 5)], {"transA": 1, "transB": 1}, 360),
    # [4, 3, 5] seen as three matrices of 4 x 5
    ("FusedMatMul", [(4, 3, 5), (3, 5, 6)], {"transBatchA": 1}, 360),
    ("MatMulNBits", [(2, 7, 64), (32, 2, 16)], {"K": 64, "N": 32, "bits": 4}, 14 * 64 * 32),
    ("MatMulIntegerToFloat", [(4, 5), (5, 6)], {}, 120),
    ("DynamicQuantizeMatMul", [(4, 5), (5, 6)], {}, 120),
    ("QGemm", [(4, 5), (), (), (6, 5)], {"transB": 1}, 120),
    ("DynamicQuantizeLSTM", [(7, 2, 5), (1, 5, 12), (1, 3, 12)], {}, 14 * 96),
    # the projection, then 3 steps that look at 3
    ("Attention", [(2, 3, 8), (8, 48)], {"num_heads": 2}, 2 * 3 * (8 * 48 + 3 * 32)),
    ("MultiHeadAttention", [(2, 3, 8), (2, 5, 8), (2, 5, 12)], {"num_heads": 2}, 30 * 20),
    ("Gelu", [(4, 5)], {}, 0),
]


@pytest.mark.parametrize(("op", "shapes", "attributes", "expected"), CONTRIBUTED)
def test_operators_of_onnx_runtime(op, shapes, attributes, expected) -> None:
    assert macs(one(op, shapes, domain=MS, **attributes)) == expected


def test_classical_learners() -> None:
    linear = one("LinearClassifier", [(10, 4)], domain="ai.onnx.ml", coefficients=[0.5] * 12)
    assert macs(linear) == 10 * 12


UNPROVEN = [
    ("Gemm", [(4, 5), (5,)], "", {}),
    ("MatMul", [(4, 5), ()], "", {}),
    ("LSTM", [(7, 2), (1, 12, 5), (1, 12, 3)], "", {}),
    ("Attention", [(2, 6, 32), (2, 9, 16), (2, 9, 16)], "", {}),
    ("Einsum", [(4, 5), (5, 6)], "", {"equation": "ijk,jk->i"}),
    ("MatMulNBits", [(2, 64)], MS, {"K": 64}),
    ("QMoE", [(2, 64)], MS, {}),
    ("Anything", [(2, 64)], "some.where", {}),
]


@pytest.mark.parametrize(("op", "shapes", "domain", "attributes"), UNPROVEN)
def test_what_is_not_known_is_not_counted(op, shapes, domain, attributes) -> None:
    assert macs(one(op, shapes, domain=domain, **attributes)) is None


def test_dynamic_dimensions_are_bound_to_sizes() -> None:
    model = one("MatMul", [("N", 5), (5, 6)])
    assert macs(model, i00=8) == 240
    assert macs(model) == 30


def test_sizes_decide_what_symbols_cannot() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 4] x, float[4, 5] w, float[N] unused) => (float[M, 5] y)
    <int64[1] four = {4}>
    {
        shape = Shape <start = 0, end = 1> (x)
        yes = Equal (shape, four)
        a = If (yes) <then_branch = t () => (float[K, 4] p) { p = Identity (x) },
                      else_branch = e () => (float[4] q) { q = ReduceSum <keepdims = 0> (x, zero) }>
        y = MatMul (a, w)
    }"""
    model = parse(text.replace("four = {4}", "four = {4}, int64[1] zero = {0}"))
    assert macs(model, x0=4) == 4 * 4 * 5
    assert macs(model, x0=3) == 4 * 5


IF = """<ir_version: 8, opset_import: ["" : 17]>
g ({cond} x1, float[4, 5] x, float[5, 6] w, float[6, 6] v) => (float[4, 6] y)
<bool no = {{0}}>
{{
    y = If ({read}) <
        then_branch = t () => (float[4, 6] p) {{ h = MatMul (x, w) p = MatMul (h, v) }},
        else_branch = e () => (float[4, 6] q) {{ q = MatMul (x, w) }}>
}}"""


def test_of_two_branches_the_dearer_counts() -> None:
    assert macs(parse(IF.format(cond="bool", read="x1"))) == 120 + 144


def test_of_a_proven_condition_the_branch_that_runs_counts() -> None:
    assert macs(parse(IF.format(cond="bool", read="no"))) == 120


LOOP = """<ir_version: 8, opset_import: ["" : 17]>
g (float[4, 5] x, float[5, 5] w, float[N] n) => (float[4, 5] y)
<int64 most = {{{trips}}}, bool yes = {{1}}>
{{
    size = Size (n)
    y = Loop ({count}, yes, x) <body = b (int64 i, bool c, float[4, 5] s) => (bool k, float[4, 5] r)
        {{ {goes} r = MatMul (s, w) }}>
}}"""


@pytest.mark.parametrize(
    ("count", "goes", "expected"),
    [
        ("most", "k = Identity (c)", 700),
        ("size", "k = Identity (c)", 300),
        ("most", "m = ReduceMax <keepdims = 0> (s) z = Sub (m, m) k = Greater (m, z)", 100),
        ("", "k = Identity (c)", 100),
    ],
)
def test_a_loop_counts_as_often_as_it_is_proven_to_run(count, goes, expected) -> None:
    model = parse(LOOP.format(trips=7, count=count, goes=goes))
    assert macs(model, n0=3) == expected


def test_a_loop_that_never_runs_costs_nothing() -> None:
    assert macs(parse(LOOP.format(trips=0, count="most", goes="k = Identity (c)"))) == 0


def test_a_scan_counts_the_length_of_its_sequence() -> None:
    model = parse("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 5] x, float[T, 1, 5] s, float[5, 5] w) => (float[1, 5] y, float[T, 1, 5] z)
    {
        y, z = Scan <num_scan_inputs = 1, body = b (float[1, 5] h, float[1, 5] e)
            => (float[1, 5] k, float[1, 5] o) { p = MatMul (h, w) k = Add (p, e) o = Identity (k) }>
            (x, s)
    }""")
    assert macs(model, s0=9) == 9 * 25


FUNCTION = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
g (float[4, 5] x, float[5, 6] w, float[6, 6] v) => (float[4, 6] y)
{ h = local.twice (x, w) y = local.twice (h, v) }
<domain: "local", opset_import: ["" : 17]>
twice (a, b) => (c) { p = MatMul (a, b) q = MatMul (a, b) c = Add (p, q) }
"""


def test_a_function_counts_once_for_each_call_with_the_shapes_of_that_call() -> None:
    model = parse(FUNCTION)
    assert macs(model) == 2 * 120 + 2 * 144
    cache = {}
    assert known_macs(model, infer(model.graph, model.functions), cache) == 2 * 120 + 2 * 144
    assert not cache


def test_attributes_of_a_function_reach_its_body() -> None:
    model = parse("""<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    g (float[4, 5] x, float[6, 5] w) => (float[4, 6] y) { y = local.f <t = 1> (x, w) }
    <domain: "local", opset_import: ["" : 17]>
    f <t> (a, b) => (c) { c = Gemm <transB : int = @t> (a, b) }
    """)
    assert macs(model) == 120


def test_known_macs_leave_out_what_is_unknown_and_remember_the_rest() -> None:
    model = parse("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[4, 5] x, float[5, 6] w, float z) => (float[4, 6] y, float u)
    { y = MatMul (x, w) u = MatMul (z, z) }""")
    facts, cache = infer(model.graph), {}
    assert known_macs(model, facts, cache) == 120
    assert [entry[1] for entry in cache.values()] == [120]
    assert count_macs(model, facts) is None


def test_a_chain_of_identities_that_bites_its_tail_ends() -> None:
    model = parse(LOOP.format(trips=7, count="most", goes="k = Identity (c)"))
    (loop,) = (node for node in model.graph.nodes if node.op == "Loop")
    (body,) = loop.bodies()
    identity = next(node for node in body.nodes if node.op == "Identity")
    identity.inputs[0] = identity.outputs[0]
    assert count_macs(model, infer(model.graph)) == 100


def test_a_real_constant_weight_counts() -> None:
    weight = numpy_helper.from_array(np.zeros((5, 6), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [4, 5])],
        [helper.make_tensor_value_info("y", FLOAT, [4, 6])],
        [weight],
    )
    assert macs(Model.load(helper.make_model(graph, ir_version=10))) == 120
