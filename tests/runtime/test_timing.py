from __future__ import annotations

import gc
import json

import numpy as np
import pytest

from graphopt.errors import ModelError, NativeError
from graphopt.runtime import interleaving
from graphopt.runtime.interleaving import FEWEST_ROUNDS, WARM_UP, interleave
from graphopt.runtime.native import Native
from graphopt.runtime.profiling import _Event as Event
from graphopt.runtime.profiling import own_time, profile, read, summarize
from graphopt.runtime.providers import Provider
from graphopt.runtime.timing import BLOCKS, FEWEST_BLOCKS, time_models, written
from graphopt.testing import parse

MODEL = parse("""<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 3] x) => (float[N, 3] y) { h = Relu (x) y = Exp (h) }""")
FEEDS = {"x": np.zeros((2, 3), np.float32)}


class Clock:
    """Time that passes only when something is called."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def run(self, name: str, seconds: float):
        def call() -> None:
            self.now += seconds
            self.calls.append(name)

        return call


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(interleaving.time, "perf_counter", made)
    return made


def test_each_round_times_each_call_once(clock) -> None:
    found = interleave([clock.run("a", 0.25), clock.run("b", 0.5)], 6, 100, 0)
    assert found == [[0.25] * 6, [0.5] * 6]


def test_long_calls_are_neither_repeated_nor_warmed(clock) -> None:
    interleave([clock.run("a", 0.25), clock.run("b", 0.5)], 6, 100, 0)
    assert len(clock.calls) == 2 * (1 + 6)


def test_short_calls_are_warmed_and_repeated_alike(clock) -> None:
    found = interleave([clock.run("a", 0.0001), clock.run("b", 0.0002)], 4, 100, 0)
    assert found[1] == pytest.approx([0.0002] * 4)
    repeats = 3  # of the slower one, to fill half a millisecond
    assert clock.calls.count("a") == clock.calls.count("b") == WARM_UP + 4 * (1 + repeats)


def test_no_order_is_favoured(clock) -> None:
    names = "abc"
    interleave([clock.run(name, 0.25) for name in names], 12, 100, 3)
    rounds = np.array(clock.calls[3:]).reshape(12, 3)
    assert all((rounds[:, place] == name).sum() == 4 for place in range(3) for name in names)
    assert len({tuple(order) for order in rounds}) == 6


def test_time_ends_the_rounds_but_not_all_of_them(clock) -> None:
    assert len(interleave([clock.run("a", 1.0)], 100, 10, 0)[0]) == 10
    assert len(interleave([clock.run("a", 1.0)], 100, 0, 0)[0]) == FEWEST_ROUNDS


def test_the_garbage_collector_is_given_back(clock) -> None:
    def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        interleave([fail], 3, 1, 0)
    assert gc.isenabled()


def test_blocks_have_sessions_of_their_own(native) -> None:
    with Native(None, 60) as own:
        found = time_models(own, {"a": MODEL, "b": MODEL}, FEEDS, rounds=50, seconds=60)
        assert own.generation == BLOCKS
        assert not own.alive
    assert found.rounds == 50
    assert {len(blocks) for blocks in found.blocks.values()} == {BLOCKS}
    assert len(found.all("a")) == 50
    assert min(found.all("a")) > 0


def test_few_rounds_make_few_blocks() -> None:
    with Native(None, 60) as own:
        found = time_models(own, {"a": MODEL, "b": MODEL}, FEEDS, rounds=5, seconds=0)
    assert len(found.blocks["a"]) == FEWEST_BLOCKS
    assert 3 <= found.rounds <= 6


def test_a_model_is_written_once_and_gone_afterwards() -> None:
    with written({"a": MODEL, "b": MODEL, "c": MODEL.copy()}) as paths:
        assert paths["a"] == paths["b"] != paths["c"]
    with pytest.raises(ModelError):
        type(MODEL).load(paths["a"])


def event(name: str, op: str, start: int, end: int) -> Event:
    return Event(name, op, start, end, end - start)


def test_a_node_with_bodies_counts_without_them() -> None:
    found = own_time(
        [
            event("inner", "Conv", 12, 20),
            event("inner", "Conv", 30, 45),
            event("if", "If", 21, 29),
            event("deep", "Exp", 22, 27),
            event("loop", "Loop", 10, 50),
            event("next", "Relu", 50, 60),
        ]
    )
    assert found == {
        ("inner", "Conv"): 23,
        ("if", "If"): 3,
        ("deep", "Exp"): 5,
        ("loop", "Loop"): 40 - 23 - 8,
        ("next", "Relu"): 10,
    }


def test_a_profile_is_read_run_by_run(tmp_path) -> None:
    def line(cat: str, name: str, start: int, length: int, op: str = "") -> str:
        args = {"op_name": op} if op else {}
        return json.dumps({"cat": cat, "name": name, "ts": start, "dur": length, "args": args})

    rows = [
        line("Session", "session_initialization", 0, 9),
        line("Node", "a_kernel_time", 10, 5, "Conv"),
        line("Node", "a_fence_before", 15, 1, "Conv"),
        line("Session", "model_run", 10, 6),
        line("Node", "a_kernel_time", 20, 7, "Conv"),
        '{"cat": "Node", "name": "broken " quote_kernel_time"}',
        line("Node", "\u202eevil\n_kernel_time", 28, 1, "Exp"),
        line("Session", "model_run", 20, 9),
        line("Node", "a_kernel_time", 30, 7, "Conv"),
    ]
    path = tmp_path / "p.json"
    path.write_text("[\n" + ",\n".join(rows) + "\n]\n")
    runs = list(read(path))
    assert runs == [
        {("a", "Conv"): 5},
        {("a", "Conv"): 7, ("\\u202eevil\\u000a", "Exp"): 1},
    ]
    rows = summarize(runs)
    assert [(row.name, row.seconds) for row in rows] == [
        ("a", 6e-06),
        ("\\u202eevil\\u000a", 0.5e-06),
    ]


def test_a_profile_names_the_nodes_that_ran(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Native(None, 60) as own:
        found = own.call("profile", MODEL.to_bytes(), FEEDS, 3, 60.0)
    assert sorted(row.op for row in found) == ["Exp", "Relu"]
    assert all(row.seconds >= 0 for row in found)
    assert not list(tmp_path.iterdir())


def test_a_profile_without_a_run_is_an_error(monkeypatch) -> None:
    monkeypatch.setattr("graphopt.runtime.profiling.read", lambda path: iter(()))
    with pytest.raises(NativeError, match="no whole run"):
        profile(MODEL.to_bytes(), FEEDS, 2, 10, 1, Provider())
