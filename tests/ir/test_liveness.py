"""Bytes of a run, worked out by hand on small graphs."""

from __future__ import annotations

import pytest

from graphopt.ir.inference import infer
from graphopt.ir.liveness import runtime_bytes
from graphopt.testing import parse

HEAD = '<ir_version: 10, opset_import: ["" : 21]>\n'


def held(text: str, **bindings: int) -> int | None:
    model = parse(HEAD + text)
    named = {f"{name[:-1]}[{name[-1]}]": size for name, size in bindings.items()}
    return runtime_bytes(model, infer(model.graph, model.functions), named)


# x and y are the caller's: 400 bytes each
CASES = {
    "in and out": ("g (float[100] x) => (float[100] y) { y = Relu (x) }", 800),
    "two at once": ("g (float[100] x) => (float[100] y) { a = Relu (x) y = Exp (a) }", 1200),
    # a is gone when b is read for the last time
    "a chain": (
        "g (float[100] x) => (float[100] y) { a = Relu (x) b = Exp (a) y = Exp (b) }",
        1200,
    ),
    # a waits for c: x, a, b, c
    "a residual": (
        "g (float[100] x) => (float[100] y) { a = Relu (x) b = Exp (a) c = Exp (b) y = Add (a, c) }",
        1600,
    ),
    "never read": ("g (float[100] x) => (float[100] y) { a = Relu (x) y = Exp (x) }", 800),
    "a view": (
        "g (float[100] x) => (float[100] y) <int64[2] s = {10, 10}, int64[1] t = {100}>"
        "{ a = Relu (x) b = Reshape (a, s) c = Reshape (b, t) y = Exp (c) }",
        1200 + 24,
    ),
    "a view that is returned": (
        "g (float[100] x) => (float[10, 10] y) <int64[2] s = {10, 10}> { y = Reshape (x, s) }",
        800 + 16,
    ),
    "a type of four bits": (
        "g (int4[101] x) => (float[101] y) { y = Cast <to = 1> (x) }",
        51 + 404,
    ),
    "a constant": (
        "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add (x, w) }",
        16 + 8,
    ),
    # int8 [2] is dead once its float copy is there
    "a constant computed when loaded": (
        "g (float[2] x) => (float[2] y) <int8[2] q = {1, 2}, float s = {0.5}>"
        "{ f = Cast <to = 1> (q) w = Mul (f, s) y = Add (x, w) }",
        16 + 8,
    ),
    "a constant that grows when loaded": (
        "g (float[1] x) => (float[100] y) <int64[1] n = {100}, float[1] v = {3}>"
        "{ w = Expand (v, n) y = Add (x, w) }",
        4 + 400 + 400,
    ),
    # stays int8 with its scale; the float copy lives while Add runs: x, w, y
    "a quantized constant": (
        "g (float[2] x) => (float[2] y) <int8[2] q = {1, 2}, float s = {0.5}>"
        "{ w = DequantizeLinear (q, s) y = Add (x, w) }",
        2 + 4 + 24,
    ),
    "a constant read twice": (
        "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Add (x, w) y = Mul (a, w) }",
        8 + 24,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bytes_of_a_run(name) -> None:
    text, expected = CASES[name]
    assert held(text) == expected


BRANCHES = """
g (bool c, float[100] x) => (float[100] y) {
    a = Relu (x)
    y = If (c) <
        then_branch = t () => (float[100] p) { p = Exp (a) },
        else_branch = e () => (float[100] q) { b = Exp (a) d = Exp (a) q = Add (b, d) }>
}"""


def test_the_dearer_branch_counts_while_its_node_runs() -> None:
    # c, x, a, and inside b, d, q; the result of the If is q
    assert held(BRANCHES) == 1 + 400 + 400 + 1200


def test_a_loop_holds_its_state_and_its_result() -> None:
    text = """
    g (float[100] x) => (float[100] y) <int64 n = {5}, bool go = {1}> {
        y = Loop (n, go, x) <body = b (int64 i, bool k, float[100] s) => (bool z, float[100] r)
            { z = Identity (k) r = Exp (s) }>
    }"""
    inside = 8 + 1 + 400 + 1 + 400  # i, k, s, and z, r
    assert held(text) == 9 + 400 + 400 + inside


def test_each_call_of_a_function_has_constants_of_its_own() -> None:
    text = """
    g (float[2] x) => (float[2] y) { a = local.f (x) y = local.f (a) }
    <domain: "local", opset_import: ["" : 21]>
    f (p) => (q) { w = Constant <value = float[2] {1, 2}> () q = Add (p, w) }"""
    model = parse('<ir_version: 10, opset_import: ["" : 21, "local" : 1]>' + text)
    assert runtime_bytes(model, infer(model.graph, model.functions)) == 2 * 8 + 24


def test_dynamic_dimensions_take_the_sizes_given() -> None:
    text = "g (float[N] x) => (float[N] y) { y = Relu (x) }"
    assert held(text, x0=50) == 400
    assert held(text) == 8


@pytest.mark.parametrize(
    "text",
    [
        "g (float[4] x) => (int64[N] y) { y = NonZero (x) }",
        "g (string[4] x) => (string[4] y) { y = Identity (x) }",
        "g (float[4] x) => (float[N] y) { y = other.Op (x) }",
        "g (float[4] x) => (seq(float[4]) y) { y = SequenceConstruct (x) }",
    ],
)
def test_what_is_not_proven_is_not_told(text) -> None:
    model = parse('<ir_version: 10, opset_import: ["" : 21, "other" : 1]>' + text)
    assert runtime_bytes(model, infer(model.graph)) is None
