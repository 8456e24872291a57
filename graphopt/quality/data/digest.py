"""A digest of samples that does not depend on the container or on how it is read.

    row     = head | bytes of each array, by name | bytes of the label
    head    = first 16 bytes of sha256(names, element types and shapes of one sample)
    seal_i  = first 8 bytes of sha256(bytes i B ... (i + 1) B of all rows in order)
    digest  = sha256(seal_0 | seal_1 | ...)

The seals are kept, 8 bytes for each ``BLOCK`` of data, so that a later pass over the data finds out at once
when it differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from graphopt.quality.data.rows import Rows

BLOCK = 1 << 14
"""Bytes of samples that share a seal."""

_SEAL = 8
_HEAD = 16
_STEP = 1 << 20
"""Bytes of rows that are put together at a time."""


class ChangedError(Exception):
    """The samples are not those that the seals were made of."""


class Fingerprint:
    """The digest of a stream of samples.

    Args:
        expected: the seals of an earlier pass, to compare with.
    """

    def __init__(self, expected: bytes | None = None) -> None:
        self.expected = expected
        self.seals = bytearray()
        self._open = bytearray()

    def add(self, rows: Rows) -> None:
        """Take the next samples.

        Raises:
            ChangedError: they differ from the earlier pass.
        """
        for matrix in _matrices(rows, labels=True):
            self._add(matrix.reshape(-1).data)

    def _add(self, data: memoryview) -> None:
        if self._open:
            room = BLOCK - len(self._open)
            self._open += data[:room]
            data = data[room:]
            if len(self._open) < BLOCK:
                return
            self._seal(self._open)
            self._open = bytearray()
        whole = len(data) - len(data) % BLOCK
        for start in range(0, whole, BLOCK):
            self._seal(data[start : start + BLOCK])
        self._open += data[whole:]

    def _seal(self, block: bytes | bytearray | memoryview) -> None:
        at = len(self.seals)
        self.seals += hashlib.sha256(block).digest()[:_SEAL]
        if self.expected is not None and self.expected[at : at + _SEAL] != self.seals[at:]:
            raise ChangedError

    def close(self) -> str:
        """Take the end of the samples; returns the digest in hex.

        Raises:
            ChangedError: there were more in the earlier pass, or they differ.
        """
        self._seal(self._open)
        if self.expected is not None and len(self.expected) != len(self.seals):
            raise ChangedError
        return hashlib.sha256(self.seals).hexdigest()


def sample_hashes(rows: Rows) -> Iterator[bytes]:
    """Sixteen bytes for each sample that tell it from others; its label does not count."""
    for matrix in _matrices(rows, labels=False):
        yield from (hashlib.sha256(row).digest()[:_HEAD] for row in matrix)


def _matrices(rows: Rows, labels: bool) -> Iterator[np.ndarray]:
    """The bytes of samples, about ``_STEP`` at a time, as uint8 of shape ``(samples, bytes)``."""
    arrays = [(name, rows.arrays[name]) for name in sorted(rows.arrays)]
    if labels and rows.labels is not None:
        arrays.append(("", rows.labels))
    if any(array.dtype.kind in "OU" for _, array in arrays):
        yield from _text_rows(arrays)
        return
    described = tuple((name, array.dtype.name, array.shape[1:]) for name, array in arrays)
    head = np.frombuffer(_head(described), np.uint8)
    columns = [_bytes_of(array) for _, array in arrays]
    step = max(1, _STEP // (len(head) + sum(column.shape[1] for column in columns)))
    for start in range(0, rows.count, step):
        parts = [column[start : start + step] for column in columns]
        heads = np.broadcast_to(head, (len(parts[0]), len(head)))
        yield np.concatenate([heads, *parts], axis=1)


def _bytes_of(array: np.ndarray) -> np.ndarray:
    """An array as uint8 of shape ``(samples, bytes)``."""
    width = array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat.reshape(len(array), width)


def _text_rows(arrays: list[tuple[str, np.ndarray]]) -> Iterator[np.ndarray]:
    """Rows with text among them, each text in UTF-8 behind its length."""
    for number in range(len(arrays[0][1])):
        described, parts = [], []
        for name, array in arrays:
            sample = array[number : number + 1]
            if array.dtype.kind not in "OU":
                described.append((name, array.dtype.name, array.shape[1:]))
                parts.append(_bytes_of(sample).tobytes())
                continue
            described.append((name, "text", array.shape[1:]))
            for text in sample.flat:
                encoded = str(text).encode("utf-8", "surrogatepass")
                parts.append(len(encoded).to_bytes(8, "little") + encoded)
        row = _head(tuple(described)) + b"".join(parts)
        yield np.frombuffer(row, np.uint8)[None]


@lru_cache(maxsize=1024)
def _head(described: tuple[tuple[str, str, tuple[int, ...]], ...]) -> bytes:
    return hashlib.sha256(repr(described).encode("utf-8", "surrogatepass")).digest()[:_HEAD]
