"""Metrics: of the task, where there are labels, and of fidelity to the original, where there are none.

`parse_metric` reads what a user wrote, `choose_metric` picks one where nothing was written, and
`fidelity_metrics` lists those that are worth a report.
"""

from graphopt.quality.metrics.base import Metric, Observed, Rows
from graphopt.quality.metrics.choice import choose_metric, fidelity_metrics
from graphopt.quality.metrics.parsing import KINDS, parse_metric

__all__ = [
    "KINDS",
    "Metric",
    "Observed",
    "Rows",
    "choose_metric",
    "fidelity_metrics",
    "parse_metric",
]
