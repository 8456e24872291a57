"""Data of which the parts have changed places: what calibrated judges, and the other way round."""

from __future__ import annotations

from collections.abc import Iterator

from graphopt.quality.data.dataset import Batch, Dataset, Part

OTHER: dict[Part, Part] = {"calibration": "evaluation", "evaluation": "calibration"}


class Swapped:
    """A data set as another one, its parts exchanged; see ``Dataset``.

    Args:
        data: the other one.
    """

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self.source, self.digest, self.samples = data.source, data.digest, data.samples
        self.labels, self.seed, self.warnings = data.labels, data.seed, data.warnings

    def count(self, part: Part) -> int:
        """Samples in a part."""
        return self._data.count(OTHER[part])

    def fingerprint(self, part: Part) -> str:
        """A hash of which samples are in a part."""
        return self._data.fingerprint(OTHER[part])

    def batches(
        self, part: Part, most: int | None = None, size: int | None = None
    ) -> Iterator[Batch]:
        """The samples of a part, in order, a new stream each time."""
        return self._data.batches(OTHER[part], most, size)


def alike(data: Dataset, labelled: bool) -> bool:
    """Whether both parts can do what the other does: neither is more than twice as large.

    Args:
        data: the data.
        labelled: whether both must have labels.
    """
    counts = sorted(data.count(part) for part in OTHER)
    if not counts[0] or counts[1] > 2 * counts[0]:
        return False
    return not labelled or next(iter(data.batches("calibration"))).labels is not None
