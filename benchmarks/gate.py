"""Is the gate right? Planted drops on a labelled model, judged on random resplits of its test data.

    python -m benchmarks.gate MODEL.onnx TEST.npz --labels y

Noise in one weight tensor is turned up until the model loses a planted number of points on all of the data.
Then original and planted model are compared, as ``graphopt compare --max-drop`` does, on random halves of
the data. A verdict is wrong where it passes what loses more than the limit, or fails what loses less.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator

import numpy as np

from graphopt.compare import compare
from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.quality.data import DataOptions
from graphopt.quality.gate import Budget

STEPS = 24
"""Bisections of the noise."""


def accuracy(
    first: Model, second: Model, arrays: dict[str, np.ndarray], labels: str
) -> tuple[float, float]:
    """The share of right samples of both models on all of the data."""
    options = DataOptions(source=arrays, labels=labels)
    gate = compare(first, second, options, metric="top1", budget=Budget(None)).gate
    assert gate is not None
    assert gate.before is not None
    assert gate.after is not None
    return gate.before, gate.after


def planted(
    model: Model, arrays: dict[str, np.ndarray], labels: str, points: float
) -> tuple[Model, float]:
    """A copy of a model that loses about so many points, and what it loses exactly, as a share."""
    if points == 0:
        return model.copy(), 0.0
    weight = max(_floats(model), key=lambda c: c.nbytes).name
    low, high = 0.0, 4.0
    best: tuple[Model, float] | None = None
    for _ in range(STEPS):
        middle = (low + high) / 2
        candidate = model.copy()
        constant = next(c for c in _floats(candidate) if c.name == weight)
        rng = np.random.default_rng(0)
        noise = rng.standard_normal(constant.shape) * constant.values.std()
        constant.values = (constant.values + middle * noise).astype(constant.dtype)
        before, after = accuracy(model, candidate, arrays, labels)
        drop = before - after
        if best is None or abs(drop - points / 100) < abs(best[1] - points / 100):
            best = candidate, drop
        if abs(drop - points / 100) < 1e-9:
            break
        low, high = (middle, high) if drop < points / 100 else (low, middle)
    assert best is not None
    return best


def _floats(model: Model) -> list[Constant]:
    return [c for c in model.constants() if c.dtype.kind == "f" and len(c.shape) > 1]


def halves(arrays: dict[str, np.ndarray], size: int, times: int) -> Iterator[dict[str, np.ndarray]]:
    """Random subsets of the samples."""
    count = len(next(iter(arrays.values())))
    for seed in range(times):
        picks = np.random.default_rng(seed).permutation(count)[:size]
        yield {name: array[picks] for name, array in arrays.items()}


def main() -> None:
    """Print a table of verdicts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--labels", default="y")
    parser.add_argument("--limit", type=float, default=1.0, help="points that may be lost")
    parser.add_argument("--points", default="0,0.5,2,4")
    parser.add_argument("--samples", default="1000")
    parser.add_argument("--resplits", type=int, default=50)
    given = parser.parse_args()
    model = Model.load(given.model)
    with np.load(given.data, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    budget = Budget(given.limit / 100)
    print("| planted, points | samples | pass | unsure | fail | wrong |")
    print("| --- | --- | --- | --- | --- | --- |")
    for points in map(float, given.points.split(",")):
        candidate, drop = planted(model, arrays, given.labels, points)
        for size in map(int, given.samples.split(",")):
            found: Counter[str] = Counter()
            for part in halves(arrays, size, given.resplits):
                options = DataOptions(source=part, labels=given.labels)
                gate = compare(model, candidate, options, metric="top1", budget=budget).gate
                assert gate is not None
                found[gate.verdict] += 1
            wrong = found["pass"] if drop > budget.max_drop else found["fail"]  # type: ignore[operator]
            shown = " | ".join(str(found[kind]) for kind in ("pass", "unsure", "fail"))
            print(
                f"| {100 * drop:.2f} | {size} | {shown} | {wrong} of {given.resplits} |", flush=True
            )


if __name__ == "__main__":
    main()
