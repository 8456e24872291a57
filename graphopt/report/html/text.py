"""Text that comes from files: shown as it is, never as markup, never wider than its place."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable

from markupsafe import Markup

from graphopt.errors import printable

LONG = 600
"""Characters of a text that are written at all."""

METRIC = 24
"""Columns of the name of a metric within a sentence."""

HINT = 160
"""Characters of a line under another."""

TITLE = 300
"""Characters of a name that are kept at all; longer ones lose their end even in the tooltip."""

_MEASURE = re.compile(r"(?<=\d) (?=(?:%|B|[KMG]iB|[kMGT]|µs|ms|s|dB)(?!\w))")


def safe(text: str, limit: int) -> str:
    """A text without control characters, no longer than a limit; what lies beyond it costs nothing."""
    return printable(text[: limit + 1], limit)


def shown(text: str) -> str:
    """A text as it is written: printable, not endless, and no number parted from its unit by a line's end."""
    return _MEASURE.sub("\u00a0", safe(text, LONG))


def compose(template: str, *parts: object) -> Markup:
    """HTML with parts in it; those that are no HTML are made printable and escaped.

    Args:
        template: HTML written here, with ``{}`` for each part.
        parts: from anywhere.
    """
    written = (part if isinstance(part, Markup) else shown(str(part)) for part in parts)
    return Markup(template).format(*written)


def columns(text: str) -> int:
    """How many columns a text takes in a monospaced font; wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def middle(text: str, width: int) -> str:
    """Cut a name in its middle, where it says least.

    Args:
        text: any string.
        width: the most columns.

    Returns:
        The text made printable; a third of what is kept stands before the ellipsis, the rest after it.
    """
    whole = safe(text, TITLE)
    if columns(whole) <= width:
        return whole
    head = _fitting(whole, max(1, (width - 1) // 3))
    tail = _fitting(reversed(whole), max(1, width - 1 - columns(head)))
    return f"{head}…{tail[::-1]}"


def _fitting(letters: Iterable[str], width: int) -> str:
    """As many of the first letters as fit a width."""
    kept: list[str] = []
    for letter in letters:
        width -= columns(letter)
        if width < 0:
            break
        kept.append(letter)
    return "".join(kept)


def name(text: str, width: int = 44) -> Markup:
    """A name from a model, cut in its middle, with the whole of it as a tooltip.

    Args:
        text: the name.
        width: the most columns.
    """
    if not text.strip():
        return Markup('<span class="muted">(no name)</span>')
    whole, short = safe(text, TITLE), middle(text, width)
    title = Markup("") if short == whole else compose(' title="{}"', whole)
    return compose('<span class="name"{}>{}</span>', title, short)


def names(texts: list[str], most: int, width: int = 44) -> Markup:
    """Some names of a list, and how many more there are."""
    listed = Markup(", ").join(name(text, width) for text in texts[:most])
    rest = len(texts) - most
    if rest > 0:
        listed += compose(' <span class="muted">and {} more</span>', f"{rest:,}")
    return listed


def hinted(text: Markup | str, hint: str) -> Markup:
    """A text with a smaller one under it."""
    if not hint:
        return compose("{}", text)
    return compose('{} <span class="hint">{}</span>', text, safe(hint, HINT))


def base(path: str) -> str:
    """The last part of a path, of whatever system wrote it."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def command_line(arguments: list[str], most: int) -> tuple[Markup, bool]:
    """A command as it can be pasted into a POSIX shell (bash or zsh where a name has odd characters).

    Args:
        arguments: the words of the command.
        most: characters to keep.

    Returns:
        The quoted command as HTML that breaks between words only, and whether it is whole.
    """
    words, left = [], most
    for word in map(_quoted, arguments):
        if left <= 0:
            break
        words.append(word[:left])
        left -= len(word) + 1
    spans = (Markup("<span>{}</span>").format(word) for word in words)
    return Markup(" ").join(spans), left >= -1


def _quoted(word: str) -> str:
    """One word for a shell; what cannot be printed is written as an escape of ``$'...'``."""
    if printable(word, len(word) + 1) == word:
        return shlex.quote(word)
    letters = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + "".join(map(_escaped, letters)) + "'"


def _escaped(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # a byte that was no UTF-8 (PEP 383)
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return printable(letter)
