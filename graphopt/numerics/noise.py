"""Noise with the spectrum that pictures and sound have: strong where it varies slowly.

    X = F^-1( F(W) / f^a ),   W white and normal,   f = |frequency|,   X(f = 0) = 0

A picture is a window of a larger scene, which is brighter there or darker: what varies more slowly than the
window is wide is a level of its own, drawn for each field.

Over two or more axes ``a = 1``: the amplitudes of natural images fall as ``1/f`` (Field, "Relations between
the statistics of natural images and the response properties of cortical cells", 1987). Over one axis
``a = 1/2``: the power of music and speech falls as ``1/f`` (Voss & Clarke, "1/f noise in music and speech",
1975).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LARGEST_FIELD = 1 << 22
"""Elements of one field of noise beyond which it is left white, for its transform would take too much."""

LEVEL = 0.45
"""The deviation of the levels of pictures, in units of that of all their elements."""


def coloured(rng: np.random.Generator, shape: Sequence[int], axes: Sequence[int]) -> np.ndarray:
    """Normal noise whose spectrum falls over some axes and is flat over the others.

    Args:
        rng: where it is drawn from.
        shape: of the result.
        axes: that the spectrum falls over, in ascending order; white noise where there are none.

    Returns:
        float32 of the shape, mean 0 and variance 1 on average. Each field, which is what lies along the axes
        at one place of the others, has the mean 0 and the variance 1 over one axis; over more, the mean is
        normal with the deviation ``LEVEL``, and the variance ``1 - LEVEL^2``.
    """
    size = int(np.prod([shape[axis] for axis in axes], dtype=object))
    if not axes or size <= 1 or size > LARGEST_FIELD:
        return rng.standard_normal(shape, dtype=np.float32)
    others = [axis for axis in range(len(shape)) if axis not in axes]
    lengths = [shape[axis] for axis in axes]
    shaped = _shaping(lengths)
    made = np.empty([shape[axis] for axis in (*others, *axes)], np.float32)
    for place in np.ndindex(*made.shape[: len(others)]):
        spectrum = np.fft.rfftn(rng.standard_normal(lengths)) * shaped
        field = np.fft.irfftn(spectrum, lengths, axes=range(len(lengths)))
        made[place] = field / (field.std() or 1.0)
    if len(axes) > 1:
        level = rng.standard_normal(made.shape[: len(others)])
        made *= np.float32(np.sqrt(1 - LEVEL**2))
        made += np.float32(LEVEL) * level.astype(np.float32).reshape(level.shape + (1,) * len(axes))
    return np.ascontiguousarray(np.moveaxis(made, range(len(others), len(shape)), axes))


def _shaping(lengths: Sequence[int]) -> np.ndarray:
    """``f^-a`` at each frequency of a real transform, 0 at frequency 0."""
    last = len(lengths) - 1
    every = [
        np.fft.rfftfreq(size) if axis == last else np.fft.fftfreq(size)
        for axis, size in enumerate(lengths)
    ]
    squares = sum(np.square(part) for part in np.meshgrid(*every, indexing="ij"))
    power = np.asarray(squares)
    power.flat[0] = np.inf
    return np.asarray(power ** (-0.5 if last else -0.25))
