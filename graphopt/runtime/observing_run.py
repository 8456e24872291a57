"""Runs over the data: which there are, and what comes of each."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.errors import NativeDeathError, NativeError
from graphopt.numerics.streaming.accumulator import Accumulator, Shape
from graphopt.runtime.exposing import Exposed
from graphopt.runtime.native import Native
from graphopt.runtime.observing_child import Watch
from graphopt.runtime.observing_plan import Group, Shapes, group, outputs_of
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
        names = [outputs_of(watches, place) for place in range(len(self.exposed))]
        sources = [
            model.returning(wanted) if wanted else None
            for model, wanted in zip(self.exposed, names, strict=True)
        ]
        settings = self.settings
        objections: list[str] = settings.native.call(
            "observe_open",
            self.key,
            sources,
            names,
            watches,
            threads=settings.threads,
            provider=settings.provider,
            fused=settings.fused,
            seconds=settings.seconds,
        )
        self.generation = settings.native.generation
        return objections

    def _shapes(self, watches: Sequence[Watch], first: Feeds) -> Shapes:
        """The shapes of the tensors watched on the first batch that computes them.

        A body that the first batch does not run may be run by a later one.
        """
        watched = {source for watch in watches for source in watch.sources}
        found: dict[tuple[int, str], list[Shape]] = {}
        if len(watched) <= FEW:
            found.update(self._call("observe_shapes", first))
            if all(found.values()):
                return found
        later = (
            () if iter(self.batches) is self.batches else itertools.islice(self.batches, 1, None)
        )
        for place, model in enumerate(self.exposed):
            names = outputs_of(watches, place)
            if names:
                every = itertools.chain([first], later)
                shapes = self._model_shapes(model, names, every)
                found.update({(place, name): shapes[name] for name in names})
        return found

    def _model_shapes(
        self, model: Exposed, names: Sequence[str], batches: Iterable[Feeds]
    ) -> dict[str, list[Shape]]:
        """The same of one model: for each tensor one shape for each run of the scope that it lies in."""
        call, limit = self.settings.native.call, self.settings.seconds
        key = f"{self.key}, shapes"
        options = {"threads": self.settings.threads, "provider": self.settings.provider}
        found: dict[str, list[Shape]] = {name: [] for name in names}
        call("open", key, model.shapes_of(names), **options, seconds=limit)
        for feeds in batches:
            shapes = call("run_known", key, feeds, seconds=limit)
            for name, entry in zip(names, shapes, strict=True):
                runs = entry if isinstance(entry, list) else [entry]
                found[name] = found[name] or [tuple(map(int, shape)) for shape in runs]
            if all(found.values()):
                break
        call("close", key)
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
