"""Weights in few bits: what ONNX Runtime makes of them, and which integers they go to."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

import graphopt
from graphopt.ir.model import Model
from graphopt.quality.gate import Budget
from graphopt.testing import parse

FREE = Budget(None)


def layer(opset: int = 17) -> Model:
    model = parse(f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g (float[N, 64] x, float[64, 96] w) => (float[N, 96] y) {{ y = MatMul(x, w) }}""")
    rng = np.random.default_rng(0)
    proto = model.to_proto()
    kept = [given for given in proto.graph.input if given.name == "x"]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    values = rng.standard_normal((64, 96)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    return Model.load(proto)


def inputs(samples: int = 256) -> np.ndarray:
    """Features that depend on each other, as those of real layers do."""
    mixed = np.random.default_rng(1).standard_normal((8, 64))
    return (np.random.default_rng(samples).standard_normal((samples, 8)) @ mixed).astype(np.float32)


def stored(options: str, opset: int = 17) -> Model:
    result = graphopt.optimize(
        layer(opset), passes=[f"quantize-weights:{options}"], data={"x": inputs()}, budget=FREE
    )
    assert result.report.steps[-1].edits
    return result.model


def outputs(model: Model, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = model.to_proto().SerializeToString()
    found = onnxruntime.InferenceSession(proto, options, ["CPUExecutionProvider"]).run(
        None, {"x": x}
    )[0]
    return np.asarray(found)


def operators(model: Model, tmp_path) -> set[str]:
    """What ONNX Runtime runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(
        model.to_proto().SerializeToString(), options, ["CPUExecutionProvider"]
    )
    return {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}


@pytest.mark.parametrize("options", ["bits=8", "bits=4", "bits=4,block=0", "bits=4,block=32"])
def test_what_is_stored_is_folded_when_it_is_loaded(options: str, tmp_path) -> None:
    model = stored(options)
    assert operators(model, tmp_path) == {"MatMul"}
    assert model.weight_bytes() < (0.3 if "8" in options else 0.2) * layer().weight_bytes()


def test_blocks_are_taken_in_by_the_kernel(tmp_path) -> None:
    assert operators(stored("bits=4,block=32,form=dequantize"), tmp_path) == {"MatMulNBits"}


@pytest.mark.parametrize("block", [0, 16])
def test_integers_that_fit_the_data_lose_less_than_the_nearest(block: int) -> None:
    x = inputs(64)
    wanted = outputs(layer(), x)
    errors = [
        np.square(outputs(stored(f"bits=4,block={block},rounding={way}"), x) - wanted).mean()
        for way in ("least-squares", "nearest")
    ]
    assert errors[0] < 0.5 * errors[1]


def test_the_operator_set_rises_with_the_type() -> None:
    assert stored("bits=4", opset=12).opset == 21
    assert stored("bits=8", opset=12).opset == 12
