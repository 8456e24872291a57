"""Accept: ordinary operators in numbers that break what is quadratic or recursive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from corpus import Made, accept, floats, model, value
from onnx import TensorProto as T
from onnx import helper, numpy_helper


def chain(count: int, ops: tuple[str, ...], fed: int = 0) -> onnx.ModelProto:
    """Operators one after another; ``fed`` of the first read a constant instead of the input."""
    nodes, tensors = [], [floats("w", 2)]
    for index in range(count):
        op = ops[index % len(ops)]
        inputs = [f"t{index}", "w"] if op in ("Add", "Mul") else [f"t{index}"]
        nodes.append(helper.make_node(op, inputs, [f"t{index + 1}"]))
    if fed:
        nodes[0].input[0] = "w"
        nodes[fed].input[:] = ["x", f"t{fed}"]
        nodes[fed].op_type = "Add"
    else:
        nodes[0].input[0] = "x"
    io = [value("x", T.FLOAT, [2])], [value(f"t{count}", T.FLOAT, [2])]
    return model(nodes, *io, tensors, opset=17, ir=8)


CHAINS = {"relu": (("Relu",), 0), "identity": (("Identity",), 0), "constants": (("Neg", "Add"), 1),
          "mixed": (("Neg", "Identity", "Abs"), 0)}  # fmt: skip


@accept(CHAINS)
def chain_of_5_000(_: Path, kind: str) -> Made:
    ops, fed = CHAINS[kind]
    return chain(5_000, ops, fed and 4_990)


@accept(CHAINS, slow=True, seconds=75)
def chain_of_100_000(_: Path, kind: str) -> Made:
    ops, fed = CHAINS[kind]
    return chain(100_000, ops, fed and 99_990)


@accept((("10_000", 10_000),), seconds=60, slow=True)
def wide_fan_out(_: Path, count: int) -> Made:
    return fan_out(_, count)


@accept((("2_000", 2_000),))
def fan_out(_: Path, count: int) -> Made:
    nodes = [helper.make_node("Neg" if i % 2 else "Exp", ["x"], [f"t{i}"]) for i in range(count)]
    nodes.append(helper.make_node("Sum", [f"t{i}" for i in range(count)], ["y"]))
    return model(nodes, [value("x", T.FLOAT, [2])], [value("y", T.FLOAT, [2])], opset=17, ir=8)


@accept((("3_000", 3_000),), seconds=60)
def fan_out_to_outputs(_: Path, count: int) -> Made:
    nodes = [helper.make_node("Neg", ["x"], [f"y{i}"]) for i in range(count)]
    return model(
        nodes, [value("x", T.FLOAT, [2])], [value(f"y{i}", T.FLOAT, [2]) for i in range(count)]
    )


@accept(("Concat", "Sum"))
def wide(_: Path, op: str) -> Made:
    names = [f"w{i}" for i in range(4_000)]
    attrs = {"axis": 0} if op == "Concat" else {}
    nodes = [helper.make_node(op, [*names, "x"], ["y"], **attrs)]
    tensors = [floats(name, 1, seed=index) for index, name in enumerate(names)]
    return model(
        nodes, [value("x", T.FLOAT, [1])], [value("y", T.FLOAT, ["M"])], tensors, opset=17, ir=8
    )


@accept(seconds=60)
def many_initializers_alike(_: Path) -> Made:
    nodes = [helper.make_node("Add", [f"t{i}", f"w{i}"], [f"t{i + 1}"]) for i in range(3_000)]
    nodes[0].input[0] = "x"
    tensors = [floats(f"w{i}", 8) for i in range(3_000)]
    return model(nodes, [value("x", T.FLOAT, [8])], [value("t3000", T.FLOAT, [8])], tensors)


@accept(seconds=60)
def many_constant_nodes(_: Path) -> Made:
    nodes = []
    for index in range(3_000):
        constant = numpy_helper.from_array(np.array([index % 7], np.float32), "")
        nodes.append(helper.make_node("Constant", [], [f"c{index}"], value=constant))
        nodes.append(helper.make_node("Add", [f"t{index}", f"c{index}"], [f"t{index + 1}"]))
    nodes[1].input[0] = "x"
    return model(nodes, [value("x", T.FLOAT, [2])], [value("t3000", T.FLOAT, [2])])


@accept(seconds=60)
def many_constant_ifs(_: Path) -> Made:
    nodes = []
    for index in range(300):
        branches = {}
        for key, op in (("then_branch", "Neg"), ("else_branch", "Exp")):
            inner = helper.make_node(op, [f"t{index}"], ["r"], name="same")
            branches[key] = helper.make_graph([inner], key, [], [value("r", T.FLOAT, [2])])
        nodes.append(helper.make_node("If", ["c"], [f"t{index + 1}"], **branches))
    made = model(nodes, [value("t0", T.FLOAT, [2])], [value("t300", T.FLOAT, [2])])
    made.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    return made


@accept(seconds=60)
def shape_arithmetic(_: Path) -> Made:
    nodes = [helper.make_node("Shape", ["x"], ["s0"])]
    nodes += [
        helper.make_node("Add" if i % 2 else "Mul", [f"s{i}", "one"], [f"s{i + 1}"])
        for i in range(2_000)
    ]
    nodes.append(helper.make_node("Cast", ["s2000"], ["f"], to=T.FLOAT))
    nodes.append(helper.make_node("ReduceSum", ["f"], ["g"]))
    nodes.append(helper.make_node("Add", ["x", "g"], ["y"]))
    tensors = [numpy_helper.from_array(np.array([1]), "one")]
    return model(
        nodes,
        [value("x", T.FLOAT, ["A", "B"])],
        [value("y", T.FLOAT, None)],
        tensors,
        opset=17,
        ir=8,
    )
