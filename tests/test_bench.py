"""Latency: what is measured, and that nothing is claimed that is not there."""

from __future__ import annotations

import math

import numpy as np
import pytest

from graphopt.bench import bench, by_operator, claim, measure_latency, profile_nodes
from graphopt.errors import ModelError, UsageError
from graphopt.numerics.statistics import ratio_of_blocks, spread
from graphopt.report import NodeTime
from graphopt.runtime.native import Native
from graphopt.testing import parse

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
MODEL = parse(
    HEAD
    + """g (float[N, 64] x, float[64, 64] w) => (float[N, 64] y)
    { a = MatMul (x, w) b = Relu (a) y = MatMul (b, w) }"""
)
TWICE = parse(
    HEAD
    + """g (float[N, 64] x, float[64, 64] w) => (float[N, 64] y)
    { a = MatMul (x, w) b = Relu (a) c = MatMul (b, w) d = MatMul (c, w) e = MatMul (d, w)
      f = MatMul (e, w) h = MatMul (f, w) y = MatMul (h, w) }"""
)
FEEDS = {"x": np.full((64, 64), 0.01, np.float32), "w": np.full((64, 64), 0.01, np.float32)}
NOTHING = "no difference beyond noise"


def drawn(rng: np.random.Generator, ratio: float, blocks: int, noise: float) -> list[list[float]]:
    """Timings in blocks: each block biased as a whole, each round a little."""
    bias = rng.normal(math.log(ratio), noise, blocks)
    return [list(np.exp(rng.normal(middle, noise, 20))) for middle in bias]


def test_a_ratio_is_that_of_its_blocks() -> None:
    one = [[1.0, 1.0, 9.0]] * 12
    found = ratio_of_blocks([[2.0, 2.0, 18.0]] * 12, one)
    assert (found.low, found.median, found.high) == pytest.approx((2, 2, 2))


def test_blocks_far_off_do_not_count() -> None:
    below = [[1.0] * 5] * 12
    above = [[1.1] * 5] * 10 + [[50.0] * 5] + [[0.01] * 5]
    found = ratio_of_blocks(above, below)
    assert found.median == pytest.approx(1.1)
    assert found.low > 1.05


def test_one_block_tells_nothing() -> None:
    with pytest.raises(ValueError, match="one block"):
        ratio_of_blocks([[1.0]], [[1.0]])


@pytest.mark.parametrize("blocks", [3, 6, 12])
def test_the_interval_holds_as_often_as_it_says(blocks) -> None:
    rng = np.random.default_rng(blocks)
    held = 0
    for _ in range(1000):
        found = ratio_of_blocks(drawn(rng, 1.07, blocks, 0.03), [[1.0] * 20] * blocks)
        held += found.low <= 1.07 <= found.high
    assert 930 <= held <= 980  # 950 expected; the trimmed interval is a little wide


@pytest.mark.parametrize("noise", [0.001, 0.01, 0.05, 0.3])
def test_a_model_against_itself_is_hardly_ever_claimed(noise) -> None:
    rng = np.random.default_rng(1)
    claims = 0
    for _ in range(500):
        first, control, second = (drawn(rng, 1, 12, noise) for _ in range(3))
        claims += claim(ratio_of_blocks(second, first), ratio_of_blocks(control, first)) != NOTHING
    assert claims <= 1


@pytest.mark.parametrize(("ratio", "says"), [(1.1, "slower"), (0.9, "faster")])
def test_a_tenth_is_claimed_where_noise_allows(ratio, says) -> None:
    rng = np.random.default_rng(2)
    claims = [
        claim(
            ratio_of_blocks(drawn(rng, ratio, 12, 0.03), drawn(rng, 1, 12, 0.03)),
            ratio_of_blocks(drawn(rng, 1, 12, 0.03), drawn(rng, 1, 12, 0.03)),
        )
        for _ in range(200)
    ]
    assert claims.count(says) >= 160
    assert set(claims) <= {says, NOTHING}


def test_a_model_with_itself() -> None:
    found = bench(MODEL, MODEL, feeds=FEEDS, rounds=60)
    assert found.claim == NOTHING
    assert found.rounds == 60
    assert found.provider == "cpu"
    assert found.shapes == {"x": [64, 64], "w": [64, 64]}
    assert found.first.p10 <= found.first.p50 <= found.first.p90


def test_one_model_has_no_ratio() -> None:
    found = bench(MODEL, rounds=12)
    assert found.second is found.ratio is found.claim is None
    assert found.control.low <= found.control.median <= found.control.high


def test_a_latency_tells_of_both_and_of_their_nodes() -> None:
    found = measure_latency(MODEL, TWICE, FEEDS, rounds=60)
    assert found.ratio.low <= found.ratio.median <= found.ratio.high
    assert {row.op: row.count for row in found.operators_after} == {"MatMul": 7, "Relu": 1}
    assert sum(row.share for row in found.nodes_after) == pytest.approx(1)
    assert len(found.nodes_before) == 3
    assert (found.provider, found.threads, found.rounds) == ("cpu", 1, 60)


def test_operators_are_the_sums_of_their_nodes() -> None:
    rows = [
        NodeTime("a", "Conv", 2.0, 0.5),
        NodeTime("b", "Relu", 1.5, 0.375),
        NodeTime("c", "Conv", 0.5, 0.125),
    ]
    assert by_operator(rows) == [
        NodeTime("Conv", "Conv", 2.5, 0.625, 2),
        NodeTime("Relu", "Relu", 1.5, 0.375, 1),
    ]


def test_a_profile_of_a_model() -> None:
    found = profile_nodes(MODEL, FEEDS)
    assert sorted(row.op for row in found) == ["MatMul", "MatMul", "Relu"]
    assert [row.seconds for row in found] == sorted((row.seconds for row in found), reverse=True)


def test_what_does_not_run_is_one_clear_error() -> None:
    wrong = {**FEEDS, "x": np.zeros((2, 3), np.float32)}
    for measure in (
        lambda: bench(MODEL, feeds=wrong),
        lambda: measure_latency(MODEL, MODEL, wrong),
    ):
        with pytest.raises(ModelError, match="cannot be timed"):
            measure()
    with pytest.raises(ModelError, match="cannot be profiled"):
        profile_nodes(MODEL, wrong)
    with pytest.raises(UsageError, match="no provider 'tpu'"):
        bench(MODEL, feeds=FEEDS, provider="tpu")


def test_percentiles() -> None:
    found = spread(list(np.arange(101.0)))
    assert (found.p10, found.p50, found.p90) == (10, 50, 90)


@pytest.mark.slow
def test_twenty_times_with_itself() -> None:
    assert [bench(MODEL, MODEL, feeds=FEEDS).claim for _ in range(20)] == [NOTHING] * 20


def test_a_dead_child_does_not_end_the_session() -> None:
    with Native(None, 10) as native:
        native.close()
        assert native.call("describe")["onnx"]
