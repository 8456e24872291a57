"""Where the grid of an activation lies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Scale:
    """The grid of an activation.

    Attributes:
        scale: the distance between two of its numbers, float32, a scalar.
        zero_point: the integer of 0, a scalar.
        spread: factors r, float32 of shape ``(channels,)``: the integers stand for x / r; None where all of
            them are 1.
        axis: of the channels.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    spread: np.ndarray | None = None
    axis: int = 1

    @property
    def plain(self) -> Scale:
        """The grid of x / r."""
        return replace(self, spread=None)

    @property
    def steps(self) -> np.ndarray:
        """The distance between two numbers of the grid of x, float32: a scalar, or one for each channel."""
        if self.spread is None:
            return np.asarray(self.scale, np.float32)
        return np.asarray(self.scale * self.spread, np.float32)
