"""Inputs to observe with where the user gives none.

Statistics of a model on drawn inputs are those of its weights more than those of its task, so they promise
little; but they tell which channels say the same, or nothing. Inputs are built on those that the original is
known to run on (``Equivalence.feeds``): the same names and types, larger where a size is free. Pictures,
sound and series are noise with the spectrum of such things (``graphopt.numerics.noise``), other floats white
noise; whole numbers lie in the range that the original is known to take; a mask hides nothing; what looks
like a length or a rate is kept. The original is run on the first batches; where it refuses them, less is
drawn, at last nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphopt.errors import NativeDeathError, NativeError
from graphopt.ir.model import Model
from graphopt.numerics.streaming import Sampling
from graphopt.quality.equivalence import Equivalence
from graphopt.quality.input_drawing import Drawing, Sizes, drawings
from graphopt.quality.input_scale import scales
from graphopt.quality.inputs import Feeds, specs
from graphopt.quality.session import Opened
from graphopt.runtime.cache import Cache
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Answer, Answers, Request
from graphopt.runtime.relay import Relay

VERSION = "1"
"""Of how inputs are drawn: others give other statistics."""

SAMPLES = 256
"""Samples that are drawn, as far as their bytes allow."""

TOTAL_BYTES = 1 << 28
"""Bytes of all drawn inputs together, beyond which no further batch is drawn."""

CHECKED = 3
"""Batches that the original must accept before it is fed with all."""

MOST_DEATHS = 2
"""Processes that a model may kill while inputs are tried."""


@dataclass(frozen=True)
class Synthetic:
    """Batches of inputs, drawn anew, and the same, at each reading.

    Attributes:
        drawn: how each input is drawn.
        seed: of the draw.
        given: complete feeds that are taken as they are where nothing is drawn.
    """

    drawn: tuple[Drawing, ...]
    seed: int
    given: tuple[Feeds, ...] = ()

    def __len__(self) -> int:
        """The number of batches."""
        varied = [entry for entry in self.drawn if entry.varied]
        if not varied:
            return len(self.given)
        samples = next((entry.shape[0] for entry in varied if len(entry.shape) > 1), 1)
        fitting = TOTAL_BYTES // max(sum(entry.nbytes for entry in self.drawn), 1)
        return max(min(math.ceil(SAMPLES / samples), fitting), 1)

    def batch(self, number: int) -> Feeds:
        """One batch; it depends on the seed and the number alone."""
        if not any(entry.varied for entry in self.drawn):
            return self.given[number]
        rng = np.random.default_rng([self.seed, number])
        return {entry.name: entry.draw(rng) for entry in self.drawn}

    def __iter__(self) -> Iterator[Feeds]:
        """The batches, one at a time."""
        return map(self.batch, range(len(self)))

    @property
    def digest(self) -> str:
        """Of exactly these batches."""
        parts = [entry.digest for entry in self.drawn]
        for feeds in self.given:
            parts += [Drawing(name, "kept", value).digest for name, value in feeds.items()]
        return Cache.key("synthetic", VERSION, np.__version__, self.seed, len(self), *parts)


class SyntheticObserver:
    """Observes on drawn inputs. These are chosen when a pass first asks, for that takes runs of the original.

    Args:
        make: gives the observer that does it.
        original: the model as it was read.

    Attributes:
        asked: whether some pass has asked.
    """

    def __init__(self, make: Callable[[], Observer], original: Model) -> None:
        self.asked = False
        self._original = original
        self._make = make
        self._made: Observer | None = None

    def __call__(
        self,
        model: Model,
        requests: Sequence[Request[Any]],
        other: Model | None = None,
        over: Relay | None = None,
    ) -> Answers:
        """Statistics of a model's tensors; none, with the reason, where it does not run on what is drawn."""
        try:
            return self._observer()(model, requests, other, over)
        except NativeError as error:
            return Answers({request: Answer(None, error.what) for request in requests})

    def sampling(self, features: int) -> Sampling:
        """Which rows of each batch are enough for the moments of a layer with so many features."""
        return self._observer().sampling(features)

    def first(self, samples: int) -> SyntheticObserver:
        """One that looks at about so many of them."""
        return SyntheticObserver(lambda: self._observer().first(samples), self._original)

    def fused(self) -> SyntheticObserver:
        """One that lets ONNX Runtime fuse what is not observed."""
        return SyntheticObserver(lambda: self._observer().fused(), self._original)

    def source(self) -> Model | None:
        """The model as it was read."""
        return self._original

    def relay(self) -> Relay:
        """A relay at the start of the drawn inputs."""
        return self._observer().relay()

    def _observer(self) -> Observer:
        self.asked = True
        if self._made is None:
            self._made = self._make()
        return self._made


def synthetic(judge: Equivalence, seed: int) -> Synthetic:
    """Choose how the inputs of a model are drawn.

    Args:
        judge: of the original; it has inputs that the original runs on.
        seed: of the draw.

    Returns:
        The batches; those of the judge as they are where the original accepts nothing else, and none where it
        does not run at all.
    """
    judge.prepare()
    if not judge.references:
        return Synthetic((), seed)
    known = max(range(len(judge.feeds)), key=lambda n: _elements(judge.feeds[n]))
    given = Synthetic((), seed, tuple(judge.feeds))
    least = _finite(judge.references[known][: len(judge.outputs)])
    found = None
    with contextlib.suppress(NativeError), _opened(judge, judge.outputs) as session:
        found = _accepted(session, judge, judge.feeds[known], seed, least)
    if found is None:
        return given
    with contextlib.suppress(NativeError):
        scaled = _scaled(judge, found)
        if scaled is not None:
            with _opened(judge, judge.outputs) as session:
                if _share(session, scaled) >= least:
                    return scaled
    return found


def _accepted(
    session: Opened, judge: Equivalence, known: Feeds, seed: int, least: float
) -> Synthetic | None:
    """The first way to draw on which the original runs and gives finite numbers; else that of the most."""
    inputs = specs(judge.original)
    sizes = Sizes.tried(inputs, known)
    best: Synthetic | None = None
    deaths = 0
    tried: set[str] = set()
    for (alone, positive), size in itertools.product(
        itertools.product((False, True), repeat=2), sizes
    ):
        drawn = tuple(drawings(inputs, known, size, alone=alone, positive=positive))
        found = Synthetic(drawn, seed)
        if not any(entry.varied for entry in drawn) or found.digest in tried:
            continue
        tried.add(found.digest)
        try:
            share = _share(session, found)
            if share >= least and (best is None or share > least):
                best, least = found, share
            if best is found and share == 1.0:
                return best
        except NativeDeathError:
            deaths += 1
            if deaths >= MOST_DEATHS:
                return best
        except NativeError:
            continue
    return best


def _scaled(judge: Equivalence, found: Synthetic) -> Synthetic | None:
    """The same, its floats as large as the model's own statistics say that they were; None without these."""

    def run(names: Sequence[str], feeds: Feeds) -> list[np.ndarray]:
        with _opened(judge, names) as session:
            return session.run(feeds)

    floats = [entry.name for entry in found.drawn if entry.kind == "floats"]
    told = scales(judge.original, floats, found.batch(0), run)
    if not told:
        return None
    one = (1.0, 0.0)
    return replace(found, drawn=tuple(e.times(*told.get(e.name, one)) for e in found.drawn))


def _share(session: Opened, found: Synthetic) -> float:
    """The share of finite numbers that the original gives on the first batches."""
    batches = map(found.batch, range(min(len(found), CHECKED)))
    return min(_finite(session.run(feeds)) for feeds in batches)


def _opened(judge: Equivalence, names: Sequence[str]) -> Opened:
    return Opened(
        judge.native, judge.original, names, seconds=judge.seconds, provider=judge.provider
    )


def _elements(feeds: Feeds) -> int:
    return sum(value.size for value in feeds.values() if isinstance(value, np.ndarray))


def _finite(outputs: Sequence[Any]) -> float:
    """The share of finite numbers in outputs; 1 where there are none."""
    floats = [o for o in outputs if isinstance(o, np.ndarray) and o.dtype.kind == "f" and o.size]
    every = sum(values.size for values in floats)
    return sum(int(np.isfinite(values).sum()) for values in floats) / every if every else 1.0
