"""The part of a relay that happens where the models run: batches are read from files and written to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

NAMES = "names"
"""The entry of a file that holds the names of the others, which are numbered."""


def arrays_of(feeds: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """Arrays by name, where need be from the file of a relay."""
    if not isinstance(feeds, str):
        return feeds
    with np.load(feeds) as file:
        return {str(name): file[f"{number}"] for number, name in enumerate(file[NAMES])}


def known_to(session: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """The feeds that a session has inputs for."""
    inputs = [*session.get_inputs(), *session.get_overridable_initializers()]
    return {known.name: feeds[known.name] for known in inputs if known.name in feeds}


def write(
    sessions: Sequence[Any], feeds: Mapping[str, Any] | str, kept: Sequence[str], path: str
) -> dict[str, str]:
    """Run sessions and write what they return to a file.

    Args:
        sessions: of ONNX Runtime; the names of their outputs differ.
        feeds: arrays by name, or the path of a file as this one writes it.
        kept: names of feeds that are written as well.
        path: of the new file.

    Returns:
        The types by name.

    Raises:
        TypeError: something is no array of numbers.
    """
    known = arrays_of(feeds)
    found: dict[str, Any] = {name: np.asarray(known[name]) for name in kept if name in known}
    for session in sessions:
        names = [output.name for output in session.get_outputs()]
        if names:
            found.update(zip(names, session.run(names, known_to(session, known)), strict=True))
    for name, array in found.items():
        if not isinstance(array, np.ndarray) or array.dtype == object:
            raise TypeError(f"{name!r} is no array of numbers")
    entries: dict[str, Any] = {f"{number}": array for number, array in enumerate(found.values())}
    entries[NAMES] = np.array(list(found), dtype=np.str_)
    with Path(path).open("wb") as file:
        np.savez(file, **entries)
    return {name: array.dtype.str for name, array in found.items()}
