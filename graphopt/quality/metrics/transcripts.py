"""From outputs and labels to the sequences that they spell.

*Scores* of shape ``(samples, steps, classes)`` are decoded greedily, as connectionist temporal
classification has it (Graves et al., ICML 2006): the best class of each step, repeats collapsed, blanks
dropped. *Integers* of shape ``(samples, steps)`` are either such paths already, or symbols already
decoded with negative numbers for padding; nothing in a batch tells which, so the user does (``decode``).
Labels are integers padded with negative numbers, or strings together with a charset: the text of each
class in order, the blank left out or not.

A step whose scores hold a NaN spells a symbol that no label has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from graphopt.errors import UsageError
from graphopt.quality.metrics.base import Metric, Observed
from graphopt.quality.metrics.labels import require, texts, whole
from graphopt.quality.metrics.outputs import (
    as_numbers,
    by_sample,
    is_score,
    is_text,
    is_wide_integer,
    select,
    shown,
)
from graphopt.quality.metrics.scores import highest

WANTED = (
    "scores (samples, steps, classes) or (steps, samples, classes), or integers (samples, steps)"
)

UNKNOWN = "\ufffd"
"""What a class spells that the charset does not have."""

LONGEST = 1 << 16
"""Symbols of one label beyond which the distance would take too long."""

Spelled = list[int] | str
Sequences = list[list[int]] | list[str]


@dataclass(frozen=True)
class Spelling:
    """How an output spells sequences.

    Attributes:
        blank: the class that spells nothing; negative numbers count from the last class.
        charset: the text of each class in order; empty where labels are integers.
        space: the class that separates words; ``append`` for a charset that lacks its last entry, a space.
        layout: which axis is first, samples (ntc) or steps (tnc); empty where the shape tells.
        decode: whether integers are a path to decode (greedy) or symbols already (none); empty where
            the output holds scores.
    """

    blank: int = 0
    charset: tuple[str, ...] = field(default=(), repr=False)
    space: int | Literal["append"] | None = None
    layout: Literal["", "ntc", "tnc"] = ""
    decode: Literal["", "greedy", "none"] = ""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The charset with the space that may belong to it."""
        return (*self.charset, " ") if self.space == "append" else self.charset


def transcripts(metric: Metric, spelling: Spelling, seen: Observed) -> tuple[Sequences, Sequences]:
    """What a batch spells, and what it should.

    Args:
        metric: that asks.
        spelling: how the output spells.
        seen: the batch.

    Returns:
        Sequences and labels by sample: strings where there is a charset, else lists of numbers.

    Raises:
        UsageError: an output, the labels or the charset do not have the form that is wanted.
    """
    labels = require(metric.name, seen.labels, seen.size)
    reader = _Reader(metric.name, spelling)
    _, steps = select(metric, seen.outputs, lambda array: reader.steps(array, seen.size), WANTED)
    count = steps.shape[2] if steps.ndim == 3 else None
    blank = reader.blank(count)
    spelled = reader.decoded(steps, blank)
    if is_text(labels):
        words = reader.texts(labels)
        return reader.spelled(spelled, count, blank), words
    wanted = reader.numbers(labels, blank)
    if not spelling.charset:
        return spelled, wanted
    return reader.spelled(spelled, count, blank), reader.spelled(wanted, count, blank)


@dataclass(frozen=True)
class _Reader:
    """Reads outputs and labels; ``metric`` is for messages."""

    metric: str
    spelling: Spelling

    def steps(self, array: np.ndarray, size: int) -> np.ndarray | None:
        """Scores as ``(samples, steps, classes)``, integers as ``(samples, steps)``; None for the rest."""
        if is_wide_integer(array):
            found = by_sample(array, size)
            return found if found is not None and found.ndim == 2 else None
        if not is_score(array):
            return None
        if array.ndim == 2 and size == 1:
            array = array[np.newaxis]
        if array.ndim != 3 or array.shape[2] < 2:
            return None
        layout = self.spelling.layout or self._layout(array, size)
        if layout == "tnc":
            array = array.swapaxes(0, 1)
        return array if layout and len(array) == size else None

    def _layout(self, array: np.ndarray, size: int) -> str:
        first, second = array.shape[:2]
        if first == second == size > 1:
            raise UsageError(
                f"metric {self.metric}: either of the first two axes of {shown(array)} could be that of "
                f"the {size} samples",
                "Add layout=ntc for samples first, layout=tnc for steps first",
            )
        return "ntc" if first == size else "tnc" if second == size else ""

    def blank(self, count: int | None) -> int | None:
        """The class that spells nothing; None where every symbol spells itself."""
        given, decode = self.spelling.blank, self.spelling.decode
        if count is None and not decode:
            raise UsageError(
                f"metric {self.metric}: the output holds integers",
                "Add decode=greedy where they are the best class of each step, decode=none where they "
                "are the symbols themselves",
            )
        if count is None and decode == "none":
            return None
        if count is not None and decode == "none":
            raise UsageError(f"metric {self.metric}: the output holds scores, they must be decoded")
        if count is None and given < 0:
            raise UsageError(
                f"metric {self.metric}: the output holds integers and does not tell how many classes "
                "there are",
                "Give the number of the blank, counted from 0",
            )
        blank = given + count if given < 0 and count is not None else given
        if count is not None and not 0 <= blank < count:
            raise UsageError(
                f"metric {self.metric}: the output has {count} classes, blank={given} is none of them"
            )
        return blank

    def decoded(self, steps: np.ndarray, blank: int | None) -> list[list[int]]:
        """Sequences of numbers of classes."""
        path = steps if steps.ndim == 2 else highest(as_numbers(steps))
        valid = path >= 0 if steps.ndim == 2 else np.ones(path.shape, bool)
        if blank is not None:
            valid &= path != blank
            valid[:, 1:] &= path[:, 1:] != path[:, :-1]
        return [row[chosen].tolist() for row, chosen in zip(path, valid, strict=True)]

    def numbers(self, labels: np.ndarray, blank: int | None) -> list[list[int]]:
        """Labels without padding, and without blanks, which no decoded sequence has."""
        if labels.ndim != 2:
            raise UsageError(
                f"metric {self.metric} wants labels (samples, length) padded with -1, or strings; they "
                f"are {shown(labels)}"
            )
        self._require_length(labels.shape[1])
        rows = whole(self.metric, labels, None)
        counted = (rows >= 0) if blank is None else (rows >= 0) & (rows != blank)
        return [row[chosen].tolist() for row, chosen in zip(rows, counted, strict=True)]

    def texts(self, labels: np.ndarray) -> list[str]:
        """Labels that are strings."""
        if not self.spelling.charset:
            raise UsageError(
                f"metric {self.metric}: the labels are strings, and the text of the classes is not known",
                "Add charset=FILE with one entry per line, or charset=@KEY of the model's metadata",
            )
        found = texts(self.metric, labels)
        if len(found) != len(labels):
            raise UsageError(
                f"metric {self.metric} wants one string per sample; the labels are {shown(labels)}"
            )
        self._require_length(max(map(len, found), default=0))
        return found

    def _require_length(self, length: int) -> None:
        if length > LONGEST:
            raise UsageError(
                f"metric {self.metric}: a label has {length} symbols, more than {LONGEST}",
                "Give shorter pieces, such as lines",
            )

    def spelled(
        self, sequences: list[list[int]], count: int | None, blank: int | None
    ) -> list[str]:
        """Numbers of classes as text."""
        symbols = list(self.spelling.symbols)
        if count is not None and len(symbols) not in (count, count - 1):
            lacks_space = len(symbols) + 2 == count and self.spelling.space is None
            raise UsageError(
                f"metric {self.metric}: the charset has {len(symbols)} entries, the output {count} "
                "classes, one of them the blank",
                "Add space=append if the last class is a space" if lacks_space else "",
            )
        if blank is not None and len(symbols) != count:
            symbols.insert(blank, "")
        known = dict(enumerate(symbols))
        return ["".join(known.get(number, UNKNOWN) for number in row) for row in sequences]
