"""Runs over the data: which there are, and what comes of each."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.errors import NativeDeathError, NativeError
from graphopt.numerics.streaming.accumulator import Accumulator, Shape
from graphopt.runtime.exposing import Exposed
from graphopt.runtime.native import Native
from graphopt.runtime.observing_child import Watch
from graphopt.runtime.observing_plan import Group, group, outputs_of
from graphopt.runtime.tasks import Feeds

NO_DATA = "there is no batch of data"

READ_ONCE = "it does not fit into the one run that data which can be read only once allows"

FEW = 4
"""Tensors whose shapes are found by holding them at once; one statistic may take so many."""

_KEYS = itertools.count()


@dataclass(frozen=True)
class Settings:
    """How models are run.

    Attributes:
        native: the process to run them in.
        memory_bytes: what the statistics of one run, with the tensors of one batch, may hold.
        provider: that runs them.
        threads: for one operator.
        seconds: how long one batch may take; None for what the process allows.
        progress: told in words what is going on.
        fused: whether ONNX Runtime may fuse what is not observed.
    """

    native: Native
    memory_bytes: int
    provider: str
    threads: int
    seconds: float | None
    progress: Callable[[str], None] | None
    fused: bool = False


class Run:
    """Serves watches on models, in as few runs over the data as their memory allows.

    Args:
        settings: how models are run.
        exposed: the models.
        watches: what to accumulate.
        batches: of feeds.
    """

    def __init__(
        self,
        settings: Settings,
        exposed: Sequence[Exposed],
        watches: Sequence[Watch],
        batches: Iterable[Feeds],
    ) -> None:
        self.settings = settings
        self.exposed = exposed
        self.watches = watches
        self.batches = batches
        self.key = f"observed {next(_KEYS)}"
        self.opened: list[int] = []
        self.generation = -1

    def results(self) -> Iterator[tuple[int, Accumulator | str]]:
        """For every watch, by number, what was accumulated or why there is nothing."""
        stream = iter(self.batches)
        once = stream is self.batches
        first = next(stream, None)
        if first is None:
            yield from ((number, NO_DATA) for number in range(len(self.watches)))
            return
        objections = self._open(range(len(self.watches)))
        yield from ((n, why) for n, why in enumerate(objections) if why)
        left = {n: w for n, w in enumerate(self.watches) if not objections[n]}
        shapes = self._shapes(list(left.values()), first)
        groups, refused = group(left, shapes, self.settings.memory_bytes)
        yield from refused.items()
        for place, part in enumerate(groups):
            if once and place:
                yield from ((number, READ_ONCE) for number in part.numbers)
                continue
            batches = itertools.chain([first], stream) if once else self.batches
            yield from self._serve(part, batches, f"run {place + 1} of {len(groups)}")

    def _serve(
        self, part: Group, batches: Iterable[Feeds], label: str
    ) -> Iterator[tuple[int, Accumulator | str]]:
        """One run over the data."""
        if part.numbers != self.opened:
            self.close()
            self._open(part.numbers)
        for count, feeds in enumerate(batches, 1):
            if self.settings.progress is not None:
                self.settings.progress(f"observing: {label}, batch {count}")
            self._call("observe_run", feeds)
        for place, number in enumerate(part.numbers):
            yield number, self._take(place)

    def _take(self, place: int) -> Accumulator | str:
        """What one of the open watches accumulated, or why there is nothing."""
        state = self._call("observe_take", place)
        if isinstance(state, str):
            return state
        found: Accumulator = self.watches[self.opened[place]].spec.start()
        found.restore(state)
        return found

    def _open(self, numbers: Iterable[int]) -> list[str]:
        """Open sessions for some watches; for each of them why it cannot be served, or nothing."""
        self.opened = list(numbers)
        watches = [self.watches[number] for number in self.opened]
        sources = []
        for place, model in enumerate(self.exposed):
            names = outputs_of(watches, place)
            sources.append(model.returning(names) if names else None)
        settings = self.settings
        objections: list[str] = settings.native.call(
            "observe_open",
            self.key,
            sources,
            watches,
            threads=settings.threads,
            provider=settings.provider,
            fused=settings.fused,
            seconds=settings.seconds,
        )
        self.generation = settings.native.generation
        return objections

    def _shapes(self, watches: Sequence[Watch], feeds: Feeds) -> dict[tuple[int, str], Shape]:
        """The shapes of the tensors watched on one batch, by number of the model and name."""
        watched = {source for watch in watches for source in watch.sources}
        if len(watched) <= FEW:
            return dict(self._call("observe_shapes", feeds))
        found: dict[tuple[int, str], Shape] = {}
        call, limit = self.settings.native.call, self.settings.seconds
        key = f"{self.key}, shapes"
        for place, model in enumerate(self.exposed):
            names = outputs_of(watches, place)
            if not names:
                continue
            source, made = model.shapes_of(names)
            options = {"threads": self.settings.threads, "provider": self.settings.provider}
            call("open", key, source, **options, seconds=limit)
            shapes: list[np.ndarray] = call("run_known", key, feeds, made, seconds=limit)
            call("close", key)
            pairs = zip(names, shapes, strict=True)
            found.update(((place, name), tuple(map(int, shape))) for name, shape in pairs)
        return found

    def _call(self, task: str, argument: Any) -> Any:
        native = self.settings.native
        if not native.alive or native.generation != self.generation:
            raise NativeDeathError("the process that held the statistics has ended")
        return native.call(task, self.key, argument, seconds=self.settings.seconds)

    def close(self) -> None:
        """Forget the sessions and what they accumulated."""
        native, self.opened = self.settings.native, []
        if native.alive and native.generation == self.generation:
            with contextlib.suppress(NativeError):
                native.call("close", self.key)
