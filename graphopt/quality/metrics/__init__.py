"""Metrics: of the task, where there are labels, and of fidelity to the original, where there are none."""

from graphopt.quality.metrics.base import Metric, Observed, Rows

__all__ = ["Metric", "Observed", "Rows"]
