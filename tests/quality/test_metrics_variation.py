"""Total variation against its formula; odd values; what it fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graphopt.errors import UsageError
from graphopt.quality.metrics import Observed, parse_metric
from graphopt.quality.metrics.variation import TotalVariation
from graphopt.testing import parse

SHARES = arrays(np.float32, (3, 2, 4), elements=st.floats(0.015625, 1, width=32))


def value(reference: np.ndarray, candidate: np.ndarray) -> float:
    metric = TotalVariation()
    seen = Observed({"y": candidate}, {"y": reference}, None, len(reference))
    return metric.value(metric.rows(seen))


@settings(max_examples=60, deadline=None)
@given(SHARES, SHARES)
def test_of_classes_and_of_single_probabilities(a: np.ndarray, b: np.ndarray) -> None:
    p, q = (x / x.sum(axis=-1, keepdims=True, dtype=np.float64) for x in (a, b))
    events = [list(map(int, f"{n:04b}")) for n in range(16)]
    largest = np.max([np.abs(((p - q) * event).sum(axis=-1)) for event in events], axis=0)
    assert value(p, q) == pytest.approx(largest.mean(), abs=1e-9)
    one, other = a[:, 0, 0], b[:, 0, 0]
    assert value(one, other) == pytest.approx(np.abs(one - other).mean(), rel=1e-5, abs=1e-9)
    assert value(p, p) == 0


def test_what_is_broken_is_as_far_as_can_be() -> None:
    p = np.array([0.25, 0.5, 0.75])
    assert value(p, np.array([0.25, np.nan, 0.75])) == pytest.approx(1 / 3)
    assert value(p, p[:, None]) == 1.0
    assert value(p, p + 40) == 1.0


def test_it_wants_numbers_from_0_to_1() -> None:
    model = parse("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 3] x) => (float[N, 3] y) { y = Sigmoid(x) }""")
    metric = parse_metric("tv@y", model)
    assert str(metric) == "tv@y"
    for wrong in (np.array([0.5, 1.5]), np.array([-0.1, 0.5]), np.array([1, 0])):
        with pytest.raises(UsageError, match="from 0 to 1"):
            TotalVariation().rows(Observed({"y": wrong}, {"y": wrong}, None, 2))
