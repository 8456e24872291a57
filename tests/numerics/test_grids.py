"""Affine integer grids: the bound of their error, zero, and the same as ONNX computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from graphopt.numerics.grids import FURTHEST, AffineGrid, fitted_parameters, power_of_two

GRIDS = [AffineGrid.of(bits, signed) for bits in range(2, 17) for signed in (False, True)]
GRIDS += [AffineGrid.of(8, signed, reduced=True) for signed in (False, True)]
GRIDS += [AffineGrid(-127, 127), AffineGrid(-1, 1)]

TYPES = {
    (0, 255): TensorProto.UINT8,
    (-128, 127): TensorProto.INT8,
    (0, 65535): TensorProto.UINT16,
    (-32768, 32767): TensorProto.INT16,
    (0, 15): TensorProto.UINT4,
    (-8, 7): TensorProto.INT4,
}

S8 = AffineGrid(-128, 127)

numbers = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40).map(
    lambda values: np.array(values, np.float32)
)


def slack(grid: AffineGrid) -> float:
    """What float32 rounding may add to half a step: of x / s, of s itself and of (q - z) s, each 2^-24."""
    return 4 * grid.steps * 2.0**-24


def test_the_grids_of_types() -> None:
    assert AffineGrid.of(8, signed=False) == AffineGrid(0, 255)
    assert AffineGrid.of(8, signed=True) == AffineGrid(-128, 127)
    assert AffineGrid.of(8, signed=False, reduced=True) == AffineGrid(0, 127)
    assert AffineGrid.of(8, signed=True, reduced=True) == AffineGrid(-64, 63)
    assert AffineGrid.of(16, signed=True) == AffineGrid(-32768, 32767)
    assert AffineGrid.of(4, signed=False) == AffineGrid(0, 15)
    dtypes = {(-8, 7): "i1", (0, 127): "u1", (-128, 128): "i2", (0, 65535): "u2", (0, 65536): "u4"}
    assert {ends: AffineGrid(*ends).dtype.str[1:] for ends in dtypes} == dtypes


@pytest.mark.parametrize("ends", [(0, 1), (3, 3), (5, -5), (-(2**31) - 1, 0), (0, 2**31)])
def test_what_is_no_grid(ends: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no integer grid"):
        AffineGrid(*ends)


@pytest.mark.parametrize("bits, reduced", [(1, False), (2, True), (17, False)])
def test_what_is_no_width(bits: int, reduced: bool) -> None:
    with pytest.raises(ValueError, match="2 to 16 bits"):
        AffineGrid.of(bits, signed=True, reduced=reduced)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@given(values=numbers)
@settings(max_examples=15, deadline=None)
def test_inside_the_range_the_error_is_half_a_step(
    grid: AffineGrid, symmetric: bool, values: np.ndarray
) -> None:
    scale, zero = grid.parameters(values.min(), values.max(), symmetric)
    steps = grid.quantized(values, scale, zero)
    assert grid.low <= steps.min() and steps.max() <= grid.high
    gap = np.abs(grid.dequantized(steps, scale, zero).astype(np.float64) - values)
    assert (gap <= float(scale) * (0.5 + slack(grid))).all()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
@given(values=numbers)
@settings(max_examples=10, deadline=None)
def test_zero_is_exact_and_order_is_kept(
    grid: AffineGrid, symmetric: bool, values: np.ndarray
) -> None:
    scale, zero = grid.parameters(values.min(), values.max(), symmetric)
    assert grid.low <= zero <= grid.high
    assert (
        grid.dequantized(grid.quantized([0.0, -0.0], scale, zero), scale, zero).tolist()
        == [0.0] * 2
    )
    beyond = np.concatenate([np.sort(values), [np.inf]])
    steps = grid.quantized(beyond, scale, zero).astype(np.int64)
    assert (np.diff(steps) >= 0).all() and steps[-1] == grid.high
    assert int(grid.quantized(-np.inf, scale, zero)) == grid.low


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_what_lies_on_the_grid_stays(grid: AffineGrid) -> None:
    scale, zero = grid.parameters(-1.3, 2.9)
    steps = np.arange(grid.low, grid.high + 1).astype(grid.dtype)
    again = grid.quantized(grid.dequantized(steps, scale, zero), scale, zero)
    assert again.dtype == grid.dtype
    assert np.array_equal(again, steps)


def onnx_model(type_: int, opset: int = 21) -> ReferenceEvaluator:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=0),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=0),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, None]),
        helper.make_tensor_value_info("s", TensorProto.FLOAT, [None]),
        helper.make_tensor_value_info("z", type_, [None]),
    ]
    outputs = [
        helper.make_tensor_value_info("q", type_, [None, None]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None]),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    return ReferenceEvaluator(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    )


@pytest.mark.parametrize("ends", TYPES)
@pytest.mark.parametrize("symmetric", [False, True])
def test_it_computes_what_onnx_defines(ends: tuple[int, int], symmetric: bool) -> None:
    grid, rng = AffineGrid(*ends), np.random.default_rng(0)
    x = (rng.normal(size=(6, 500)) * 10.0 ** rng.integers(-6, 6, (6, 1))).astype(np.float32)
    low, high = np.percentile(x, [2, 98], axis=1)
    scale, zero = grid.parameters(low, high, symmetric)
    x[:, :200] = (rng.integers(-99, 99, (6, 200)) + 0.5) * scale[:, None]  # ties
    dtype = helper.tensor_dtype_to_np_dtype(TYPES[ends])
    feeds = {"x": x, "s": scale, "z": zero.astype(dtype)}
    q, y = map(np.asarray, onnx_model(TYPES[ends]).run(None, feeds))
    steps = grid.quantized(x, scale[:, None], zero[:, None])
    assert np.array_equal(steps, q.astype(np.int64))
    found = grid.dequantized(steps, scale[:, None], zero[:, None])
    assert found.dtype == np.float32
    assert np.array_equal(found, y)


def test_the_parameters_of_known_ranges() -> None:
    u8, s8 = AffineGrid.of(8, signed=False), AffineGrid.of(8, signed=True)

    def both(
        grid: AffineGrid, low: float, high: float, symmetric: bool = False
    ) -> tuple[float, int]:
        scale, zero = grid.parameters(low, high, symmetric)
        assert scale.dtype == np.float32 and zero.dtype == np.int32 and scale.shape == ()
        return float(scale), int(zero)

    assert both(u8, 0.0, 255.0) == (1.0, 0)
    assert both(u8, 51.0, 255.0) == (1.0, 0)
    assert both(u8, -255.0, -51.0) == (1.0, 255)
    assert both(u8, -128.0, 127.0) == (1.0, 128)
    assert both(s8, 0.0, 255.0) == (1.0, -128)
    assert both(s8, -127.0, 127.0, symmetric=True) == (1.0, 0)
    assert both(s8, -128.0, 5.0, symmetric=True) == (1.0, 0)
    assert both(s8, 0.0, 127.0, symmetric=True) == (1.0, 0)
    assert both(u8, -64.0, 127.0, symmetric=True) == (1.0, 128)
    assert both(AffineGrid(0, 127), 0.0, 63.0, symmetric=True) == (1.0, 64)
    assert both(AffineGrid(0, 15), -8.0, 0.0, symmetric=True) == (1.0, 8)
    assert both(u8, 0.0, 0.0) == (1.0, 0)
    assert both(s8, 0.0, 0.0, symmetric=True) == (1.0, 0)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_scale_is_a_normal_number(grid: AffineGrid, symmetric: bool) -> None:
    ends = np.array([0.0, 5e-324, 1e-45, 1e-38, 1.0, 3.4e38, 1e300])
    low, high = np.repeat(-ends, len(ends)), np.tile(ends, len(ends))
    scale, zero = grid.parameters(low, high, symmetric)
    assert (scale >= np.finfo(np.float32).tiny).all() and np.isfinite(scale).all()
    for step in (grid.low, grid.high):
        assert np.isfinite(grid.dequantized(np.full(len(low), step), scale, zero)).all()
    assert (grid.dequantized(zero, scale, zero) == 0).all()
    most = grid.parameters(-1e300, 1e300, symmetric)
    assert most == grid.parameters(-FURTHEST, FURTHEST, symmetric)


def test_each_channel_has_its_parameters() -> None:
    scale, zero = AffineGrid(0, 255).parameters([0.0, -255.0, 0.0], [255.0, 255.0, 0.0])
    assert scale.tolist() == [1.0, 2.0, 1.0]
    assert zero.tolist() == [0, 128, 0]


@pytest.mark.parametrize("ends", [(np.nan, 1.0), (0.0, np.inf), (-np.inf, 0.0), (1.0, 0.5)])
def test_what_is_no_range(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="range"):
        AffineGrid(0, 255).parameters(*ends)


def test_nan_is_on_no_grid() -> None:
    with pytest.raises(ValueError, match="NaN"):
        AffineGrid(0, 255).quantized([1.0, np.nan], 1.0, 0)


def test_numbers_beyond_float32_saturate() -> None:
    assert AffineGrid(-8, 7).quantized([1e300, -1e300], 1e-30, 0).tolist() == [7, -8]
    wide = AffineGrid(-(2**31), 2**31 - 1)
    assert wide.quantized([3e9, -3e9, 7.0], 1.0, 0).tolist() == [2**31 - 1, -(2**31), 7]


@given(st.floats(1e-40, 1e38))
@settings(max_examples=200, deadline=None)
def test_the_next_power_of_two(scale: float) -> None:
    found = float(power_of_two(scale))
    assert scale <= found < 2 * scale
    assert np.frexp(found)[0] == 0.5


def test_powers_of_two_stay() -> None:
    exact = 2.0 ** np.arange(-149, 128)
    assert np.array_equal(power_of_two(exact), exact.astype(np.float32))
    assert power_of_two(exact).dtype == np.float32
    assert np.array_equal(power_of_two(exact[:-1] * 1.01), 2 * exact[:-1])


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 3e38, 1e-60])
def test_what_has_no_power_of_two(scale: float) -> None:
    with pytest.raises(ValueError, match="power of two"):
        power_of_two([1.0, scale])


def weights(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_t(3, size=(5, 64)) * rng.lognormal(size=(5, 1)) + rng.normal(size=(5, 1))


def loss(
    values: np.ndarray,
    grid: AffineGrid,
    scale: np.ndarray,
    zero: np.ndarray,
    importance: np.ndarray | float = 1.0,
) -> np.ndarray:
    gap = grid.dequantized(grid.quantized(values, scale, zero), scale, zero) - values
    return np.asarray(np.sum(importance * gap**2, axis=1))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(
    "grid",
    [AffineGrid(-2, 1), AffineGrid(-8, 7), AffineGrid(0, 15), AffineGrid(-128, 127)],
    ids=str,
)
@pytest.mark.parametrize("seed", range(3))
def test_fitted_parameters_are_never_worse(seed: int, grid: AffineGrid, symmetric: bool) -> None:
    values = weights(seed)
    covering = grid.parameters(
        values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True), symmetric
    )
    fitted = fitted_parameters(values, grid, (1,), symmetric)
    assert [part.shape for part in fitted] == [(5, 1), (5, 1)]
    before, after = loss(values, grid, *covering), loss(values, grid, *fitted)
    assert (after <= before).all()
    assert grid.steps > 15 or after.sum() < before.sum()


def test_small_kernels_are_fitted_on_a_fine_grid_too() -> None:
    kernels = np.random.default_rng(0).normal(size=(200, 9))
    covering = S8.parameters(
        kernels.min(axis=1, keepdims=True), kernels.max(axis=1, keepdims=True), symmetric=True
    )
    fitted = fitted_parameters(kernels, S8, (1,), symmetric=True)
    assert loss(kernels, S8, *fitted).sum() < 0.9 * loss(kernels, S8, *covering).sum()


def test_what_counts_more_is_fitted_better() -> None:
    values, grid = weights(1), AffineGrid(-4, 3)
    importance = np.random.default_rng(2).lognormal(sigma=2, size=64)
    plain = fitted_parameters(values, grid, (1,))
    weighed = fitted_parameters(values, grid, (1,), importance=importance)
    assert (
        loss(values, grid, *weighed, importance) <= loss(values, grid, *plain, importance) * 1.001
    ).all()
    assert (
        loss(values, grid, *weighed, importance).sum()
        < loss(values, grid, *plain, importance).sum()
    )
