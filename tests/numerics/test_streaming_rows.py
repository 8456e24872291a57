"""Layers' inputs as rows, their Gram matrices, and least squares from these."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics.streaming import (
    ConvRows,
    ConvTransposeRows,
    CrossSpec,
    FeatureRows,
    GramSpec,
    Sampling,
)
from graphopt.numerics.streaming.gram import SAFE


def all_rows(rows, array):
    table = rows.table(array)
    return table.take(np.arange(table.count))


def naive_patches(array, kernel, strides, before, dilations, outputs):
    """One row for each sample and output position, by definition."""
    samples, channels, *spatial = array.shape
    found = []
    for sample, *position in itertools.product(range(samples), *map(range, outputs)):
        row = []
        for channel, *offset in itertools.product(range(channels), *map(range, kernel)):
            at = [
                o * s - b + k * d
                for o, s, b, k, d in zip(position, strides, before, offset, dilations, strict=True)
            ]
            inside = all(0 <= a < size for a, size in zip(at, spatial, strict=True))
            row.append(array[(sample, channel, *at)] if inside else 0)
        found.append(row)
    return np.array(found, array.dtype).reshape(len(found), channels * math.prod(kernel))


@st.composite
def convolutions(draw):
    rank = draw(st.integers(1, 3))
    axes = range(rank)
    group = draw(st.sampled_from([1, 1, 2, 3]))
    kernel = tuple(draw(st.integers(1, 3)) for _ in axes)
    strides = tuple(draw(st.integers(1, 3)) for _ in axes)
    dilations = tuple(draw(st.integers(1, 2)) for _ in axes)
    auto_pad = draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    pads = tuple(draw(st.integers(0, 2)) for _ in range(2 * rank))
    rows = ConvRows(kernel, strides, pads, dilations, auto_pad, group)
    size = tuple(draw(st.integers(5, 7)) for _ in axes)
    shape = (draw(st.integers(1, 2)), group * draw(st.integers(1, 2)), *size)
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    return rows, rng.standard_normal(shape).astype(np.float32)


def geometry(rows, spatial):
    """Pads before and output sizes by the formulas of the ONNX operator specification."""
    before, outputs = [], []
    for axis, size in enumerate(spatial):
        extent = (rows.kernel[axis] - 1) * rows.dilations[axis] + 1
        stride = rows.strides[axis]
        if rows.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            count = math.ceil(size / stride)
            total = max((count - 1) * stride + extent - size, 0)
            before.append(total // 2 if rows.auto_pad == "SAME_UPPER" else math.ceil(total / 2))
        else:
            explicit = rows.auto_pad == "NOTSET"
            pads = rows.pads[axis :: len(spatial)] if explicit else (0, 0)
            count = math.floor((size + sum(pads) - extent) / stride) + 1
            before.append(pads[0])
        outputs.append(max(count, 0))
    return before, outputs


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_patches_are_what_the_kernel_sees(case) -> None:
    rows, array = case
    before, outputs = geometry(rows, array.shape[2:])
    expected = naive_patches(array, rows.kernel, rows.strides, before, rows.dilations, outputs)
    np.testing.assert_array_equal(all_rows(rows, array), expected)


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_each_group_has_its_own_gram_matrix(case) -> None:
    rows, array = case
    found = GramSpec(rows).start()
    for sample in array:
        found.add(sample[None])
    table = all_rows(rows, array).astype(np.float64)
    parts = np.split(table, rows.group, axis=1)
    assert found.rows == len(table)
    assert len(found.blocks) == rows.group
    for number, part in enumerate(parts):
        np.testing.assert_allclose(found.product(number), part.T @ part, rtol=1e-4, atol=1e-4)
        if len(part):
            centred = np.cov(part.T, bias=True).reshape(found.covariance(number).shape)
            np.testing.assert_allclose(found.covariance(number), centred, rtol=1e-4, atol=1e-5)
    if len(table):
        np.testing.assert_allclose(found.mean, table.mean(axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.second, (table**2).mean(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_features_stand_on_one_axis(axis) -> None:
    array = np.arange(24.0).reshape(2, 3, 4)
    expected = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    np.testing.assert_array_equal(all_rows(FeatureRows(axis), array), expected)


def test_a_vector_is_one_row() -> None:
    assert all_rows(FeatureRows(), np.arange(3.0)).tolist() == [[0, 1, 2]]


def scattered(array, weight, rows):
    """A transposed convolution by definition: every input element is spread over the output."""
    before = [int(rows.pads[axis]) for axis in range(len(rows.kernel))]
    after = rows.pads[len(rows.kernel) :]
    extent = [(k - 1) * d + 1 for k, d in zip(rows.kernel, rows.dilations, strict=True)]
    whole = [
        (size - 1) * s + e + extra
        for size, s, e, extra in zip(
            array.shape[2:], rows.strides, extent, rows.output_padding, strict=True
        )
    ]
    wide, per_group = weight.shape[1], len(weight) // rows.group
    result = np.zeros((len(array), wide * rows.group, *whole))
    for n, c, *at in np.ndindex(*array.shape):
        for m, *k in np.ndindex(wide, *rows.kernel):
            steps = zip(at, rows.strides, k, rows.dilations, strict=True)
            place = tuple(a * s + o * d for a, s, o, d in steps)
            target = (n, c // per_group * wide + m, *place)
            result[target] += array[(n, c, *at)] * weight[(c, m, *k)]
    cut = tuple(slice(b, w - a) for b, w, a in zip(before, whole, after, strict=True))
    return result[(slice(None), slice(None), *cut)]


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_rows_of_a_transposed_convolution_times_its_weights(rank, group) -> None:
    rng = np.random.default_rng(rank)
    for _ in range(6):
        kernel, strides, dilations = (tuple(rng.integers(1, 4, rank)) for _ in range(3))
        extra = tuple(int(rng.integers(0, s)) for s in strides)
        pads = tuple(rng.integers(0, 2, 2 * rank))
        rows = ConvTransposeRows(kernel, strides, pads, dilations, "NOTSET", group, extra)
        array = rng.standard_normal((2, 2 * group, *rng.integers(2, 4, rank)))
        weight = rng.standard_normal((2 * group, 3, *kernel))
        expected = scattered(array, weight, rows)
        table = all_rows(rows, array)
        parts = []
        for x, w in zip(np.split(table, group, axis=1), np.split(weight, group), strict=True):
            parts.append(x @ np.moveaxis(w, 1, -1).reshape(-1, 3))
        found = np.moveaxis(expected, 1, -1).reshape(-1, 3 * group)
        np.testing.assert_allclose(np.concatenate(parts, axis=1), found, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"kernel": ()}, "ranks"),
        ({"kernel": (3,), "strides": (1, 1)}, "ranks"),
        ({"kernel": (3,), "pads": (1,)}, "ranks"),
        ({"kernel": (0,)}, "at least 1"),
        ({"kernel": (3,), "dilations": (0,)}, "at least 1"),
        ({"kernel": (3,), "group": 0}, "at least 1"),
        ({"kernel": (3,), "pads": (-1, 0)}, "negative"),
        ({"kernel": (3,), "auto_pad": "same"}, "auto_pad"),
    ],
)
def test_impossible_windows_are_refused(arguments, what) -> None:
    with pytest.raises(ValueError, match=what):
        ConvRows(**arguments)


def test_arrays_that_do_not_fit_are_refused() -> None:
    spec = GramSpec(ConvRows((3, 3), group=2))
    for shape, what in (((1, 2, 5), "cannot slide"), ((1, 3, 5, 5), "no 2 groups")):
        with pytest.raises(ValueError, match=what):
            spec.start().add(np.ones(shape))
        with pytest.raises(ValueError, match=what):
            spec.nbytes(shape)
    found = GramSpec().start()
    found.add(np.ones((2, 3)))
    with pytest.raises(ValueError, match="4 features now, but had 3"):
        found.add(np.ones((2, 4)))
    assert found.rows == 2


def test_a_window_larger_than_its_input_has_no_rows() -> None:
    found = GramSpec(ConvRows((5,))).start()
    found.add(np.ones((2, 1, 3), np.float32))
    assert found.rows == 0
    assert not found.covariance().any()


SHAPE = (3, 4, 6, 6)
KERNEL = ConvRows((2, 2))


@pytest.mark.parametrize(
    ("blocks", "count"),
    [
        (None, 1),
        (4, 4),
        (5, 4),
        ("position", 4),
        (((0, 5, 10, 15), tuple(i for i in range(16) if i % 5)), 2),
    ],
)
def test_blocks_are_parts_of_the_whole(blocks, count) -> None:
    array = np.random.default_rng(0).standard_normal(SHAPE) + 2
    spec = GramSpec(KERNEL, blocks)
    found, whole = spec.start(), GramSpec(KERNEL).start()
    for target in (found, whole):
        target.add(array)
    assert len(found.blocks) == count
    assert sorted(np.concatenate(found.blocks)) == list(range(16))
    for number, features in enumerate(found.blocks):
        at = np.ix_(features, features)
        np.testing.assert_allclose(found.covariance(number), whole.covariance()[at], atol=1e-12)
        np.testing.assert_allclose(found.product(number), whole.product()[at], rtol=1e-12)
    np.testing.assert_allclose(found.second, whole.second)
    stored = sum(part.nbytes for part in found.state().values())
    assert stored <= spec.nbytes(SHAPE) + 64


def test_position_blocks_hold_one_position_of_every_channel() -> None:
    found = GramSpec(KERNEL, "position").start()
    found.add(np.ones(SHAPE))
    assert [block.tolist() for block in found.blocks][1] == [1, 5, 9, 13]


@pytest.mark.parametrize("blocks", [((0, 1),), ((0, 1), (1, 2)), (), ((0, 1, 2, 3),), 0])
def test_blocks_must_hold_every_feature_once(blocks) -> None:
    with pytest.raises(ValueError, match="blocks"):
        GramSpec(FeatureRows(), blocks).start().add(np.ones((2, 3)))


@pytest.mark.parametrize("scale", [1e-30, 1e-14, 1.0, 1e14, 1e30])
def test_squares_that_leave_float32_are_made_in_float64(scale) -> None:
    array = (np.random.default_rng(0).standard_normal((500, 4)) * scale).astype(np.float32)
    found = GramSpec().start()
    found.add(array)
    exact = array.astype(np.float64)
    np.testing.assert_allclose(found.product(), exact.T @ exact, rtol=1e-4, atol=1e-4 * scale**2)
    assert SAFE[1] ** 2 * 4096 < np.finfo(np.float32).max


def test_the_centred_matrix_survives_a_large_mean() -> None:
    rng = np.random.default_rng(0)
    chunks = [(rng.standard_normal((1000, 3)) + 1e4).astype(np.float32) for _ in range(5)]
    found = GramSpec().start()
    for chunk in chunks:
        found.add(chunk)
    whole = np.concatenate(chunks).astype(np.float64)
    np.testing.assert_allclose(found.covariance(), np.cov(whole.T, bias=True), atol=1e-4)
    np.testing.assert_allclose(found.product(), whole.T @ whole, rtol=1e-9)


def parts_of(spec, pairs):
    found = []
    for pair in pairs:
        part = spec.start()
        part.add(*pair)
        found.append(part)
    return found


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_merging_in_any_order_is_adding(order) -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal((2, 4, 5, 5)) + number for number in range(4)]
    targets = [rng.standard_normal((2, 6, 4, 4)) - number for number in range(4)]
    spec = CrossSpec(ConvRows((2, 2), group=2), FeatureRows(1))
    parts = parts_of(spec, zip(arrays, targets, strict=True))
    before = [{k: v.copy() for k, v in part.state().items()} for part in parts]
    found, whole = spec.start(), spec.start()
    for number in order:
        found.merge(parts[number])
    for array, target in zip(arrays, targets, strict=True):
        whole.add(array, target)
    found.merge(spec.start())
    assert found.gram.rows == whole.gram.rows == 4 * 2 * 16
    for group in range(2):
        for name in ("covariance", "product"):
            a, b = (getattr(c, name)(group) for c in (found, whole))
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
            a, b = (getattr(c.gram, name)(group) for c in (found, whole))
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    for name in ("mean", "variance"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-9)
    for part, state in zip(parts, before, strict=True):
        for name, value in part.state().items():
            np.testing.assert_array_equal(value, state[name])


def test_rows_with_elements_that_are_not_finite_are_left_out() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 3)), rng.standard_normal((50, 2))
    x[3, 1], x[7, 0], y[7, 1], y[9, 0] = np.nan, np.inf, np.nan, -np.inf
    gram, cross = GramSpec().start(), CrossSpec().start()
    gram.add(x)
    cross.add(x, y)
    keep = np.isfinite(x).all(axis=1)
    np.testing.assert_allclose(gram.product(), x[keep].T @ x[keep])
    assert (gram.rows, gram.rejected) == (48, 2)
    keep &= np.isfinite(y).all(axis=1)
    np.testing.assert_allclose(cross.product(), x[keep].T @ y[keep], atol=1e-12)
    np.testing.assert_allclose(cross.gram.product(), x[keep].T @ x[keep])
    np.testing.assert_allclose(cross.mean, y[keep].mean(axis=0))
    np.testing.assert_allclose(cross.variance, y[keep].var(axis=0))
    assert (cross.gram.rows, cross.gram.rejected) == (47, 3)


def test_a_batch_of_nothing_but_nan_leaves_nothing() -> None:
    found = GramSpec().start()
    found.add(np.full((5, 2), np.nan, np.float32))
    assert (found.rows, found.rejected) == (0, 5)
    found.add(np.ones((5, 2), np.float32))
    assert found.mean.tolist() == [1, 1]


def test_the_same_rows_are_drawn_each_time() -> None:
    array = np.arange(4000.0).reshape(1000, 4)
    spec = CrossSpec(sampling=Sampling(100, seed=3))
    found, again = spec.start(), spec.start()
    gram = GramSpec(sampling=Sampling(100, seed=3)).start()
    other = GramSpec(sampling=Sampling(100, seed=4)).start()
    for _ in range(2):
        for target in (found, again):
            target.add(array, array[:, :1])
        gram.add(array)
        other.add(array)
    assert found.gram.rows == gram.rows == 200
    assert np.array_equal(found.products, again.products)
    np.testing.assert_allclose(found.gram.product(), gram.product())
    assert not np.allclose(other.product(), gram.product())
    drawn = np.concatenate(list(Sampling(100).portions(1000, 1 << 30, 0)))
    assert len(set(drawn)) == 100
    assert (np.diff(drawn) > 0).all()
    assert 300 < drawn.mean() < 700
    assert len(np.concatenate(list(Sampling(100).portions(60, 3, 0)))) == 60


def test_least_squares_from_moments_is_least_squares() -> None:
    rng = np.random.default_rng(0)
    rows = ConvRows((3, 3), pads=(1, 1, 1, 1))
    arrays = [rng.standard_normal((4, 3, 8, 8)) + 1 for _ in range(3)]
    targets = [rng.standard_normal((4, 5, 8, 8)) for _ in range(3)]
    found = CrossSpec(rows, FeatureRows(1)).start()
    for array, target in zip(arrays, targets, strict=True):
        found.add(array, target)
    weights = np.linalg.solve(found.gram.covariance(), found.covariance())
    bias = found.mean - found.gram.mean @ weights
    x = all_rows(rows, np.concatenate(arrays))
    y = np.moveaxis(np.concatenate(targets), 1, -1).reshape(-1, 5)
    exact, *_ = np.linalg.lstsq(np.hstack([x, np.ones((len(x), 1))]), y, rcond=None)
    np.testing.assert_allclose(np.vstack([weights, bias]), exact, rtol=1e-8, atol=1e-9)
    left = found.variance - np.diag(
        2 * weights.T @ found.covariance() - weights.T @ found.gram.covariance() @ weights
    )
    np.testing.assert_allclose(left, (y - x @ weights - bias).var(axis=0), rtol=1e-8)


def test_targets_must_stand_beside_the_rows() -> None:
    found = CrossSpec().start()
    with pytest.raises(ValueError, match="5 rows of the input meet 4 rows of the target"):
        found.add(np.ones((5, 2)), np.ones((4, 2)))
    grouped = CrossSpec(ConvRows((1,), group=2), FeatureRows(1))
    for make in (
        lambda: grouped.nbytes((1, 2, 4), (1, 3, 4)),
        lambda: grouped.start().add(np.ones((1, 2, 4)), np.ones((1, 3, 4))),
    ):
        with pytest.raises(ValueError, match="no 2 groups"):
            make()


@pytest.mark.parametrize("blocks", [None, 3, "position"])
def test_a_state_restores_everything(blocks) -> None:
    rng = np.random.default_rng(0)
    spec = CrossSpec(ConvRows((2,), group=2), FeatureRows(1), blocks, Sampling(7))
    found, again = spec.start(), spec.start()
    again.restore(spec.start().state())
    pairs = [(rng.standard_normal((2, 4, 6)), rng.standard_normal((2, 2, 5))) for _ in range(2)]
    found.add(*pairs[0])
    frozen = {name: part.copy() for name, part in found.state().items()}
    for part in frozen.values():
        part.flags.writeable = False
    again.restore(frozen)
    for target in (found, again):
        target.add(*pairs[1])
    for name, part in found.state().items():
        np.testing.assert_array_equal(part, again.state()[name])
    assert (
        sum(part.nbytes for part in found.state().values())
        < spec.nbytes((2, 4, 6), (2, 2, 5)) + 200
    )
