"""Lists of texts, one entry per line: names of classes, the charset of a recogniser.

They come from a file, or with ``@KEY`` from the model's own metadata. Lines end with a line feed, and
nothing else is taken from them: an entry may be a space.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from graphopt.errors import UsageError, printable
from graphopt.ir.model import Model

LARGEST = 1 << 24
"""Bytes of a file beyond which it is no list of entries."""


def entries(source: str, model: Model) -> tuple[str, ...]:
    """The entries that a source holds, in order.

    Args:
        source: the path of a file in UTF-8, or ``@KEY`` of the model's metadata.
        model: the model.

    Raises:
        UsageError: the file cannot be read, the key is missing, or the list is empty.
    """
    text = _metadata(source[1:], model) if source.startswith("@") else _file(source)
    found = lines(text)
    if not found:
        raise UsageError(f"{printable(source)!r} holds no entries", "It must hold one per line")
    return found


def lines(text: str) -> tuple[str, ...]:
    """A text's lines, without the line feed that may end the last one."""
    parts = text.removesuffix("\n").split("\n")
    return tuple(part.removesuffix("\r") for part in parts) if text else ()


def metadata(model: Model) -> dict[str, str]:
    """The metadata of a model."""
    return {entry.key: entry.value for entry in model.header.metadata_props}


def _metadata(key: str, model: Model) -> str:
    known = metadata(model)
    if key not in known:
        near = difflib.get_close_matches(key, known, 3)
        has = f"It has: {', '.join(printable(k, 40) for k in list(known)[:8]) or 'none'}"
        raise UsageError(
            f"the model's metadata has no key {printable(key)!r}",
            f"Did you mean {' or '.join(printable(k, 40) for k in near)}?" if near else has,
        )
    return known[key]


def _file(source: str) -> str:
    path, shown = Path(source), printable(source)
    try:
        if not path.is_file():
            raise UsageError(f"there is no file {shown!r}")
        if path.stat().st_size > LARGEST:
            raise UsageError(
                f"{shown!r} is larger than {LARGEST >> 20} MiB, it is no list of entries"
            )
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeError) else f"{error}"
        raise UsageError(f"cannot read {shown!r}: {printable(reason)}") from None
