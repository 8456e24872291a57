"""Accept: element types, ways to store a tensor, what a file may say beside its graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from corpus import Made, accept, floats, model, simple, text, value
from onnx import TensorProto as T
from onnx import helper, numpy_helper

PLAIN = ("FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16", "INT8", "UINT16", "INT32", "UINT64", "BOOL")
SMALL = ("INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1")
EIGHT = ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ")


def stored(name: str, kind: int, *shape: int) -> onnx.TensorProto:
    """A stored tensor of any element type with the values 0, 1, 0, 1, ..."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    bits = np.arange(int(np.prod(shape))) % 2
    return numpy_helper.from_array(bits.astype(dtype).reshape(shape), name)


@accept(PLAIN + SMALL + EIGHT)
def dtype_cast(_: Path, kind: str) -> Made:
    number = T.DataType.Value(kind)
    nodes = [
        helper.make_node("Cast", ["w"], ["f"], to=T.FLOAT),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    io = [value("x", T.FLOAT, [5])], [value("y", T.FLOAT, [5])]
    opset, ir = (25, 13) if "2" in kind and "INT2" in kind else (23, 11)
    return model(nodes, *io, [stored("w", number, 5)], opset=opset, ir=ir)


@accept(("COMPLEX64", "COMPLEX128", "FLOAT8E8M0", "STRING", *SMALL, *EIGHT), runs=False)
def dtype_returned(_: Path, kind: str) -> Made:
    number = T.DataType.Value(kind)
    if kind == "STRING":
        tensor = numpy_helper.from_array(np.array(["a", "ß", ""], dtype=object), "w")
    else:
        tensor = stored("w", number, 3)
    nodes = [
        helper.make_node("Identity", ["w"], ["y"]),
        helper.make_node("Relu", ["x"], ["z"]),
    ]
    outputs = [value("y", number, [3]), value("z", T.FLOAT, [3])]
    return model(nodes, [value("x", T.FLOAT, [3])], outputs, [tensor], opset=25, ir=13)


@accept()
def typed_data_fields(_: Path) -> Made:
    tensors = [
        helper.make_tensor("a", T.FLOAT, [3], [1, 2, 3]),
        helper.make_tensor("b", T.INT64, [1], [3]),
        helper.make_tensor("c", T.FLOAT16, [3], [1, 2, 3]),
        helper.make_tensor("d", T.UINT4, [3], [1, 2, 3]),
        helper.make_tensor("e", T.BOOL, [3], [1, 0, 1]),
        helper.make_tensor("f", T.UINT32, [3], [1, 0, 1]),
        helper.make_tensor("s", T.STRING, [2], ["a", "b"]),
    ]
    nodes = [
        helper.make_node("Add", ["x", "a"], ["x0"]),
        helper.make_node("Reshape", ["x0", "b"], ["x1"]),
    ]
    for index, name in enumerate("cdef", 1):
        nodes.append(helper.make_node("Cast", [name], [f"{name}f"], to=T.FLOAT))
        nodes.append(helper.make_node("Add", [f"x{index}", f"{name}f"], [f"x{index + 1}"]))
    nodes.append(helper.make_node("Identity", ["s"], ["t"]))
    outputs = [value("x5", T.FLOAT, [3]), value("t", T.STRING, [2])]
    return model(nodes, [value("x", T.FLOAT, [3])], outputs, tensors)


@accept(range(7, 27))
def opset(_: Path, number: int) -> Made:
    made = text(
        "g (float[N,4] x) => (float[N,3] y) { h = MatMul(x, w) i = Identity(h) r = Relu(i) "
        "c = Add(b, b) m = Add(r, c) y = Softmax(m) }",
        opset=number,
        ir=min(3 + (number - 6) // 2, 11),
    )
    made.graph.initializer.extend([floats("w", 4, 3), floats("b", 3)])
    if made.ir_version < 4:
        made.graph.input.extend([value("w", T.FLOAT, [4, 3]), value("b", T.FLOAT, [3])])
    return made


@accept(gone=("Identity",))
def ir3_initializers_are_inputs(_: Path) -> Made:
    made = text(
        "g (float[2] x, float[2] w) => (float[2] y) { i = Identity(w) y = Add(x, i) }", 8, 3
    )
    made.graph.initializer.append(floats("w", 2))
    return made


@accept(keeps=("Add", "Mul"), feeds={"x": np.ones(2, np.float32), "w": np.full(2, 5, np.float32)})
def overridable_initializer(_: Path) -> Made:
    made = text("g (float[2] x, float[2] w) => (float[2] y) { v = Add(w, w) y = Mul(x, v) }")
    made.graph.initializer.append(floats("w", 2))
    return made


@accept(keeps=("If",), feeds={"x": np.ones(2, np.float32), "c": np.array(False)})
def overridable_condition(_: Path) -> Made:
    made = text(
        "g (float[2] x, bool c) => (float[2] y) { y = If (c) "
        "<then_branch = t () => (float[2] a) { a = Neg(x) }, else_branch = e () => (float[2] b) { b "
        "= Exp(x) }> }"
    )
    made.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    return made


@accept(keeps=("Reshape",), feeds={"x": np.ones((2, 3), np.float32), "s": np.array([6, 1])})
def overridable_shape(_: Path) -> Made:
    made = text("g (float[2,3] x, int64[2] s) => (float[A,B] y) { y = Reshape(x, s) }")
    made.graph.initializer.append(numpy_helper.from_array(np.array([3, 2]), "s"))
    return made


@accept((("linear", False), ("coordinates", True)))
def sparse_initializer(_: Path, coordinates: bool) -> Made:
    made = text("g (float[3,4] x) => (float[3,4] y) { y = Add(x, w) }", opset=13, ir=8)
    indices = np.array([[0, 1], [2, 3]]) if coordinates else np.array([1, 11])
    sparse = made.graph.sparse_initializer.add(dims=[3, 4])
    sparse.values.CopyFrom(floats("w", 2))
    sparse.indices.CopyFrom(numpy_helper.from_array(indices, "w_i"))
    return made


@accept()
def sparse_constant_node(_: Path) -> Made:
    sparse = helper.make_sparse_tensor(
        floats("v", 2), numpy_helper.from_array(np.array([1, 11]), "i"), [3, 4]
    )
    nodes = [
        helper.make_node("Constant", [], ["w"], sparse_value=sparse),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    return model(
        nodes, [value("x", T.FLOAT, [3, 4])], [value("y", T.FLOAT, [3, 4])], opset=13, ir=8
    )


@accept()
def constant_node_forms(_: Path) -> Made:
    return text(
        "g (float[2] x) => (float[2] y, string[1] s, int64[2] k) { a = Constant<value_float = 2.0>() "
        "b = Constant<value_floats = [1.0, 2.0]>() c = Constant<value_int = 3>() k = "
        "Constant<value_ints = [3, 4]>() "
        's = Constant<value_strings = ["ü"]>() p = Add(x, a) q = Add(p, b) d = Cast<to = 1>(c) y = '
        "Add(q, d) }"
    )


def _outside(folder: Path, location: str, one: bool, offset: int = 0) -> Made:
    made = simple()
    for index, tensor in enumerate(made.graph.initializer):
        name = location if one else f"{location}.{index}"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        old = path.read_bytes() if path.exists() else b"\0" * offset
        path.write_bytes(old + tensor.raw_data)
        for key, entry in (
            ("location", name),
            ("offset", len(old)),
            ("length", len(tensor.raw_data)),
        ):
            tensor.external_data.add(key=key, value=str(entry))
        tensor.ClearField("raw_data")
        tensor.data_location = T.EXTERNAL
    return made


@accept(
    [
        ("one_file", "w.bin", True, 0),
        ("file_each", "w", False, 0),
        ("subfolder", "a/b/w.bin", True, 0),
        ("unaligned", "w.bin", True, 3),
        ("odd_name", "wéight s%d{}.bin", True, 0),
        ("dotted", "./w.bin", True, 0),
        ("hidden", ".w..bin", True, 0),
    ]
)
def external(folder: Path, location: str, one: bool, offset: int) -> Made:
    return _outside(folder, location, one, offset)


@accept()
def external_without_length(folder: Path) -> Made:
    made = _outside(folder, "w", False)
    assert isinstance(made, onnx.ModelProto)
    for tensor in made.graph.initializer:
        del tensor.external_data[1:]
    return made


@accept()
def external_in_body_and_function(folder: Path) -> Made:
    made = text(
        "g (float[4] x, bool c) => (float[4] y) { v = local.twice(x) y = If (c) "
        "<then_branch = t () => (float[4] a) { k = Constant<value = float[4] {1,2,3,4}>() a = Add(v, k) }, "
        "else_branch = e () => (float[4] b) { b = Neg(v) }> }\n"
        '<domain: "local", opset_import: ["" : 21]> twice (p) => (q) '
        "{ k = Constant<value = float[4] {1,2,3,4}>() q = Add(p, k) }",
        imports=', "local" : 1',
    )
    (folder / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    branch = made.graph.node[1].attribute[0].g.node[0].attribute[0].t
    for tensor in (branch, made.functions[0].node[0].attribute[0].t):
        del tensor.float_data[:]
        tensor.data_location = T.EXTERNAL
        tensor.external_data.add(key="location", value="w.bin")
    return made


@accept()
def metadata_and_documentation(_: Path) -> Made:
    made = simple()
    made.producer_name, made.domain, made.model_version = "p", "d.e", 7
    made.doc_string = "<b>bold</b>\x1b[31m"
    made.metadata_props.add(key="k", value="v\n\x00w")
    made.graph.doc_string = "graph"
    made.graph.node[3].doc_string = "node"
    made.graph.node[3].metadata_props.add(key="n", value="1")
    made.graph.quantization_annotation.add(tensor_name="y").quant_parameter_tensor_names.add(
        key="SCALE_TENSOR", value="b"
    )
    return made


@accept()
def training_info(_: Path) -> Made:
    made = simple()
    step = made.training_info.add()
    step.algorithm.CopyFrom(text("alg () => (float[3] s) { s = Neg(b) }").graph)
    step.update_binding.add(key="b", value="s")
    return made


@accept()
def strings(_: Path) -> Made:
    made = text(
        "g (string[N] x) => (int64[N,2] y, string[2] s) { e = StringConcat(x, c) y, z = "
        "StringSplit(e) s = Identity(c2) }"
    )
    del made.graph.output[0]
    made.graph.output.insert(0, value("e", T.STRING, ["N"]))
    made.graph.initializer.append(numpy_helper.from_array(np.array(["ß"], dtype=object), "c"))
    made.graph.initializer.append(
        numpy_helper.from_array(np.array(["\x1b[2J", ""], dtype=object), "c2")
    )
    return made
