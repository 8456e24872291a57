"""Recording how long each node of a model takes, in the process that runs it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from graphopt.errors import NativeError
from graphopt.runtime.profiling import read
from graphopt.runtime.providers import Provider
from graphopt.runtime.sessions import open_session

FEWEST_RUNS = 2
"""Runs that are recorded however long they take."""

RUNS = 8
"""Runs that are enough, once they took long enough together."""

ENOUGH_SECONDS = 0.004
"""How long the runs of a model shall take together: about as long as a time slice of the system."""

MOST_RUNS = 64
"""Runs that are recorded at most."""


class Recorded(NamedTuple):
    """Runs of a model.

    Attributes:
        runs: microseconds by name and operator of a node, run by run, under the profiler.
        plain: seconds of whole runs without the profiler.
    """

    runs: list[dict[tuple[str, str], int]]
    plain: list[float]


_TYPES = {"float": "f4", "double": "f8", "float16": "f2", "bool": "?"} | {
    f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def record_each(
    models: Sequence[bytes | str],
    feeds: Sequence[dict[str, Any] | None],
    seconds: float,
    threads: int,
    provider: Provider,
) -> list[Recorded]:
    """Run models under ONNX Runtime's profiler and then without it, each in a session of its own.

    One session is open at a time.

    Args:
        models: bytes or paths.
        feeds: what each runs on; None to draw what fits its inputs, whose shapes must then be fixed.
        seconds: how long the runs of one model may take, but for the fewest.
        threads: threads for one operator.
        provider: what runs them.

    Raises:
        NativeError: the profiler recorded nothing, or inputs cannot be drawn.
    """
    return [
        _record(model, given, seconds, threads, provider)
        for model, given in zip(models, feeds, strict=True)
    ]


def _record(
    model: bytes | str,
    feeds: dict[str, Any] | None,
    seconds: float,
    threads: int,
    provider: Provider,
) -> Recorded:
    with tempfile.TemporaryDirectory(prefix="graphopt-") as folder:
        session = open_session(model, True, threads, provider, str(Path(folder) / "profile"))
        given = drawn(session) if feeds is None else feeds
        session.run(None, given)
        _run(session, given, seconds / 2)
        found = list(read(Path(session.end_profiling())))[1:]
        if not found:
            raise NativeError("the profiler of ONNX Runtime recorded no whole run")
        return Recorded(found, _run(session, given, seconds / 2))


def _run(session: Any, given: dict[str, Any], seconds: float) -> list[float]:
    """Run a session some times; the seconds of each run."""
    found: list[float] = []
    while len(found) < MOST_RUNS:
        started = time.perf_counter()
        session.run(None, given)
        found.append(time.perf_counter() - started)
        spent = sum(found)
        if len(found) >= FEWEST_RUNS and (
            spent > seconds or (len(found) >= RUNS and spent > ENOUGH_SECONDS)
        ):
            break
    return found


def drawn(session: Any) -> dict[str, np.ndarray]:
    """Inputs of the fixed shapes that a session declares.

    Floats are normally distributed, integers of 8 bits uniform; wider integers are zeros, since they may be
    indices.

    Raises:
        NativeError: a shape is not fixed, or there is no such array.
    """
    rng = np.random.default_rng(0)
    found = {}
    for entry in session.get_inputs():
        name = _TYPES.get(entry.type.removeprefix("tensor(").removesuffix(")"))
        if name is None or not all(isinstance(dim, int) and dim > 0 for dim in entry.shape):
            raise NativeError(f"no input can be drawn of {entry.type} and shape {entry.shape}")
        dtype = np.dtype(name)
        if dtype.kind == "f":
            found[entry.name] = rng.standard_normal(entry.shape).astype(dtype)
        elif dtype.itemsize == 1 and dtype.kind in "iu":
            info = np.iinfo(dtype)
            found[entry.name] = rng.integers(info.min, info.max + 1, entry.shape, dtype)
        else:
            found[entry.name] = np.zeros(entry.shape, dtype)
    return found
