"""How far two results may lie apart and still count as equal, by dtype, and by how much they do.

An exact rewrite may change the order of additions, so its floating-point results differ by rounding.
A deviation is judged against the size of the whole tensor, not of the single element: a sum that
cancels to nearly nothing keeps the absolute error of its terms.

    |a - b| <= relative * (|a| + rms(a)) + 4 eps       rms over the finite elements of the tensor

The last term is for kernels that compute a bounded function, such as the logistic one, with the absolute
precision of numbers near 1.

Some models magnify rounding: a sigmoid far out, a variance as a difference of two large numbers. For them
the tolerance is widened by what rounding does to the *original*: its constants and inputs are moved by a
few units of their last place (``jitter``), and the deviation that this causes is the noise that any
reordering of its arithmetic may cause too (backward error analysis; Higham, Accuracy and Stability of
Numerical Algorithms, chapter 1).

Integers, booleans and strings must be equal. NaN equals NaN, and an infinity the same infinity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RELATIVE = {
    "float64": 1e-9,
    "float32": 5e-4,
    "float16": 2e-2,
    "bfloat16": 1e-1,
}
"""Named tolerances. Each is a few thousand units of the dtype's last place (a few dozen for the
16-bit types): the rounding of a hundred layers stays well below, a wrong constant far above."""

_OTHER_FLOATS = 2.5e-1
"""For the 8- and 4-bit floats, whose neighbours lie up to a quarter apart."""


_TINY = float(np.finfo(np.float64).tiny)

JITTER_ULPS = 8
"""Units of the last place by which ``jitter`` moves numbers at most."""


def jitter(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Numbers moved at random by a few units of their last place; others are returned as they are."""
    if values.dtype.name not in ("float64", "float32", "float16") or values.size == 0:
        return values
    size = JITTER_ULPS * float(np.finfo(values.dtype).eps)
    moved = values.astype(np.float64) * (1 + size * (2 * rng.random(values.shape) - 1))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(moved).astype(values.dtype)


@dataclass(frozen=True)
class Difference:
    """How two arrays differ.

    Attributes:
        equal: whether they count as equal.
        largest: the largest absolute difference of finite elements.
        relative: the largest difference as the relative part of the tolerance counts it; 0 for equal
            arrays.
        why: what is wrong, in words; empty where they count as equal.
    """

    equal: bool
    largest: float = 0.0
    relative: float = 0.0
    why: str = ""


ABSOLUTE_ULPS = 4
"""Units of the last place of 1 that any two results may lie apart."""

NOISE_FACTOR = 4.0
"""How many times the result's own rounding noise a deviation may be."""


def compare(reference: np.ndarray, candidate: np.ndarray, noise: float = 0.0) -> Difference:
    """Compare a result with what it should be.

    Args:
        reference: what it should be, any shape and dtype.
        candidate: the result.
        noise: by how much rounding alone is known to move the result, absolute; see ``jitter``.

    Returns:
        The difference; unequal dtypes or shapes count as different whatever the values.
    """
    if reference.dtype != candidate.dtype:
        return Difference(False, why=f"{candidate.dtype} instead of {reference.dtype}")
    if reference.shape != candidate.shape:
        return Difference(False, why=f"shape {candidate.shape} instead of {reference.shape}")
    if reference.size == 0:
        return Difference(True)
    kind = reference.dtype.kind
    if kind == "c":
        return compare(_parts(reference), _parts(candidate), noise)
    if kind == "f" or (kind == "V" and "float" in reference.dtype.name):
        return _floats(reference, candidate, noise)
    return _whole(reference, candidate)


def _parts(values: np.ndarray) -> np.ndarray:
    return np.stack([values.real, values.imag])


def _whole(reference: np.ndarray, candidate: np.ndarray) -> Difference:
    """Integers, booleans and strings: equal or not."""
    wrong = reference != candidate
    count = int(np.count_nonzero(wrong))
    if count == 0:
        return Difference(True)
    why = f"{count} of {reference.size} elements differ"
    if reference.dtype.kind not in "iu":
        return Difference(False, why=why)
    gap = np.abs(reference[wrong].astype(np.float64) - candidate[wrong].astype(np.float64))
    return Difference(False, float(gap.max()), float(gap.max()), why)


def _floats(reference: np.ndarray, candidate: np.ndarray, noise: float) -> Difference:
    relative = RELATIVE.get(reference.dtype.name, _OTHER_FLOATS)
    a = reference.astype(np.float64)
    b = candidate.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return Difference(False, why="NaN or infinity where there was none, or the reverse")
    if not np.isfinite(b[finite]).all():
        return Difference(False, why="NaN or infinity where there was none")
    a, b = a[finite], b[finite]
    if a.size == 0:
        return Difference(True)
    gap = np.abs(a - b)
    largest = float(gap.max())
    if largest == 0.0:
        return Difference(True)
    with np.errstate(over="ignore"):
        scale = np.abs(a) + float(np.sqrt(np.mean(np.square(a))))
        scale = np.maximum(scale + _floor(reference.dtype) / relative, _TINY)
    worst = float((gap / scale).max())
    if bool((gap <= relative * scale + NOISE_FACTOR * noise).all()):
        return Difference(True, largest, worst)
    return Difference(False, largest, worst, f"off by up to {largest:.3g} ({worst:.2g} relative)")


def _floor(dtype: np.dtype) -> float:
    """The absolute part of the tolerance: 0 for types of 8 bits and fewer, which are coarse anyway."""
    name = dtype.name
    if name == "bfloat16":
        return ABSOLUTE_ULPS * 2.0**-7
    known = name in ("float64", "float32", "float16")
    return ABSOLUTE_ULPS * float(np.finfo(dtype).eps) if known else 0.0
