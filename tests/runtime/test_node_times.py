"""What nodes take: which runs count, what is measured and what is remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt.errors import NativeError
from graphopt.ir.excerpts import Excerpt, Operand
from graphopt.ir.model import Model
from graphopt.runtime.cache import Cache
from graphopt.runtime.node_times import BLOCKS, CHUNK, NodeTimes, between, steady
from graphopt.runtime.node_times_child import Recorded
from graphopt.runtime.profiling import NodeSeconds
from graphopt.testing import parse

KEY = ("conv", "Conv")


def product(width: int) -> Model:
    operands = (Operand("float32", (1, 8)), Operand("float32", (8, width), constant=True))
    return Excerpt.of("MatMul", 17, operands, {}).model()


class Recorder:
    """Stands in for the process: every model takes as many microseconds as its bytes sum up to."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.feeds: list[Any] = []

    def call(
        self, task: str, paths: list[str], feeds: list[Any], *rest: Any, seconds: float
    ) -> Any:
        assert task == "record_each"
        assert len(paths) <= CHUNK
        self.feeds += feeds
        sizes = [sum(Path(path).read_bytes()) for path in paths]
        self.sizes += sizes
        return [Recorded([{KEY: size}, {KEY: size}], [size / 1e6]) for size in sizes]


def test_disturbed_runs_do_not_count() -> None:
    runs = [{KEY: taken} for taken in (100, 100, 104, 108, 500, 900, 100, 104)]
    expected = [NodeSeconds("conv", "Conv", pytest.approx(616e-6 / 6))]
    assert steady(Recorded(runs, [1.0])) == expected


def test_the_mean_of_whole_microseconds_is_finer_than_one() -> None:
    (found,) = steady(Recorded([{KEY: taken} for taken in (3, 4, 3, 4)], [1.0]))
    assert found.seconds == pytest.approx(3.5e-6)


def test_what_the_profiler_takes_is_taken_off_the_nodes() -> None:
    run = {("a", "A"): 100, ("b", "B"): 12, ("c", "C"): 3}
    found = steady(Recorded([run] * 4, [100e-6] * 4))
    assert sum(node.seconds for node in found) == pytest.approx(100e-6)
    first, second, third = (1e6 * node.seconds for node in found)
    assert first == pytest.approx(95.0, abs=4.0)  # each of them about 5 microseconds less
    assert second == pytest.approx(7.0, abs=3.0)
    assert 0.2 <= third <= 1.0
    untouched = [node.seconds for node in steady(Recorded([run] * 4, [200e-6]))]
    assert untouched == pytest.approx([100e-6, 12e-6, 3e-6])


def test_the_median_over_blocks_counts_and_the_dearest_comes_first() -> None:
    blocks = [
        [NodeSeconds("a", "A", value), NodeSeconds("b", "B", 2.0)] for value in (1.0, 3.0, 9.0)
    ]
    assert between(blocks) == [NodeSeconds("a", "A", 3.0), NodeSeconds("b", "B", 2.0)]


def test_equal_models_are_measured_once_and_never_again() -> None:
    recorder = Recorder()
    times = NodeTimes(recorder)  # type: ignore[arg-type]
    found = times([product(8), product(300), product(8)])
    assert len(recorder.sizes) == 2 * BLOCKS
    assert found[0] == found[2] != found[1]
    assert found[0] == [NodeSeconds("conv", "Conv", recorder.sizes[0] / 1e6)]
    assert times([product(300)]) == [found[1]]
    assert len(recorder.sizes) == 2 * BLOCKS


def test_what_was_measured_is_kept_between_runs(tmp_path) -> None:
    first = NodeTimes(Recorder(), cache=Cache(tmp_path))  # type: ignore[arg-type]
    again, other = Recorder(), Recorder()
    found = first([product(8)])
    assert NodeTimes(again, cache=Cache(tmp_path))([product(8)]) == found  # type: ignore[arg-type]
    assert not again.sizes
    NodeTimes(other, cache=Cache(tmp_path), threads=2)([product(8)])  # type: ignore[arg-type]
    assert len(other.sizes) == BLOCKS


def test_an_entry_of_another_form_is_measured_anew(tmp_path) -> None:
    cache = Cache(tmp_path)
    times = NodeTimes(Recorder(), cache=cache)  # type: ignore[arg-type]
    cache.put(times._key(product(8)), {"seconds": np.zeros(2)}, {"nodes": [["only", "one"]]})
    assert [node.op for node in times([product(8)])[0]] == ["Conv"]


def test_the_users_inputs_go_to_models_that_take_them() -> None:
    model = parse("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }""")
    recorder, feeds = Recorder(), {"x": np.ones((2, 3), np.float32)}
    NodeTimes(recorder, feeds)([model, product(8)])  # type: ignore[arg-type]
    assert [given is None for given in recorder.feeds] == [False, True] * BLOCKS
    wrong = Recorder()
    NodeTimes(wrong, {"x": np.ones((2, 4), np.float32)})([model])  # type: ignore[arg-type]
    assert wrong.feeds == [None] * BLOCKS


def test_it_says_how_far_it_is() -> None:
    told: list[float] = []
    times = NodeTimes(Recorder(), progress=lambda what, done: told.append(done))  # type: ignore[arg-type]
    times([product(width) for width in range(8, 8 + 2 * CHUNK)])
    assert told == sorted(told)
    assert len(told) == 2 * BLOCKS
    assert told[0] == 0
    assert told[-1] < 1


def test_nodes_really_run(native) -> None:
    found = NodeTimes(native)([product(8), product(16)])
    assert [[node.op for node in nodes] for nodes in found] == [["MatMul"], ["MatMul"]]
    assert all(node.seconds >= 0 for nodes in found for node in nodes)


def test_inputs_that_cannot_be_drawn_are_told(native) -> None:
    model = parse("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }""")
    with pytest.raises(NativeError, match="no input can be drawn"):
        NodeTimes(native)([model])
