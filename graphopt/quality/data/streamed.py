"""The data set itself: sources that were read once, and the parts that they are divided into."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from graphopt.errors import UsageError
from graphopt.quality.data.batching import Batcher, Grouper
from graphopt.quality.data.dataset import Batch, Part
from graphopt.quality.data.digest import ChangedError, Fingerprint, sample_hashes
from graphopt.quality.data.fitting import fit
from graphopt.quality.data.reading import reading
from graphopt.quality.data.rows import Rows
from graphopt.quality.data.source import Needs, Source
from graphopt.quality.data.split import Split, stretches


@dataclass
class Tally:
    """What the first pass over a source found.

    Attributes:
        units: samples, or runs where a run takes several.
        samples: in all.
        spans: how many units in a row have how many samples each, as ``[samples, units]``.
        left_out: samples that fill no run.
        familiar: samples that other data holds too.
        labels: whether there are labels.
        digest: of the samples, in hex.
        seals: to know them again.
    """

    units: int = 0
    samples: int = 0
    spans: list[list[int]] = field(default_factory=list)
    left_out: int = 0
    familiar: int = 0
    labels: bool = False
    digest: str = ""
    seals: bytes = b""

    def add(self, rows: Rows, shown: str) -> None:
        """Count whole runs.

        Raises:
            UsageError: some samples have labels and some have none.
        """
        if self.units and self.labels != (rows.labels is not None):
            raise UsageError(f"some samples of {shown} have labels and some have none")
        units = rows.count // rows.unit
        self.units += units
        self.samples += rows.count
        self.labels = rows.labels is not None
        if self.spans and self.spans[-1][0] == rows.unit:
            self.spans[-1][1] += units
        else:
            self.spans.append([rows.unit, units])


class Scanned:
    """A source that was read once and checked from end to end.

    Args:
        source: the source.
        needs: what is wanted of it.
        others: hashes of samples of other data, to count those that are in both.

    Raises:
        UsageError: a sample does not fit the model, or there is none.
    """

    def __init__(
        self, source: Source, needs: Needs, others: frozenset[bytes] = frozenset()
    ) -> None:
        self.source = source
        self.needs = needs
        self.tally = Tally()
        fingerprint, grouper = Fingerprint(), Grouper()
        with reading(source.about.shown):
            for rows in self._rows(fingerprint, grouper):
                self.tally.add(rows, source.about.shown)
                if others:
                    self.tally.familiar += sum(map(others.__contains__, sample_hashes(rows)))
        self.tally.left_out = grouper.left_out
        if not self.tally.units:
            raise UsageError(_too_few(source.about.shown, grouper))
        self.tally.digest = fingerprint.close()
        self.tally.seals = bytes(fingerprint.seals)

    def rows(self) -> Iterator[Rows]:
        """All samples in whole runs, a new stream each time.

        Raises:
            UsageError: they are not those of the first pass.
        """
        fingerprint = Fingerprint(self.tally.seals)
        try:
            yield from self._rows(fingerprint, Grouper())
            fingerprint.close()
        except ChangedError:
            raise UsageError(
                f"{self.source.about.shown} gives other data than when it was opened",
                self.source.about.stable,
            ) from None

    def _rows(self, fingerprint: Fingerprint, grouper: Grouper) -> Iterator[Rows]:
        position = 0
        for piece in self.source.pieces():
            for rows in fit(piece, self.needs, position):
                fingerprint.add(rows)
                position += rows.count
                yield from grouper.add(rows)
        grouper.close()


def _too_few(shown: str, grouper: Grouper) -> str:
    if grouper.left_out:
        return (
            f"{shown} holds {grouper.left_out} samples, one run of the model takes {grouper.unit}"
        )
    return f"{shown} holds no samples"


@dataclass(frozen=True)
class Selection:
    """Some units of a source.

    Attributes:
        scanned: the source.
        split: how its units are divided.
        calibrates: which of the two sides is meant.
    """

    scanned: Scanned
    split: Split
    calibrates: bool

    def count(self) -> int:
        """Samples in it."""
        spans = self.scanned.tally.spans
        sizes = np.array([size for size, _ in spans])
        ends = np.cumsum([units for _, units in spans])
        found = 0
        for start, count in stretches(self.split.units):
            chosen = np.flatnonzero(self._mask(start, count)) + start
            found += int(sizes[np.searchsorted(ends, chosen, side="right")].sum())
        return found

    def rows(self) -> Iterator[Rows]:
        """Its samples in whole runs."""
        at = 0
        for rows in self.scanned.rows():
            units = rows.count // rows.unit
            mask = self._mask(at, units)
            at += units
            if mask.all():
                yield rows
            elif mask.any():
                yield rows.take(np.repeat(mask, rows.unit))

    def batches(self, most: int | None, size: int | None) -> Iterator[Batch]:
        """Its samples in batches; see ``Dataset.batches``."""
        left = most
        batcher = Batcher(size)
        for rows in self.rows():
            if left is None:
                yield from batcher.add(rows)
                continue
            wanted = rows.take(slice(0, -(-left // rows.unit) * rows.unit))
            left -= wanted.count
            yield from batcher.add(wanted)
            if left <= 0:
                break
        yield from batcher.rest()

    def _mask(self, start: int, count: int) -> np.ndarray:
        chosen = self.split.calibrates(start, count)
        return chosen if self.calibrates else ~chosen


@dataclass
class StreamedDataset:
    """A ``Dataset`` that reads its sources anew for every pass.

    Attributes:
        source: as given.
        digest: of all samples.
        samples: in all.
        labels: their name; empty where there are none.
        seed: of the split.
        warnings: what a user should know.
        parts: by name; a part that is not wanted is not there.
        counts: samples of each part.
    """

    source: str
    digest: str
    samples: int
    labels: str
    seed: int
    warnings: list[str]
    parts: dict[Part, Selection]
    counts: dict[Part, int]

    def count(self, part: Part) -> int:
        """Samples in a part."""
        return self.counts.get(part, 0)

    def fingerprint(self, part: Part) -> str:
        """A hash of which samples are in a part; see ``Dataset.fingerprint``."""
        split = self.parts[part].split if part in self.parts else None
        return hashlib.sha256(f"{self.digest} {part} {split}".encode()).hexdigest()

    def batches(
        self, part: Part, most: int | None = None, size: int | None = None
    ) -> Iterator[Batch]:
        """The samples of a part, in order, a new stream each time; see ``Dataset.batches``."""
        if part in self.parts:
            selection = self.parts[part]
            with reading(selection.scanned.source.about.shown):
                yield from selection.batches(most, size)
