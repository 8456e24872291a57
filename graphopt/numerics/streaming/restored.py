"""What a refit needs where more is known of a layer's output than its values.

A layer gives o, and beside it a skip connection s may be added; then a function a follows that is constant
below ``low`` and above ``high`` (Relu: 0 and infinity). What shall be restored is ``a(y)``, where y is in the
original model what o + s is in the changed one. Where y lies in a constant stretch of a, o + s may lie
anywhere in the same stretch:

    t = y                      low < y < high
        min(o + s, low)        y <= low
        max(o + s, high)       y >= high

and the layer is fitted to ``t - s``. With the o of the last fit, fitting again and again never raises the
squared error of what a gives (Zhang et al., "Accelerating very deep convolutional networks", 2016, for Relu
and its asymmetric reconstruction).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from graphopt.numerics.streaming.accumulator import readable
from graphopt.numerics.streaming.cross import Cross, CrossSpec

Bounds = tuple[float, float]


class Restored(Cross):
    """A ``Cross`` whose targets are t - s."""

    @np.errstate(over="ignore", invalid="ignore")
    def add(self, array: np.ndarray, target: np.ndarray, *others: np.ndarray) -> None:
        """Take in an array of inputs, one of y, and as asked for one of o + s and one of s.

        Raises:
            ValueError: their shapes do not fit, or as for ``Cross``.
        """
        spec = cast("RestoredSpec", self.spec)
        rest = [readable(other) for other in others]
        wanted = readable(target)
        if any(other.shape != wanted.shape for other in rest):
            shapes = ", ".join(str(other.shape) for other in (wanted, *rest))
            raise ValueError(f"what is to be restored has arrays of shapes {shapes}")
        if spec.bounds is not None:
            low, high = spec.bounds
            flat = [np.minimum(rest[0], low), np.maximum(rest[0], high)]
            wanted = np.select([wanted <= low, wanted >= high], flat, wanted)
        if spec.skip:
            wanted = wanted - rest[-1]
        super().add(array, wanted)


@dataclass(frozen=True)
class RestoredSpec(CrossSpec):
    """Ask for a ``Restored``.

    Args:
        bounds: ``low`` and ``high``; an array of o + s is taken then.
        skip: whether an array of s is taken, after that of o + s.
    """

    bounds: Bounds | None = None
    skip: bool = False

    @property
    def arrays(self) -> int:  # type: ignore[override]
        """How many arrays each ``add`` takes."""
        return 2 + (self.bounds is not None) + self.skip

    def start(self) -> Restored:
        """An empty accumulator."""
        return Restored(self)
