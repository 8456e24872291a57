"""Choices of levels and widths, against every choice there is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.numerics.allocation import (
    Allocation,
    Table,
    UnreachableError,
    efficient,
    greedy,
    lower_bound,
)
from graphopt.numerics.widths import allocate_widths


def best(tables: Sequence[Table], target: float) -> float:
    """The least loss of all choices that save enough."""
    found = np.inf
    for levels in itertools.product(*(range(len(table.losses)) for table in tables)):
        chosen = list(zip(tables, levels, strict=True))
        if sum(table.savings[level] for table, level in chosen) >= target:
            found = min(found, float(sum(table.losses[level] for table, level in chosen)))
    return found


def best_of_whole(tables: Sequence[Table], target: int) -> float:
    """The same for many groups, by dynamic programming; savings are whole numbers from 0 up."""
    need = np.arange(target + 1)
    left = np.where(need > 0, np.inf, 0.0)
    for losses, savings in tables:
        after = [left[np.maximum(need - int(saving), 0)] for saving in savings]
        left = np.min(losses[:, None] + np.stack(after), axis=0)
    return float(left[target])


def check(found: Allocation, tables: Sequence[Table], target: float) -> None:
    chosen = list(zip(tables, found.levels, strict=True))
    assert found.loss == pytest.approx(sum(t.losses[level] for t, level in chosen), abs=1e-12)
    assert found.saving == pytest.approx(sum(t.savings[level] for t, level in chosen), abs=1e-12)
    assert found.saving >= target - 1e-9 * abs(target)
    assert found.gap >= 0
    assert found.loss - found.bound <= found.gap * found.loss + 1e-12


level = st.tuples(st.integers(0, 30), st.integers(-3, 12))
table = st.lists(level, min_size=1, max_size=5).map(
    lambda rows: Table(np.array([a for a, _ in rows], float), np.array([b for _, b in rows], float))
)


@given(tables=st.lists(table, min_size=1, max_size=4), part=st.floats(-0.2, 1))
@settings(max_examples=150, deadline=None)
def test_a_choice_saves_enough_and_its_bound_holds(tables: list[Table], part: float) -> None:
    most = sum(max(table.savings) for table in tables)
    target = float(np.floor(part * most))
    if target > most:
        return
    expected = best(tables, target)
    found = greedy(tables, target)
    check(found, tables, target)
    assert found.bound <= expected + 1e-9
    assert found.loss >= expected - 1e-9
    assert found.gap >= (found.loss - expected) / max(found.loss, 1e-9) - 1e-9
    assert lower_bound(tables, target) == found.bound


def smooth(groups: int, levels: int, seed: int) -> tuple[list[Table], int]:
    """Tables as pruning makes them: losses grow faster and faster, with noise; savings are whole."""
    rng = np.random.default_rng(seed)
    tables = []
    for _ in range(groups):
        part = np.linspace(0, 0.9, levels)
        noise = rng.uniform(0.8, 1.2, levels)
        losses = rng.lognormal() * part ** rng.uniform(1, 4) * noise
        tables.append(Table(losses, np.rint(part * rng.lognormal(6))))
    return tables, int(0.5 * sum(table.savings[-1] for table in tables))


@pytest.mark.parametrize("seed", range(4))
def test_the_gap_of_many_groups_is_small(seed: int) -> None:
    tables, target = smooth(30, 12, seed)
    found, expected = greedy(tables, target), best_of_whole(tables, target)
    check(found, tables, target)
    assert 0.99 * expected < found.bound <= expected <= found.loss * (1 + 1e-12)
    assert found.gap < 0.1


def test_levels_out_of_order_dominated_and_forbidden() -> None:
    first = Table(np.array([3.0, 0.0, np.inf, 9.0]), np.array([5.0, 0.0, 50.0, 4.0]))
    second = Table(np.array([0.0, 10.0]), np.array([0.0, 8.0]))
    assert greedy([first, second], 5).levels == (0, 0)
    assert greedy([first, second], 6).levels == (1, 1)
    assert greedy([first, second], 13).levels == (0, 1)
    with pytest.raises(UnreachableError, match="at most 13 of the 14 asked for") as caught:
        greedy([first, second], 14)
    assert caught.value.most == 13


def test_nothing_asked_for_costs_nothing() -> None:
    tables, _ = smooth(5, 4, 0)
    found = greedy(tables, 0)
    assert found.levels == (0,) * 5
    assert (found.loss, found.gap) == (0, 0)
    assert greedy([], 0).levels == ()
    with pytest.raises(UnreachableError):
        greedy([], 1)


def test_all_that_can_be_saved_is_saved() -> None:
    tables = [Table(np.array([0.0, 1.0]), np.array([0.0, 0.1])) for _ in range(3)]
    assert greedy(tables, 0.3).levels == (1, 1, 1)  # 0.1 + 0.1 + 0.1 > 0.3 but for rounding
    tables = [Table(np.array([0.0, 1.0]), np.array([0.0, 1 / 3])) for _ in range(7)]
    assert greedy(tables, 7 / 3).levels == (1,) * 7


@pytest.mark.parametrize(
    "bad",
    [
        Table(np.array([]), np.array([])),
        Table(np.array([1.0]), np.array([1.0, 2.0])),
        Table(np.array([np.nan]), np.array([1.0])),
        Table(np.array([1.0]), np.array([np.inf])),
        Table(np.array([np.inf]), np.array([1.0])),
    ],
)
def test_what_is_no_table_is_refused(bad: Table) -> None:
    good = Table(np.array([0.0]), np.array([5.0]))
    with pytest.raises(ValueError, match="group 1 has"):
        greedy([good, bad], 1)
    with pytest.raises(ValueError, match="target of nan"):
        greedy([good], float("nan"))


class Chain:
    """Layers in a row: each reads the group before it; what they cost is the product of their widths."""

    def __init__(self, widths: Sequence[int], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.full = np.array(widths)
        self.factors = rng.integers(1, 9, len(widths) + 1)
        self.losses = [np.cumsum(np.sort(rng.exponential(size=n)) ** 2) for n in widths]

    def cost(self, widths: np.ndarray) -> float:
        ends = np.concatenate([[3], widths, [10]])
        return float((self.factors * ends[1:] * ends[:-1]).sum())

    def savings(self, widths: np.ndarray, others: np.ndarray) -> np.ndarray:
        changed = np.where(np.eye(len(widths), dtype=bool), others, widths)
        return np.array([self.cost(widths) - self.cost(row) for row in changed])

    def best(self, target: float, choices: Sequence[Sequence[int]]) -> float:
        found = np.inf
        for widths in itertools.product(*choices):
            if self.cost(self.full) - self.cost(np.array(widths)) >= target:
                found = min(found, self.lost(widths))
        return found

    def lost(self, widths: Sequence[int]) -> float:
        gone = zip(self.losses, self.full - widths, strict=True)
        return float(sum(loss[n - 1] for loss, n in gone if n))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("part", [0.2, 0.5, 0.7])
def test_widths_are_near_the_best(seed: int, part: float) -> None:
    chain = Chain([9, 12, 7], seed)
    target = part * chain.cost(chain.full)
    found = allocate_widths(chain.losses, chain.savings, target)
    expected = chain.best(target, [range(1, n + 1) for n in chain.full])
    assert found.saving == pytest.approx(
        chain.cost(chain.full) - chain.cost(np.array(found.levels))
    )
    assert found.saving >= target
    assert found.loss == pytest.approx(chain.lost(found.levels))
    assert found.bound <= expected <= found.loss * (1 + 1e-12)
    assert found.loss <= 1.05 * expected


def test_widths_are_multiples_and_keep_their_floor() -> None:
    chain = Chain([64, 40, 20, 8], 0)
    found = allocate_widths(chain.losses, chain.savings, 0.7 * chain.cost(chain.full), 8, 0.3)
    for width, full in zip(found.levels, chain.full, strict=True):
        assert width == full or width % 8 == 0
        assert width >= min(0.3 * full, full)
    each = allocate_widths(chain.losses, chain.savings, 0.3 * chain.cost(chain.full), [16, 8, 2, 1])
    pairs = zip(each.levels, chain.full, [16, 8, 2, 1], strict=True)
    assert all(width == full or width % step == 0 for width, full, step in pairs)


def test_more_than_the_floors_allow_is_refused() -> None:
    chain = Chain([8, 8], 0)
    with pytest.raises(UnreachableError) as caught:
        allocate_widths(chain.losses, chain.savings, chain.cost(chain.full), floor=0.5)
    most = chain.cost(chain.full) - chain.cost(np.array([4, 4]))
    assert caught.value.most == pytest.approx(most)
    found = allocate_widths(chain.losses, chain.savings, caught.value.most, floor=0.5)
    assert found.levels == (4, 4)


def test_a_step_that_saves_nothing_is_taken_with_the_next() -> None:
    """A latency that falls only every fourth unit, and rises where the width is odd."""

    def seconds(widths: np.ndarray) -> np.ndarray:
        return -(-widths // 4) * 4 + widths % 2 * 0.5

    losses = [np.arange(1.0, 13), np.arange(2.0, 26, 2)]
    found = allocate_widths(losses, lambda now, then: seconds(now) - seconds(then), 8)
    assert found.levels == (4, 12)
    assert found.loss == 8


def test_nothing_to_narrow() -> None:
    chain = Chain([4], 0)
    assert allocate_widths(chain.losses, chain.savings, 0).levels == (4,)
    with pytest.raises(UnreachableError, match="at most 0"):
        allocate_widths(chain.losses, chain.savings, 1, multiples=8)


def test_only_levels_on_the_hull_are_efficient() -> None:
    losses = np.array([0.0, 1.0, 1.9, 5.0, 9.0, 3.0])
    savings = np.array([0.0, 4.0, 5.0, 8.0, 9.0, 4.5])
    assert efficient(Table(losses, savings)) == [0, 1, 2, 3, 4]
    assert efficient(Table(losses, -savings)) == [0]
    assert efficient(Table(losses[[3, 0, 5]], savings[[3, 0, 5]])) == [1, 0]
