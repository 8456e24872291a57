"""Accept: bodies, functions, odd interfaces, odd names, operators of other domains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from corpus import Made, accept, floats, model, simple, text, value
from onnx import TensorProto as T
from onnx import helper

LOCAL = ', "local" : 1'
BRANCHES = "<then_branch = t () => (float[2] a) { %s }, else_branch = e () => (float[2] b) { %s }>"


@accept(feeds={"x": np.ones(2, np.float32), "c": np.array(True)})
def nested_ifs_with_captures(_: Path) -> Made:
    inner = BRANCHES.replace("(float[2] a)", "(float[2] k)").replace("(float[2] b)", "(float[2] l)")
    inner = inner % ("k = Mul(n, w)", "l = Sub(x, n)")
    outer = BRANCHES % (f"n = Neg(x) c2 = Not(c) a = If (c2) {inner}", "b = Exp(x)")
    made = text(f"g (float[2] x, bool c) => (float[2] y) {{ y = If (c) {outer} }}")
    made.graph.initializer.append(floats("w", 2))
    return made


@accept(gone=("If",))
def constant_if(_: Path) -> Made:
    return text(
        "g (float[2] x) => (float[2] y) { c = Constant<value = bool {1}>() r = If (c) "
        + BRANCHES % ("a = Neg(x)", "b = Exp(x)")
        + " y = Relu(r) }"
    )


@accept(gone=("If",))
def constant_if_is_the_output(_: Path) -> Made:
    return text(
        "g (float[2] x) => (float[2] y) { c = Constant<value = bool {0}>() y = If (c) "
        + BRANCHES % ("a = Neg(x)", "b = Identity(x)")
        + " }"
    )


def _deep(depth: int, constant: bool) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["r0"])], "g0", [], [value("r0", T.FLOAT, [2])]
    )
    for level in range(1, depth + 1):
        other = helper.make_graph(
            [helper.make_node("Exp", ["x"], [f"o{level}"])],
            f"o{level}",
            [],
            [value(f"o{level}", T.FLOAT, [2])],
        )
        node = helper.make_node("If", ["c"], [f"r{level}"], then_branch=graph, else_branch=other)
        graph = helper.make_graph([node], f"g{level}", [], [value(f"r{level}", T.FLOAT, [2])])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    made.graph.input.append(value("x", T.FLOAT, [2]))
    if constant:
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "c"))
    else:
        made.graph.input.append(value("c", T.BOOL, []))
    return made


@accept((3, 20, 29))
def deep_ifs(_: Path, depth: int) -> Made:
    return _deep(depth, False)


@accept((3, 20, 29), gone=("If",))
def deep_constant_ifs(_: Path, depth: int) -> Made:
    return _deep(depth, True)


@accept()
def loop_with_captures(_: Path) -> Made:
    return text(
        "g (float[2] x) => (float[2] y, float[K,2] s) { n = Constant<value = int64 {3}>() c = "
        "Constant<value = bool {1}>() "
        "w = Neg(x) y, s = Loop (n, c, x) <body = b (int64 i, bool ci, float[2] v) => (bool co, "
        "float[2] u, float[2] z) "
        "{ co = Identity(ci) k = Constant<value = float {2.0}>() d = Mul(v, k) u = Add(d, w) z = "
        "Identity(u) }> }"
    )


@accept()
def scan_with_captures(_: Path) -> Made:
    return text(
        "g (float[4,2] x, float[2] s) => (float[2] y, float[4,2] o) { w = Exp(s) y, o = Scan (s, x) "
        "<num_scan_inputs = 1, body = b (float[2] v, float[2] e) => (float[2] u, float[2] z) "
        "{ d = Mul(e, w) u = Add(v, d) z = Identity(u) }> }"
    )


@accept()
def sequence_map(_: Path) -> Made:
    return text(
        "g (float[2] x) => (float[2] y) { n = Neg(x) s = SequenceConstruct(x, n) m = SequenceMap (s, n) "
        "<body = b (float[2] e, float[2] f) => (float[2] r) { r = Add(e, f) }> "
        "i = Constant<value = int64 {1}>() y = SequenceAt(m, i) }"
    )


def _branch(node: onnx.NodeProto) -> onnx.GraphProto:
    return next(entry.g for entry in node.attribute if entry.name == "then_branch")


@accept()
def body_initializer_is_captured(_: Path) -> Made:
    made = _deep(2, False)
    inner = _branch(made.graph.node[0])
    inner.initializer.append(floats("k", 2))
    deepest = _branch(inner.node[0])
    deepest.node[0].op_type = "Add"
    deepest.node[0].input.append("k")
    return made


@accept()
def nested_functions(_: Path) -> Made:
    return text(
        "g (float[2] x) => (float[2] y) { y = local.outer(x) }\n"
        f'<domain: "local", opset_import: ["" : 21{LOCAL}]> outer (p) => (q) '
        f"{{ r = local.inner(p) q = Relu(r) }}\n"
        '<domain: "local", opset_import: ["" : 21]> inner (p) => (q) { q = Neg(p) }',
        imports=LOCAL,
    )


@accept()
def function_shadows_relu(_: Path) -> Made:
    return text(
        "g (float[2] x) => (float[2] y) { a = Relu(x) y = Relu(a) }\n"
        '<domain: "", opset_import: ["" : 21]> Relu (p) => (q) { q = Neg(p) }'
    )


@accept(runs=False, keeps=("Identity",))
def function_shadows_identity(_: Path) -> Made:
    return text(
        "g (float[2] x) => (float[2] y) { a = Identity(x) y = Abs(a) }\n"
        '<domain: "", opset_import: ["" : 21]> Identity (p) => (q) { q = Exp(p) }'
    )


@accept()
def function_attribute_references(_: Path) -> Made:
    return text(
        "g (float[2,3] x) => (float[2,3] y) { a = local.soft <axis = 0> (x) y = local.soft(a) }\n"
        '<domain: "local", opset_import: ["" : 21]> soft <axis: int = 1> (p) => (q) '
        "{ q = Softmax <axis: int = @axis> (p) }",
        imports=LOCAL,
    )


@accept()
def function_of_another_opset(_: Path) -> Made:
    return text(
        "g (float[2,3] x) => (float[2,3] y) { y = local.f(x) }\n"
        '<domain: "local", opset_import: ["" : 12]> f (p) => (q) { q = Softmax <axis = 0> (p) }',
        imports=LOCAL,
    )


@accept((50, 500))
def many_functions(_: Path, count: int) -> Made:
    calls = " ".join(f"x{i + 1} = local.f{i}(x{i})" for i in range(count))
    bodies = "\n".join(
        f'<domain: "local", opset_import: ["" : 21]> f{i} (p) => (q) {{ q = Neg(p) }}'
        for i in range(count)
    )
    return text(f"g (float[2] x0) => (float[2] x{count}) {{ {calls} }}\n{bodies}", imports=LOCAL)


@accept(runs=False)
def function_unused_and_overloads(_: Path) -> Made:
    made = simple()
    for overload in ("", "a", "b"):
        made.functions.append(
            helper.make_function(
                "local", "f", ["p"], ["q"], [helper.make_node("Neg", ["p"], ["q"])],
                [helper.make_opsetid("", 21)], overload=overload,
            )
        )  # fmt: skip
    made.opset_import.add(domain="local", version=1)
    return made


@accept()
def input_is_the_output(_: Path) -> Made:
    return model([], [value("x", T.FLOAT, [2])], [value("x", T.FLOAT, [2])])


@accept()
def initializer_is_the_output(_: Path) -> Made:
    return model([], [value("x", T.FLOAT, [2])], [value("w", T.FLOAT, [2])], [floats("w", 2)])


@accept()
def constant_outputs(_: Path) -> Made:
    made = text(
        "g (float[2] x) => (float[2] y, float[2] z, float[2] w) { y = Neg(w) z = Identity(w) }"
    )
    made.graph.initializer.append(floats("w", 2))
    return made


@accept()
def outputs_that_are_equal(_: Path) -> Made:
    return text(
        "g (float[2] x) => (float[2] y, float[2] z, float[2] i) { y = Neg(x) z = Neg(x) i = Identity(x) }"
    )


@accept()
def unused_inputs(_: Path) -> Made:
    return text(
        "g (float[2] x, int64[N] unused, string s) => (float[2] y) { y = Neg(x) d = Exp(x) }"
    )


@accept(feeds={"x": np.array(1, np.float32), "e": np.ones((0, 3), np.float32)})
def scalars_and_empty_tensors(_: Path) -> Made:
    made = text(
        "g (float x, float[0,3] e) => (float y, float[A,3] z) { y = Neg(x) z = Concat<axis = 0>(e, w, e) }"
    )
    made.graph.initializer.append(floats("w", 0, 3))
    return made


@accept([("minus", -1), ("question", "?"), ("none", None), ("empty", "")])
def declared_dim(_: Path, dim: object) -> Made:
    made = text("g (float[2,3] x) => (float[2,3] y) { h = Neg(x) y = Relu(h) }")
    for info in (made.graph.input[0], made.graph.output[0]):
        first = info.type.tensor_type.shape.dim[0]
        first.Clear()
        if isinstance(dim, int):
            first.dim_value = dim
        elif dim is not None:
            first.dim_param = str(dim)
    return made


@accept(feeds={"x": np.ones((0, 3), np.float32)})
def declared_dim_zero(_: Path) -> Made:
    return declared_dim(_, 0)


@accept()
def unknown_rank(_: Path) -> Made:
    made = text("g (float[2] x) => (float[2] y) { h = Neg(x) y = Relu(h) }")
    made.graph.input[0].type.tensor_type.ClearField("shape")
    made.graph.output[0].type.tensor_type.ClearField("shape")
    return made


@accept()
def output_without_type(_: Path) -> Made:
    made = text("g (float[2] x) => (float[2] y) { h = Neg(x) y = Relu(h) }")
    made.graph.output[0].ClearField("type")
    return made


@accept((("output", True), ("value_info", False)))
def wrong_declared_shape(_: Path, output: bool) -> Made:
    made = text("g (float[2,3] x) => (float[A,B] y) { h = Transpose(x) y = Relu(h) }")
    if output:
        made.graph.output[0].CopyFrom(value("y", T.FLOAT, [2, 7]))
    else:
        made.graph.value_info.append(value("h", T.FLOAT, [9, 9, 9]))
    return made


@accept()
def value_info_of_nothing(_: Path) -> Made:
    made = simple()
    made.graph.value_info.extend([value("ghost", T.FLOAT, [3]), value("h", T.FLOAT, ["N", 8])])
    return made


@accept()
def nodes_out_of_order(_: Path) -> Made:
    made = simple()
    nodes = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend(reversed(nodes))
    return made


@accept()
def sequence_types(_: Path) -> Made:
    return text(
        "g (seq(float[2]) s, int64 i) => (float[2] y, seq(float[2]) t) { y = SequenceAt(s, i) t = "
        "SequenceInsert(s, y) }"
    )


@accept()
def optional_types(_: Path) -> Made:
    return text(
        "g (optional(float[2]) o, float[2] x) => (bool h, float[2] y, optional(float[2]) p) "
        "{ h = OptionalHasElement(o) y = OptionalGetElement(o) p = Optional(x) }"
    )


@accept(runs=False)
def map_type(_: Path) -> Made:
    node = helper.make_node(
        "ZipMap", ["x"], ["z"], domain="ai.onnx.ml", classlabels_strings=["a", "b", "c"]
    )
    out = onnx.ValueInfoProto(name="z")
    kind = out.type.sequence_type.elem_type.map_type
    kind.key_type = T.STRING
    kind.value_type.tensor_type.elem_type = T.FLOAT
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    return model([node], [value("x", T.FLOAT, [2, 3])], [out], opset_imports=imports)


@accept(runs=False)
def custom_operator(_: Path) -> Made:
    made = text(
        "g (float[2] x) => (float[2] y) { a = custom.Thing<k = 3>(x) y = Relu(a) }",
        imports=', "custom" : 99',
    )
    made.graph.node[0].attribute.append(helper.make_attribute("raw", b"\xff\x00"))
    return made


@accept(keeps=("FusedMatMul",))
def runtime_operator(_: Path) -> Made:
    return text(
        "g (float[2,2] x) => (float[2,2] y) { y = com.microsoft.FusedMatMul<alpha = 2.0>(x, x) }",
        imports=', "com.microsoft" : 1',
    )


@accept((("spelled", True), ("plain", False)))
def both_names_of_the_domain(_: Path, on_node: bool) -> Made:
    made = simple()
    if on_node:
        made.graph.node[1].domain = "ai.onnx"
    made.opset_import[0].domain = "ai.onnx"
    return made


@accept()
def omitted_inputs_and_outputs(_: Path) -> Made:
    made = text(
        "g (float[1,4] x) => (float[N,4] y, int64[M] u) { m = Constant<value = float {0.5}>() "
        "y = Clip(x, , m) f = Reshape(x, s) a, , , u = Unique<sorted = 1>(f) }"
    )
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1]), "s"))
    return made
