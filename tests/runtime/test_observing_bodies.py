"""What is observed in the bodies of If, Loop and Scan equals what numpy finds, run by run."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.numerics.streaming import (
    CrossSpec,
    FeatureRows,
    GramSpec,
    HistogramSpec,
    MomentsSpec,
    RangeSpec,
)
from graphopt.runtime.native import Native
from graphopt.runtime.observing import Request, Stream, observe
from graphopt.testing import parse

HEAD = '<ir_version: 8, opset_import: ["" : {opset}]>\n'

BRANCHES = """g (float[N,3] x, bool b) => (float[N,3] y)
    <float[3] one = {1, 1, 1}, float[3] two = {2, 2, 2}> {
    m = Mul(x, two)
    y = If(b) <
        then_branch = yes () => (float[N,3] given) { up = Add(m, one) given = Mul(up, two) },
        else_branch = no () => (float[N,3] other) { other = Sub(m, two) }
    >
}"""

LOOP = """g (float[N,3] x, int64 n) => (float[N,3] y, float[A,B] all) <float[3] half = {0.5, 0.5, 0.5}> {
    y, all = Loop(n, , x) <
        body = b (int64 i, bool c, float[N,3] s) => (bool d, float[N,3] t, float[3] kept) {
            d = Identity(c)
            shrunk = Mul(s, half)
            t = Add(shrunk, half)
            kept = ReduceSum<keepdims=0>(t, zero)
        }
    >
}"""
LOOP = LOOP.replace("{0.5, 0.5, 0.5}>", "{0.5, 0.5, 0.5}, int64[1] zero = {0}>")

SCAN = """g (float[T,3] x, float[3] s0) => (float[3] s, float[T,3] y) <float[3] two = {2, 2, 2}> {
    s, y = Scan<num_scan_inputs=1, scan_input_directions=[BACK], scan_output_directions=[OUT],
        body = b (float[3] u, float[3] e) => (float[3] v, float[3] o) {
            sum = Add(u, e)
            v = Identity(sum)
            o = Mul(sum, two)
        }>(s0, x)
}"""

NESTED = """g (float[N,3] x, int64 n) => (float[N,3] y) <float[3] half = {0.5, 0.5, 0.5}, int64 one = {1},
    int64 two = {2}, int64 zero = {0}> {
    y = Loop(n, , x) <
        body = outer (int64 i, bool c, float[N,3] s) => (bool d, float[N,3] t) {
            d = Identity(c)
            times = Add(i, one)
            inside = Loop(times, , s) <
                body = inner (int64 j, bool e, float[N,3] p) => (bool f, float[N,3] q) {
                    f = Identity(e)
                    parity = Mod(j, two)
                    odd = Equal(parity, one)
                    q = If(odd) <
                        then_branch = yes () => (float[N,3] r) { deep = Mul(p, half) r = Add(deep, half) },
                        else_branch = no () => (float[N,3] w) { w = Sub(p, half) }
                    >
                }
            >
            t = Identity(inside)
        }
    >
}"""


def model(text: str, opset: int = 17):
    return parse(HEAD.replace("{opset}", str(opset)) + text)


def rows(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def one(native: Native, found, batches, request, **options):
    (answer,) = observe(native, found, batches, [request], **options).values()
    return answer


@pytest.mark.parametrize("opset", [11, 13, 17])
@pytest.mark.parametrize("turn", [True, False])
def test_only_the_branches_that_run_are_seen(native, opset, turn) -> None:
    batches = [
        {"x": rows(4, 3, seed=n), "b": np.array(b)} for n, b in enumerate((turn, not turn, turn))
    ]
    up, other = Request("up", RangeSpec()), Request("other", MomentsSpec())
    answers = observe(native, model(BRANCHES, opset), batches, [up, other])
    seen = np.concatenate([2 * f["x"] + 1 for f in batches if f["b"]])
    not_seen = np.concatenate([2 * f["x"] - 2 for f in batches if not f["b"]])
    assert answers.of(up).count == seen.size
    np.testing.assert_allclose(answers.of(up).minimum, seen.min(), rtol=1e-6)
    np.testing.assert_allclose(answers.of(up).maximum, seen.max(), rtol=1e-6)
    assert answers.of(other).count == not_seen.size
    np.testing.assert_allclose(answers.of(other).mean, not_seen.mean(), rtol=1e-5)


def test_a_branch_that_never_runs_has_a_reason(native) -> None:
    batches = [{"x": rows(4, 3), "b": np.array(True)}]
    answer = one(native, model(BRANCHES), batches, Request("other", RangeSpec()))
    assert answer.value is None
    assert "never runs" in answer.why


def test_a_branch_that_a_later_batch_runs_is_not_seen_in_what_can_be_read_once(native) -> None:
    batches = [{"x": rows(4, 3), "b": np.array(b)} for b in (True, False)]
    request = Request("other", RangeSpec())
    assert one(native, model(BRANCHES), iter(batches), request).value is None
    assert one(native, model(BRANCHES), Stream(lambda: batches), request).value is not None


def states(x: np.ndarray, times: int) -> list[np.ndarray]:
    found = [x]
    for _ in range(times):
        found.append(found[-1] * np.float32(0.5) + np.float32(0.5))
    return found


@pytest.mark.parametrize("opset", [13, 17])
def test_every_iteration_of_a_loop_is_seen(native, opset) -> None:
    batches = [{"x": rows(4, 3, seed=n), "n": np.array(n)} for n in (3, 0, 5)]
    asked = {name: Request(name, HistogramSpec()) for name in ("s", "t")}
    gram = Request("s", GramSpec(FeatureRows(1)))
    answers = observe(native, model(LOOP, opset), batches, [*asked.values(), gram])
    for name, part in (("s", slice(0, -1)), ("t", slice(1, None))):
        seen = np.concatenate([s for f in batches for s in states(f["x"], int(f["n"]))[part]])
        found = answers.of(asked[name])
        np.testing.assert_array_equal(np.histogram(seen, found.edges)[0], found.counts)
        if name == "s":
            np.testing.assert_allclose(answers.of(gram).product(0), seen.T @ seen, rtol=1e-5)


@pytest.mark.parametrize(("back", "out"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_a_scan_is_seen_and_still_computes_the_same(native, back, out) -> None:
    scan = model(SCAN.replace("BACK", str(back)).replace("OUT", str(out)))
    batches = [{"x": rows(size, 3, seed=size), "s0": rows(3)} for size in (2, 6)]
    names = ["e", "u", "sum", "y", "s"]
    asked = [Request(name, MomentsSpec(axis=-1)) for name in names]
    plain = [one(native, scan, batches, request) for request in asked[3:]]
    answers = observe(native, scan, batches, asked)
    for request, alone in zip(asked[3:], plain, strict=True):
        np.testing.assert_allclose(answers.of(request).mean, alone.value.mean, rtol=1e-6)
    sums, elements = [], []
    for feeds in batches:
        turned = feeds["x"][::-1] if back else feeds["x"]
        elements.append(turned)
        sums.append(np.cumsum(turned, axis=0) + feeds["s0"])
    for request, seen in ((asked[0], elements), (asked[2], sums)):
        np.testing.assert_allclose(
            answers.of(request).mean, np.concatenate(seen).mean(axis=0), rtol=1e-5
        )


def test_the_outputs_of_a_scan_keep_their_order(native) -> None:
    scan = model(SCAN.replace("BACK", "1").replace("OUT", "1"))
    feeds = {"x": rows(5, 3), "s0": rows(3, seed=1)}
    target = CrossSpec(FeatureRows(1), FeatureRows(1))
    request = Request("x", target, target="y")
    plain = one(native, scan, [feeds], request).value
    both = observe(native, scan, [feeds], [request, Request("sum", RangeSpec())])
    np.testing.assert_allclose(both.of(request).product(0), plain.product(0), rtol=1e-6)


def test_bodies_in_bodies_are_seen(native) -> None:
    batches = [{"x": rows(2, 3, seed=n), "n": np.array(n)} for n in (3, 2)]
    request = Request("deep", MomentsSpec())
    found = one(native, model(NESTED), batches, request).value
    seen = []
    for feeds in batches:
        value = feeds["x"]
        for i in range(int(feeds["n"])):
            for j in range(i + 1):
                if j % 2:
                    seen.append(value * np.float32(0.5))
                value = seen[-1] + np.float32(0.5) if j % 2 else value - np.float32(0.5)
    assert found.count == sum(entry.size for entry in seen)
    np.testing.assert_allclose(found.mean, np.concatenate(seen).mean(), rtol=1e-5)


def test_a_shape_that_changes_between_iterations_is_no_obstacle(native) -> None:
    text = """g (float[N,3] x, int64 n) => (float[M,3] y) {
        y = Loop(n, , x) <
            body = b (int64 i, bool c, float[K,3] s) => (bool d, float[L,3] t) {
                d = Identity(c)
                t = Concat<axis=0>(s, x)
            }
        >
    }"""
    found = one(
        native, model(text), [{"x": rows(2, 3), "n": np.array(4)}], Request("t", RangeSpec())
    )
    assert found.value.count == 6 * (2 + 3 + 4 + 5)


def test_what_a_body_takes_in_all_its_runs_is_bounded(native) -> None:
    feeds = [{"x": rows(100, 3), "n": np.array(200)}]
    request = Request("t", RangeSpec())
    answer = one(native, model(LOOP), feeds, request, memory_bytes=50_000)
    assert answer.value is None
    assert "200 runs of its body" in answer.why
    assert one(native, model(LOOP), feeds, request).value.count == 200 * 300


def test_tensors_of_different_numbers_of_runs_make_no_pair(native) -> None:
    request = Request("x", CrossSpec(FeatureRows(1), FeatureRows(1)), target="t")
    answer = one(native, model(LOOP), [{"x": rows(4, 3), "n": np.array(3)}], request)
    assert answer.value is None
    assert "same number of times" in answer.why


def test_what_cannot_be_seen_in_a_body_has_a_reason(native) -> None:
    twice = BRANCHES.replace(
        "up = Add(m, one) given = Mul(up, two)", "z = Add(m, one) given = Mul(z, two)"
    )
    twice = twice.replace("other = Sub(m, two)", "z = Sub(m, two) other = Neg(z)")
    across = SCAN.replace("BACK", "0").replace(
        "scan_output_directions=[OUT]", "scan_output_axes=[1]"
    )
    feeds = {"x": rows(4, 3), "b": np.array(True), "s0": rows(3)}
    cases = (
        (twice, "z", "several bodies"),
        (across, "sum", "another axis"),
        (LOOP, "q", "no tensor"),
    )
    for text, name, why in cases:
        answer = one(native, model(text), [feeds], Request(name, RangeSpec()))
        assert answer.value is None
        assert why in answer.why
