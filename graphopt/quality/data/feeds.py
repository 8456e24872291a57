"""The first inputs of a data set, as the judge of exact passes takes them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from graphopt.errors import UsageError, printable
from graphopt.ir.model import Model
from graphopt.quality.data.dataset import Dataset
from graphopt.quality.data.opening import open_dataset
from graphopt.quality.data.options import DataOptions
from graphopt.quality.inputs import Feeds, specs

BATCHES = 4
"""Sets of inputs that are taken from a data set."""

BATCH = 4
"""Samples in a set, where the model takes any number."""


def first_feeds(dataset: Dataset) -> list[Feeds]:
    """The first few inputs of the evaluation part, in small batches."""
    batches = dataset.batches("evaluation", size=BATCH)
    return [batch.feeds for batch in islice(batches, BATCHES)]


def load_feeds(data: str | os.PathLike[str] | Sequence[Feeds], model: Model) -> list[Feeds]:
    """Inputs for a model from data that ``open_dataset`` reads, or complete feeds.

    Args:
        data: a path or ``module:function``; or complete feeds, which are taken as they are.
        model: the model they are for.

    Raises:
        UsageError: the data cannot be read, an input is missing, or a type or shape does not fit.
    """
    if isinstance(data, (str, os.PathLike)):
        return first_feeds(open_dataset(DataOptions(data), model, calibrates=False))
    wanted = [spec.name for spec in specs(model)]
    given: list[Any] = list(data)
    for feeds in given:
        keys = feeds.keys() if isinstance(feeds, Mapping) else {}
        for name in wanted:
            if name not in keys:
                raise UsageError(
                    f"the data has no array for the input {printable(name)!r}",
                    f"It has: {', '.join(sorted(map(printable, keys))) or 'none'}",
                )
    return given
