"""Accept: what a compiler is tempted to compute or remove, and must not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from corpus import Made, accept, floats, model, text, value
from onnx import TensorProto as T
from onnx import helper, numpy_helper

QUICK = ("--timeout", "3")


def array(name: str, values: object, dtype: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


@accept(keeps=("Dropout",), runs=False)
def dropout_in_training(_: Path) -> Made:
    made = text(
        "g (float[2] x) => (float[2] y, float[2] z) { y, m = Dropout(x, r, t) z, n = Dropout(x, r, t) }"
    )
    made.graph.initializer.extend([array("r", 0.5, np.float32), array("t", True, np.bool_)])
    return made


@accept(keeps=("Dropout",), runs=False)
def dropout_of_a_constant(_: Path) -> Made:
    made = text("g (float[2] x) => (float[2] y) { d, m = Dropout(w, r, t) y = Add(d, x) }")
    made.graph.initializer.extend(
        [array("r", 0.5, np.float32), array("t", True, np.bool_), floats("w", 2)]
    )
    return made


@accept(keeps=("BatchNormalization",), runs=False)
def batchnorm_in_training(_: Path) -> Made:
    made = text(
        "g (float[1,2,4,4] x) => (float[1,2,4,4] y, float[2] m, float[2] v) "
        "{ y, m, v = BatchNormalization<training_mode = 1>(x, s, b, rm, rv) }"
    )
    made.graph.initializer.extend([array(n, [1, 2], np.float32) for n in ("s", "b", "rm", "rv")])
    return made


RANDOM = {
    "normal": "a = RandomNormal<shape = [2]>() b = RandomNormal<shape = [2]>()",
    "uniform_seeded": "a = RandomUniform<shape = [2], seed = 1.0>() b = RandomUniform<shape = [2], "
    "seed = 1.0>()",
    "like": "a = RandomUniformLike(w) b = RandomUniformLike(w)",
    "bernoulli": "a = Bernoulli(h) b = Bernoulli(h)",
}


@accept(RANDOM, runs=False)
def random(_: Path, kind: str) -> Made:
    made = text(f"g (float[2] x) => (float[2] y) {{ {RANDOM[kind]} c = Sub(a, b) y = Add(c, x) }}")
    made.graph.initializer.extend([floats("w", 2), array("h", [0.5, 0.5], np.float32)])
    return made


@accept(keeps=("Multinomial",), runs=False)
def random_multinomial(_: Path) -> Made:
    made = text(
        "g (int32[1,4] x) => (int32[1,4] y) { a = Multinomial<sample_size = 4>(h) y = Add(a, x) }"
    )
    made.graph.initializer.append(array("h", [[0.5, 0.5]], np.float32))
    return made


DEADLY = {
    "div_zero": ("Div", [1, 2], [0, 1], np.int64),
    "div_zero32": ("Div", [1, 2], [0, 1], np.int32),
    "div_overflow": ("Div", [np.iinfo(np.int64).min], [-1], np.int64),
    "div_overflow32": ("Div", [np.iinfo(np.int32).min], [-1], np.int32),
    "mod_zero": ("Mod", [1, 2], [0, 1], np.int64),
    "mod_overflow": ("Mod", [np.iinfo(np.int64).min], [-1], np.int64),
    "shift": ("BitShift", [1, 2], [64, 1000], np.uint64),
    "power": ("Pow", [2, -2], [-1, 200], np.int64),
}


@accept(DEADLY, runs=False)
def deadly_arithmetic(_: Path, kind: str) -> Made:
    op, a, b, dtype = DEADLY[kind]
    number = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    attrs = {"direction": "LEFT"} if op == "BitShift" else {}
    nodes = [
        helper.make_node(op, ["a", "b"], ["c"], **attrs),
        helper.make_node("Concat", ["c", "x"], ["y"], axis=0),
    ]
    io = [value("x", number, ["N"])], [value("y", number, ["M"])]
    return model(nodes, *io, [array("a", a, dtype), array("b", b, dtype)])


@accept(runs=False, keeps=("Div",))
def many_deadly_nodes(_: Path) -> Made:
    nodes = [helper.make_node("Div", ["a", f"b{i}"], [f"c{i}"]) for i in range(60)]
    nodes += [helper.make_node("Add", ["a", f"b{i}"], [f"d{i}"]) for i in range(60)]
    names = [f"{k}{i}" for k in "cd" for i in range(60)]
    nodes.append(helper.make_node("Concat", [*names, "x"], ["y"], axis=0))
    tensors = [array("a", [1]), *(array(f"b{i}", [0, *([i] * i)]) for i in range(60))]
    return model(nodes, [value("x", T.INT64, ["N"])], [value("y", T.INT64, ["M"])], tensors)


@accept(feeds={"x": np.array([3]), "c": np.array(False)}, keeps=("Div",))
def deadly_branch_not_taken(_: Path) -> Made:
    made = text(
        "g (int64[1] x, bool c) => (int64[1] y) { y = If (c) "
        "<then_branch = t () => (int64[1] p) { p = Div(a, z) }, else_branch = e () => (int64[1] q) { "
        "q = Neg(x) }> }"
    )
    made.graph.initializer.extend([array("a", [1]), array("z", [0])])
    return made


HUGE = 1 << 34
BOMBS = {
    "constant_of_shape": "k = ConstantOfShape(n)",
    "expand": "k = Expand(one, n)",
    "tile": "k = Tile(one, n)",
    "range": "nf = Cast<to = 1>(n) ns = Squeeze(nf) k = Range(zero, ns, step)",
    "pad": "k = Pad(one, pads)",
    "resize": 'k = Resize<mode = "nearest">(one, , , n)',
    "doubling": " ".join(f"d{i + 1} = Concat<axis = 0>(d{i}, d{i})" for i in range(34))
    + " k = Identity(d34)",
    "reduced": "h = ConstantOfShape(n) k = ReduceSum(h)",
    "onehot": "nn = Concat<axis = 0>(n) k0 = OneHot(zi, nn, oh) k = ReduceMax(k0)",
}


def _bomb(kind: str, size: int, tail: str) -> onnx.ModelProto:
    made = text(
        f"g (float[1] x, bool c) => (float[M] y) {{ {tail % BOMBS[kind]} }}", opset=18, ir=8
    )
    made.graph.initializer.extend(
        [
            array("n", [size]), array("one", [1], np.float32), array("zero", 0, np.float32),
            array("step", 1, np.float32), array("pads", [0, size]), array("d0", [1], np.float32),
            array("zi", [0]), array("oh", [0, 1], np.float32),
        ]
    )  # fmt: skip
    used = {name for node in made.graph.node for name in _reads(node)}
    kept = [t for t in made.graph.initializer if t.name in used]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    return made


def _reads(node: onnx.NodeProto) -> set[str]:
    found = set(node.input)
    for attribute in node.attribute:
        for inner in attribute.g.node:
            found |= _reads(inner)
    return found


@accept(("doubling",), runs=False, arguments=QUICK, mebibytes=4096, slow=True)
def bomb_of_copies(_: Path, kind: str) -> Made:
    return bomb(_, kind)


@accept([kind for kind in BOMBS if kind != "doubling"], runs=False, arguments=QUICK)
def bomb(_: Path, kind: str) -> Made:
    return _bomb(kind, HUGE if kind != "range" else 1 << 33, "%s y = Add(k, x)")


@accept(BOMBS, feeds={"x": np.ones(1, np.float32), "c": np.array(False)}, mebibytes=4096)
def bomb_not_taken(_: Path, kind: str) -> Made:
    tail = (
        "y = If (c) <then_branch = t () => (float[A] p) { %s p = Add(k, x) }, "
        "else_branch = e () => (float[B] q) { q = Neg(x) }>"
    )
    return _bomb(kind, HUGE, tail)


@accept(("ConstantOfShape", "Expand"))
def growth_is_bounded(_: Path, op: str) -> Made:
    made = text(
        f"g (float[1] x) => (float[M] y) {{ k = {op}({'n' if op != 'Expand' else 'one, n'}) y = Add(k, x) }}",
        18,
        8,
    )
    made.graph.initializer.extend(
        [array("n", [1 << 22]), array("one", [1], np.float32)][: 1 + (op == "Expand")]
    )
    return made


ENDLESS = (
    "g (float[2] x) => (float[2] y) { %s y = Loop (%s, t, x) "
    "<body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] u) { co = Identity(t) u = Neg(v) }> }"
)


@accept(runs=False, arguments=QUICK, keeps=("Loop",))
def endless_loop(_: Path) -> Made:
    made = text(ENDLESS % ("", ""))
    made.graph.initializer.append(array("t", True, np.bool_))
    return made


@accept(runs=False, keeps=("Loop",), seconds=90, slow=True)
def endless_loop_by_default(_: Path) -> Made:
    return endless_loop(_)


@accept(runs=False, arguments=QUICK, keeps=("Loop",))
def loop_of_int64_max_rounds(_: Path) -> Made:
    made = text(ENDLESS % ("", "n"))
    made.graph.initializer.extend([array("t", True, np.bool_), array("n", (1 << 63) - 1)])
    return made


@accept(keeps=("Loop",), feeds={"x": np.ones(2, np.float32), "c": np.array(False)})
def endless_constant_loop_not_taken(_: Path) -> Made:
    made = text(
        "g (float[2] x, bool c) => (float[2] y) { y = If (c) <then_branch = t () => (float[2] p) { p "
        "= Loop (, t, w) "
        "<body = b (int64 i, bool ci, float[2] v) => (bool co, float[2] u) { co = Identity(t) u = "
        "Neg(v) }> }, "
        "else_branch = e () => (float[2] q) { q = Neg(x) }> }"
    )
    made.graph.initializer.extend([array("t", True, np.bool_), floats("w", 2)])
    return made


@accept(keeps=("DequantizeLinear",))
def quantized_weights_stay(_: Path) -> Made:
    made = text(
        "g (float[2,64] x) => (float[2,64] y) { w = DequantizeLinear(q, s, z) y = MatMul(x, w) }"
    )
    made.graph.initializer.extend(
        [
            array("q", np.arange(4096).reshape(64, 64) % 200 - 100, np.int8),
            array("s", 0.1, np.float32),
            array("z", 0, np.int8),
        ]
    )
    return made


@accept()
def nan_and_infinity(_: Path) -> Made:
    made = text(
        "g (float[4] x) => (float[4] y, float[4] z) { a = Mul(w, w) z = Log(w) y = Add(x, a) }"
    )
    made.graph.initializer.append(array("w", [np.nan, np.inf, -np.inf, -0.0], np.float32))
    return made


@accept()
def negative_zero_is_not_zero(_: Path) -> Made:
    made = text(
        "g (float[2] x) => (float[2] y, float[2] z) { a = Abs(x) b = Mul(a, p) c = Mul(a, n) y = "
        "Div(k, b) z = Div(k, c) }"
    )
    made.graph.initializer.extend(
        [
            array("p", [0.0, 0.0], np.float32),
            array("n", [-0.0, -0.0], np.float32),
            array("k", [1, 1], np.float32),
        ]
    )
    return made
