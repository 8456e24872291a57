"""What packing and unpacking came to, in figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphopt.packing.blocks import Share


@dataclass(frozen=True)
class KindSummary:
    """What the tensors of one element type take, or the structure between all tensors.

    Attributes:
        kind: the element type; ``structure`` for everything that is not a tensor's contents.
        tensors: how many there are; one that is longer than a block counts in each.
        stored_bytes: in the model's files.
        packed_bytes: in the archive.
        bound_bytes: the order-0 entropy of each tensor's symbols (see ``graphopt.packing.entropy``); of the
            structure what it takes in the archive.
        ratio: stored bytes over packed bytes; None where nothing was left to pack.
    """

    kind: str
    tensors: int
    stored_bytes: int
    packed_bytes: int
    bound_bytes: int
    ratio: float | None


@dataclass(frozen=True)
class PackSummary:
    """What packing came to.

    Attributes:
        source: the model.
        archive: where it was packed to.
        files: how many files are in the archive.
        stored_bytes: of these files.
        packed_bytes: of the archive, headers and digests included.
        bound_bytes: the sum of those of all kinds.
        ratio: stored bytes over packed bytes.
        sha256: of the model's file, in hex.
        archive_sha256: of the archive, in hex.
        seconds: that it took.
        megabytes_per_second: millions of stored bytes in a second.
        kinds: what each kind takes, the largest first.
        notes: what deserves a look.
    """

    source: str
    archive: str
    files: int
    stored_bytes: int
    packed_bytes: int
    bound_bytes: int
    ratio: float
    sha256: str
    archive_sha256: str
    seconds: float
    megabytes_per_second: float
    kinds: list[KindSummary]
    notes: list[str]


@dataclass(frozen=True)
class UnpackSummary:
    """What unpacking came to.

    Attributes:
        archive: what was unpacked.
        model: where the model was written.
        files: all that was written, the model first.
        stored_bytes: of these files.
        packed_bytes: of the archive.
        ratio: stored bytes over packed bytes.
        sha256: of the model's file, in hex.
        seconds: that it took.
        megabytes_per_second: millions of stored bytes in a second.
    """

    archive: str
    model: str
    files: list[str]
    stored_bytes: int
    packed_bytes: int
    ratio: float
    sha256: str
    seconds: float
    megabytes_per_second: float


class Tally:
    """Adds up what kinds of elements take."""

    def __init__(self) -> None:
        self._shares: dict[str, tuple[int, int, int, float]] = {}

    def add(self, shares: Iterable[Share]) -> None:
        """Count a block."""
        for share in shares:
            before = self._shares.get(share.kind.name, (0, 0, 0, 0.0))
            found = (share.tensors, share.size, share.packed, share.bound)
            tensors, size, packed, bound = (a + b for a, b in zip(before, found, strict=True))
            self._shares[share.kind.name] = int(tensors), int(size), int(packed), bound

    def kinds(self) -> list[KindSummary]:
        """What was counted, the largest kind first."""
        found = [
            KindSummary(
                name, tensors, size, packed, round(bound), size / packed if packed else None
            )
            for name, (tensors, size, packed, bound) in self._shares.items()
        ]
        return sorted(found, key=lambda kind: (-kind.stored_bytes, kind.kind))
