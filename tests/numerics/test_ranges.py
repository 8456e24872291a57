"""Ranges for integer grids, chosen from histograms: against brute force and known optima."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics.grids import AffineGrid
from graphopt.numerics.ranges import Range, covering, entropy, least_squares, percentile
from graphopt.numerics.streaming.histogram import Histogram

U8, S8 = AffineGrid(0, 255), AffineGrid(-128, 127)
U4, S4, S4_NARROW = AffineGrid(0, 15), AffineGrid(-8, 7), AffineGrid(-7, 7)
COUNT = 100_000

Choice = Callable[[Histogram, AffineGrid, bool], Range]


def seen(*arrays: np.ndarray, bins: int = 2048) -> Histogram:
    histogram = Histogram(bins)
    for array in arrays:
        histogram.add(np.asarray(array))
    return histogram


def samples(name: str, count: int = COUNT) -> np.ndarray:
    rng = np.random.default_rng(7)
    normal = rng.normal(size=count)
    made = {
        "uniform": lambda: rng.uniform(-1, 1, count),
        "normal": lambda: normal,
        "laplace": lambda: rng.laplace(size=count),
        "relu": lambda: np.maximum(normal, 0.0),
        "gelu": lambda: 2 * normal / (1 + np.exp(-3.4 * normal)),
        "negative": lambda: -np.abs(normal) - 0.1,
        "sigmoid": lambda: 1 / (1 + np.exp(-8 * normal)),
        "lognormal": lambda: np.exp(1.5 * normal),
        "two clouds": lambda: np.where(normal > 0, 10, -10) + 0.1 * rng.normal(size=count),
        "outlier": lambda: np.append(normal[1:], 300.0),
        "few": lambda: normal[:500],
        "integers": lambda: rng.integers(0, 10, count).astype(float),
        "one value": lambda: np.full(count, 3.0),
        "large": lambda: 1e30 * normal,
        "small": lambda: 1e-30 * normal,
    }
    return np.asarray(made[name](), np.float32)


NAMES = ["uniform", "normal", "laplace", "relu", "gelu", "negative", "sigmoid", "lognormal"]
NAMES += ["outlier", "few", "integers", "large", "small"]


def loss(values: np.ndarray, range_: Range, grid: AffineGrid, symmetric: bool = False) -> float:
    scale, zero = grid.parameters(*range_, symmetric)
    gap = grid.dequantized(grid.quantized(values, scale, zero), scale, zero) - values.astype(float)
    return float(np.mean(np.square(gap)))


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_covering_is_exact(values: list[float]) -> None:
    assert covering(seen(np.array(values))) == (min(values), max(values))


@pytest.mark.parametrize("choose", [covering, percentile])
def test_nothing_seen_is_refused(choose: Callable[[Histogram], Range]) -> None:
    with pytest.raises(ValueError, match="no finite number"):
        choose(seen(np.array([np.nan, np.inf])))


@pytest.mark.parametrize("choose", [least_squares, entropy])
@pytest.mark.parametrize("symmetric", [False, True])
def test_empty_and_only_zeros(choose: Choice, symmetric: bool) -> None:
    with pytest.raises(ValueError, match="no finite number"):
        choose(seen(), S8, symmetric)
    assert choose(seen(np.zeros(9)), S8, symmetric) == (0.0, 0.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("percent", [50.0, 99.0, 99.99, 100.0])
def test_percentiles_keep_the_middle(name: str, percent: float) -> None:
    values = samples(name, 20_000)
    histogram = seen(values)
    low, high = percentile(histogram, percent)
    ordered = np.sort(values[values != 0])
    cut = math.floor((1 - percent / 100) / 2 * len(ordered) + 1e-9)
    if not cut:
        assert (low, high) == covering(histogram)
        return
    first, last = ordered[cut], ordered[len(ordered) - 1 - cut]
    assert first - histogram.width <= low <= first <= last <= high <= last + histogram.width


def test_percentiles_ignore_zeros_and_lie_in_no_gap() -> None:
    mostly_zero = np.concatenate([np.zeros(10**6), np.linspace(1, 2, 1000)])
    low, high = percentile(seen(mostly_zero), 99.0)
    assert 1.0 <= low < 1.01 and 1.98 < high <= 2.0
    few = np.concatenate([np.linspace(-1, 1, 99), [1000.0]])
    assert percentile(seen(few), 99.99) == (-1.0, 1000.0)
    low, high = percentile(seen(few), 98.0)
    assert high <= 1.0 + seen(few).width


@pytest.mark.parametrize("percent", [0.0, -1.0, 100.5, math.nan])
def test_what_is_no_percentage(percent: float) -> None:
    with pytest.raises(ValueError, match="per cent"):
        percentile(seen(np.ones(3)), percent)


def searched(values: np.ndarray, grid: AffineGrid, symmetric: bool) -> float:
    """The least squared error of any pair of ends among many, measured on the elements."""
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    parts = np.geomspace(1.0, 1e-3, 80 if symmetric else 30)
    pairs = [(a, a) for a in parts] if symmetric else [(a, b) for a in parts for b in parts]
    return min(loss(values, Range(low * a, high * b), grid, symmetric) for a, b in pairs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "grid, symmetric", [(U8, False), (S8, True), (U4, False), (S4, True), (U4, True)]
)
def test_least_squares_is_near_the_best_of_all(
    name: str, grid: AffineGrid, symmetric: bool
) -> None:
    values = samples(name, 2000)
    scale = float(np.abs(values).max())
    values = (
        (values / np.float32(scale)).astype(np.float32) if name in ("large", "small") else values
    )
    found = loss(values, least_squares(seen(values), grid, symmetric), grid, symmetric)
    assert found <= 1.1 * searched(values, grid, symmetric) + 1e-15
    assert found <= 1.02 * loss(values, covering(seen(values)), grid, symmetric) + 1e-15


@pytest.mark.parametrize("grid", [U8, S8, U4, S4], ids=str)
def test_least_squares_scales_with_the_elements(grid: AffineGrid) -> None:
    values = samples("laplace", 3000)
    for symmetric in (False, True):
        once = least_squares(seen(values), grid, symmetric)
        for factor in (2.0**-90, 2.0**80):
            found = least_squares(seen(values.astype(np.float64) * factor), grid, symmetric)
            assert found == pytest.approx((once.minimum * factor, once.maximum * factor))


@pytest.mark.parametrize("grid, symmetric", [(U8, False), (S8, True), (U4, False), (S4, True)])
def test_uniform_elements_are_not_clipped(grid: AffineGrid, symmetric: bool) -> None:
    """By more than half a step, which costs nothing."""
    low, high = least_squares(seen(np.linspace(-1, 1, COUNT)), grid, symmetric)
    assert max(abs(low), abs(high)) >= 1 - 1.1 / grid.steps


@pytest.mark.parametrize("levels, step", [(8, 0.5860), (16, 0.3352), (32, 0.1881)])
def test_normal_elements_are_clipped_where_max_found_it(levels: int, step: float) -> None:
    """Equidistant levels of a normal variable: Max, "Quantizing for minimum distortion", 1960, table II."""
    low, high = least_squares(seen(samples("normal")), AffineGrid(0, levels - 1))
    assert (high - low) / 2 == pytest.approx((levels - 1) / 2 * step, rel=0.05)


@pytest.mark.parametrize("name", ["normal", "laplace"])
@pytest.mark.parametrize(
    "grid", [AffineGrid(-1, 1), AffineGrid(-3, 3), S4_NARROW, AffineGrid(-127, 127)], ids=str
)
def test_symmetric_clipping_is_that_of_the_distribution(name: str, grid: AffineGrid) -> None:
    """Against the density itself, integrated, with ends tried one by one."""
    x = np.linspace(0, 20, 20_001)
    density = np.exp(-(x**2) / 2) * 2 / math.sqrt(2 * math.pi) if name == "normal" else np.exp(-x)

    def expected(end: float) -> float:
        scale = end / grid.high
        gap = x - scale * np.minimum(np.rint(x / scale), grid.high)
        return float(np.sum(gap * gap * density)) * 1e-3

    best = min(expected(end) for end in np.linspace(0.3, 12, 300))
    found = least_squares(seen(samples(name)), grid, symmetric=True)
    assert expected(found.maximum) <= 1.03 * best
    assert found.minimum == pytest.approx(-found.maximum)


def test_zeros_do_not_count() -> None:
    values = samples("relu")
    positive = values[values > 0]
    for choose in (least_squares, entropy):
        for symmetric in (False, True):
            assert choose(seen(values), S8, symmetric) == choose(seen(positive), S8, symmetric)


def test_clipping_what_carries_the_energy_does_not_pay() -> None:
    values = np.concatenate([0.01 * samples("normal"), np.full(20, 500.0)])
    assert least_squares(seen(values), U8).maximum > 490
    assert least_squares(seen(values), S8, symmetric=True).maximum > 490


@pytest.mark.parametrize("name", [*NAMES, "two clouds", "one value"])
@pytest.mark.parametrize("choose", [least_squares, entropy])
@pytest.mark.parametrize(
    "grid, symmetric",
    [(U8, False), (S8, True), (U4, False), (S4, True), (AffineGrid(0, 65535), False)],
)
def test_most_elements_stay_inside(
    name: str, choose: Choice, grid: AffineGrid, symmetric: bool
) -> None:
    values = samples(name, 5000)
    low, high = choose(seen(values), grid, symmetric)
    assert math.isfinite(low) and math.isfinite(high) and low <= 0 <= high and low < high
    step = (high - low) / grid.steps
    inside = (values >= low - step) & (values <= high + step)
    assert inside[values != 0].mean() >= 0.9
    scale, zero = grid.parameters(low, high, symmetric)
    if symmetric:
        ends = ((grid.low - int(zero)) * float(scale), (grid.high - int(zero)) * float(scale))
        assert (low, high) == pytest.approx(ends, rel=1e-6)


def plain_divergence(h: Histogram, range_: Range, grid: AffineGrid) -> float:
    """The definition for a symmetric range, bin by bin."""
    scale, half = float(grid.parameters(*range_, symmetric=True)[0]), len(h.counts) // 2
    first = math.ceil(range_.minimum / h.width - 0.5) + half
    last = math.floor(range_.maximum / h.width - 0.5) + half
    counts = h.counts.astype(float)
    counts[half] -= h.zeros
    told, clipped = np.zeros(len(counts)), np.zeros(len(counts))
    levels: dict[int, list[int]] = {}
    for i in np.flatnonzero(counts):
        middle = (max(h.edges[i], h.minimum) + min(h.edges[i + 1], h.maximum)) / 2
        if range_.minimum <= middle <= range_.maximum:
            level = int(np.clip(np.rint(middle / scale), grid.low, grid.high))
            levels.setdefault(level, []).append(int(i))
            clipped[i] += counts[i]
        else:
            clipped[first if middle < 0 else last] += counts[i]
    for bins in levels.values():
        told[bins] = counts[bins].mean()
    p, q = clipped / clipped.sum(), told / told.sum()
    used = p > 0
    found = float(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], 0.5 / counts.sum()))))
    return found - (np.count_nonzero(told) - len(levels)) / (2 * float(counts.sum()))


@pytest.mark.parametrize("name", ["normal", "laplace", "relu", "gelu", "lognormal"])
@pytest.mark.parametrize("grid", [AffineGrid(-128, 127), AffineGrid(-8, 7)], ids=str)
def test_entropy_is_the_least_divergence(name: str, grid: AffineGrid) -> None:
    h = seen(samples(name, 30_000), bins=1024)
    found = entropy(h, grid, symmetric=True)
    cover = Range(*(end * found.maximum / grid.high for end in (grid.low, grid.high)))
    assert found == pytest.approx(cover, rel=1e-6)
    scale = float(grid.parameters(*covering(h), symmetric=True)[0])
    tried = []
    for part in np.linspace(1, 0, 128, endpoint=False)[::6]:
        range_ = Range(part * scale * grid.low, part * scale * grid.high)
        kept = (h.counts * (h.edges[1:] > range_.minimum) * (h.edges[:-1] < range_.maximum)).sum()
        if range_.maximum - range_.minimum < (grid.steps + 1) * h.width:
            break
        if kept - h.zeros > 0.91 * (h.count - h.zeros):
            tried.append(plain_divergence(h, range_, grid))
    assert len(tried) > 3
    assert plain_divergence(h, found, grid) <= min(tried) + 2e-3


def test_entropy_clips_outliers_and_not_the_bulk() -> None:
    values = np.concatenate([samples("normal"), np.full(3, 30.0)])
    for grid, symmetric in ((U8, False), (S8, True)):
        low, high = entropy(seen(values), grid, symmetric)
        assert 3 < high < 12 and low <= -3


def test_entropy_does_not_clip_for_chance() -> None:
    """Of an even distribution nothing is lost; few elements make uneven counts, and still nothing is."""
    for count in (3000, 30_000, 300_000):
        values = np.random.default_rng(count).uniform(-1, 1, count)
        low, high = entropy(seen(values), U8)
        assert low < -0.97 and high > 0.97


def test_a_grid_finer_than_the_bins_covers_all() -> None:
    h = seen(samples("laplace"))
    assert entropy(h, AffineGrid(0, 65535)) == pytest.approx(covering(h))


@pytest.mark.parametrize("magnitude", [5e-324, 1e-310, 1e-300, 1e38, 1e300, 1.7e308])
@pytest.mark.parametrize("symmetric", [False, True])
def test_magnitudes_beyond_float32(magnitude: float, symmetric: bool) -> None:
    h = seen(np.array([-0.5, 0.1, 0.3, 1.0]) * magnitude)
    for choose in (least_squares, entropy):
        range_ = choose(h, U8, symmetric)
        assert all(type(end) is float for end in range_)
        assert np.isfinite(U8.parameters(*range_, symmetric)[0])
    assert percentile(h, 50.0).maximum <= magnitude
