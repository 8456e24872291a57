"""Block-diagonal parts of a Gram matrix: which products of features are kept.

A full matrix of F features takes 8 F^2 bytes. Where that is too much, features are split into blocks, and
only products within a block are kept.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Blocks = int | Literal["position"] | tuple[tuple[int, ...], ...] | None
"""None: the features of a group are one block. An int: consecutive blocks of at most so many features of a
group; a kernel's size gives one block per channel. ``position``: for each position of the kernel, that
position of all channels of a group. A tuple: the features of each block; every feature in exactly one."""


def partition(blocks: Blocks, groups: int, channels: int, size: int) -> list[np.ndarray]:
    """The features of each block, in order.

    Args:
        blocks: how to split.
        groups: of channels.
        channels: of a group.
        size: features of a channel.

    Raises:
        ValueError: the blocks given do not hold every feature exactly once.
    """
    width = channels * size
    every = np.arange(groups * width).reshape(groups, channels, size)
    if blocks is None:
        return list(every.reshape(groups, width))
    if blocks == "position":
        return list(every.transpose(0, 2, 1).reshape(groups * size, channels))
    if isinstance(blocks, int):
        if blocks < 1:
            raise ValueError(f"blocks of {blocks} features")
        flat = every.reshape(groups, width)
        return [row[start : start + blocks] for row in flat for start in range(0, width, blocks)]
    found = [np.asarray(block, np.int64) for block in blocks]
    given = np.sort(np.concatenate(found)) if found else np.empty(0)
    if not np.array_equal(given, every.reshape(-1)):
        raise ValueError(f"the blocks do not hold each of {every.size} features exactly once")
    return found


class Stack:
    """Sums of products within all blocks of one size.

    Attributes:
        features: int64 of shape ``(blocks, size)``.
        sums: float64 of shape ``(blocks, size, size)``.
    """

    def __init__(self, features: np.ndarray) -> None:
        self.features = features
        self.sums = np.zeros((*features.shape, features.shape[1]))

    def add(self, rows: np.ndarray) -> None:
        """Add the products of rows ``(rows, all features)``."""
        count, size = self.features.shape
        if count == 1:
            part = rows if size == rows.shape[1] else rows[:, self.features[0]]
            self.sums[0] += part.T @ part
            return
        parts = np.ascontiguousarray(rows.T[self.features])
        self.sums += parts @ parts.transpose(0, 2, 1)


def stacks(blocks: list[np.ndarray]) -> tuple[list[Stack], list[tuple[int, int]]]:
    """One stack for each size of blocks, and for each block its stack and its place in there."""
    by_size: dict[int, list[np.ndarray]] = {}
    places = []
    for block in blocks:
        same = by_size.setdefault(len(block), [])
        places.append((list(by_size).index(len(block)), len(same)))
        same.append(block)
    return [Stack(np.stack(same)) for same in by_size.values()], places
