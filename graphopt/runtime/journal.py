"""A journal: records of finished pieces of work, so that a study that was killed can go on.

Each record is a line of JSON with a checksum, appended by one write and brought to the disk before ``append``
returns. A line that was cut short, or that says other than its checksum, is as if it had never been written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """An append-only file of records. Where it cannot be written, records live as long as this object.

    Args:
        path: of the file; made when something is first appended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unwritten: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        """All records, in the order in which they were appended."""
        try:
            data = self.path.read_bytes()
        except OSError:
            data = b""
        found = [_checked(line) for line in data.split(b"\n")]
        return [record for record in found if record is not None] + list(self._unwritten)

    def append(self, record: dict[str, Any]) -> None:
        """Add a record; it is on the disk when this returns.

        Raises:
            TypeError: JSON cannot hold the record.
        """
        text = json.dumps(record, sort_keys=True)
        line = json.dumps({"record": record, "sha256": _checksum(text)}, sort_keys=True)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _append(self.path, line.encode() + b"\n")
        except OSError:
            self._unwritten.append(json.loads(text))

    def remove(self) -> None:
        """Forget all records."""
        self._unwritten.clear()
        with contextlib.suppress(OSError):
            self.path.unlink()


def _append(path: Path, line: bytes) -> None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
    try:
        size = os.fstat(handle).st_size
        os.lseek(handle, max(0, size - 1), os.SEEK_SET)
        if size and os.read(handle, 1) != b"\n":
            line = b"\n" + line  # the last record was cut short; it must not spoil this one
        written = os.write(handle, line)
        os.fsync(handle)
        if written != len(line):
            raise OSError("the disk is full")
    finally:
        os.close(handle)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _checked(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None where there is none that fits its checksum."""
    try:
        found = json.loads(line)
        record = found["record"]
        text = json.dumps(record, sort_keys=True)
        if isinstance(record, dict) and found["sha256"] == _checksum(text):
            return record
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None
