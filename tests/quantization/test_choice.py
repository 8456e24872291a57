"""Which units run on integers: the minimum cut against all choices there are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest

from graphopt.passes.quantization._qdq.choice import Problem, Tensor

STEP = 1e-7
"""All seconds, and all prices paid for losses, are whole multiples of it, so that sums can be compared."""


def objective(problem: Problem, chosen: frozenset[int], price: float) -> float:
    """What is minimised, term by term as the module says it."""
    paid = sum(
        problem.integers[uid] if uid in chosen else problem.floats[uid] for uid in problem.floats
    )
    losses = [problem.losses.get(uid, 0.0) for uid in chosen]
    for tensor in problem.tensors:
        made = tensor.maker is not None and tensor.maker in chosen
        readers = [uid in chosen for uid in tensor.readers]
        enters = any(readers) and not made
        rounded = enters if tensor.moved else made or any(readers)
        if rounded:
            losses.append(tensor.loss)
        if enters:
            paid += tensor.quantize
        if made and (tensor.read_by_floats or not all(readers)):
            paid += tensor.dequantize
        if made:
            paid += tensor.rest
            paid += sum(more for uid, more in tensor.unfused.items() if uid not in chosen)
    if any(math.isinf(loss) for loss in losses):
        return math.inf
    return paid + price * sum(losses)


def subsets(problem: Problem) -> Iterator[frozenset[int]]:
    uids = list(problem.floats)
    for count in range(len(uids) + 1):
        yield from map(frozenset, itertools.combinations(uids, count))


def random_problem(seed: int, moved: bool = True, infinite: bool = False) -> Problem:
    """Up to 8 units in a row, each of which reads the input or what others before it made."""
    rng = np.random.default_rng(seed)
    units = [int(uid) for uid in rng.permutation(40)[: rng.integers(1, 9)]]

    def seconds(most: int = 30) -> float:
        return int(rng.integers(0, most)) * STEP

    def loss() -> float:
        return math.inf if infinite and rng.random() < 0.15 else int(rng.integers(0, 12)) * STEP

    tensors = []
    for place, maker in enumerate([None, *units]):
        later = units[place:]
        if not later and maker is None:
            continue
        readers = tuple(uid for uid in later if rng.random() < 0.4)
        if maker is None and not readers:
            continue
        floats = maker is not None and rng.random() < 0.2
        unfused = {
            uid: seconds(10)
            for uid in readers
            if maker is not None and not floats and rng.random() < 0.4
        }
        tensors.append(
            Tensor(
                f"t{place}",
                None if floats else maker,
                readers,
                seconds(12),
                seconds(12),
                bool(rng.random() < 0.3),
                unfused,
                seconds(6) if maker is not None and not floats else 0.0,
                loss(),
                moved and maker is not None and not floats and bool(rng.random() < 0.3),
            )
        )
    return Problem(
        {uid: seconds() for uid in units},
        {uid: seconds() for uid in units},
        {uid: loss() for uid in units if rng.random() < 0.7},
        tensors,
        100 * STEP,
    )


@pytest.mark.parametrize("infinite", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_no_other_choice_is_better(seed: int, infinite: bool) -> None:
    problem = random_problem(seed, infinite=infinite)
    for price in (0.0, 1.0, 3.0, 20.0):
        found = objective(problem, problem.choose(price), price)
        best = min(objective(problem, each, price) for each in subsets(problem))
        assert found == pytest.approx(best, abs=STEP / 100)


def test_the_random_problems_are_not_trivial() -> None:
    """Both states, every kind of term, and choices that taking each unit by itself would miss."""
    greedy = 0
    for seed in range(40):
        problem = random_problem(seed)
        found = problem.choose(1.0)
        alone = frozenset(
            uid
            for uid in problem.floats
            if problem.integers[uid] + problem.losses.get(uid, 0.0) <= problem.floats[uid]
        )
        greedy += objective(problem, alone, 1.0) > objective(problem, found, 1.0) + STEP / 2
    assert greedy >= 10


@pytest.mark.parametrize("seed", range(20))
def test_seconds_and_losses_are_those_of_the_objective(seed: int) -> None:
    problem = random_problem(seed)
    none = objective(problem, frozenset(), 0.0)
    for chosen in subsets(problem):
        assert problem.seconds(chosen) == pytest.approx(objective(problem, chosen, 0.0) - none)
        together = objective(problem, chosen, 1.0) - objective(problem, chosen, 0.0)
        assert problem.loss(chosen) == pytest.approx(together)


@pytest.mark.parametrize("seed", range(30))
def test_the_path_goes_from_the_fastest_choice_to_nothing(seed: int) -> None:
    problem = random_problem(seed, infinite=bool(seed % 2))
    path = problem.path()
    assert path[0] == problem.choose(0.0)
    assert path[-1] == frozenset()
    losses = [problem.loss(chosen) for chosen in path[:-1]]
    assert all(less < more for more, less in itertools.pairwise(losses))
    assert all(map(math.isfinite, losses))


@pytest.mark.parametrize("seed", range(30))
def test_without_movement_the_path_is_nested(seed: int) -> None:
    path = random_problem(seed, moved=False, infinite=bool(seed % 2)).path()
    for wide, narrow in itertools.pairwise(path):
        assert narrow < wide


@pytest.mark.parametrize("seed", range(30))
def test_along_the_path_less_is_lost(seed: int) -> None:
    problem = random_problem(seed, moved=False)
    path = problem.path()
    losses = [problem.loss(chosen) for chosen in path]
    seconds = [problem.seconds(chosen) for chosen in path]
    assert losses == sorted(losses, reverse=True)
    assert seconds == pytest.approx(sorted(seconds))
    assert losses[-1] == seconds[-1] == 0


@pytest.mark.parametrize("seed", range(20))
def test_without_movement_a_higher_price_gives_a_part_of_the_choice(seed: int) -> None:
    problem = random_problem(seed, moved=False)
    found = [problem.choose(price) for price in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 64.0)]
    for wide, narrow in itertools.pairwise(found):
        assert narrow <= wide


def test_a_path_through_movement_has_the_choice_that_loses_nothing() -> None:
    """Unit 2 reads what unit 1 moves: rounding that before 2 only loses, moving the integers does not."""
    moved = Tensor("m", 1, (2,), STEP, STEP, False, loss=10 * STEP, moved=True)
    problem = Problem({1: 0.0, 2: 20 * STEP}, {1: 2 * STEP, 2: 0.0}, {}, [moved], 100 * STEP)
    assert problem.choose(0.0) == {2}
    assert problem.choose(1.0) == {1, 2}
    assert any(problem.loss(each) == 0 and problem.seconds(each) < 0 for each in problem.path())


def test_what_loses_everything_is_never_chosen() -> None:
    fast = {1: 0.0, 2: 0.0}
    slow = {1: 1.0, 2: 1.0}
    assert Problem(slow, fast, {1: math.inf}, [], 2.0).choose(0.0) == {2}
    read = Tensor("t", 1, (2,), 0.0, 0.0, False, loss=math.inf)
    assert Problem(slow, fast, {}, [read], 2.0).choose(0.0) == frozenset()
    entering = Tensor("x", None, (1, 2), 0.0, 0.0, False, loss=math.inf)
    assert Problem(slow, fast, {}, [entering], 2.0).path() == [frozenset()]
    moved = Tensor("m", 1, (2,), 0.0, 0.0, False, loss=math.inf, moved=True)
    assert Problem(slow, fast, {}, [moved], 2.0).choose(0.0) == {1, 2}
    assert Problem(slow, {1: 5.0, 2: 0.9}, {}, [moved], 2.0).choose(0.0) == frozenset()


def test_losses_that_are_not_known_count_as_infinite() -> None:
    problem = Problem({1: 1.0}, {1: 0.0}, {1: math.nan}, [], 1.0)
    assert problem.choose(0.0) == frozenset()


def test_at_no_price_only_time_counts_and_at_any_price_everything_does() -> None:
    problem = Problem({1: 10 * STEP}, {1: 4 * STEP}, {1: 1e-12}, [], 1.0)
    assert problem.choose(0.0) == {1}
    assert problem.choose(1e12) == frozenset()


def test_there_may_be_nothing_to_choose() -> None:
    problem = Problem({}, {}, {}, [], 0.0)
    assert problem.choose(0.0) == frozenset()
    assert problem.path() == [frozenset()]
    assert problem.seconds(frozenset()) == problem.loss(frozenset()) == 0


def test_a_unit_that_was_never_seen_on_integers_stays_on_floats() -> None:
    """A table says infinity where no form has a unit on integers."""
    problem = Problem({1: 1.0, 2: 1.0}, {1: math.inf, 2: 0.0}, {}, [], 2.0)
    assert problem.choose(0.0) == {2}


def test_a_reader_that_stands_twice_pays_once() -> None:
    """As a Concat of a tensor with itself."""
    tensor = Tensor("t", None, (1, 1), 3 * STEP, 0.0, False)
    assert Problem({1: 4 * STEP}, {1: 0.0}, {}, [tensor], STEP).choose(0.0) == {1}
    assert Problem({1: 2 * STEP}, {1: 0.0}, {}, [tensor], STEP).choose(0.0) == frozenset()
