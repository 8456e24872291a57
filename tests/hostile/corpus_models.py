"""Refuse: messages that parse but are no valid model. Either: valid ones that nothing can bear."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from corpus import Made, either, floats, model, refuse, simple, text, value
from onnx import TensorProto as T
from onnx import helper, numpy_helper

LOCAL = ', "local" : 1'
QUICK = ("--timeout", "3")
BROKEN: dict[str, Callable[[onnx.ModelProto], object]] = {
    "no_graph": lambda m: m.ClearField("graph"),
    "no_opset": lambda m: m.ClearField("opset_import"),
    "opset_zero": lambda m: setattr(m.opset_import[0], "version", 0),
    "opset_negative": lambda m: setattr(m.opset_import[0], "version", -3),
    "opset_future": lambda m: setattr(m.opset_import[0], "version", 10**9),
    "ir_zero": lambda m: setattr(m, "ir_version", 0),
    "ir_missing": lambda m: m.ClearField("ir_version"),
    "ir_2": lambda m: setattr(m, "ir_version", 2),
    "ir_future": lambda m: setattr(m, "ir_version", 10**12),
    "ir_negative": lambda m: setattr(m, "ir_version", -1),
    "undefined_input": lambda m: m.graph.node[0].input.__setitem__(0, "none"),
    "undefined_output": lambda m: setattr(m.graph.output[0], "name", "none"),
    "output_has_no_name": lambda m: m.graph.output[0].ClearField("name"),
    "input_has_no_name": lambda m: m.graph.input.add(),
    "input_twice": lambda m: m.graph.input.append(m.graph.input[0]),
    "written_twice": lambda m: m.graph.node[2].output.__setitem__(0, "h"),
    "writes_an_input": lambda m: m.graph.node[2].output.__setitem__(0, "x"),
    "writes_an_initializer": lambda m: m.graph.node[2].output.__setitem__(0, "b"),
    "initializer_twice": lambda m: m.graph.initializer.append(m.graph.initializer[0]),
    "initializer_without_name": lambda m: m.graph.initializer[0].ClearField("name"),
    "reads_itself": lambda m: m.graph.node[1].input.__setitem__(0, "r"),
    "cycle": lambda m: m.graph.node[0].input.__setitem__(0, "y"),
    "unknown_operator": lambda m: setattr(m.graph.node[1], "op_type", "Reluu"),
    "no_operator": lambda m: m.graph.node[1].ClearField("op_type"),
    "unknown_attribute": lambda m: m.graph.node[1].attribute.append(helper.make_attribute("k", 1)),
    "attribute_without_type": lambda m: m.graph.node[1].attribute.add(name="k"),
    "attribute_twice": lambda m: (
        setattr(m.graph.node[1], "op_type", "LeakyRelu"),
        m.graph.node[1].attribute.extend([helper.make_attribute("alpha", 0.5)] * 2),
    ),
    "attribute_of_wrong_type": lambda m: (
        setattr(m.graph.node[1], "op_type", "LeakyRelu"),
        m.graph.node[1].attribute.append(helper.make_attribute("alpha", "x")),
    ),
    "too_many_inputs": lambda m: m.graph.node[1].input.append("b"),
    "too_few_inputs": lambda m: m.graph.node[0].input.pop(),
    "too_many_outputs": lambda m: m.graph.node[1].output.append("extra"),
    "shapes_do_not_fit": lambda m: m.graph.initializer[0].CopyFrom(floats("w", 5, 8)),
    "type_error": lambda m: m.graph.initializer[2].CopyFrom(_ints("b", [1, 2, 3])),
    "element_type_unknown": lambda m: setattr(m.graph.initializer[0], "data_type", 99),
    "element_type_undefined": lambda m: setattr(m.graph.initializer[0], "data_type", 0),
    "element_type_negative": lambda m: setattr(m.graph.initializer[0], "data_type", -5),
    "input_type_unknown": lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 99),
    "output_type_unknown": lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", 99),
    "output_type_wrong": lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", T.INT8),
    "input_without_type": lambda m: m.graph.input[0].ClearField("type"),
    "negative_dim": lambda m: m.graph.initializer[2].dims.__setitem__(0, -3),
    "two_negative_dims": lambda m: m.graph.initializer[0].dims.__setitem__(slice(None), [-4, -8]),
    "raw_data_short": lambda m: _raw(m, lambda b: b[:-1]),
    "raw_data_long": lambda m: _raw(m, lambda b: b + b"\0"),
    "raw_data_twice": lambda m: _raw(m, lambda b: 2 * b),
    "raw_data_absent": lambda m: m.graph.initializer[0].ClearField("raw_data"),
    "raw_data_and_floats": lambda m: m.graph.initializer[0].float_data.extend([0.0] * 32),
    "data_in_wrong_field": lambda m: (
        m.graph.initializer[2].ClearField("raw_data"),
        m.graph.initializer[2].int64_data.extend([1, 2, 3]),
    ),
    "dims_beyond_memory": lambda m: m.graph.initializer[0].dims.__setitem__(0, 1 << 40),
    "dims_overflow": lambda m: m.graph.initializer[0].dims.extend([1 << 62] * 8),
    "text_as_raw_data": lambda m: setattr(m.graph.initializer[2], "data_type", T.STRING),
    "unknown_domain": lambda m: (
        setattr(m.graph.node[1], "domain", "ai.onnx.ml"),
        m.opset_import.add(domain="ai.onnx.ml", version=3),
    ),
}


def _raw(made: onnx.ModelProto, change: Callable[[bytes], bytes]) -> None:
    made.graph.initializer[0].raw_data = change(made.graph.initializer[0].raw_data)


def _ints(name: str, values: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values), name)


@refuse(params=BROKEN)
def broken(_: Path, kind: str) -> Made:
    made = simple()
    BROKEN[kind](made)
    return made


BODIES = {
    "if_without_branches": "y = If (c)",
    "if_without_else": "y = If (c) <then_branch = t () => (float[2] a) { a = Neg(x) }>",
    "if_with_inputs": "y = If (c) <then_branch = t (float[2] q) => (float[2] a) { a = Neg(q) }, "
    "else_branch = e () => (float[2] b) { b = Neg(x) }>",
    "if_of_floats": "y = If (x) <then_branch = t () => (float[2] a) { a = Neg(x) }, "
    "else_branch = e () => (float[2] b) { b = Neg(x) }>",
    "branches_return_nothing": "y = If (c) <then_branch = t () => () { a = Neg(x) }, else_branch = e "
                               "() => () { b = Neg(x) }>",
    "branch_reads_the_other": "y = If (c) <then_branch = t () => (float[2] a) { a = Neg(b) }, "
    "else_branch = e () => (float[2] b) { b = Neg(x) }>",
    "outer_reads_inner": "z = If (c) <then_branch = t () => (float[2] a) { a = Neg(x) }, "
    "else_branch = e () => (float[2] b) { b = Neg(x) }> y = Add(z, a)",
    "body_reads_its_own_output": "y = If (c) <then_branch = t () => (float[2] a) { a = Neg(y) }, "
    "else_branch = e () => (float[2] b) { b = Neg(x) }>",
    "loop_body_of_wrong_arity": "y = Loop (, c, x) <body = b (int64 i) => (bool co) { co = Identity(c) }>",
    "concat_of_ranks": "y = Concat<axis = 0>(x, k)",
    "gather_of_floats": "y = Gather(x, x)",
}  # fmt: skip


@refuse(params=BODIES)
def broken_body(_: Path, kind: str) -> Made:
    return text(
        f"g (float[2] x, bool c) => (float[A] y) "
        f"{{ k = Constant<value = float[1,1] {{1}}>() {BODIES[kind]} }}"
    )


FUNCTION = '<domain: "local", opset_import: ["" : 21, "local" : 1]> '
FUNCTIONS = {
    "calls_itself": FUNCTION + "f (p) => (q) { q = local.f(p) }",
    "mutual": FUNCTION + "f (p) => (q) { q = local.h(p) }\n" + FUNCTION + "h (p) => (q) { q = local.f(p) }",
    "ring": "\n".join(
        FUNCTION + f"{a} (p) => (q) {{ q = local.{b}(p) }}" for a, b in (("f", "h"), ("h", "i"), ("i", "f"))
    ),
    "recursion_in_a_body": FUNCTION + "f (p) => (q) { k = Constant<value = bool {1}>() q = If (k) "
    "<then_branch = t () => (float[2] a) { a = local.f(p) }, else_branch = e () => (float[2] b) { b "
    "= Neg(p) }> }",
    "twice": FUNCTION + "f (p) => (q) { q = Neg(p) }\n" + FUNCTION + "f (p) => (q) { q = Exp(p) }",
    "undefined_input": FUNCTION + "f (p) => (q) { q = Neg(z) }",
    "undefined_output": FUNCTION + "f (p) => (q) { r = Neg(p) }",
    "reads_the_graph": FUNCTION + "f (p) => (q) { q = Neg(x) }",
    "input_twice": FUNCTION + "f (p, p) => (q) { q = Neg(p) }",
    "unknown_operator": FUNCTION + "f (p) => (q) { q = Reluu(p) }",
}  # fmt: skip


@refuse(params=FUNCTIONS)
def broken_function(_: Path, kind: str) -> Made:
    return text(
        "g (float[2] x) => (float[2] y) { y = local.f(x) }\n" + FUNCTIONS[kind], imports=LOCAL
    )


@refuse(params=(60, 300))
def nested_deeply(_: Path, depth: int) -> Made:
    """Branches in branches, written as bytes since protobuf refuses to build them."""
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["r"])], "g", [], [value("r", T.FLOAT, [2])]
    )
    data = graph.SerializeToString()
    for _level in range(depth):
        branch = helper.make_attribute("then_branch", 1)
        branch.ClearField("i")
        branch.type = onnx.AttributeProto.GRAPH
        data = _field(5, branch.SerializeToString() + _field(6, data))
        data = _field(1, helper.make_node("If", ["c"], ["r"]).SerializeToString() + data)
        data += _field(2, b"g")
    return simple().SerializeToString() + _field(7, data)


def _field(number: int, content: bytes) -> bytes:
    size, count = b"", len(content)
    while count > 127:
        size += bytes([count & 127 | 128])
        count >>= 7
    return bytes([number << 3 | 2]) + size + bytes([count]) + content


def _sparse(indices: object, dims: list[int], kind: int = T.FLOAT) -> onnx.ModelProto:
    made = text("g (float[3,4] x) => (float[3,4] y) { y = Add(x, w) }", opset=13, ir=8)
    sparse = made.graph.sparse_initializer.add(dims=dims)
    sparse.values.CopyFrom(floats("w", 2))
    sparse.values.data_type = kind
    sparse.indices.CopyFrom(_ints("i", indices))
    return made


SPARSE = {
    "beyond": ([1, 12], [3, 4]),
    "negative": ([-1, 1], [3, 4]),
    "negative_dims": ([0, 1], [-3, -4]),
    "too_many_indices": ([0, 1, 2], [3, 4]),
    "too_few_indices": ([0], [3, 4]),
    "wrong_rank": ([[0, 1, 2], [0, 1, 2]], [3, 4]),
    "unsorted": ([5, 1], [3, 4]),
    "twice": ([1, 1], [3, 4]),
}


@refuse(params=SPARSE)
def broken_sparse(_: Path, kind: str) -> Made:
    return _sparse(*SPARSE[kind])


@either()
def sparse_bomb(_: Path) -> Made:
    made = _sparse([1, 2], [1 << 20, 1 << 20])
    made.graph.input[0].CopyFrom(value("x", T.FLOAT, [1]))
    made.graph.output[0].CopyFrom(value("y", T.FLOAT, None))
    return made


@either(arguments=QUICK)
def sparse_of_4_gib(_: Path) -> Made:
    made = _sparse([1, 2], [1 << 15, 1 << 15])
    made.graph.input[0].CopyFrom(value("x", T.FLOAT, [1]))
    made.graph.output[0].CopyFrom(value("y", T.FLOAT, None))
    return made


@either((10,), arguments=("--timeout", "1.5"))
def billion_laughs(_: Path, depth: int) -> Made:
    bodies = [
        FUNCTION + f"f{i} (p) => (q) {{ " + " ".join(
            f"t{k + 1} = {f'local.f{i - 1}' if i else 'Neg'}({'p' if k == 0 else f't{k}'})" for k in range(4)
        ) + " q = Neg(t4) }"
        for i in range(depth)
    ]  # fmt: skip
    return text(
        f"g (float[2] x) => (float[2] y) {{ y = local.f{depth - 1}(x) }}\n" + "\n".join(bodies),
        imports=LOCAL,
    )


@either((25, 90), arguments=QUICK, slow=True)
def trillion_laughs(_: Path, depth: int) -> Made:
    return billion_laughs(_, depth)


def _function_chain(count: int) -> onnx.ModelProto:
    bodies = [
        FUNCTION + f"f{i} (p) => (q) {{ q = {f'local.f{i - 1}' if i else 'Neg'}(p) }}"
        for i in range(count)
    ]
    head = f"g (float[2] x) => (float[2] y) {{ y = local.f{count - 1}(x) }}\n"
    return text(head + "\n".join(bodies), imports=LOCAL)


@either((60,))
def function_chain(_: Path, count: int) -> Made:
    return _function_chain(count)


@either((300, 1000), slow=True, seconds=60)
def long_function_chain(_: Path, count: int) -> Made:
    return _function_chain(count)


ODD: dict[str, Callable[[], onnx.ModelProto]] = {
    "huge_axis": lambda: text(
        "g (float[2] x) => (float[2] y) { y = Softmax<axis = 9223372036854775807>(x) }"
    ),
    "huge_perm": lambda: text(
        "g (float[2,2] x) => (float[2,2] y) { y = Transpose<perm = [4294967296, 0]>(x) }"
    ),
    "huge_pads": lambda: text(
        "g (float[1,1,4,4] x) => (float[A,B,C,D] y) { y = MaxPool<kernel_shape = [2,2], pads = "
        "[2147483647,0,0,0]>(x) }"
    ),
    "zero_stride": lambda: text(
        "g (float[1,1,4,4] x) => (float[A,B,C,D] y) { y = MaxPool<kernel_shape = [2,2], strides = [0,0]>(x) }"
    ),
    "negative_kernel": lambda: text(
        "g (float[1,1,4,4] x) => (float[A,B,C,D] y) { y = AveragePool<kernel_shape = [-2,2]>(x) }"
    ),
    "split_in_a_billion": lambda: text(
        "g (float[2] x) => (float[A] y) { y = Split<num_outputs = 1000000000>(x) }"
    ),
    "rank_1000": lambda: model(
        [helper.make_node("Relu", ["x"], ["y"])],
        [value("x", T.FLOAT, [1] * 1000)],
        [value("y", T.FLOAT, [1] * 1000)],
    ),
    "dims_overflow": lambda: model(
        [helper.make_node("Relu", ["x"], ["y"])],
        [value("x", T.FLOAT, [1 << 40, 1 << 40])],
        [value("y", T.FLOAT, [1 << 40, 1 << 40])],
    ),
    "input_of_16_gib": lambda: text(
        "g (float[4294967296] x) => (float[4294967296] y) { y = Relu(x) }"
    ),
    "division_at_run_time": lambda: text(
        "g (int64[2] x) => (int64[2] y) { z = Sub(x, x) y = Div(x, z) }"
    ),
    "gather_out_of_range": lambda: text(
        "g (float[2] x) => (float[1] y) { i = Constant<value = int64[1] {1000000}>() y = Gather(x, i) }"
    ),
    "einsum": lambda: text(
        'g (float[2] x) => (float[2] y) { y = Einsum<equation = "i,i,i->ii...">(x, x) }'
    ),
    "regex": lambda: text(
        'g (string[1] x) => (bool[1] y) { y = RegexFullMatch<pattern = "(a*)*(a*)*(a*)*b">(x) }'
    ),
    "no_outputs": lambda: model([], [value("x", T.FLOAT, [2])], []),
    "output_twice": lambda: model(
        [helper.make_node("Relu", ["x"], ["y"])],
        [value("x", T.FLOAT, [2])],
        [value("y", T.FLOAT, [2])] * 2,
    ),
    "always_fails": lambda: text(
        "g (float[2] x) => (float[A] y) { s = Constant<value = int64[1] {7}>() y = Reshape(x, s) }"
    ),
    "function_missing": lambda: text(
        "g (float[2] x) => (float[2] y) { y = local.f(x) }", imports=LOCAL
    ),
    "nothing": lambda: model([], [], []),
    "shape_of_itself": lambda: text(
        "g (float[N] x) => (float[A] y) { s = Shape(x) t = Mul(s, s) u = Mul(t, t) v = Mul(u, u) w = "
        "Mul(v, v) "
        "y = Expand(x, w) }"
    ),
}


@either(arguments=QUICK, mebibytes=3500, seconds=60, slow=True)
def string_bomb(_: Path) -> Made:
    return text(
        'g (string[1] x) => (string[1] y) { s0 = Constant<value_strings = ["aaaaaaaaaaaaaaaa"]>() '
        + " ".join(f"s{i + 1} = StringConcat(s{i}, s{i})" for i in range(30))
        + " y = StringConcat(x, s30) }"
    )


@either(params=ODD, arguments=QUICK)
def odd(_: Path, kind: str) -> Made:
    return ODD[kind]()
