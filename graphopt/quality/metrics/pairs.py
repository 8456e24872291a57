"""Outputs of the candidate beside those of the original, sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from graphopt.errors import UsageError, printable
from graphopt.quality.metrics.base import Metric, Observed
from graphopt.quality.metrics.outputs import as_numbers, listed, shown, tensor, tensors
from graphopt.quality.metrics.pooling import blocks


@dataclass(frozen=True)
class Pair:
    """One output of both models, samples on the first axis.

    Attributes:
        reference: the original's.
        candidate: the candidate's.
        added: whether the first axis was put there: the whole batch is one row.
    """

    reference: np.ndarray
    candidate: np.ndarray
    added: bool

    @property
    def comparable(self) -> bool:
        """Whether the shapes are the same, and numbers are not to be compared with something else."""
        kinds = {self.reference.dtype.kind, self.candidate.dtype.kind}
        return self.reference.shape == self.candidate.shape and (
            len(kinds) == 1 or kinds <= {*"biuf"}
        )


def pairs(
    metric: Metric, seen: Observed, fits: Callable[[np.ndarray], bool], wanted: str
) -> list[Pair]:
    """The outputs that a metric of fidelity looks at.

    Where one of them is not of the batch's size, the batch as a whole is the one row of all.

    Args:
        metric: its ``output`` names one, or is empty: then all that fit.
        seen: a batch.
        fits: whether an output of the original is of the form that the metric wants.
        wanted: that form in words.

    Raises:
        UsageError: no output fits, or the one that is named does not.
    """
    if metric.output:
        reference = tensor(metric, seen.reference, metric.output)
        if not fits(reference):
            raise UsageError(
                f"metric {metric.name} wants {wanted}; the output {printable(metric.output)!r} is "
                f"{shown(reference)}",
                f"Outputs: {listed(seen.reference)}",
            )
        names = [metric.output]
    else:
        names = [name for name, array in tensors(seen.reference).items() if fits(array)]
    if not names:
        raise UsageError(
            f"metric {metric.name} wants {wanted}, and no output is that",
            f"Outputs: {listed(seen.reference)}",
        )
    both = [
        (as_numbers(seen.reference[name]), as_numbers(tensor(metric, seen.outputs, name)))
        for name in names
    ]
    added = any(a.ndim == 0 or len(a) != seen.size for a, _ in both)
    if added:
        both = [(a[np.newaxis], b[np.newaxis]) for a, b in both]
    return [Pair(a, b, added) for a, b in both]


Matched = tuple[slice, np.ndarray, np.ndarray, np.ndarray]


def matched(pair: Pair) -> Iterator[Matched]:
    """Blocks of a pair as plain finite numbers.

    Yields:
        Which rows; the original's and the candidate's as float64 ``(rows, elements)``, 0 where an
        element is not finite in either; and whether a row is broken: it has an element that is NaN or
        infinite in one of both and not the same in the other.
    """
    a, b = (x.reshape(len(x), -1) for x in (pair.reference, pair.candidate))
    for part in blocks(len(a), a.shape[1]):
        first, second = a[part].astype(np.float64), b[part].astype(np.float64)
        odd = ~(np.isfinite(first) & np.isfinite(second))
        if not odd.any():
            yield part, first, second, np.zeros(len(first), bool)
            continue
        same = (first == second) | (np.isnan(first) & np.isnan(second))
        first[odd], second[odd] = 0.0, 0.0
        yield part, first, second, (odd & ~same).any(axis=1)
