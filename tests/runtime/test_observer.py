"""How much of the data a statistic takes."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.runtime import observer
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Stream


@pytest.mark.parametrize("batches", [1, 7, 64])
@pytest.mark.parametrize("features", [1, 100, 10_000])
def test_rows_are_shared_out_among_the_batches(native, batches: int, features: int) -> None:
    feeds = [{"x": np.zeros(1, np.float32)}] * batches
    most = Observer(native, Stream(lambda: feeds)).sampling(features).most
    assert most is not None
    wanted = max(observer.ROWS, observer.ROWS_OF_FEATURE * features)
    assert wanted <= most * batches < wanted + batches


def test_without_a_batch_nothing_breaks(native) -> None:
    assert Observer(native, Stream(list)).sampling(3).most == observer.ROWS
