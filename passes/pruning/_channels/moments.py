"""Second moments of what readers read, on the calibration data, within a limit of memory.

The features of a reader make one matrix of F^2 elements, or one for each group of a convolution. Where those
of all readers of a group of channels take too much, the widest are split: a convolution first by the
positions of its kernel, then any by blocks of consecutive channels, halved until all fit. Between blocks
nothing is made up for. Groups are ranked in portions, and the matrices of one are dropped before the next. To
rank by them takes four times as much as they do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.numerics.streaming import Blocks, Gram, GramSpec, Sampling
from graphopt.runtime.observing import Answer, Request

from .. import _portions
from .._fitting.layers import bias_behind
from .._portions import HELD_BYTES
from .readers import Reader


@dataclass(frozen=True)
class Moments:
    """The second moments of what a reader reads.

    Attributes:
        second: the mean square of each feature, float64 of shape ``(features,)``.
        blocks: the features and the matrix of each block, centred where a bias can take up the mean; none
            where only ``second`` is known.
    """

    second: np.ndarray
    blocks: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)


@dataclass(frozen=True)
class Inquiry:
    """What is asked about one reader: a statistic of each operand."""

    reader: Reader
    requests: tuple[Request[Gram], ...]
    nbytes: int

    def moments(self, answers: Mapping[Request[Any], Answer[Any]]) -> Moments | str:
        """The answers put together, or why there are none."""
        grams: list[Gram] = []
        for request in self.requests:
            answer = answers.get(request)
            if answer is None or answer.value is None:
                return answer.why if answer is not None else "it is not computed"
            grams.append(answer.value)
        if any(gram.rows == 0 for gram in grams):
            return "no row of it is finite"
        if len({gram.layout.prod() for gram in grams}) > 1 or not self._fits(grams[0]):
            return "it does not have the features that its weights have"
        second = np.asarray(math.prod(gram.second for gram in grams))
        blocks = []
        if self.requests[0].what.blocks != 1:  # type: ignore[attr-defined]
            for number, features in enumerate(grams[0].blocks):
                blocks.append((features, self._matrix(grams, number)))
        if not all(np.isfinite(part).all() for part in (second, *(m for _, m in blocks))):
            return "its squares are too large"
        return Moments(second, blocks)

    def _fits(self, gram: Gram) -> bool:
        features = math.prod(self.reader.layout)
        count = int(gram.layout.prod())
        return count >= features if self.reader.weight is None else count == features

    def _matrix(self, grams: Sequence[Gram], block: int) -> np.ndarray:
        layer = None if self.reader.fixed else self.reader.layer
        if layer is not None and (layer.takes_bias or bias_behind(layer) is not None):
            return grams[0].covariance(block)
        return np.asarray(math.prod(gram.product(block) / gram.rows for gram in grams))


def inquiries(
    readers: Sequence[Reader], diagonal: bool, sampling: Callable[[int], Sampling]
) -> list[Inquiry]:
    """What to ask about the readers of one group of channels.

    Args:
        readers: of the group.
        diagonal: whether mean squares are enough.
        sampling: the rows of each batch that are taken, by the number of features.
    """
    blocks: list[Blocks] = [1 if diagonal or _is_plain(reader) else None for reader in readers]
    sizes = [_nbytes(reader, given) for reader, given in zip(readers, blocks, strict=True)]
    while sum(sizes) > HELD_BYTES and any(given != 1 for given in blocks):
        widest = max((n for n, given in enumerate(blocks) if given != 1), key=sizes.__getitem__)
        blocks[widest] = _narrower(readers[widest].layout, blocks[widest])
        sizes[widest] = _nbytes(readers[widest], blocks[widest])
    found = []
    for reader, given, size in zip(readers, blocks, sizes, strict=True):
        used = sampling(math.prod(reader.layout[1:]))
        requests = tuple(
            Request(name, GramSpec(rows, given, used)) for name, rows in reader.operands
        )
        found.append(Inquiry(reader, requests, size))
    return found


def portions(asked: Iterable[list[Inquiry]]) -> Iterator[list[list[Inquiry]]]:
    """The inquiries of groups of channels, as many together as may be held."""
    return _portions.portions(
        asked, lambda entry: sum(inquiry.nbytes for inquiry in entry), HELD_BYTES
    )


def _is_plain(reader: Reader) -> bool:
    """Whether no products of features are needed: it keeps its weights, and a unit is one feature."""
    return reader.fixed and all(len(rows) == 1 for rows in reader.units)


def _nbytes(reader: Reader, blocks: Blocks) -> int:
    groups, channels, size = reader.layout
    width = channels * size
    if blocks is None:
        squares = groups * width * width
    elif blocks == "position":
        squares = groups * size * channels * channels
    else:
        assert isinstance(blocks, int)
        squares = groups * width * min(blocks, width)
    return 8 * squares * len(reader.operands)


def _narrower(layout: tuple[int, int, int], blocks: Blocks) -> Blocks:
    """The next smaller way to split; blocks hold whole channels as long as they can."""
    _, channels, size = layout
    if blocks is None and 1 < size < channels:
        return "position"
    wide = blocks if isinstance(blocks, int) else channels if blocks else channels * size
    half = max(wide // 2, 1)
    return half // size * size or half
