"""Child process: time optimized models against their original; prints one line of JSON.

    python -m benchmarks.latency NAME ROUNDS ORIGINAL TOOL=CANDIDATE ...

A round times the original and every candidate once, each round starting with another one, and
yields one ratio candidate / original per candidate. Slow drifts of the machine thus hit both
sides of a ratio. Reported are the quartiles of the ratios, with the runtime's graph
optimizations on (what users of ONNX Runtime see) and off (what a plain runtime sees).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from benchmarks import feeds
from benchmarks.judge import session

SAMPLE_SECONDS = 0.006
MOST_RUNS = 200


def _seconds(opened: onnxruntime.InferenceSession, feed: feeds.Feed, runs: int) -> float:
    start = time.perf_counter()
    for _ in range(runs):
        opened.run(None, feed)
    return (time.perf_counter() - start) / runs


def quartiles(ratios: list[float]) -> list[float]:
    """Return the median, the first and the third quartile."""
    return [round(float(q), 4) for q in np.percentile(ratios, (50, 25, 75))]


def ratios(paths: dict[str, Path], feed: feeds.Feed, rounds: int, on: bool) -> dict[str, Any]:
    """Time the models of ``paths``, the original under the key "", in interleaved rounds.

    Returns:
        The quartiles of the ratio to the original for every other key, and the original's
        median in milliseconds under "".
    """
    opened = {name: session(path, optimized=on) for name, path in paths.items()}
    for each in opened.values():
        each.run(None, feed)
    once = _seconds(opened[""], feed, 3)
    runs = int(np.clip(SAMPLE_SECONDS / once, 1, MOST_RUNS))
    samples: dict[str, list[float]] = {name: [] for name in opened}
    order = list(opened)
    for turn in range(rounds):
        first = turn % len(order)
        for name in order[first:] + order[:first]:
            samples[name].append(_seconds(opened[name], feed, runs))
    base = samples.pop("")
    found: dict[str, Any] = {
        name: quartiles([a / b for a, b in zip(times, base, strict=True)])
        for name, times in samples.items()
    }
    return {**found, "": round(float(np.median(base)) * 1e3, 4)}


def main() -> None:
    """Find a feed that the original runs on, then time with optimizations on and off."""
    name, rounds, original, *rest = sys.argv[1:]
    paths = {"": Path(original)}
    for pair in rest:
        tool, _, path = pair.partition("=")
        paths[tool] = Path(path)
    plain = session(paths[""], optimized=False)
    for feed in feeds.make(name, onnx.load(original)):
        try:
            plain.run(None, feed)
        except Exception:
            continue
        both = {key: ratios(paths, feed, int(rounds), key == "on") for key in ("on", "off")}
        print(json.dumps(both))
        return
    print(json.dumps({}))


if __name__ == "__main__":
    main()
