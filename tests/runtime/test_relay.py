"""A relay gives what running from the start would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphopt.ir.model import Model
from graphopt.ir.parts import live, part
from graphopt.numerics.streaming import GramSpec
from graphopt.runtime import relay as module
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Request, Stream
from graphopt.runtime.relay import Relay
from graphopt.testing import parse

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x, int64[N] k, float[4,4] w, float[4,4] v) => (float[N,4] y) {
    a = MatMul(x, w)
    b = Relu(a)
    d = MatMul(b, v)
    f = Cast<to = 1>(k)
    o = Constant<value_ints = [1]>()
    h = Unsqueeze(f, o)
    e = Add(d, h)
    y = Add(e, b)
}"""


@pytest.fixture
def model() -> Model:
    return parse(MODEL, ("w", "v"))


def batches() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {"x": rng.standard_normal((n, 4)).astype(np.float32), "k": np.arange(n)} for n in (4, 4, 2)
    ]


def advance(relay: Relay, model: Model, count: int) -> bool:
    needed = live(model, count)
    there = [t for t in needed if t.name in relay.types or not t.inputs]
    wanted = [t for t in needed if t not in there]
    return relay.advance([part(model, relay.types, wanted)], [t.name for t in there])


def test_what_is_observed_over_a_relay_is_what_the_whole_gives(native, model) -> None:
    observe = Observer(native, Stream(batches))
    request = Request("e", GramSpec())
    whole = observe(model, [request]).of(request)
    relay = observe.relay()
    for count in (2, 3):
        assert advance(relay, model, count)
        assert set(relay.types) == {t.name for t in live(model, count)}
        assert relay.types["k"] == np.int64
        wanted = [t for node in model.graph.nodes for t in node.outputs if t.name == "e"]
        rest = part(model, relay.types, wanted)
        found = observe(rest, [request], over=relay).of(request)
        np.testing.assert_array_equal(found.product(), whole.product())
    relay.close()


def test_a_part_that_reads_less_than_the_data_has_is_observed(native, model) -> None:
    observe = Observer(native, Stream(batches))
    first = next(t for node in model.graph.nodes for t in node.outputs if t.name == "b")
    request = Request("b", GramSpec())
    found = observe(part(model, {}, [first]), [request]).of(request)
    np.testing.assert_array_equal(found.product(), observe(model, [request]).of(request).product())


def test_files_go_when_they_are_not_needed(native, model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    relay = Relay(native, Stream(batches))
    assert advance(relay, model, 2)
    assert len(list(tmp_path.rglob("*.npz"))) == 3
    assert advance(relay, model, 3)
    assert len(list(tmp_path.rglob("*.npz"))) == 3
    relay.close()
    assert list(tmp_path.iterdir()) == []
    assert [feeds["x"].shape for feeds in relay] == [(4, 4), (4, 4), (2, 4)]


def test_without_room_nothing_changes(native, model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "MOST_BYTES", 2000)
    relay = Relay(native, Stream(batches))
    assert not advance(relay, model, 2)
    assert relay.types == {}
    assert len(list(relay)) == 3
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_array_of_numbers_is_not_kept(native) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N] x) => (seq(float[N]) s) { s = SequenceConstruct(x) }"""
    model = parse(text, ())
    relay = Relay(native, Stream(lambda: [{"x": np.ones(2, np.float32)}]))
    assert not relay.advance([model])


def test_a_missing_folder_for_temporary_files(native, model, monkeypatch) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(Path("/nowhere/at/all")))
    assert not advance(Relay(native, Stream(batches)), model, 2)
