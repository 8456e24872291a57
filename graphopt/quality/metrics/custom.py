"""Metrics of the user's own: a function of a batch.

    def f(outputs, labels) -> array     outputs: {name: array}; labels: array

With one positional parameter it gets the outputs, with two the labels too, with three the original's
outputs for the same inputs as well. It returns one number per sample, or one number for the whole batch,
which is then the unit that counts. The metric's value is the mean of these numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.errors import UsageError, printable
from graphopt.quality.metrics.base import Metric, Observed, Rows
from graphopt.quality.metrics.labels import require
from graphopt.quality.metrics.outputs import as_numbers, is_float
from graphopt.quality.metrics.pooling import quotient, weighted_sums
from graphopt.quality.user_function import UserFunction, load_function


@dataclass(frozen=True)
class CustomScore(Metric):
    """A function of outputs alone, or of outputs, labels and the original's outputs; higher is better."""

    name: str
    function: UserFunction
    parameters: int

    def rows(self, seen: Observed) -> Rows:
        """The function's numbers, and which of them are not finite because the outputs are not."""
        if self.needs_labels:
            require(self.name, seen.labels, seen.size)
        given = (seen.outputs, seen.labels, seen.reference)[: self.parameters]
        values = _numbers(self.name, self.function(*given))
        if values.ndim > 1 or (values.ndim == 1 and len(values) != seen.size):
            raise UsageError(
                f"metric {self.name} returned an array of shape {values.shape} for {seen.size} samples",
                "It must return one number per sample, or one number",
            )
        values = values.reshape(-1)
        odd = ~np.isfinite(values)
        if odd.any() and _finite(seen.outputs):
            raise UsageError(
                f"metric {self.name} returned {values[odd][0]} for outputs that are finite",
                "It must return a number whatever the outputs are",
            )
        return np.stack([np.where(odd, 0.0, values), odd], axis=1)

    def values(self, rows: Rows, weights: np.ndarray) -> np.ndarray:
        """The mean; the worst that there is where an output that counts is not finite."""
        sums = weighted_sums(rows, weights)
        means = quotient(sums[:, 0], weights.sum(axis=1, dtype=np.float64))
        return np.where(sums[:, 1] > 0, -np.inf if self.higher_is_better else np.inf, means)


class CustomError(CustomScore):
    """The same where lower is better."""

    higher_is_better = False


class LabelledScore(CustomScore):
    """A function of outputs and labels; higher is better."""

    needs_labels = True


class LabelledError(LabelledScore):
    """The same where lower is better."""

    higher_is_better = False


def custom_metric(text: str, lower: bool, name: str) -> Metric:
    """A metric of the user's own.

    Args:
        text: ``module:function`` or ``file.py:function``.
        lower: whether lower values are better.
        name: as written on the command line.

    Raises:
        UsageError: the function cannot be loaded, or takes another number of arguments.
    """
    function = load_function(text)
    count = _parameters(function.call)
    if count not in (1, 2, 3):
        raise UsageError(
            f"metric {printable(text)}: the function takes {count} positional arguments",
            "It must take (outputs), (outputs, labels) or (outputs, labels, reference)",
        )
    kinds = (LabelledScore, LabelledError) if count == 2 else (CustomScore, CustomError)
    return kinds[lower](name, function, count)


def _numbers(metric: str, returned: Any) -> np.ndarray:
    try:
        found = np.asarray(returned)
        if found.dtype.kind in "biufV":
            return found.astype(np.float64)
    except (TypeError, ValueError):
        pass
    raise UsageError(
        f"metric {metric} returned a {type(returned).__name__} that is not an array of numbers",
        "It must return one number per sample, or one number",
    )


def _parameters(function: Callable[..., Any]) -> int:
    """Positional arguments that a function must be given; all three where it takes any number."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 2
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 3
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters)


def _finite(outputs: dict[str, np.ndarray]) -> bool:
    floats = (as_numbers(array) for array in outputs.values() if is_float(array))
    return all(bool(np.isfinite(array).all()) for array in floats)
