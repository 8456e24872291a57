"""Soft intersection over union against masks at thresholds; empty masks, odd values, what it fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graphopt.errors import UsageError
from graphopt.quality.metrics import Observed, parse_metric
from graphopt.quality.metrics.masks import SoftIoU
from graphopt.testing import parse

STEPS = 64
MAPS = arrays(np.int64, (3, 4, 5), elements=st.integers(0, STEPS))


def value(reference: np.ndarray, candidate: np.ndarray) -> float:
    seen = Observed({"y": candidate}, {"y": reference}, None, len(reference))
    return SoftIoU().value(SoftIoU().rows(seen))


@settings(max_examples=60, deadline=None)
@given(MAPS, MAPS)
def test_it_pools_the_masks_of_all_thresholds(a: np.ndarray, b: np.ndarray) -> None:
    cuts = np.arange(STEPS)[:, None, None, None]
    both, either = ((a > cuts) & (b > cuts)).sum(), ((a > cuts) | (b > cuts)).sum()
    expected = both / either if either else 1.0
    assert value(a / STEPS, b / STEPS) == pytest.approx(expected, abs=1e-12)
    assert value(a / STEPS, a / STEPS) == 1.0


def test_of_hard_masks_it_is_the_intersection_over_union() -> None:
    a, b = np.zeros((2, 1, 10)), np.zeros((2, 1, 10))
    a[0, 0, :6], b[0, 0, 2:7] = 1.0, 1.0
    assert value(a, b) == 4 / 7
    b[1, 0, 0] = 1.0  # something in a sample where nothing is
    assert value(a, b) == 4 / 8


def test_what_is_broken_shares_nothing() -> None:
    a = np.full((2, 1, 4), 0.5)
    b = a.copy()
    b[0, 0, 0] = np.nan
    assert value(a, b) == pytest.approx(2.0 / (4.0 + 2.0))
    assert value(a, a[:, :, :3]) == 0.0
    assert value(a, -a) == 0.0
    assert value(a, 2 * a) == 0.5


def test_the_worst_output_counts() -> None:
    a, b = np.full((2, 1, 4), 0.5), np.full((2, 1, 4), 0.4)
    seen = Observed({"y": a, "z": b}, {"y": a, "z": a}, None, 2)
    metric = SoftIoU()
    assert metric.value(metric.rows(seen)) == pytest.approx(0.8)


def test_it_wants_numbers_from_0_to_1() -> None:
    model = parse("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 3] x) => (float[N, 3] y) { y = Sigmoid(x) }""")
    assert str(parse_metric("soft-iou@y", model)) == "soft-iou@y"
    with pytest.raises(UsageError, match="Did you mean soft-iou"):
        parse_metric("iou", model)
    wrong = np.array([0.5, 1.5])
    with pytest.raises(UsageError, match="from 0 to 1"):
        SoftIoU().rows(Observed({"y": wrong}, {"y": wrong}, None, 2))
