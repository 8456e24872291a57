"""Timing models against each other so that what differs is the models.

Where a session's buffers happen to lie biases all its runs by some per cent. So sessions are opened anew in
several blocks, each in a process of its own and in another order; within a block the models run in turns.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from graphopt.errors import OutputError
from graphopt.ir.model import Model
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
    models: Mapping[str, Model],
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
        models: by key; one that stands there twice gets two sessions.
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
    found: dict[str, list[list[float]]] = {key: [] for key in models}
    with written(models) as paths:
        until = time.monotonic() + seconds
        for block in range(count):
            left = max(until - time.monotonic(), 0.0)
            if block >= FEWEST_BLOCKS and not left:
                break
            native.close()
            for key in orders[block % len(orders)]:
                native.call(
                    "open", key, paths[key], "ort", optimize, threads, str(provider), prepack=True
                )
            wanted, share = max((rounds + block) // count, 1), left / (count - block)
            allowed = share + REQUEST_SECONDS
            timings = native.call(
                "time", list(models), feeds, wanted, share, block, seconds=allowed
            )
            for key, times in zip(models, timings, strict=True):
                found[key].append(times)
    native.close()
    return Timings(found, sum(map(len, next(iter(found.values())))))


@contextmanager
def written(models: Mapping[str, Model]) -> Iterator[dict[str, str]]:
    """The paths of models, each written once, to a folder that goes away afterwards.

    Raises:
        OutputError: there is no room for them.
    """
    paths: dict[int, str] = {}
    try:
        folder = tempfile.TemporaryDirectory(prefix="graphopt-")
    except OSError as error:
        raise OutputError(
            f"there is no place for temporary files: {error.strerror}", "Set TMPDIR to a folder"
        ) from None
    with folder as name:
        for model in models.values():
            if id(model) not in paths:
                path = Path(name) / f"{len(paths)}.onnx"
                model.save(path)
                paths[id(model)] = str(path)
        yield {key: paths[id(model)] for key, model in models.items()}
