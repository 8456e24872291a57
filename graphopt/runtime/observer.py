"""What a pass observes with: models are run over the calibration part of the user's data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graphopt.ir.model import Model
from graphopt.numerics.streaming import Sampling
from graphopt.runtime.cache import Cache
from graphopt.runtime.native import Native
from graphopt.runtime.observing import Answers, Request, Stream, observe
from graphopt.runtime.relay import Relay

ROWS = 32_768
"""Rows of a layer's input, of all batches together, that its moments are taken from."""

ROWS_OF_FEATURE = 8
"""And so many for each of its features, where that is more."""


@dataclass(frozen=True)
class Observer:
    """Runs models over the same batches again and again.

    Attributes:
        native: the process to run them in.
        batches: of the data.
        digest: of exactly these batches.
        cache: where statistics are kept between calls.
        progress: told in words what is going on.
        how: ``provider``, ``threads`` and ``seconds`` of a run; see ``observe_each``.
        part: gives the batches of so many samples from the start of the data; None for all of it.
        fuses: whether ONNX Runtime may fuse what is not observed.
    """

    native: Native
    batches: Stream
    digest: str = ""
    cache: Cache | None = None
    progress: Callable[[str], None] | None = None
    how: dict[str, Any] = field(default_factory=dict)
    part: Callable[[int], Stream] | None = None
    fuses: bool = False

    def __call__(
        self,
        model: Model,
        requests: Sequence[Request[Any]],
        other: Model | None = None,
        over: Relay | None = None,
    ) -> Answers:
        """Statistics of a model's tensors.

        Args:
            model: the model.
            requests: what to observe.
            other: a second model that is run on the same feeds.
            over: a relay whose batches stand in for the data; nothing of it is cached.

        Raises:
            NativeError: the model cannot be run on the data.
        """
        return observe(
            self.native,
            model,
            self.batches if over is None else over,
            requests,
            other=other,
            cache=self.cache,
            digest=self.digest if over is None else "",
            progress=self.progress,
            fused=self.fuses,
            **self.how,
        )

    @functools.cached_property
    def _batches(self) -> int:
        return sum(1 for _ in self.batches)

    def sampling(self, features: int) -> Sampling:
        """Rows of each batch that are enough, all batches together, for the moments of so many features."""
        wanted = max(ROWS, ROWS_OF_FEATURE * features)
        return Sampling(-(-wanted // max(self._batches, 1)))

    def first(self, samples: int) -> Observer:
        """One that looks at about so many samples from the start of the data."""
        if self.part is None:
            return self
        digest = f"{self.digest}, the first {samples}" if self.digest else ""
        return replace(self, batches=self.part(samples), digest=digest)

    def fused(self) -> Observer:
        """One that lets ONNX Runtime fuse what is not observed; see ``observe_each``."""
        return replace(self, fuses=True)

    def source(self) -> Model | None:
        """None: this is data."""
        return None

    def relay(self) -> Relay:
        """A relay at the start of the data."""
        return Relay(self.native, self.batches, **self.how)
