"""What structured pruning takes out of models, and what that costs.

    python -m benchmarks.pruning accuracy MODEL.onnx --data calib.npz --test test.npz --amount 0.3 0.5 0.7
    python -m benchmarks.pruning models                       # all of benchmarks/cache
    python -m benchmarks.pruning curve MODEL.onnx --data tasks.py:samples --labels y --metric top1

``accuracy`` measures on a test file that no pass sees, in plain ONNX Runtime, and times the result against
the original. ``models`` says of each model what can be cut, and whether the result is what it claims to be
(``benchmarks.pruning_proof``). ``curve`` measures on the evaluation part of the data, and lets the gate find
the knee.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.pruning_proof import WAYS, percent, prune, pruning_step, removed, session
from graphopt.assessment import open_data
from graphopt.bench import bench
from graphopt.ir.model import Model
from graphopt.numerics.statistics import Ratio
from graphopt.optimizer import Result
from graphopt.quality.data import DataOptions, first_feeds
from graphopt.quality.gate import Budget, fraction
from graphopt.quality.inputs import Feeds
from graphopt.runtime.cache import Cache

CACHE = Path(__file__).parent / "cache"

BATCH = 64
"""Samples of a run, where the model leaves that free."""


def head(*titles: str) -> None:
    """Begin a table."""
    row(titles)
    row(["---"] * len(titles))


def row(cells: Sequence[str]) -> None:
    """Go on with it."""
    print("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |", flush=True)


def fixed_batch(opened: onnxruntime.InferenceSession) -> int | None:
    """The samples of a run where the model declares a number of them."""
    first = (given.shape[0] for given in opened.get_inputs() if given.shape)
    return next((size for size in first if isinstance(size, int)), None)


def top1(model: Model, arrays: dict[str, np.ndarray], labels: np.ndarray) -> float:
    """The share of samples whose largest score in the first output is that of the label."""
    opened = session(model.to_proto())
    size = fixed_batch(opened) or BATCH
    hits: list[np.ndarray] = []
    for start in range(0, len(labels) - len(labels) % (fixed_batch(opened) or 1), size):
        part = slice(start, start + size)
        scores = opened.run(None, {name: array[part] for name, array in arrays.items()})[0]
        hits.append(scores.reshape(len(scores), -1).argmax(axis=1) == labels[part].reshape(-1))
    return float(np.concatenate(hits).mean())


def interval(found: Ratio | None) -> str:
    """A ratio with its interval."""
    return "" if found is None else f"{found.median:.3f} ({found.low:.3f} to {found.high:.3f})"


def accuracy(given: argparse.Namespace) -> None:
    """Amounts and multiples on a labelled test file, and timed."""
    model = Model.load(given.model)
    with np.load(given.test, allow_pickle=False) as file:
        labels = file[given.labels]
        inputs = {tensor.name for tensor in model.graph.inputs}
        arrays = {name: file[name] for name in file.files if name in inputs}
    least = fixed_batch(session(model.to_proto())) or 1
    feeds = {name: array[:least] for name, array in arrays.items()}
    titles = ("asked for", "widths", "MACs removed", "parameters removed", "top-1")
    head(*titles, "latency ratio", "original with itself", "claim")
    row(["original", "", "", "", percent(top1(model, arrays, labels), 2), "", "", ""])
    for multiple in given.multiple:
        for amount in given.amount:
            options = {"objective": given.objective, "amount": amount, "multiple": multiple}
            result = prune(model, options, data=given.data, budget=Budget(None))
            told = bench(model, result.model, feeds=feeds, seconds=given.seconds, threads=1)
            macs, parameters = removed(model, result.model, feeds)
            asked = f"{percent(amount, 0)} {given.objective}"
            shown = [percent(macs), percent(parameters)]
            shown.append(percent(top1(result.model, arrays, labels), 2))
            times = [interval(told.ratio), interval(told.control), told.claim or ""]
            row([asked, f"of {multiple}", *shown, *times])


def models(given: argparse.Namespace) -> None:
    """All models of a folder, each in a process of its own."""
    facts = ("model", "units by", "groups: can be cut / locked", "MACs removed")
    proofs = ("parameters removed", "valid", "equals masked", "outputs moved by")
    head(*facts, *proofs, "what else it says", "seconds")
    for path in sorted(Path(given.folder).rglob("*.onnx")):
        if not path.match(given.only):
            continue
        command = [sys.executable, "-m", "benchmarks.pruning_proof", str(path)]
        command += ["--amount", str(given.amount), "--by", *given.by]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=given.seconds)
            lines, why = done.stdout.splitlines(), ""
            if done.returncode:
                why = ["it died", *done.stderr.strip().splitlines()][-1]
        except subprocess.TimeoutExpired as error:
            lines = bytes(error.stdout or b"").decode().splitlines()
            why = f"more than {given.seconds:g} s"
        for line in lines:
            row([path.stem, *json.loads(line)])
        if why:
            row([path.stem, *[""] * 7, f"**{why[:200]}**", ""])


def value(number: float | None, low: float | None = None, high: float | None = None) -> str:
    """A metric's value, with its interval where that is known."""
    shown = "not finite" if number is None else f"{number:.4f}"
    return shown if low is None or high is None else f"{shown} ({low:.4f} to {high:.4f})"


def curve(given: argparse.Namespace) -> None:
    """The metric over the amount, on the same samples; then the most that the gate accepts."""
    model = Model.load(given.model)
    data = DataOptions(source=given.data, labels=given.labels, split=given.split)
    more: dict[str, Any] = {"data": data, "metric": given.metric}
    feeds = first_feeds(open_data(data, model))[0]
    fixed: dict[str, Any] = {"objective": given.objective, "multiple": given.multiple}
    head("asked for", "MACs removed", "parameters removed", "metric", "drop (interval)", "verdict")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        more["cache"] = Cache(folder)
        for amount in given.amount:
            result = prune(model, {**fixed, "amount": amount}, budget=Budget(None), **more)
            gate = result.report.gate
            assert gate is not None
            if amount == given.amount[0]:
                row(["original", "", "", value(gate.before), "", f"{gate.samples} samples"])
            row([percent(amount, 0), *_measured(model, result, feeds), ""])
        budget = Budget(fraction(given.max_drop))
        result = prune(model, {**fixed, "amount": given.most}, budget=budget, **more)
        step, gate = pruning_step(result), result.report.gate
        assert gate is not None
        how = step.eased or step.status
        asked = f"knee at --max-drop {given.max_drop}: {percent(given.most, 0)}, {how}"
        row([asked, *_measured(model, result, feeds), gate.verdict])


def _measured(model: Model, result: Result, feeds: Feeds) -> list[str]:
    gate = result.report.gate
    assert gate is not None
    macs, parameters = removed(model, result.model, feeds)
    drop = value(gate.drop, gate.low, gate.high)
    return [percent(macs), percent(parameters), value(gate.after), drop]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("accuracy", help=accuracy.__doc__)
    one.add_argument("model")
    one.add_argument("--data", required=True, help="calibration data, unlabelled")
    one.add_argument("--test", required=True, help="a labelled .npz that no pass sees")
    one.add_argument("--labels", default="y", help="the key of the labels in it")
    one.add_argument("--amount", type=float, nargs="+", default=[0.3, 0.5, 0.7])
    one.add_argument("--multiple", type=int, nargs="+", default=[1])
    one.add_argument("--objective", default="macs")
    one.add_argument("--seconds", type=float, default=60.0, help="how long each result is timed")
    one.set_defaults(run=accuracy)
    many = commands.add_parser("models", help=models.__doc__)
    many.add_argument("folder", nargs="?", default=str(CACHE))
    many.add_argument("--only", default="*", help="a pattern of file names")
    many.add_argument("--amount", type=float, default=0.3)
    many.add_argument("--by", nargs="+", choices=WAYS, default=list(WAYS))
    many.add_argument("--seconds", type=float, default=900.0, help="for each model")
    many.set_defaults(run=models)
    points = commands.add_parser("curve", help=curve.__doc__)
    points.add_argument("model")
    points.add_argument("--data", required=True)
    points.add_argument("--labels")
    points.add_argument("--metric")
    points.add_argument("--split", type=float, default=0.5, help="the share that calibrates")
    points.add_argument("--amount", type=float, nargs="+", default=[n / 10 for n in range(1, 8)])
    points.add_argument("--multiple", type=int, default=1)
    points.add_argument("--objective", default="macs")
    points.add_argument("--max-drop", default="1%")
    points.add_argument("--most", type=float, default=0.8, help="the amount that the gate eases")
    points.set_defaults(run=curve)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
