"""Parts of a model compute what the whole computes there."""

from __future__ import annotations

import numpy as np

from graphopt.ir.model import Model
from graphopt.ir.parts import live, live_counts, part
from graphopt.testing import parse

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x, float[N,4] z, bool c, float[4,4] w, float[4,4] v) => (float[N,4] y, float[N,4] q) {
    a = MatMul(x, w)
    b = Relu(a)
    d = Add(b, z)
    e = If(c) <
        then_branch = one () => (float[N,4] t) { t = MatMul(d, v) },
        else_branch = two () => (float[N,4] u) { u = Neg(b) }
    >
    y = Add(e, b)
    q = Abs(z)
}"""


def whole() -> Model:
    return parse(MODEL, ("w", "v"))


def tensor(model: Model, name: str):
    return next(t for node in model.graph.nodes for t in node.outputs if t.name == name)


def run(native, model: Model, feeds: dict, names: list[str]) -> list[np.ndarray]:
    native.call("open", "part", model.to_bytes())
    found = native.call("run", "part", feeds, names)
    native.call("close", "part")
    return found


def feeds(seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    x, z = rng.standard_normal((2, 3, 4)).astype(np.float32)
    return {"x": x, "z": z, "c": np.array(True)}


def test_two_parts_compute_what_the_whole_does_also_through_bodies(native) -> None:
    model, given = whole(), feeds()
    cut = 3
    alive = live(model, cut)
    assert {t.name for t in alive} == {"d", "b", "c", "z"}
    first = part(model, {}, [t for t in alive if t.inputs])
    assert {t.name for t in first.graph.inputs} == {"x", "z"}
    known = run(native, first, {k: given[k] for k in ("x", "z")}, ["d", "b"])
    types = {"d": np.dtype(np.float32), "b": np.dtype(np.float32)}
    second = part(model, types, [tensor(model, "y")])
    assert {t.name for t in second.graph.inputs} == {"d", "b", "c"}
    assert [node.op for node in second.graph.nodes] == ["If", "Add"]
    for condition in (True, False):
        both = {"d": known[0], "b": known[1], "c": np.array(condition)}
        expected = run(native, model, {**given, "c": np.array(condition)}, ["y"])
        np.testing.assert_array_equal(run(native, second, both, ["y"])[0], expected[0])


def test_the_whole_stays_as_it_is() -> None:
    model = whole()
    before = model.to_bytes()
    made = part(model, {"b": np.dtype(np.float32)}, [tensor(model, "y")])
    for constant in made.constants():
        constant.values = np.zeros_like(constant.values)
    assert model.to_bytes() == before


def test_a_given_tensor_may_itself_be_wanted(native) -> None:
    model = whole()
    made = part(model, {"b": np.dtype(np.float32)}, [tensor(model, "b"), tensor(model, "d")])
    b = np.ones((2, 4), np.float32)
    found = run(native, made, {"b": b, "z": 2 * b}, ["b", "d"])
    np.testing.assert_array_equal(found[0], b)
    np.testing.assert_array_equal(found[1], 3 * b)


def test_what_is_alive_is_counted_in_one_sweep() -> None:
    model = whole()
    counts = live_counts(model)
    assert counts == [len(live(model, number)) for number in range(len(model.graph.nodes))]
