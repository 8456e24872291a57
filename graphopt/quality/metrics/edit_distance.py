"""The Levenshtein distance: the fewest insertions, deletions and substitutions between two sequences.

The columns of the classical table differ by -1, 0 or 1 from row to row, so that a column fits into two
bit vectors, and one more symbol costs a few operations on them (Myers, Journal of the ACM 46, 1999;
Hyyrö, 2003). Python's integers are bit vectors of any length.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def edit_distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """The number of edits that turn one sequence into the other; symbols are equal or not."""
    if len(first) == 0 or len(second) == 0:
        return len(first) + len(second)
    places: dict[Hashable, int] = {}
    for index, symbol in enumerate(first):
        places[symbol] = places.get(symbol, 0) | 1 << index
    full, last = (1 << len(first)) - 1, 1 << (len(first) - 1)
    up, down, distance = full, 0, len(first)
    for symbol in second:
        equal = places.get(symbol, 0)
        zero = (((equal & up) + up) ^ up) | equal | down
        rising = down | ~(zero | up) & full
        falling = up & zero
        distance += bool(rising & last) - bool(falling & last)
        rising = (rising << 1 | 1) & full
        falling = (falling << 1) & full
        up = falling | ~(zero | rising) & full
        down = rising & zero
    return distance
