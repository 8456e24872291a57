"""Measuring quantized models beside the float model of a task (``benchmarks.quantization``).

Sample by sample, in plain ONNX Runtime with one thread and all of its optimizations.

    SQNR      10 log10(sum f^2 / sum (f - q)^2) of the first output, over all samples, in dB
    speed-up  time of the float model / time of the candidate, of one sample: the median and the
              quartiles over rounds, each of which times all models once and begins with another one;
              CPU time of the calling thread, and wall time
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.judge import session
from benchmarks.latency import quartiles
from benchmarks.quantization_tasks import TASKS, Arrays, Task

SAMPLE_SECONDS = 0.004
"""The least time that a model runs in one round."""

OPENINGS = 3
"""How often all models are opened anew: where one lies in memory changes its time, too."""

AGAIN = "the float model again"
"""A second session of the float model: how far from 1 a ratio is by chance."""


@dataclass(frozen=True)
class Measured:
    """A model beside the float model.

    Attributes:
        metric: on the labels, a share.
        agreement: with the float model, a share.
        sqnr: of the first output, in dB; infinite where nothing differs.
        size: bytes of the file / bytes of the float model's.
        milliseconds: CPU time of a run, the median.
        cpu: speed-up in CPU time: median, first and third quartile.
        wall: the same in wall time.
    """

    metric: float
    agreement: float
    sqnr: float
    size: float
    milliseconds: float
    cpu: list[float]
    wall: list[float]


def feeds(arrays: Arrays, opened: onnxruntime.InferenceSession) -> Iterator[Arrays]:
    """The samples one after another: rows, or whole inputs where the array has an axis more."""
    ranks = {given.name: len(given.shape) for given in opened.get_inputs()}
    for index in range(len(next(iter(arrays.values())))):
        yield {
            name: arrays[name][index]
            if arrays[name].ndim > rank
            else arrays[name][index : index + 1]
            for name, rank in ranks.items()
        }


def measure(folder: Path, candidates: Sequence[Path], rounds: int) -> dict[str, Measured]:
    """Measure models on a task.

    Args:
        folder: the task's, as ``prepare`` wrote it.
        candidates: models with the interface of the float model.
        rounds: how often each is timed.

    Returns:
        The candidates by their paths, and before them the float model itself as ``AGAIN``.
    """
    task, original = TASKS[folder.resolve().name], folder / "model.onnx"
    paths = {"": original, AGAIN: original, **{str(path): path for path in candidates}}
    opened = {name: session(path, optimized=True) for name, path in paths.items()}
    with np.load(folder / "eval.npz", allow_pickle=False) as file:
        arrays = dict(file)
    labels = arrays.pop(task.label, None)
    decisions, sqnr = _decided(task, arrays, opened)
    expected = decisions[""] if labels is None else labels
    times = _timed(paths, next(feeds(arrays, opened[""])), rounds)
    return {
        name: Measured(
            metric=task.alike(decisions[name], expected),
            agreement=task.alike(decisions[name], decisions[""]),
            sqnr=sqnr[name],
            size=path.stat().st_size / original.stat().st_size,
            milliseconds=float(np.median(times[name][:, 0])) * 1e3,
            cpu=quartiles(list(times[""][:, 0] / times[name][:, 0])),
            wall=quartiles(list(times[""][:, 1] / times[name][:, 1])),
        )
        for name, path in paths.items()
        if name
    }


def _decided(
    task: Task, arrays: Arrays, opened: dict[str, onnxruntime.InferenceSession]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Every model's decisions, and its SQNR."""
    metadata = opened[""].get_modelmeta().custom_metadata_map
    found: dict[str, list[np.ndarray]] = {name: [] for name in opened}
    signal_power, noise = 0.0, dict.fromkeys(opened, 0.0)
    for feed in feeds(arrays, opened[""]):
        outputs = {name: each.run(None, feed)[0] for name, each in opened.items()}
        signal_power += float(np.square(outputs[""], dtype=np.float64).sum())
        for name, output in outputs.items():
            noise[name] += float(np.square(outputs[""] - output, dtype=np.float64).sum())
            found[name].append(task.decide(output, metadata))
    decibels = {
        name: 10 * math.log10(signal_power / power) if power else math.inf
        for name, power in noise.items()
    }
    return {name: np.concatenate(parts) for name, parts in found.items()}, decibels


def _timed(paths: dict[str, Path], feed: Arrays, rounds: int) -> dict[str, np.ndarray]:
    """Seconds of a run, for each model an array ``(rounds or some more, 2)``: CPU time and wall time."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
    order = list(paths)
    for _ in range(OPENINGS):
        opened = {name: session(paths[name], optimized=True) for name in order}
        runs = {name: _runs(each, feed) for name, each in opened.items()}
        for _ in range(-(-rounds // OPENINGS)):
            order.append(order.pop(0))
            for name in order:
                times[name].append(_seconds(opened[name], feed, runs[name]))
    return {name: np.array(found) for name, found in times.items()}


def _runs(opened: onnxruntime.InferenceSession, feed: Arrays) -> int:
    """How many runs fill the time of one round."""
    opened.run(None, feed)
    return max(1, math.ceil(SAMPLE_SECONDS / _seconds(opened, feed, 3)[1]))


def _seconds(opened: onnxruntime.InferenceSession, feed: Arrays, runs: int) -> tuple[float, float]:
    cpu, wall = time.thread_time(), time.perf_counter()
    for _ in range(runs):
        opened.run(None, feed)
    return (time.thread_time() - cpu) / runs, (time.perf_counter() - wall) / runs
