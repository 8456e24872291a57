"""Data that has come part of the way through models, so that what lies behind is not run again.

A layer-by-layer method looks at one place after another. Run from the start each time, n layers cost n^2 / 2
of them. A relay keeps, batch by batch in files of a temporary folder, the tensors that the rest of each model
needs, and is read in the place of the data from there on.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import NativeError
from graphopt.ir.model import Model
from graphopt.runtime.exposing import Exposed
from graphopt.runtime.native import Native

MOST_BYTES = 8 << 30
"""Bytes that the files of one leg may take."""

SPARE = 2
"""How much more room there must be on the disk than a batch takes, before it is written."""

_KEYS = itertools.count()


class Relay:
    """Batches of feeds, at first those of the data, then from files.

    Args:
        native: the process to run models in.
        batches: of the data; can be read again.
        provider: that runs the models.
        threads: for one operator.
        seconds: how long one batch may take; None for what the process allows.

    Attributes:
        types: of the tensors that stand in the files; empty at first.
    """

    def __init__(
        self,
        native: Native,
        batches: Iterable[Mapping[str, Any]],
        provider: str = "cpu",
        threads: int = 1,
        seconds: float | None = None,
    ) -> None:
        self.types: dict[str, np.dtype] = {}
        self._native, self._data, self._seconds = native, batches, seconds
        self._how = {"provider": provider, "threads": threads}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files: list[str] = []

    def __iter__(self) -> Iterator[Any]:
        """The batches: arrays by name, or the path of a file that holds them."""
        return iter(self._files) if self._folder is not None else iter(self._data)

    def advance(self, models: Sequence[Model], kept: Sequence[str] = ()) -> bool:
        """Run models over the batches and keep what they return in the place of what was there.

        Args:
            models: outputs of different models have different names.
            kept: names of what stands in the batches and is needed further on.

        Returns:
            False where that cannot be, for want of room or because something is no array of numbers;
            nothing has changed then.
        """
        try:
            folder = tempfile.TemporaryDirectory(prefix="graphopt-")
        except OSError:
            return False
        try:
            with contextlib.ExitStack() as stack:
                used = [model for model in models if model.graph.outputs]
                keys = [stack.enter_context(self._open(model)) for model in used]
                files, types = self._written(keys, kept, Path(folder.name))
        except (OSError, NativeError):
            files, types = [], {}
        if not files:
            folder.cleanup()
            return False
        self.close()
        self._folder, self._files, self.types = folder, files, types
        return True

    def _written(
        self, keys: Sequence[str], kept: Sequence[str], folder: Path
    ) -> tuple[list[str], dict[str, np.dtype]]:
        """Write a file for each batch; none at all where they take too much room."""
        files: list[str] = []
        types: dict[str, np.dtype] = {}
        written = 0
        for number, feeds in enumerate(self):
            path = folder / f"{number}.npz"
            found = self._native.call("relay", keys, feeds, kept, str(path), seconds=self._seconds)
            size = path.stat().st_size
            written += size
            if written > MOST_BYTES or shutil.disk_usage(folder).free < SPARE * size:
                return [], {}
            files.append(str(path))
            types = {name: np.dtype(kind) for name, kind in found.items()}
        return files, types

    @contextlib.contextmanager
    def _open(self, model: Model) -> Iterator[str]:
        key = f"relay {next(_KEYS)}"
        with Exposed(model) as exposed:
            names = [tensor.name for tensor in model.graph.outputs]
            source = exposed.returning(names)
            self._native.call("open", key, source, **self._how, seconds=self._seconds)
            try:
                yield key
            finally:
                if self._native.alive:
                    with contextlib.suppress(NativeError):
                        self._native.call("close", key)

    def close(self) -> None:
        """Remove the files; from then on the batches are those of the data again."""
        if self._folder is not None:
            self._folder.cleanup()
        self._folder, self._files, self.types = None, [], {}
