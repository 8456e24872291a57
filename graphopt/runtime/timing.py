"""Timing models against each other so that what differs is the models.

Where a session's buffers happen to lie biases all its runs by some per cent. So sessions are opened anew in
several blocks, each in a process of its own and in another order; within a block the models run in turns.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass

from graphopt.runtime.native import Native
from graphopt.runtime.providers import Provider
from graphopt.runtime.tasks import Feeds

BLOCKS = 12
"""Times that the sessions are opened anew: twice in each order of three."""

ROUNDS_OF_BLOCK = 4
"""Rounds that a block has at least, where there are enough. More of them tell less than more blocks do."""

FEWEST_BLOCKS = 3
"""Blocks that are timed however long they take: below these nothing is known of how blocks differ."""

REQUEST_SECONDS = 600.0
"""How long one block may take beyond its share of the time."""


@dataclass(frozen=True)
class Timings:
    """Seconds of a run, by model and block, one for each round.

    Attributes:
        blocks: for each model by its key, for each block, the timings of its rounds.
        rounds: rounds in all blocks together.
    """

    blocks: dict[str, list[list[float]]]
    rounds: int

    def all(self, key: str) -> list[float]:
        """All timings of a model."""
        return [seconds for block in self.blocks[key] for seconds in block]


def time_models(
    native: Native,
    models: Mapping[str, bytes | str],
    feeds: Feeds,
    *,
    rounds: int,
    seconds: float,
    threads: int = 1,
    optimize: bool = True,
    provider: Provider = Provider(),  # noqa: B008 - a frozen value
) -> Timings:
    """Time models in blocks of interleaved rounds.

    Args:
        native: ends its process before each block; what else was open in it is gone.
        models: bytes or path of each model, by key.
        feeds: what all of them run on.
        rounds: rounds in all blocks together, at most.
        seconds: stop beginning rounds after this long, but never before there are a few.
        threads: threads for one operator.
        optimize: whether ONNX Runtime may apply its own graph optimizations.
        provider: what runs them.

    Raises:
        NativeError: a model does not open or run.
        ProviderError: the provider is missing.
    """
    count = max(FEWEST_BLOCKS, min(BLOCKS, rounds // ROUNDS_OF_BLOCK))
    orders = list(itertools.permutations(models))
    until = time.monotonic() + seconds
    found: dict[str, list[list[float]]] = {key: [] for key in models}
    for block in range(count):
        left = max(until - time.monotonic(), 0.0)
        if block >= FEWEST_BLOCKS and not left:
            break
        native.close()
        for key in orders[block % len(orders)]:
            native.call("open", key, models[key], "ort", optimize, threads, str(provider))
        share = left / (count - block)
        wanted = max((rounds + block) // count, 1)
        timings = native.call(
            "time",
            list(models),
            feeds,
            wanted,
            share,
            block,
            seconds=share + REQUEST_SECONDS,
        )
        for key, times in zip(models, timings, strict=True):
            found[key].append(times)
    native.close()
    return Timings(found, sum(map(len, next(iter(found.values())))))
