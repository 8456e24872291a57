"""The first inputs of a data set, as the judge of exact passes takes them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from graphopt.quality.data.dataset import Dataset
from graphopt.quality.inputs import Feeds

BATCHES = 4
"""Sets of inputs that are taken from a data set."""

BATCH = 4
"""Samples in a set, where the model takes any number."""


def first_feeds(dataset: Dataset) -> list[Feeds]:
    """The first few inputs of the evaluation part, in small batches."""
    batches = dataset.batches("evaluation", size=BATCH)
    return [batch.feeds for batch in islice(batches, BATCHES)]


def timed_feeds(dataset: Dataset | None, drawn: Sequence[Feeds]) -> Feeds:
    """What models are timed on: the least that is one run of them, as most are when they serve somebody.

    Args:
        dataset: the first sample of its evaluation part; as many where the model fixes a number.
        drawn: inputs that were drawn where there is no data, the first of which is taken.
    """
    if dataset is None:
        return drawn[0] if drawn else {}
    return next((batch.feeds for batch in dataset.batches("evaluation", 1, 1)), {})
