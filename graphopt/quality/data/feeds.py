"""The first inputs of a data set, as the judge of exact passes takes them."""

from __future__ import annotations

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
