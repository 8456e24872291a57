"""Rows of a node's input, times its weights, are what ONNX Runtime computes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.runtime.observing_layers import rows_of
from graphopt.testing import parse

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'


def layer(op, data, weight, attributes, index=0):
    """A model of one node, its data and its weights."""
    inputs = [("x", data), ("w", weight)]
    if index:
        inputs.reverse()
    declared = ", ".join(f"float{list(a.shape)} {name}" for name, a in inputs)
    node = helper.make_node(op, [name for name, _ in inputs], ["y"], **attributes)
    model = parse(HEAD + f"g ({declared}) => (float[M] y) {{ y = {op}(x, w) }}", ("w",))
    proto = model.to_proto()
    proto.graph.node[0].CopyFrom(node)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    model = Model.load(proto)
    for constant in model.constants():
        constant.values = weight
    return model


def computed(native, model, data):
    native.call("open", "layer", model.to_bytes())
    (result,) = native.call("run", "layer", {"x": data})
    native.call("close", "layer")
    return result


def table(rows, array):
    made = rows.table(array)
    return made.take(np.arange(made.count))


def weights_of(op, weight, group):
    """The weights as one matrix for each group, as the documentation has them."""
    for part in np.split(weight, group):
        if op == "Conv":
            yield part.reshape(len(part), -1).T
        else:
            yield np.moveaxis(part, 1, -1).reshape(-1, part.shape[1])


CONVOLUTIONS = [
    ("Conv", (2, 4, 9), (6, 4, 3), {"pads": [2, 0], "strides": [2], "dilations": [2]}),
    ("Conv", (2, 4, 7, 6), (6, 4, 3, 2), {"kernel_shape": [3, 2], "pads": [1, 0, 2, 1]}),
    ("Conv", (2, 4, 7, 6), (4, 1, 3, 3), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", (2, 4, 7, 6), (6, 2, 2, 2), {"group": 2, "auto_pad": "SAME_LOWER", "strides": [2, 1]}),
    ("Conv", (2, 4, 7, 6), (6, 4, 4, 2), {"auto_pad": "VALID", "strides": [2, 1]}),
    ("Conv", (2, 2, 5, 4, 6), (3, 2, 2, 3, 1), {"pads": [0, 1, 0, 1, 1, 0], "strides": [1, 2, 3]}),
    ("Conv", (1, 3, 5, 5), (2, 3, 1, 1), {}),
    ("ConvTranspose", (2, 4, 5), (4, 3, 3), {"strides": [2], "pads": [1, 0]}),
    ("ConvTranspose", (2, 4, 5, 4), (4, 3, 3, 2), {"strides": [3, 2], "output_padding": [1, 0]}),
    ("ConvTranspose", (2, 4, 5, 4), (4, 2, 3, 3), {"group": 2, "dilations": [2, 1]}),
    ("ConvTranspose", (2, 4, 5, 4), (4, 1, 2, 2), {"group": 4, "strides": [2, 2]}),
    ("ConvTranspose", (2, 3, 5, 4), (3, 2, 3, 3), {"strides": [2, 2], "output_shape": [10, 8]}),
    (
        "ConvTranspose",
        (2, 3, 5, 4),
        (3, 2, 3, 3),
        {"strides": [2, 2], "output_shape": [10, 8], "auto_pad": "SAME_UPPER"},
    ),
    (
        "ConvTranspose",
        (2, 3, 5, 4),
        (3, 2, 4, 3),
        {"strides": [2, 2], "output_shape": [9, 8], "auto_pad": "SAME_LOWER"},
    ),
    ("ConvTranspose", (2, 3, 5, 4), (3, 2, 3, 4), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", (2, 3, 5, 4), (3, 2, 3, 4), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ("ConvTranspose", (2, 3, 5, 4), (3, 2, 3, 4), {"strides": [2, 2], "auto_pad": "VALID"}),
    ("ConvTranspose", (1, 2, 3, 3, 2), (2, 2, 2, 3, 1), {"strides": [2, 1, 2]}),
]


@pytest.mark.parametrize(("op", "shape", "kernel", "attributes"), CONVOLUTIONS)
def test_convolutions(native, op, shape, kernel, attributes) -> None:
    rng = np.random.default_rng(0)
    data = rng.standard_normal(shape).astype(np.float32)
    weight = rng.standard_normal(kernel).astype(np.float32)
    model = layer(op, data, weight, attributes)
    rows = rows_of(model.graph.nodes[0])
    assert not isinstance(rows, str), rows
    group = attributes.get("group", 1)
    parts = np.split(table(rows, data), group, axis=1)
    pairs = zip(parts, weights_of(op, weight, group), strict=True)
    found = np.concatenate([part @ matrix for part, matrix in pairs], axis=1)
    result = np.moveaxis(computed(native, model, data), 1, -1)
    np.testing.assert_allclose(found, result.reshape(-1, result.shape[-1]), atol=1e-5)


@pytest.mark.parametrize(
    ("op", "index", "shape", "weight", "attributes"),
    [
        ("MatMul", 0, (2, 3, 4), (4, 5), {}),
        ("MatMul", 0, (4,), (4, 5), {}),
        ("MatMul", 1, (4, 3), (5, 4), {}),
        ("MatMul", 1, (2, 4, 3), (5, 4), {}),
        ("Gemm", 0, (3, 4), (4, 5), {}),
        ("Gemm", 0, (4, 3), (4, 5), {"transA": 1}),
        ("Gemm", 0, (3, 4), (5, 4), {"transB": 1}),
        ("Gemm", 1, (4, 3), (5, 4), {}),
        ("Gemm", 1, (3, 4), (5, 4), {"transB": 1}),
    ],
)
def test_matrix_products(native, op, index, shape, weight, attributes) -> None:
    rng = np.random.default_rng(0)
    data = rng.standard_normal(shape).astype(np.float32)
    matrix = rng.standard_normal(weight).astype(np.float32)
    model = layer(op, data, matrix, attributes, index)
    rows = rows_of(model.graph.nodes[0], index)
    turned = matrix.T if index or attributes.get("transB") else matrix
    found = table(rows, data) @ turned
    result = computed(native, model, data)
    if index:
        result = np.moveaxis(result, -2, -1)
    np.testing.assert_allclose(found, result.reshape(-1, 5), atol=1e-5)


@pytest.mark.parametrize(
    ("body", "index", "why"),
    [
        ("y = Relu(x)", 0, "is a Relu, not a Conv"),
        ("y = Conv(x, w)", 1, "only the first input of a convolution"),
        ("y = Conv(x, w)", 2, "no input 2"),
        ("y = MatMul(x, w)", -1, "no input -1"),
        ("y = Conv<pads=[-1,0]>(x, w)", 0, "negative pads"),
        ("y = Conv<strides=[1,1]>(x, w)", 0, "ranks"),
        ("r = Relu(w)\n y = Conv(x, r)", 0, "size of its kernel is not known"),
    ],
)
def test_what_has_no_rows_is_told(body, index, why) -> None:
    model = parse(HEAD + f"g (float[1,2,5] x, float[3,2,2] w) => (float[N] y) {{ {body} }}")
    found = rows_of(model.graph.nodes[-1], index)
    assert isinstance(found, str)
    assert why in found


def test_a_function_of_the_users_is_not_the_standard_operator() -> None:
    model = parse(
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]>\n'
        "g (float[2,3] x, float[3,4] w) => (float[2,4] y) { y = own.MatMul(x, w) }\n"
        '<domain: "own", opset_import: ["" : 17]>\n'
        "MatMul (a, b) => (c) { c = MatMul(a, b) }"
    )
    assert isinstance(rows_of(model.graph.nodes[0]), str)
    assert not any(isinstance(t, Constant) for t in model.graph.nodes[0].inputs)
