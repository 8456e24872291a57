"""Portions of consecutive items, so that no more is held at once than may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

HELD_BYTES = 512 << 20
"""Bytes of the second moments that are held together."""

Item = TypeVar("Item")


def portions(
    items: Iterable[Item], size: Callable[[Item], int], limit: int
) -> Iterator[list[Item]]:
    """Cut a sequence where the sizes would add up to more than a limit.

    Args:
        items: in their order; each is taken only when the portion before it has been used.
        size: of an item.
        limit: what the sizes of a portion add up to at most; a larger item is a portion of its own.
    """
    held = 0
    portion: list[Item] = []
    for item in items:
        need = size(item)
        if portion and held + need > limit:
            yield portion
            held, portion = 0, []
        portion.append(item)
        held += need
    if portion:
        yield portion
