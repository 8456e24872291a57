"""The gate: does a candidate keep to the budget, on the user's data?

The drop is measured between the original and the candidate on the same samples, with a confidence interval
(``graphopt.numerics.paired``). The verdict is *pass* where its upper end keeps to the limit, *fail* where its
lower end exceeds it, and *unsure* where there are too few samples to tell, with the number that would tell.

A run judges many candidates and keeps one that passes, so chance has as many tries. The k-th candidate is
judged at an error rate of ``(6 / pi^2) (1 - confidence) / k^2``. These rates sum up to ``1 - confidence``:
that bounds the chance that a run, as a whole, lets anything pass that loses more than was allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from graphopt.errors import NativeError, UsageError
from graphopt.ir.model import Model
from graphopt.numerics.paired import (
    Drop,
    binary_drop,
    drop_of_counts,
    resampled_drop,
    samples_to_decide,
    widened,
)
from graphopt.quality.evaluation import Evaluation
from graphopt.quality.metrics import Metric, Rows

DEFAULT_DROP = 0.01
"""The largest drop allowed where the user names neither a drop nor a floor."""

DEFAULT_CONFIDENCE = 0.95

MARGIN = 1.0
"""Standard errors, as when models are chosen by cross-validation (Breiman et al., 1984)."""


@dataclass(frozen=True)
class Budget:
    """What may be lost.

    Attributes:
        max_drop: the largest drop of the metric, as a fraction: 0.01 is one point of a percentage; None:
            no limit.
        floor: the lowest value that the metric may take (the highest, where lower is better); None: none.
        confidence: that nothing passes that loses more.
    """

    max_drop: float | None = DEFAULT_DROP
    floor: float | None = None
    confidence: float = DEFAULT_CONFIDENCE

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: a number is out of range.
        """
        if self.max_drop is not None and not (math.isfinite(self.max_drop) and self.max_drop >= 0):
            raise UsageError(f"a largest drop of {self.max_drop:g} makes no sense")
        if self.floor is not None and not math.isfinite(self.floor):
            raise UsageError(f"a floor of {self.floor:g} makes no sense")
        if not 0.5 <= self.confidence < 1:
            raise UsageError(
                f"a confidence of {self.confidence:g} makes no sense",
                "Give one from 50 % to below 100 %",
            )

    @property
    def limited(self) -> bool:
        """Whether anything limits the loss."""
        return self.max_drop is not None or self.floor is not None


def fraction(text: str) -> float:
    """Read ``0.5%`` or ``0.005``.

    Raises:
        UsageError: it is neither, or a bare number of 1 and more, which could mean either.
    """
    stripped = text.strip()
    percent = stripped.endswith("%")
    try:
        value = float(stripped.removesuffix("%"))
    except ValueError:
        raise UsageError(
            f"cannot read {text!r}", "Write a percentage as in 0.5%, or a fraction as in 0.005"
        ) from None
    if not percent and value >= 1:
        raise UsageError(f"{text!r} could mean {value:g} % or {value:g}", f"Write {value:g}%")
    return value / 100 if percent else value


@dataclass(frozen=True)
class GateVerdict:
    """What the gate found.

    Attributes:
        metric: that was judged by.
        verdict: pass, fail or unsure.
        before: the metric of the original.
        after: of the candidate.
        drop: with its interval; positive is worse.
        limit: the largest drop allowed; None where nothing limits it.
        confidence: of each end of the interval.
        samples: compared.
        more: how many more would decide; None where it is decided or no number would.
        why: in words.
    """

    metric: str
    verdict: Literal["pass", "fail", "unsure"]
    before: float
    after: float
    drop: Drop
    limit: float | None
    confidence: float
    samples: int
    more: int | None
    why: str

    @property
    def tolerable(self) -> bool:
        """Whether the estimate keeps to the limit, proven or not."""
        return self.verdict == "pass" or (
            self.verdict == "unsure" and self.limit is not None and self.drop.value <= self.limit
        )

    @property
    def likely(self) -> bool:
        """Whether other samples are likely to show a drop that keeps to the limit, too.

        The estimate must be ``MARGIN`` standard errors below it. Losses too rare to have been seen are not
        thought of, so this proves nothing.
        """
        return self.verdict == "pass" or (
            self.tolerable and self._keeps(self.drop.value, self.drop.spread)
        )

    def likely_with(self, other: GateVerdict) -> bool:
        """The same of the mean of two drops, on samples that are not the same.

        Args:
            other: of the same choices, fitted to the samples of this verdict and judged on others.
        """
        shares = np.array([self.samples, other.samples]) / (self.samples + other.samples)
        drops = np.array([self.drop.value, other.drop.value])
        spreads = np.array([self.drop.spread, other.drop.spread])
        drop, spread = float(shares @ drops), float(np.linalg.norm(shares * spreads))
        return self.tolerable and self._keeps(drop, spread)

    def _keeps(self, drop: float, spread: float) -> bool:
        return self.limit is not None and drop + MARGIN * spread <= self.limit


class Gate:
    """Judges candidates against the original by one metric.

    Args:
        budget: what may be lost.
        metric: what it is lost of: the evaluation's first metric.
        evaluation: runs the models.
        blame: what measures, from a base on, how far models are from it; see ``LossJudge``.
    """

    def __init__(
        self,
        budget: Budget,
        metric: Metric,
        evaluation: Evaluation,
        blame: Callable[[Model], Callable[[Model], float]],
    ) -> None:
        self.budget = budget
        self.blame = blame
        self.metric = metric
        self.evaluation = evaluation
        self.trials = 0

    def judge(self, candidate: Model) -> GateVerdict:
        """Judge one candidate; each one makes the next verdicts of this gate a little stricter."""
        self.trials += 1
        confidence = confidence_of_trial(self.budget.confidence, self.trials)
        before = self.evaluation.before()[0]
        try:
            after = self.evaluation.after(candidate)[0]
        except NativeError as error:
            value = self.metric.value(before)
            lost = Drop(math.inf, math.inf, math.inf)
            why = f"the candidate does not run: {error.what}"
            limit = _limit(self.budget, self.metric, before)
            return GateVerdict(
                str(self.metric),
                "fail",
                value,
                math.nan,
                lost,
                limit,
                confidence,
                len(before),
                None,
                why,
            )
        return verdict(self.budget, self.metric, before, after, confidence)


def confidence_of_trial(confidence: float, trial: int) -> float:
    """The confidence to judge the k-th candidate with, so that all together keep to the whole."""
    return 1 - 6 / math.pi**2 * (1 - confidence) / trial**2


def verdict(
    budget: Budget, metric: Metric, before: Rows, after: Rows, confidence: float
) -> GateVerdict:
    """Judge the rows of a candidate by those of the original.

    Args:
        budget: what may be lost.
        metric: that gave the rows.
        before: rows of the original.
        after: rows of the candidate, for the same samples.
        confidence: of each end of the interval.
    """
    limit = _limit(budget, metric, before)
    drop, interval = _drop(metric, before, after, confidence)
    samples = len(before)
    if limit is None:
        kind: Literal["pass", "fail", "unsure"] = "pass"
    elif not math.isfinite(drop.value):
        kind = "fail" if drop.value > 0 or math.isnan(drop.value) else "pass"
    elif drop.high <= limit:
        kind = "pass"
    else:
        kind = "fail" if drop.low > limit else "unsure"
    more = None
    if kind == "unsure" and limit is not None:
        more = samples_to_decide(interval, samples, limit)
    return GateVerdict(
        str(metric),
        kind,
        metric.value(before),
        metric.value(after),
        drop,
        limit,
        confidence,
        samples,
        more,
        _why(kind, drop, limit, more, samples),
    )


def _drop(
    metric: Metric, before: Rows, after: Rows, confidence: float
) -> tuple[Drop, Callable[[float], Drop]]:
    """The drop, and what it would be on so many times as many samples."""
    if metric.binary:
        first, second = before[:, 0], after[:, 0]
        lost = int(np.count_nonzero((first > 0.5) & (second < 0.5)))
        gained = int(np.count_nonzero((first < 0.5) & (second > 0.5)))

        def planned(times: float) -> Drop:
            return drop_of_counts(lost * times, gained * times, len(before) * times, confidence)

        return binary_drop(first, second, confidence), planned

    def measure(weights: np.ndarray) -> np.ndarray:
        return metric.drop(metric.values(before, weights), metric.values(after, weights))

    found = resampled_drop(measure, len(before), confidence, metric.worst)
    return found, lambda times: widened(found, times)


def _limit(budget: Budget, metric: Metric, before: Rows) -> float | None:
    """The largest drop that both the drop allowed and the floor leave."""
    limits = []
    if budget.max_drop is not None:
        limits.append(budget.max_drop)
    if budget.floor is not None:
        value = np.array([metric.value(before)])
        limits.append(float(metric.drop(value, np.array([budget.floor]))[0]))
    return min(limits) if limits else None


def _why(kind: str, drop: Drop, limit: float | None, more: int | None, samples: int) -> str:
    said = f"drop {percent(drop.value)}, between {percent(drop.low)} and {percent(drop.high)}"
    if limit is None:
        return f"{said}; nothing limits it"
    if kind == "pass":
        return f"{said}, keeps to {percent(limit)}"
    if kind == "fail":
        return f"{said}, exceeds {percent(limit)}"
    if more is None:
        return f"{said}: it lies at the limit of {percent(limit)}, no number of samples would tell"
    return (
        f"{said}: {samples} samples are not enough to tell whether it keeps to {percent(limit)}; "
        f"about {more} more would"
    )


def percent(value: float) -> str:
    """A share for people."""
    return f"{100 * value:.3g} %"
