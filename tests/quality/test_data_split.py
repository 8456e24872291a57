"""Parts never overlap, are the same in every run, and cover what they should."""

from __future__ import annotations

import numpy as np
import pytest
from data_models import labels_of, model_of, opened, refusal, rows_of, samples, simple
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.quality.data import (
    CALIBRATION_MOST,
    DataOptions,
    Swapped,
    alike,
    open_dataset,
    parse_share,
)
from graphopt.quality.data.split import Split, eighths


def numbered(count: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(count, dtype=np.float32)[:, None] + np.zeros(3, np.float32)}


def parts(dataset) -> tuple[list[int], list[int]]:
    found = []
    for part in ("calibration", "evaluation"):
        rows = [b.feeds["x"][:, 0].astype(int).tolist() for b in dataset.batches(part)]
        found.append([number for batch in rows for number in batch])
        assert len(found[-1]) == dataset.count(part)
    return found[0], found[1]


@given(
    units=st.integers(2, 30_000),
    share=st.integers(0, 8),
    most=st.integers(1, 5000),
    seed=st.integers(0, 2**40),
)
@settings(max_examples=60, deadline=None)
def test_a_split_is_one_answer_for_each_unit(units, share, most, seed) -> None:
    split = Split(units, share, most, seed)
    chosen = split.calibrates(0, units)
    assert chosen.sum() <= most
    assert chosen.any() == (share > 0)
    if share < 8:
        assert not chosen.all()
    cut = units // 3
    again = np.concatenate([split.calibrates(0, cut), split.calibrates(cut, units - cut)])
    np.testing.assert_array_equal(again, chosen)


@given(count=st.integers(2, 200), seed=st.integers(0, 50), share=st.floats(0.01, 0.99))
@settings(max_examples=60, deadline=None)
def test_parts_are_whole_and_do_not_overlap(count, seed, share) -> None:
    dataset = opened(numbered(count), simple(), seed=seed, split=share)
    calibration, evaluation = parts(dataset)
    assert calibration and evaluation
    assert sorted(calibration + evaluation) == list(range(count))
    assert calibration == sorted(calibration) and evaluation == sorted(evaluation)
    assert dataset.seed == seed


def test_half_of_each_block_calibrates_where_nothing_else_is_said() -> None:
    calibration, evaluation = parts(opened(numbered(64), simple()))
    assert len(calibration) == len(evaluation) == 32
    assert np.bincount(np.array(calibration) // 8).tolist() == [4] * 8


def test_a_share_is_rounded_to_eighths() -> None:
    for share, eighth in ((None, 4), (0.01, 1), (0.25, 2), (0.3, 2), (0.99, 7)):
        assert eighths(share) == eighth
        found = opened(numbered(80), simple(), split=share)
        assert found.count("calibration") == 10 * eighth
    assert parse_share("50%") == parse_share("0.5") == parse_share(" 50 % ".strip()) == 0.5
    with pytest.raises(Exception, match="'half' is not a share"):
        parse_share("half")


def test_seeds_give_different_parts_and_a_seed_the_same() -> None:
    found = {tuple(parts(opened(numbered(64), simple(), seed=seed))[0]) for seed in range(50)}
    assert len(found) == 50
    assert parts(opened(numbered(64), simple(), seed=7)) == parts(
        opened(numbered(64), simple(), seed=7)
    )


def test_calibration_is_capped_and_spread() -> None:
    dataset = opened(numbered(10_000), simple())
    calibration, evaluation = parts(dataset)
    assert CALIBRATION_MOST - 8 < len(calibration) <= CALIBRATION_MOST
    assert len(evaluation) == 10_000 - len(calibration)
    thousands = np.bincount(np.array(calibration) // 1000)
    assert thousands.min() > 80 and thousands.max() < 125


def test_most_takes_the_first_of_a_part() -> None:
    dataset = opened(numbered(300), simple())
    whole = rows_of(dataset, "calibration")
    np.testing.assert_array_equal(rows_of(dataset, "calibration", most=70), whole[:70])
    assert sum(1 for _ in dataset.batches("calibration", most=64)) == 1


def test_groups_are_split_as_a_whole() -> None:
    dataset = opened(numbered(40), model_of("float[4,3] x"))
    calibration, evaluation = parts(dataset)
    assert sorted(calibration + evaluation) == list(range(40))
    for part in (calibration, evaluation):
        for at in range(0, len(part), 4):
            assert part[at] % 4 == 0
            assert part[at : at + 4] == list(range(part[at], part[at] + 4))


def test_too_few_to_divide() -> None:
    assert "holds one sample, too few to divide" in refusal(numbered(1), simple())
    fixed = model_of("float[4,3] x")
    assert "holds 4 samples in one run, too few" in refusal(numbered(7), fixed)
    assert opened(numbered(1), simple(), calibrates=False).count("evaluation") == 1


def test_all_evaluates_where_nothing_calibrates() -> None:
    dataset = opened(numbered(30), simple(), calibrates=False)
    assert (dataset.count("calibration"), dataset.count("evaluation")) == (0, 30)
    assert list(dataset.batches("calibration")) == []


def apart(**more):
    return open_dataset(DataOptions(**more), simple())


def test_parts_given_apart_are_not_divided() -> None:
    first, second = numbered(20), {"x": samples(30), "y": np.arange(30)}
    for more in (
        {"calibration": first, "evaluation": second},
        {"source": first, "evaluation": second},
        {"source": second, "calibration": first},
    ):
        dataset = apart(labels="y", **more)
        assert (dataset.count("calibration"), dataset.count("evaluation")) == (20, 30)
        assert dataset.samples == 50 and dataset.warnings == [] and dataset.labels == "y"
        np.testing.assert_array_equal(rows_of(dataset, "calibration"), first["x"])
        np.testing.assert_array_equal(labels_of(dataset, "evaluation"), np.arange(30))
    one = open_dataset(DataOptions(source=second, calibration=first), simple(), calibrates=False)
    assert (one.count("calibration"), one.count("evaluation")) == (0, 30)
    with pytest.raises(Exception, match="no array for the labels 'y'"):
        apart(calibration=second, evaluation=first, labels="y")


def test_samples_in_both_parts_are_counted() -> None:
    both = samples(40)
    dataset = apart(calibration={"x": both[:15]}, evaluation={"x": both[10:]})
    assert dataset.warnings == [
        "5 evaluation samples are also among the calibration samples, so the verdict is too kind"
    ]


def test_a_large_calibration_set_given_apart_is_thinned_and_said() -> None:
    dataset = apart(calibration=numbered(5000), evaluation={"x": samples(10)})
    assert CALIBRATION_MOST - 8 < dataset.count("calibration") <= CALIBRATION_MOST
    assert "of 5000 samples of a dict of arrays calibrate" in dataset.warnings[0]


def test_a_fingerprint_tells_which_samples_calibrate_not_only_how_many() -> None:
    x = np.arange(4096 * 3, dtype=np.float32).reshape(-1, 3)
    half, quarter = (open_dataset(DataOptions({"x": x}, split=s), simple()) for s in (0.5, 0.25))
    assert half.count("calibration") == quarter.count("calibration")
    seen = [
        np.concatenate([batch.feeds["x"] for batch in data.batches("calibration")])
        for data in (half, quarter)
    ]
    assert not np.array_equal(*seen)
    assert half.fingerprint("calibration") != quarter.fingerprint("calibration")
    assert half.fingerprint("calibration") != half.fingerprint("evaluation")
    again = open_dataset(DataOptions({"x": x}, split=0.5), simple())
    assert again.fingerprint("calibration") == half.fingerprint("calibration")


def test_parts_change_places() -> None:
    dataset = opened(numbered(40), simple(), seed=3, split=0.5)
    other = Swapped(dataset)
    assert parts(other) == parts(dataset)[::-1]
    assert other.fingerprint("calibration") == dataset.fingerprint("evaluation")
    assert (other.digest, other.samples) == (dataset.digest, 40)
    assert alike(dataset, labelled=False)
    assert not alike(dataset, labelled=True)  # there are none
    assert not alike(opened(numbered(40), simple(), split=0.75), labelled=False)
