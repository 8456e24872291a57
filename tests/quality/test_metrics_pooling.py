"""What every metric owes: weights are repetitions, batches do not matter, the original loses nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.quality.metrics import KINDS, Metric, Observed, parse_metric
from graphopt.quality.metrics.pooling import BLOCK, blocks, largest, weighted_sums
from graphopt.testing import parse

SIZE = 12

MODEL = parse(
    '<ir_version: 8, opset_import: ["" : 17]>\n'
    "g (float[N,3] x, float[N,5,4] s, int64[N,3] k) => (float[N,3] y, float[N,5,4] steps, int64[N,3] ids)"
    "{ y = Softmax(x) steps = Identity(s) ids = Identity(k) }"
)


def softmax(rows: np.ndarray) -> np.ndarray:
    raised = np.exp(rows)
    return raised / raised.sum(axis=-1, keepdims=True)


def observed(seed: int, labels: np.ndarray) -> tuple[Observed, Observed]:
    """One batch as the original and as a candidate does it."""
    rng = np.random.default_rng(seed)
    original = {
        "y": softmax(rng.standard_normal((SIZE, 3))).astype(np.float32),
        "steps": rng.standard_normal((SIZE, 5, 4)).astype(np.float32),
        "ids": rng.integers(0, 3, (SIZE, 3)),
    }
    candidate = {
        "y": softmax(np.log(original["y"]) + rng.standard_normal((SIZE, 3))).astype(np.float32),
        "steps": original["steps"] + rng.standard_normal((SIZE, 5, 4)).astype(np.float32),
        "ids": rng.integers(0, 3, (SIZE, 3)),
    }
    return (
        Observed(original, original, labels, SIZE),
        Observed(candidate, original, labels, SIZE),
    )


def labels_for(name: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed + 1)
    if name in ("mse", "mae"):
        return rng.standard_normal((SIZE, 3))
    if name in ("cer", "wer", "word-accuracy"):
        return rng.integers(-1, 4, (SIZE, 3))
    if name == "element-accuracy":
        return rng.integers(-1, 4, (SIZE, 5))
    return rng.integers(0, 3, SIZE)


TEXTS = [
    *(
        "agreement",
        "cosine",
        "cosine@y",
        "element-agreement@y",
        "equal@ids",
        "kl",
        "kl@steps",
        "soft-iou@y",
        "sqnr",
        "sqnr@steps",
        "tv@y",
        "worst",
    ),
    *("cer@steps", "wer:space=2@steps", "word-accuracy@steps", "element-accuracy@steps"),
    *("f1@y", "f1:average=micro@y", "f1:average=binary,positive=2@y", "mae@y", "mse@y"),
    *("top1@y", "topk:k=2@y"),
]


def test_every_metric_is_looked_at() -> None:
    assert {text.partition("@")[0].partition(":")[0] for text in TEXTS} == set(KINDS)


@pytest.mark.parametrize("text", TEXTS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), counts=st.lists(st.integers(0, 3), min_size=SIZE, max_size=SIZE))
def test_weights_are_repetitions(text: str, seed: int, counts: list[int]) -> None:
    if not sum(counts):
        return
    metric = parse_metric(text, MODEL)
    _, candidate = observed(seed, labels_for(metric.name.partition(":")[0], seed))
    rows = metric.rows(candidate)
    assert rows.dtype == np.float64 and rows.shape[0] == SIZE
    repeated = metric.value(np.repeat(rows, counts, axis=0))
    weights = np.array([counts, [1] * SIZE])
    for kind in (np.float64, np.uint8, np.int64):
        found = metric.values(rows, weights.astype(kind))
        assert found.shape == (2,) and found.dtype == np.float64
        np.testing.assert_allclose(found, [repeated, metric.value(rows)], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("text", TEXTS)
def test_batches_do_not_matter(text: str) -> None:
    metric = parse_metric(text, MODEL)
    _, whole = observed(3, labels_for(metric.name.partition(":")[0], 3))
    parts = []
    for part in (slice(0, 1), slice(1, 8), slice(8, SIZE)):
        outputs, reference = (
            {name: array[part] for name, array in side.items()}
            for side in (whole.outputs, whole.reference)
        )
        size = part.stop - part.start
        parts.append(metric.rows(Observed(outputs, reference, whole.labels[part], size)))
    np.testing.assert_allclose(np.concatenate(parts), metric.rows(whole), rtol=1e-12)


@pytest.mark.parametrize("text", TEXTS)
def test_the_original_has_no_drop_and_rows_say_what_is_promised(text: str) -> None:
    metric = parse_metric(text, MODEL)
    original, candidate = observed(5, labels_for(metric.name.partition(":")[0], 5))
    before = metric.value(metric.rows(original))
    assert drop(metric, before, before) == pytest.approx(0)
    if not metric.needs_labels:
        assert before in (0.0, pytest.approx(1.0), np.inf)
        assert drop(metric, before, metric.value(metric.rows(candidate))) > 0
    if metric.binary:
        rows = metric.rows(candidate)
        assert rows.shape[1] == 1 and set(rows[:, 0]) <= {0.0, 1.0}
        assert metric.value(rows) == pytest.approx(rows.mean())


def drop(metric: Metric, before: float, after: float) -> float:
    return float(metric.drop(np.array([before]), np.array([after]))[0])


def test_large_weightings_are_taken_in_blocks(monkeypatch) -> None:
    assert [p.stop - p.start for p in blocks(10, BLOCK // 4)] == [4, 4, 2]
    assert [p.stop - p.start for p in blocks(2, 10 * BLOCK)] == [1, 1]
    monkeypatch.setattr("graphopt.quality.metrics.pooling.BLOCK", 64)
    rng = np.random.default_rng(0)
    rows, weights = rng.random((30, 3)), rng.integers(0, 3, (17, 30)).astype(np.uint8)
    np.testing.assert_allclose(weighted_sums(rows, weights), weights @ rows)
    highest = [[rows[row > 0, column].max() for column in range(3)] for row in weights]
    np.testing.assert_array_equal(largest(rows, weights), highest)
    assert largest(rows, np.zeros((1, 30)))[0].tolist() == [0, 0, 0]
    assert largest(np.zeros((0, 2)), np.zeros((3, 0))).shape == (3, 2)
