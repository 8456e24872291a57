"""Sparse and shared rates on weights whose zeros and repeats are known."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from graphopt.ir import rates
from graphopt.ir.model import Model
from graphopt.ir.rates import shared_rate, sparse_rate
from graphopt.testing import parse

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'


def model(body: str, **constants: np.ndarray) -> Model:
    """A model of some nodes on an input ``x`` with these constants."""
    return loaded("g (float[N] x) => (float[M] y) {" + body + "}", constants)


def loaded(text: str, constants: dict[str, np.ndarray]) -> Model:
    parsed = parser.parse_model(HEAD + text)
    for name, values in constants.items():
        parsed.graph.initializer.append(numpy_helper.from_array(values, name))
    return Model.load(parsed)


def rate_of(body: str, **constants: np.ndarray) -> tuple[float | None, float | None]:
    made = model(body, **constants)
    return sparse_rate(made), shared_rate(made)


F = np.float32


def test_zeros_and_repeats_of_floats() -> None:
    values = np.array([0, -0.0, 1, 1, 2, 3, 4, 5], F)
    assert rate_of("y = Add (x, w)", w=values) == (2 / 8, (8 - 6) / 8)


@pytest.mark.parametrize(
    "dtype", [np.float64, np.float16, ml_dtypes.bfloat16, np.int8, ml_dtypes.int4]
)
def test_every_type_of_weights(dtype) -> None:
    values = np.array([0, 0, 1, 1, 2, -3, 4, 5]).astype(dtype)
    assert rate_of("w = Cast <to = 1> (q) y = Add (x, w)", q=values) == (2 / 8, 2 / 8)


def test_a_nan_is_one_value() -> None:
    assert rate_of("y = Add (x, w)", w=np.array([np.nan, np.nan, 1, 2], F)) == (0, 1 / 4)


def test_tensors_are_looked_at_apart_and_shared_ones_once() -> None:
    a, b = np.array([0, 1, 2, 3], F), np.array([0, 1], F)
    body = "p = Add (x, a) q = Mul (p, a) y = Add (q, b)"
    assert rate_of(body, a=a, b=b) == (2 / 6, 0)


def test_scalars_and_what_nothing_reads_are_no_weights() -> None:
    assert rate_of("y = Mul (x, s)", s=np.array(0, F), unused=np.zeros(9, F)) == (None, None)


def test_shapes_and_indices_are_no_weights() -> None:
    body = "r = Reshape (x, shape) y = Gather (r, picks)"
    assert rate_of(body, shape=np.array([1, 4]), picks=np.array([0, 0])) == (None, None)


def test_scales_and_zero_points_are_no_weights() -> None:
    body = "w = DequantizeLinear <axis = 0> (q, s, z) y = Add (x, w)"
    q = np.array([[0, 1, 2], [0, 0, 3]], np.int8)
    assert rate_of(body, q=q, s=np.ones(2, F), z=np.zeros(2, np.int8)) == (3 / 6, 2 / 6)


def test_a_quantized_weight_is_zero_at_its_zero_point() -> None:
    body = "w = DequantizeLinear <axis = 0> (q, s, z) y = Add (x, w)"
    q = np.array([[7, 7, 2], [0, 9, 9]], np.uint8)
    scale, zero = np.ones(2, F), np.array([7, 9], np.uint8)
    assert rate_of(body, q=q, s=scale, z=zero)[0] == 4 / 6
    assert rate_of(body, q=q, s=np.array(1, F), z=np.array(7, np.uint8))[0] == 2 / 6


def test_zero_points_of_blocks() -> None:
    body = "w = DequantizeLinear <axis = 1, block_size = 2> (q, s, z) y = Add (x, w)"
    q = np.array([[7, 0, 9, 9]], np.uint8)
    assert rate_of(body, q=q, s=np.ones((1, 2), F), z=np.array([[7, 9]], np.uint8))[0] == 3 / 4


def test_a_codebook_counts_its_indices() -> None:
    book, picks = np.array([0, 0.5, -1], F), np.array([[0, 1, 1], [2, 0, 1]], np.uint8)
    body = "i = Cast <to = 7> (picks) w = Gather (book, i) y = Add (x, w)"
    assert rate_of(body, book=book, picks=picks) == (2 / 6, 3 / 6)


def test_a_codebook_of_quantized_values() -> None:
    book, picks = np.array([3, 5, 6], np.int8), np.array([0, 1, 1, -1])
    body = "c = Gather (book, picks) w = DequantizeLinear (c, s, z) y = Add (x, w)"
    constants = {"s": np.array(1, F), "z": np.array(5, np.int8)}
    assert rate_of(body, book=book, picks=picks, **constants) == (2 / 4, 1 / 4)


def test_indices_that_the_codebook_lacks_do_no_harm() -> None:
    body = "w = Gather (book, picks) y = Add (x, w)"
    picks = np.array([0, 1 << 40, -(1 << 40), 1])
    assert rate_of(body, book=np.array([0, 1], F), picks=picks) == (1 / 4, 2 / 4)


def test_an_embedding_is_weights() -> None:
    table = np.arange(6, dtype=F).reshape(3, 2)
    text = "g (int64[N] x) => (float[N, 2] y) { y = Gather (t, x) }"
    assert sparse_rate(loaded(text, {"t": table})) == 1 / 6


def test_constants_of_nodes_and_of_bodies_count() -> None:
    made = parse(
        HEAD
        + """g (bool c, float[2] x) => (float[2] y) {
        v = Constant <value = float[2] {0, 1}> ()
        y = If (c) <then_branch = t () => (float[2] p) { p = Add (x, v) },
                    else_branch = e () => (float[2] q) <float[2] u = {0, 0}> { q = Add (x, u) }>
    }"""
    )
    assert (sparse_rate(made), shared_rate(made)) == (3 / 4, 1 / 4)


def test_pieces_add_up(monkeypatch) -> None:
    values = np.arange(100, dtype=F) % 7
    body = "y = Add (x, w)"
    whole = rate_of(body, w=values), rate_of(body, w=values.astype(np.float16))
    monkeypatch.setattr(rates, "PART", 9)
    assert whole == (rate_of(body, w=values), rate_of(body, w=values.astype(np.float16)))
    assert whole[0] == (15 / 100, 93 / 100)


def test_a_sparse_tensor_counts_as_what_it_stands_for() -> None:
    made = parser.parse_model(HEAD + "g (float[8] x) => (float[8] y) { y = Add (x, w) }")
    values = numpy_helper.from_array(np.array([1, 2], F), "w")
    indices = numpy_helper.from_array(np.array([3, 5]), "i")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8]))
    held = Model.load(made)
    assert (sparse_rate(held), shared_rate(held)) == (6 / 8, 5 / 8)
    assert held.constants()[0].stored._array is None, "it was never made dense"


def test_a_model_without_weights_has_no_rate() -> None:
    graph = helper.make_graph([], "g", [], [])
    graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]))
    graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]))
    assert sparse_rate(Model.load(helper.make_model(graph, ir_version=10))) is None
