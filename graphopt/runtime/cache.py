"""A content-addressed cache: what was computed once from the same bytes is not computed again.

A key is the sha256 of everything that a value depends on. An entry is one file: a line of JSON that tells
the arrays' names, types and shapes and holds small facts, then the arrays' bytes, then the sha256 of all
before it. Nothing is ever unpickled. An entry that is cut short or changed is taken for missing. Files appear
whole or not at all, so any number of processes may share a folder; where it cannot be written, nothing is
kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import platformdirs

from graphopt.errors import OutputError
from graphopt.files import AtomicFile
from graphopt.ir.exporter import Exporter
from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.numerics.streaming.accumulator import FOREIGN
from graphopt.runtime.journal import Journal

FORMAT = 1
"""The version of the files; part of every key."""

MOST_BYTES = 4 << 30
"""What a cache may hold unless it is told otherwise."""

STALE_SECONDS = 86_400.0
"""The age at which a file that nobody finished is removed."""

_ALIGNMENT = 64
_DIGEST = 32
_KINDS = frozenset("biuf")


def default_folder() -> Path:
    """Where the user's caches are kept."""
    return Path(platformdirs.user_cache_dir("graphopt"))


@dataclass(frozen=True)
class Entry:
    """What was kept.

    Attributes:
        arrays: by name; read-only.
        facts: small values that JSON can hold.
    """

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any] = field(default_factory=dict)


class Cache:
    """Arrays by key, in a folder.

    Args:
        folder: made when something is first kept.
        most_bytes: entries that were not used for longest are removed when all together are larger.
    """

    def __init__(self, folder: str | os.PathLike[str], most_bytes: int = MOST_BYTES) -> None:
        self.folder = Path(folder)
        self.most_bytes = most_bytes

    @staticmethod
    def key(*parts: str | bytes | int) -> str:
        """A key, in hex, for a value that depends on these parts and nothing else."""
        found = hashlib.sha256()
        for part in (FORMAT, *parts):
            data = part if isinstance(part, bytes) else str(part).encode()
            found.update(f"{type(part).__name__}{len(data)}:".encode())
            found.update(data)
        return found.hexdigest()

    def get(self, key: str) -> Entry | None:
        """What was kept under a key; None where there is nothing, or nothing whole."""
        path = self._path(key)
        try:
            entry = _unpack(path.read_bytes())
        except (OSError, ValueError, KeyError, TypeError, RecursionError, MemoryError):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # an entry that is used is not old
        return entry

    def put(
        self, key: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None
    ) -> bool:
        """Keep arrays and facts under a key.

        Returns:
            Whether they were kept; not where the folder cannot be written or they are too large.

        Raises:
            ValueError: an array is not of booleans, integers or floats that numpy knows.
        """
        if sum(array.nbytes for array in arrays.values()) > self.most_bytes:
            return False
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with AtomicFile(path) as file:
                _pack(file, arrays, facts or {})
                file.commit()
        except (OSError, OutputError):
            return False
        self.gc(self.most_bytes, keep=path)
        return True

    def journal(self, key: str) -> Journal:
        """The journal of a study, by the key of all that it depends on."""
        return Journal(self.folder / "journals" / f"{_checked(key)}.jsonl")

    def size(self) -> int:
        """Bytes of all entries and journals."""
        return sum(state.st_size for _, state in self._files())

    def clear(self) -> None:
        """Remove all entries and journals."""
        for path, _ in self._files():
            with contextlib.suppress(OSError):
                path.unlink()

    def gc(self, most_bytes: int, keep: Path | None = None) -> None:
        """Remove entries, those that were not used for longest first, until the rest is small enough.

        Journals stay: they are small, and a study may be going on.

        Args:
            most_bytes: what all entries together may take.
            keep: an entry that stays.
        """
        entries = []
        total = 0
        for path, state in self._files():
            if path.suffix == ".entry":
                entries.append((state.st_mtime_ns, path, state.st_size))
                total += state.st_size
            elif path.suffix != ".jsonl" and time.time() - state.st_mtime > STALE_SECONDS:
                with contextlib.suppress(OSError):
                    path.unlink()
        for _, path, size in sorted(entries):
            if total <= most_bytes:
                break
            if path != keep:
                with contextlib.suppress(OSError):
                    path.unlink()
                total -= size

    def _path(self, key: str) -> Path:
        return self.folder / "entries" / key[:2] / f"{_checked(key)}.entry"

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """The files that are ours, finished or not."""
        for pattern in ("entries/??/*", "journals/*.jsonl"):
            for path in self.folder.glob(pattern):
                with contextlib.suppress(OSError):
                    state = path.lstat()
                    if stat.S_ISREG(state.st_mode):
                        yield path, state


def _checked(key: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", key):
        raise ValueError("not a key that Cache.key gave")
    return key


def _pack(file: AtomicFile, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    ready = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in ready.items():
        if array.dtype.kind not in _KINDS or array.dtype.isbuiltin == FOREIGN:
            raise ValueError(f"the array {name!r} of {array.dtype.name} cannot be kept")
    told = [[name, array.dtype.str, list(array.shape)] for name, array in ready.items()]
    head = json.dumps({"format": FORMAT, "arrays": told, "facts": dict(facts)})
    file.write(head.encode() + b"\n")
    for array in ready.values():
        file.pad(_ALIGNMENT)
        file.write(array.reshape(-1).view(np.uint8).data)
    file.write(file.hash.digest())


def _unpack(data: bytes) -> Entry:
    """Read an entry.

    Raises:
        ValueError: it is not whole.
    """
    body = memoryview(data)[:-_DIGEST]
    if len(data) <= _DIGEST or hashlib.sha256(body).digest() != data[-_DIGEST:]:
        raise ValueError("the checksum does not fit")
    place = data.index(b"\n") + 1
    head = json.loads(data[:place])
    if head["format"] != FORMAT:
        raise ValueError("another format")
    arrays = {}
    for name, code, shape in head["arrays"]:
        dtype = np.dtype(code)
        place += -place % _ALIGNMENT
        count = int(np.prod(shape, dtype=object)) if shape else 1
        arrays[name] = np.frombuffer(body, dtype, count, place).reshape(shape)
        place += count * dtype.itemsize
    return Entry(arrays, head["facts"])


def model_hash(model: Model) -> str:
    """The sha256 of all that a model holds, in hex; the weights are read one at a time.

    It is the same whether weights lie in the model's file or beside it.
    """

    def digest(proto: onnx.TensorProto, constant: Constant) -> None:
        proto.name = constant.name
        proto.dims.extend(constant.shape)
        proto.data_type = onnx.helper.np_dtype_to_tensor_dtype(constant.dtype)
        proto.raw_data = _contents(constant)

    message = Exporter(digest).model(model.header, model.graph, model.functions)
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()


def _contents(constant: Constant) -> bytes:
    """The sha256 of a constant's values."""
    found = hashlib.sha256()
    stored = constant.stored
    if stored is not None and isinstance(stored.tensor, onnx.SparseTensorProto):
        found.update(stored.tensor.SerializeToString(deterministic=True))
    elif stored is not None and stored.region is not None:
        found.update(stored.region.map().data)
    elif stored is not None and stored.tensor.raw_data:
        found.update(stored.tensor.raw_data)
    elif constant.dtype == object:
        found.update(json.dumps([str(text) for text in constant.values.flat]).encode())
    else:
        found.update(np.ascontiguousarray(constant.values).reshape(-1).view(np.uint8).data)
    return found.digest()
