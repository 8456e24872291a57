"""Gains of layers whose weights are codes: exact, folded with the codes, and used where they help."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from repair_models import decibels, images, optimized, separable, step

from graphopt.ir.model import Model
from graphopt.ir.surgery import tidy
from graphopt.options import build, parse_choice
from graphopt.passes.clustering.cluster_weights import ClusterWeights
from graphopt.passes.quantization._bias_slots import Slot, slot_of
from graphopt.passes.quantization._stored_weights import float_type, rank_of
from graphopt.stage import Stage
from graphopt.testing import parse

FORMS = [
    "clusters=16",
    "clusters=4",
    "clusters=4,granularity=channel",
    "clusters=3,granularity=group,group=5",
    "clusters=16,vector=2",
    "clusters=4,vector=4",
]

LAYERS = {
    "Conv": ("float[N,8,6,6] x, float[16,8,3,3] w, float[16] b", "Conv(x, w, b)"),
    "ConvTranspose": ("float[N,8,6,6] x, float[8,16,3,3] w, float[16] b", "ConvTranspose(x, w, b)"),
    "Gemm": ("float[N,288] x, float[16,288] w, float[16] b", "Gemm<transB = 1>(x, w, b)"),
    "MatMul": ("float[N,288] x, float[288,16] w, float[16] b", "Add(MatMul(x, w), b)"),
}


def clustered(op: str, options: str) -> tuple[Model, Model]:
    """A layer and the same with codes as weights."""
    inputs, call = LAYERS[op]
    body = f"y = {call}" if op != "MatMul" else "m = MatMul(x, w)\n y = Add(m, b)"
    rank = 4 if op.startswith("Conv") else 2
    output = "float[N,16,A,B] y" if rank == 4 else "float[N,16] y"
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    g ({inputs}) => ({output}) {{ {body} }}"""
    made = build(ClusterWeights, parse_choice(f"cluster-weights:smallest=100,{options}")[1])
    model = parse(text, ("w", "b"))
    return model, Stage([made]).run(model).model


def given(model: Model, x: np.ndarray, path: str = "") -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if path:
        options.optimized_model_filepath = path
    made = onnxruntime.InferenceSession(model.to_bytes(), options, ["CPUExecutionProvider"])
    return np.asarray(made.run(None, {"x": x})[0])


def held(model: Model) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in model.to_proto().graph.initializer}


@pytest.mark.parametrize("op", list(LAYERS))
@pytest.mark.parametrize("options", FORMS)
def test_a_gain_is_a_factor_that_is_folded_with_the_codes(op: str, options: str, tmp_path) -> None:
    _, model = clustered(op, options)
    after = model.copy()
    node = next(n for n in after.graph.nodes if n.op == op)
    assert rank_of(node.inputs[1]) == (4 if op.startswith("Conv") else 2)
    slot = slot_of(node, 16)
    assert isinstance(slot, Slot) and slot.gain is not None
    gain, shift = np.linspace(0.5, 1.5, 16), np.linspace(-1.0, 1.0, 16)
    for _ in range(2):  # the second goes into the factor that is there
        slot = slot_of(node, 16)
        assert isinstance(slot, Slot) and slot.gain is not None
        slot.gain(gain)
        slot.shift(gain, shift)
    tidy(after.graph)
    assert sum(n.op_type == "Mul" for n in after.to_proto().graph.node) == 1
    x = images(1, 4)[:, :8, :6, :6].astype(np.float32)
    x = x if op.startswith("Conv") else x.reshape(4, -1)
    wide = (1, 16, 1, 1) if op.startswith("Conv") else (1, 16)
    wanted, behind = given(model, x), 0.0
    if op == "MatMul":  # its own output is corrected, and the Add behind takes the shift
        behind = held(model)["b"]
    for _ in range(2):
        wanted = behind + (wanted - behind) * gain.reshape(wide) + shift.reshape(wide)
        behind = behind + (shift if op == "MatMul" else 0.0)
    np.testing.assert_allclose(given(after, x), wanted, rtol=1e-4, atol=1e-4)
    kinds = []
    for number, each in enumerate((model, after)):
        path = str(tmp_path / f"{number}.onnx")
        given(each, x, path)
        kinds.append(sorted(n.op_type for n in onnx.load(path).graph.node))
    assert kinds[0] == kinds[1]


def test_half_floats_keep_their_type() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float16[N,32] x, float16[32,16] w) => (float16[N,16] y) { y = MatMul(x, w) }"""
    for options in ("clusters=4", "clusters=4,granularity=channel"):
        made = build(ClusterWeights, parse_choice(f"cluster-weights:{options}")[1])
        model = Stage([made]).run(parse(text, ("w",))).model
        node = next(n for n in model.graph.nodes if n.op == "MatMul")
        assert float_type(node.inputs[1]) == np.float16


def test_what_is_computed_from_data_has_no_rank() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[N,32] x, float[32,16] v, int64[2] s) => (float[N,16] y) {
      w = Reshape(v, s)
      y = MatMul(x, w)
    }"""
    model = parse(text, ("v",))
    node = next(n for n in model.graph.nodes if n.op == "MatMul")
    assert rank_of(node.inputs[1]) is None


@pytest.mark.parametrize("options", ["clusters=2", "clusters=3,granularity=channel"])
def test_outputs_come_no_further_from_the_original(options: str) -> None:
    model, x = separable(0, decades=0.0), images(9)
    lossy = f"cluster-weights:{options}"
    before = optimized(model, images(1), lossy)
    after = optimized(model, images(1), lossy, "correct-bias")
    done = step(after, "correct-bias")
    assert done.edits or done.skips
    assert decibels(model, after.model, x) > decibels(model, before.model, x) - 0.1
