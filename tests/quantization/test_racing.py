"""Which choices of a path are timed, and which of them pay."""

from __future__ import annotations

from itertools import pairwise

from graphopt.passes.quantization._qdq.choice import Problem
from graphopt.passes.quantization._qdq.racing import MOST, paying, thinned

SETS = [frozenset(range(n)) for n in range(40, -1, -1)]


def problem() -> Problem:
    """Each unit loses twice as much as the one before."""
    return Problem({}, {}, {uid: 2.0**uid for uid in range(40)}, [], 1.0)


def test_choices_are_thinned_evenly() -> None:
    found = thinned(SETS, problem())
    assert len(found) == MOST
    assert (found[0], found[-1]) == (SETS[0], SETS[-1])
    sizes = [len(chosen) for chosen in found]
    assert sizes == sorted(sizes, reverse=True)
    gaps = [a - b for a, b in pairwise(sizes) if b]
    assert max(gaps) <= 2 * min(gaps)
    assert thinned(SETS[:5], problem()) == SETS[:5]


def test_what_is_not_faster_than_something_milder_goes() -> None:
    path = [frozenset(range(n)) for n in (4, 3, 2, 1, 0)]
    seconds = dict(zip(path, (0.6, 0.5, 0.995, 0.9, 1.0), strict=True))
    losses = dict(zip(path, (0.8, 0.4, 0.2, 0.1, 0.0), strict=True))
    assert paying(path, seconds, losses) == [path[1], path[3], path[4]]
    slow = dict.fromkeys(path, 2.0) | {path[-1]: 1.0}
    assert paying(path, slow, losses) == [path[-1]]


def test_of_choices_that_lose_nearly_as_much_the_fastest_stays() -> None:
    path = [frozenset(range(n)) for n in (4, 3, 2, 1, 0)]
    seconds = dict(zip(path, (0.5, 0.6, 0.7, 0.8, 1.0), strict=True))
    losses = dict(zip(path, (0.010, 0.009, 0.008, 0.005, 0.0), strict=True))
    assert paying(path, seconds, losses) == [path[0], path[3], path[4]]
    losses = dict.fromkeys(path, 0.0)
    assert paying(path, seconds, losses) == [*path]
