"""Samples from a function of the user's: ``module:function``, ``file.py:function``, or a callable.

It is imported and called only because the user named it. It is called without arguments for every pass over
the data, and must give the same samples each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import UsageError, printable
from graphopt.quality.data.memory import as_array
from graphopt.quality.data.source import About, Needs, Piece, Source
from graphopt.quality.user_function import load_function, running

_END = object()

WHAT_IT_YIELDS = (
    "It yields {input: array}, (inputs, labels), or one array where the model has one input"
)


@dataclass(frozen=True)
class FunctionSource(Source):
    """What a function yields.

    Attributes:
        call: the function.
        needs: what is wanted of it.
        folder: where its module finds its neighbours; None where it is imported already.
    """

    call: Callable[[], Iterable[Any]]
    needs: Needs
    folder: Path | None = None

    def pieces(self) -> Iterator[Piece]:
        """One piece for each item that the function yields."""
        stream = self._start()
        try:
            while True:
                with running(self.about.shown, self.folder):
                    item = next(stream, _END)
                if item is _END:
                    return
                yield self._piece(item)
        finally:
            if hasattr(stream, "close"):
                with running(self.about.shown, self.folder):
                    stream.close()

    def _start(self) -> Iterator[Any]:
        with running(self.about.shown, self.folder):
            given = self.call()
            if not isinstance(given, Mapping | np.ndarray | str) and hasattr(given, "__iter__"):
                return iter(given)
        raise UsageError(
            f"the function {self.about.shown} returns a {type(given).__name__}, not batches",
            WHAT_IT_YIELDS,
        )

    def _piece(self, item: Any) -> Piece:
        shown = f"the batch of {self.about.shown}"
        labels = None
        if isinstance(item, tuple) and len(item) == 2:
            item, labels = item
            labels = np.array(as_array(labels, "labels", shown))
        if not isinstance(item, Mapping):
            if not hasattr(item, "__array__"):
                raise UsageError(
                    f"the function {self.about.shown} yields a {type(item).__name__}",
                    WHAT_IT_YIELDS,
                )
            item = {self.needs.sole(shown, "a single array").name: item}
        needs = self.needs if labels is None else self.needs.without_labels()
        names, key = needs.pick({str(name) for name in item}, shown)
        # Copies: a function may fill the same buffer again and again.
        arrays = {name: np.array(as_array(item[name], name, shown)) for name in names}
        if key is not None:
            labels = np.array(as_array(item[key], key, shown))
        return Piece(arrays, labels, shown)


def given_function(call: Callable[[], Iterable[Any]], needs: Needs) -> FunctionSource:
    """A function that the caller has already."""
    return FunctionSource(_about(getattr(call, "__qualname__", "function")), call, needs)


def _about(name: str) -> About:
    return About(
        printable(name),
        label_name="labels",
        stable="Seed it: it must give the same samples each time it is called",
    )


def named_function(text: str, needs: Needs) -> FunctionSource:
    """Import ``module:function`` or ``file.py:function``.

    Raises:
        UsageError: it cannot be imported or is no function.
    """
    found = load_function(text)
    return FunctionSource(_about(text), found.call, needs, found.folder)


def is_function(text: str) -> bool:
    """Whether a text has the form of ``module:function`` or ``file.py:function``."""
    place, colon, name = text.rpartition(":")
    if not colon or not all(part.isidentifier() for part in name.split(".")):
        return False
    return place.endswith(".py") or all(part.isidentifier() for part in place.split("."))
