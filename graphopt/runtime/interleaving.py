"""Timing calls in turns, so that what drifts on the machine hits all of them alike.

A call that is too short for the clock is repeated within one timing, and one call that is not timed goes
before each timing, since the others have just used the caches.
"""

from __future__ import annotations

import gc
import itertools
import math
import random
import time
from collections.abc import Callable, Sequence

TIMING_SECONDS = 0.0005
"""The shortest timing: a thousand times what the clock and the loop around a call take, and short enough that
on a busy machine most timings are over before another process gets its turn."""

MOST_REPEATS = 1000
"""Calls in one timing at most."""

WARMING_SECONDS = 0.1
"""A call longer than this does not depend on what the caches hold before it."""

WARM_UP = 3
"""Calls before any is timed, as long as they are short."""

FEWEST_ROUNDS = 2
"""Rounds that are timed however long they take."""


def interleave(
    runs: Sequence[Callable[[], object]], rounds: int, seconds: float, seed: int
) -> list[list[float]]:
    """Time some calls in turns, in an order that changes from round to round.

    Args:
        runs: what to call.
        rounds: rounds at most.
        seconds: stop after this long, but not before there are a few rounds.
        seed: of the orders.

    Returns:
        For each of the runs, seconds of one call in each round.
    """
    until = time.perf_counter() + seconds
    slowest = max(_warm(run) for run in runs)
    repeats = min(max(math.ceil(TIMING_SECONDS / max(slowest, 1e-9)), 1), MOST_REPEATS)
    warming = slowest < WARMING_SECONDS
    orders = list(itertools.islice(itertools.permutations(range(len(runs))), 24))
    found: list[list[float]] = [[] for _ in runs]
    rng = random.Random(seed)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            if number >= FEWEST_ROUNDS and time.perf_counter() > until:
                break
            if number % len(orders) == 0:
                rng.shuffle(orders)
            for index in orders[number % len(orders)]:
                if warming:
                    runs[index]()
                found[index].append(_timed(runs[index], repeats))
    finally:
        if collecting:
            gc.enable()
    return found


def _warm(run: Callable[[], object]) -> float:
    """Call a few times, once where that takes long; seconds of the last call."""
    until = time.perf_counter() + WARMING_SECONDS
    seconds = _timed(run, 1)
    for _ in range(WARM_UP - 1):
        if time.perf_counter() > until:
            break
        seconds = _timed(run, 1)
    return seconds


def _timed(run: Callable[[], object], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - started) / repeats
