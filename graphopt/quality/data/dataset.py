"""A data set: named inputs in samples, with or without labels, read as a stream.

Samples are numbered in the order in which the source gives them. A part of the data is a set of numbers,
fixed by the seed alone, so calibration and evaluation never overlap and are the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from graphopt.quality.inputs import Feeds

Part = Literal["calibration", "evaluation"]


@dataclass(frozen=True)
class Batch:
    """Some samples, ready for one run of the model.

    Attributes:
        feeds: every input of the model by name.
        labels: of the samples, axis 0 = sample; None where the data has none.
        size: samples in it.
    """

    feeds: Feeds
    labels: np.ndarray | None
    size: int


class Dataset(Protocol):
    """Data for one model, checked against its inputs when it was opened.

    Attributes:
        source: the path or ``module:function`` as given.
        digest: sha256 in hex of all samples and labels as arrays, whatever file they came in.
        samples: in all.
        labels: the name of the labels; empty where there are none.
        seed: of the split.
        warnings: what a user should know, such as samples that do not fill a batch.
    """

    source: str
    digest: str
    samples: int
    labels: str
    seed: int
    warnings: list[str]

    def count(self, part: Part) -> int:
        """Samples in a part."""

    def fingerprint(self, part: Part) -> str:
        """A hash of which samples are in a part: of the data and of how it is divided."""

    def batches(
        self, part: Part, most: int | None = None, size: int | None = None
    ) -> Iterator[Batch]:
        """The samples of a part, in order, a new stream each time.

        Args:
            part: which part.
            most: stop after this many samples, or with the run that passes them where a run of the model
                takes several.
            size: the most samples in a batch, where the model takes any number; chosen by their bytes
                where this is None.

        Raises:
            UsageError: the source gives other data than when it was opened.
        """
