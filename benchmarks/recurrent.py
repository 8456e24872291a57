"""LSTM layers of several shapes on integers: what they take, and how far their outputs move.

    python -m benchmarks.recurrent

Each layer has random weights, and is a model by itself. ``quantize-dynamic:recurrent=true`` decides whether
it runs on integers: a layer that is not faster so stays on floats. Times are those of the race that the pass
has to win: interleaved rounds, one thread, with a confidence interval.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphopt.ir.model import Model
from graphopt.numerics.decibels import sqnr_db
from graphopt.optimizer import optimize
from graphopt.runtime.sessions import open_session

SHAPES = (
    (1, 1, 128, 128),
    (64, 1, 128, 128),
    (20, 8, 256, 256),
    (50, 1, 512, 512),
    (10, 32, 128, 256),
)
"""Steps, samples, inputs and hidden units."""


def layer(steps: int, samples: int, inputs: int, hidden: int) -> onnx.ModelProto:
    """A model of one LSTM with random weights, normalized by its width."""
    rng = np.random.default_rng(0)
    shapes = {"w": (1, 4 * hidden, inputs), "r": (1, 4 * hidden, hidden), "b": (1, 8 * hidden)}
    weights = [
        numpy_helper.from_array((rng.standard_normal(s) / hidden**0.5).astype(np.float32), name)
        for name, s in shapes.items()
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [steps, samples, inputs]), ("y", [steps, 1, samples, hidden]))
    )
    node = helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=hidden)
    graph = helper.make_graph([node], "lstm", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def row(shape: tuple[int, int, int, int]) -> str:
    """What became of one layer, as a row of a table."""
    proto = layer(*shape)
    result = optimize(Model.load(proto), passes=["quantize-dynamic:recurrent=true"])
    step = result.report.steps[-1]
    name = " x ".join(map(str, shape))
    speed = step.speed
    if step.status != "applied" or speed is None or speed.ratio is None:
        why = "; ".join([step.error, *(skip.why for skip in step.skips)]).strip("; ")
        return f"| {name} | on floats: {why} | | |"
    x = np.random.default_rng(1).standard_normal(shape[:3]).astype(np.float32)
    before, after = (
        open_session(data).run(None, {"x": x})[0]
        for data in (proto.SerializeToString(), result.model.to_bytes())
    )
    ratio, size = speed.ratio, len(result.model.to_bytes()) / proto.ByteSize()
    time = f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
    return f"| {name} | {time} | {sqnr_db(before, after):.1f} dB | {100 * size:.0f} % |"


def main() -> None:
    """Print the table."""
    print("| steps x samples x inputs x hidden | time of the floats' (95 %) | SQNR | file |")
    print("| --- | --- | --- | --- |")
    for shape in SHAPES:
        print(row(shape), flush=True)


if __name__ == "__main__":
    main()
