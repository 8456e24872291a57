"""What the passes of quantization tell the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphopt
from graphopt.numerics.streaming import Histogram
from graphopt.passes.quantization._qdq.insertion import Scale
from graphopt.passes.quantization._qdq.notes import range_info
from graphopt.passes.quantization._qdq.targets import TARGETS
from graphopt.report import Report
from graphopt.report.quantized import in_words

ROOT = Path(__file__).parents[2] / "models" / "digits_cnn"
DATA: dict[str, Any] = {"data": str(ROOT / "digits_test.npz"), "labels": "y"}


def test_a_range_beside_what_was_seen() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 50_000).astype(np.float32)
    values[::4] = 0.0
    seen = Histogram(2048)
    seen.add(values)
    scale = Scale(np.float32(0.01), np.uint8(100))
    found = range_info("t", scale, TARGETS["ort-cpu"], seen, "auto", 0.5)
    assert (found.low, found.high) == pytest.approx((-1.0, 1.55))
    others = values[values != 0]
    outside = np.mean((others < found.low) | (others > found.high))
    assert found.clipped == pytest.approx(outside, abs=0.002)
    assert found.zeros == 0.25
    assert found.kept == pytest.approx(2.55 / float(values.max() - values.min()))
    assert found.histogram is not None
    assert sum(found.histogram.counts) == others.size
    assert found.histogram.edges[0] == pytest.approx(values.min(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "bits", "block", "said"),
    [
        ("quantize-weights:bits=4,rounding=nearest", 4, 16, "stored in 4 bits"),
        ("quantize-weights", 8, 0, "stored in 8 bits"),
        ("binarize-weights:bases=3", 3, 0, "stored in 3 bits"),
    ],
)
def test_weights_in_few_bits(name: str, bits: int, block: int, said: str) -> None:
    budget = graphopt.Budget(max_drop=None)
    model = graphopt.load(ROOT / "digits_cnn.onnx")
    result = graphopt.optimize(model, passes=[name], budget=budget, **DATA)
    report = Report.from_json(result.report.to_json())
    rows = report.steps[-1].quantized
    assert len(rows) == len(report.steps[-1].edits)
    assert in_words(rows) == f"{len(rows)} of {len(rows)} nodes {said}"
    weights = [weight for row in rows for weight in row.weights]
    assert {weight.bits for weight in weights} == {bits}
    assert block in {weight.block for weight in weights}
    assert all(row.sqnr_db is not None and row.sqnr_db > 0 for row in rows)
    low = {8: 35.0, 4: 17.0, 3: 10.0}[bits]
    assert all(weight.sqnr_db is not None and weight.sqnr_db > low for weight in weights)
