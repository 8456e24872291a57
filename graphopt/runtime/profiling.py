"""Where the time of a run goes, node by node, as ONNX Runtime's own profiler sees it.

The nodes are those that ONNX Runtime runs, after its own fusions. A node with bodies counts without the
nodes that run inside it. On CUDA a node counts for as long as the CPU takes to launch it. The profiler
counts in whole microseconds and slows a run down a little.

Source: ONNX Runtime documentation, Profiling Tools; the file is in the trace event format of Chrome.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from graphopt.errors import NativeError, printable
from graphopt.ir.operators import CONTROL_FLOW
from graphopt.runtime.providers import Provider
from graphopt.runtime.sessions import open_session

SUFFIX = "_kernel_time"
"""What the profiler adds to a node's name where its kernel runs."""


@dataclass(frozen=True)
class NodeSeconds:
    """What a node took: seconds of one run, the median over runs."""

    name: str
    op: str
    seconds: float


@dataclass
class _Event:
    """One run of one kernel: from when to when, in microseconds, and how much of it is its own."""

    name: str
    op: str
    start: int
    end: int
    own: int


def profile(
    model: bytes | str,
    feeds: dict[str, Any],
    runs: int,
    seconds: float,
    threads: int,
    provider: Provider,
) -> list[NodeSeconds]:
    """Run a model under the profiler; see ``Tasks.profile``. One more run goes before, uncounted.

    Returns:
        The nodes, the dearest first.

    Raises:
        NativeError: the profiler wrote nothing of use.
    """
    until = time.perf_counter() + seconds
    with tempfile.TemporaryDirectory(prefix="graphopt-") as folder:
        session = open_session(model, True, threads, provider, str(Path(folder) / "profile"))
        for number in range(1 + max(runs, 1)):
            if number > 1 and time.perf_counter() > until:
                break
            session.run(None, feeds)
        found = list(read(Path(session.end_profiling())))
    if len(found) < 2:
        raise NativeError("the profiler of ONNX Runtime recorded no whole run")
    return summarize(found[1:])


def read(path: Path) -> Iterator[dict[tuple[str, str], int]]:
    """The runs in a profile: for each, microseconds by name and operator of a node."""
    events: list[_Event] = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            entry = _entry(line)
            if entry.get("cat") == "Node" and str(entry.get("name")).endswith(SUFFIX):
                events.append(_event(entry))
            elif entry.get("cat") == "Session" and entry.get("name") == "model_run":
                yield own_time(events)
                events = []


def _entry(line: str) -> dict[str, Any]:
    """The event on one line; empty where there is none."""
    try:
        found = json.loads(line.strip().rstrip(",") or "{}")
    except ValueError:  # the brackets around all events
        return {}
    return found if isinstance(found, dict) else {}


def _event(entry: dict[str, Any]) -> _Event:
    start, length = int(entry["ts"]), int(entry["dur"])
    name = printable(str(entry["name"]).removesuffix(SUFFIX))
    op = printable(str(entry.get("args", {}).get("op_name", "")))
    return _Event(name, op, start, start + length, length)


def own_time(events: list[_Event]) -> dict[tuple[str, str], int]:
    """Microseconds by name and operator, without those of nodes that ran inside."""
    around: list[_Event] = []
    total: dict[tuple[str, str], int] = {}
    ordered = sorted(events, key=lambda event: (event.start, -event.end))
    for event in ordered:
        while around and around[-1].end <= event.start:
            around.pop()
        if around:
            around[-1].own -= event.end - event.start
        if event.op in CONTROL_FLOW:
            around.append(event)
    for event in ordered:
        key = (event.name, event.op)
        total[key] = total.get(key, 0) + max(event.own, 0)
    return total


def summarize(runs: list[dict[tuple[str, str], int]]) -> list[NodeSeconds]:
    """The median of each node over runs, the dearest first."""
    keys = {key for run in runs for key in run}
    found = [NodeSeconds(*key, median(run.get(key, 0) for run in runs) / 1e6) for key in keys]
    return sorted(found, key=lambda node: (-node.seconds, node.name, node.op))
