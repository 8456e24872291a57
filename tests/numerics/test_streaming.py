"""Statistics of streams equal those of the whole array, however it is cut."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics.streaming import (
    Histogram,
    HistogramSpec,
    Moments,
    MomentsSpec,
    Range,
    RangeSpec,
)
from graphopt.numerics.streaming.accumulator import BLOCK, by_channel

SPECIAL = (np.nan, np.inf, -np.inf)


@st.composite
def streams(draw):
    """Chunks of one array along axis 0, an axis or None, and the array."""
    rank = draw(st.integers(1, 4))
    shape = [draw(st.integers(0, 7)), *(draw(st.integers(1, 5)) for _ in range(rank - 1))]
    axis = draw(st.none() | st.integers(min(1, rank - 1), rank - 1)) if rank > 1 else None
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    dtype = draw(st.sampled_from(["float16", "float32", "float64"]))
    scale = 10.0 ** draw(st.integers(-4, 3))
    array = np.asarray(rng.standard_normal(shape) * scale + draw(st.sampled_from([0, 0, 50])))
    array[rng.random(shape) < draw(st.sampled_from([0, 0.3]))] = 0
    array = array.astype(dtype)
    if draw(st.booleans()):
        array[rng.random(shape) < 0.2] = draw(st.sampled_from(SPECIAL))
    cuts = sorted(draw(st.lists(st.integers(0, shape[0]), max_size=3)))
    return np.split(array, cuts), axis, array


def fed(spec, chunks):
    found = spec.start()
    for chunk in chunks:
        found.add(chunk)
    return found


def merged(spec, chunks, order):
    parts = [fed(spec, [chunk]) for chunk in chunks]
    found = spec.start()
    for number in order:
        found.merge(parts[number])
    return found


def same(one, two, tolerance=0.0):
    a, b = one.state(), two.state()
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=tolerance, err_msg=name)


def channels(array, axis):
    """The finite elements of each channel."""
    view = by_channel(array.astype(np.float64), axis)
    flat = [view[:, c].reshape(-1) for c in range(view.shape[1])]
    return [values[np.isfinite(values)] for values in flat], view[:, 0].size


def shaped(values, axis):
    return np.asarray(values).reshape(() if axis is None else (-1,))


@settings(max_examples=120, deadline=None)
@given(streams())
def test_range_of_chunks_is_the_range_of_the_whole(stream) -> None:
    chunks, axis, array = stream
    found = fed(RangeSpec(axis), chunks)
    parts, size = channels(array, axis)
    expected = {
        "minimum": [p.min(initial=np.inf) for p in parts],
        "maximum": [p.max(initial=-np.inf) for p in parts],
        "count": [p.size for p in parts],
        "zeros": [(p == 0).sum() for p in parts],
        "rejected": [size - p.size for p in parts],
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(found, name), shaped(values, axis), err_msg=name)
    magnitudes = shaped([np.abs(p).max(initial=0) for p in parts], axis)
    np.testing.assert_array_equal(found.absolute, magnitudes)
    same(found, merged(RangeSpec(axis), chunks, range(len(chunks))))
    same(found, merged(RangeSpec(axis), chunks, reversed(range(len(chunks)))))


@settings(max_examples=120, deadline=None)
@given(streams())
def test_moments_of_chunks_are_the_moments_of_the_whole(stream) -> None:
    chunks, axis, array = stream
    found = fed(MomentsSpec(axis), chunks)
    parts, size = channels(array, axis)
    scale = max((np.abs(p).max(initial=0) for p in parts), default=0)
    np.testing.assert_array_equal(found.count, shaped([p.size for p in parts], axis))
    np.testing.assert_array_equal(found.rejected, shaped([size - p.size for p in parts], axis))
    for name, function, unit in (
        ("mean", np.mean, scale),
        ("variance", np.var, scale**2),
        ("second", lambda p: np.mean(p**2), scale**2),
    ):
        values = shaped([function(p) if p.size else 0.0 for p in parts], axis)
        np.testing.assert_allclose(getattr(found, name), values, rtol=1e-9, atol=1e-12 * unit)
    same(found, merged(MomentsSpec(axis), chunks, range(len(chunks))), 1e-9 * max(1, scale**2))
    back = range(len(chunks) - 1, -1, -1)
    same(found, merged(MomentsSpec(axis), chunks, back), 1e-9 * max(1, scale**2))


@settings(max_examples=120, deadline=None)
@given(streams(), st.sampled_from([4, 16, 2048]))
def test_the_histogram_is_that_of_numpy_on_the_final_edges(stream, bins) -> None:
    chunks, _, array = stream
    found = fed(HistogramSpec(bins), chunks)
    finite = array[np.isfinite(array)].astype(np.float64)
    np.testing.assert_array_equal(found.counts, np.histogram(finite, found.edges)[0])
    assert found.count == finite.size
    assert found.rejected == array.size - finite.size
    assert found.zeros == int((finite == 0).sum())
    assert found.minimum == finite.min(initial=np.inf)
    assert found.maximum == finite.max(initial=-np.inf)
    largest = np.abs(finite).max(initial=0)
    if largest:
        assert found.width * bins / 4 <= largest < found.width * bins / 2
    same(found, merged(HistogramSpec(bins), chunks, range(len(chunks))))
    same(found, merged(HistogramSpec(bins), chunks, range(len(chunks) - 1, -1, -1)))


@settings(max_examples=120, deadline=None)
@given(streams(), st.lists(st.floats(0, 100), max_size=4))
def test_percentiles_are_as_close_as_promised(stream, wanted) -> None:
    chunks, _, array = stream
    found = fed(HistogramSpec(64), chunks)
    finite = array[np.isfinite(array)].astype(np.float64)
    wanted = [0.0, 50.0, *wanted, 100.0]
    got = found.percentile(wanted)
    if not finite.size:
        assert np.isnan(got).all()
        return
    assert (np.abs(got - np.percentile(finite, wanted)) <= found.width).all()
    assert got[0] == finite.min()
    assert got[-1] == finite.max()


def test_percentages_outside_are_refused() -> None:
    found = fed(HistogramSpec(), [np.ones(3)])
    for wrong in (-1, 101, np.nan):
        with pytest.raises(ValueError, match="between 0 and 100"):
            found.percentile(wrong)


def test_the_histogram_grows_over_the_whole_range_of_float64() -> None:
    values = [0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e-30, -1.0, 1.0, 2.0, -1e30, 1e300, -1.7e308]
    found = Histogram(16)
    for number, value in enumerate(values):
        found.add(np.array(value))
        seen = np.array(values[: number + 1])
        if found.exponent > -1000:
            np.testing.assert_array_equal(found.counts, np.histogram(seen, found.edges)[0])
    assert found.zeros == 2
    assert found.counts[:8].sum() == 4  # each negative element below 0, however small


@pytest.mark.parametrize("bins", [0, 2, 3, 100, -4])
def test_bins_must_merge_in_pairs_about_zero(bins) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Histogram(bins)


def test_histograms_of_other_bins_do_not_merge() -> None:
    with pytest.raises(ValueError, match="bins"):
        Histogram(16).merge(Histogram(32))


def test_large_arrays_go_through_in_blocks() -> None:
    rng = np.random.default_rng(0)
    for shape, axis in (
        ((3, 5, BLOCK), 1),
        ((BLOCK + 7, 3), 1),
        ((2, BLOCK + 1), 1),
        ((400000,), None),
    ):
        array = (rng.standard_normal(shape) + 3).astype(np.float32)
        moments = fed(MomentsSpec(axis), [array])
        axes = None if axis is None else tuple(a for a in range(array.ndim) if a != axis)
        exact = array.astype(np.float64)
        np.testing.assert_allclose(moments.mean, exact.mean(axis=axes), rtol=1e-12)
        np.testing.assert_allclose(moments.variance, exact.var(axis=axes), rtol=1e-9, atol=1e-12)
        histogram = fed(HistogramSpec(), [array])
        np.testing.assert_array_equal(histogram.counts, np.histogram(exact, histogram.edges)[0])


def test_the_variance_survives_a_large_mean() -> None:
    rng = np.random.default_rng(0)
    chunks = [1e9 + rng.standard_normal(1000) for _ in range(20)]
    found = fed(MomentsSpec(), chunks)
    np.testing.assert_allclose(found.variance, np.var(np.concatenate(chunks)), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64", "bool"])
def test_the_range_of_integers_is_exact(dtype) -> None:
    top = 1 if dtype == "bool" else int(np.iinfo(dtype).max)
    low = 0 if dtype == "bool" else int(np.iinfo(dtype).min)
    found = fed(RangeSpec(0), [np.array([[top, low], [0, 0]], dtype)])
    assert [int(v) for v in found.minimum] == [low, 0]
    assert [int(v) for v in found.maximum] == [top, 0]
    assert found.zeros.tolist() == ([1, 2] if low == 0 else [0, 2])


def test_types_that_numpy_lacks_are_widened_and_text_is_refused() -> None:
    narrow = np.array([1.5, -2, np.inf], ml_dtypes.bfloat16)
    found = fed(RangeSpec(), [narrow])
    assert (float(found.minimum), float(found.maximum), int(found.rejected)) == (-2, 1.5, 1)
    tiny = fed(MomentsSpec(), [np.array([1.5, -2], ml_dtypes.float8_e5m2)])
    assert float(tiny.mean) == -0.25
    whole = fed(RangeSpec(), [np.array([-3, 7], ml_dtypes.int4)])
    assert (int(whole.minimum), int(whole.maximum)) == (-3, 7)
    for wrong in (np.array(["a"], object), np.array([1j])):
        with pytest.raises(ValueError, match="not real numbers"):
            Range().add(wrong)


@pytest.mark.parametrize("spec", [RangeSpec(1), MomentsSpec(1)])
def test_other_channels_and_missing_axes_are_refused(spec) -> None:
    found = fed(spec, [np.ones((2, 3))])
    with pytest.raises(ValueError, match="4 channels now, but had 3"):
        found.add(np.ones((2, 4)))
    with pytest.raises(ValueError, match="has no axis 1"):
        found.add(np.ones(2))
    with pytest.raises(ValueError, match="has no axis 1"):
        spec.nbytes((2,))
    assert found.count.tolist() == [2, 2, 2]


@pytest.mark.parametrize("kind", [Range, Moments, Histogram])
def test_nothing_is_shared_after_a_merge(kind) -> None:
    one, two = kind(), kind()
    two.add(np.array([1.0, -2.0]))
    one.merge(two)
    before = {name: part.copy() for name, part in two.state().items()}
    one.add(np.array([5.0, 7.0]))
    for name, part in two.state().items():
        np.testing.assert_array_equal(part, before[name])


@pytest.mark.parametrize("spec", [RangeSpec(0), MomentsSpec(), HistogramSpec(32)])
def test_a_state_restores_everything(spec) -> None:
    found = fed(spec, [np.array([1.0, np.nan, 0.0])])
    again = spec.start()
    again.restore(found.state())
    same(found, again)
    again.add(np.array([4.0, 2.0, 3.0]))
    found.add(np.array([4.0, 2.0, 3.0]))
    same(found, again)
