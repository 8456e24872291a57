"""Samples from a function of the user's: ``module:function``, ``file.py:function``, or a callable.

It is imported and called only because the user named it. It is called without arguments for every pass over
the data, and must give the same samples each time.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import GraphoptError, UsageError, printable
from graphopt.quality.data.memory import as_array
from graphopt.quality.data.source import About, Needs, Piece, Source

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
                with _blaming(self.about.shown, self.call), neighbours(self.folder):
                    item = next(stream, _END)
                if item is _END:
                    return
                yield self._piece(item)
        finally:
            if hasattr(stream, "close"):
                with _blaming(self.about.shown, self.call), neighbours(self.folder):
                    stream.close()

    def _start(self) -> Iterator[Any]:
        with _blaming(self.about.shown, self.call), neighbours(self.folder):
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
    place, _, name = text.rpartition(":")
    shown = printable(text)
    is_file = place.endswith(".py")
    folder = Path(place).resolve().parent if is_file else Path.cwd()
    with _blaming(shown, None), neighbours(folder):
        found: Any = _load(Path(place), shown) if is_file else importlib.import_module(place)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise UsageError(f"{printable(place)} has no function {printable(name)!r}")
    return FunctionSource(_about(text), found, needs, folder)


def is_function(text: str) -> bool:
    """Whether a text has the form of ``module:function`` or ``file.py:function``."""
    place, colon, name = text.rpartition(":")
    if not colon or not all(part.isidentifier() for part in name.split(".")):
        return False
    return place.endswith(".py") or all(part.isidentifier() for part in place.split("."))


def _load(path: Path, shown: str) -> Any:
    if not path.is_file():
        raise UsageError(f"cannot read the data {shown}: no such file", "Check the path")
    name = f"graphopt_data_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"cannot import {shown}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def neighbours(folder: Path | None) -> Iterator[None]:
    """Let imports find the modules in a folder, as when a script in it runs."""
    if folder is None:
        yield
        return
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(entry)


@contextlib.contextmanager
def _blaming(shown: str, call: Callable[..., Any] | None) -> Iterator[None]:
    """Turn what a user's function raises into one line that names it and the line at fault."""
    try:
        yield
    except GraphoptError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's code, whatever it raises
        said = printable(f"{type(error).__name__}: {error}", 500)
        raise UsageError(f"the function {shown} failed with {said}{_place(error, call)}") from None


def _place(error: BaseException, call: Callable[..., Any] | None) -> str:
    """The line to look at: in the function's own file where it is among the frames."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" (line {error.lineno} of {printable(Path(error.filename).name)})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename)]
    if not frames:
        return ""
    own = getattr(getattr(call, "__code__", None), "co_filename", None)
    frame = next((f for f in reversed(frames) if f.filename == own), frames[-1])
    return f" (line {frame.lineno} of {printable(Path(frame.filename).name)})"


def _is_users(filename: str) -> bool:
    return not filename.startswith("<") and filename not in (__file__, importlib.__file__)
