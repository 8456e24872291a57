"""Constants of few values, held as places."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from graphopt.ir.indexed import PORTION, Indexed
from graphopt.testing import parse

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,64] x, float[64,96] w) => (float[N,96] y) { y = MatMul(x, w) }"""


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int8])
@pytest.mark.parametrize("count", [1, 2, 100])
def test_contents_are_those_that_were_given(dtype, count: int) -> None:
    rng = np.random.default_rng(count)
    book = np.unique((rng.standard_normal(count) * 20).astype(dtype))
    values = book[rng.integers(0, len(book), (7, 5, 3))]
    found = Indexed.of(values)
    assert found is not None
    assert found.dtype == dtype and found.shape == values.shape
    assert found.nbytes == values.nbytes
    assert np.array_equal(found.load(), values) and found.load().dtype == dtype
    with pytest.raises(ValueError, match="read-only"):
        found.load()[0] = 0


def test_256_values_are_places_and_257_are_not() -> None:
    values = np.arange(257, dtype=np.float32)
    found = Indexed.of(values[:256])
    assert found is not None and found.places.dtype == np.uint8
    assert np.array_equal(found.load(), values[:256])
    assert Indexed.of(values) is None
    assert Indexed.of(values[:0]) is None


def test_places_are_found_by_portions() -> None:
    values = np.random.default_rng(0).integers(0, 9, PORTION + 5).astype(np.float32)
    found = Indexed.of(values)
    assert found is not None and np.array_equal(found.load(), values)


def test_minus_zero_is_zero() -> None:
    found = Indexed.of(np.array([-0.0, 0.0, 1.0, -0.0], np.float32))
    assert found is not None
    assert not np.signbit(found.load()).any()


@pytest.mark.parametrize("external", [False, True])
def test_a_model_with_places_is_copied_and_written_as_one_with_floats(
    external: bool, tmp_path
) -> None:
    model = parse(MODEL, ("w",))
    constant = next(iter(model.constants()))
    values = np.random.default_rng(0).integers(0, 5, (64, 96)).astype(np.float32)
    written = []
    for each in (values, Indexed.of(values)):
        assert each is not None
        constant.values = each
        assert constant.nbytes == values.nbytes
        assert constant.dtype == np.float32 and tuple(constant.shape) == (64, 96)
        copied = next(iter(model.copy().constants()))
        assert np.array_equal(copied.values, values)
        assert (constant.indexed is None) == isinstance(each, np.ndarray)
        model.external = external
        model.save(tmp_path / "model.onnx")
        written.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert written[0] == written[1]
