"""What the tests of ``quantize-qdq`` share: small models, runs of them, and what numpy says they compute."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.ir.surgery import tidy
from graphopt.passes.quantization._qdq.insertion import Insertion, Scale
from graphopt.passes.quantization._qdq.targets import TARGETS, Target
from graphopt.passes.quantization._qdq.units import Unit, bounds, find_units
from graphopt.testing import parse

Arrays = dict[str, np.ndarray]

CPU = TARGETS["ort-cpu"]

BIAS_REACH = 2.0**30
"""The largest integer that a bias may become."""


def graph(inputs: str, outputs: str, body: str, opset: int = 17) -> str:
    """A model in the text format."""
    head = f'<ir_version: {8 if opset < 21 else 10}, opset_import: ["" : {opset}]>'
    return f"{head}\ng ({inputs}) => ({outputs}) {{\n{body}\n}}"


def build(
    inputs: str, outputs: str, body: str, random: str = "", opset: int = 17, **given: object
) -> Model:
    """A model from the text format, with some inputs made constants: random ones, or of given values."""
    names = (*random.split(), *given)
    model = parse(graph(inputs, outputs, body, opset), names)
    constants = {constant.name: constant for constant in model.constants()}
    for name, values in given.items():
        constant = constants[name]
        array = np.asarray(values).astype(constant.dtype)
        constant.values = np.array(np.broadcast_to(array, constant.shape))
    return model


def units_of(model: Model, target: Target = CPU) -> list[Unit]:
    return find_units(model, infer(model.graph, model.functions), target)[0]


def refusals_of(model: Model, target: Target = CPU) -> dict[str, str]:
    return find_units(model, infer(model.graph, model.functions), target)[1]


def feeds_of(model: Model, seed: int = 0, size: int = 2) -> Arrays:
    """Normally distributed inputs; integers count up from 0; symbolic dimensions have a size."""
    rng = np.random.default_rng(seed)
    found = {}
    for info in model.to_proto().graph.input:
        kind = info.type.tensor_type
        shape = [dim.dim_value or size for dim in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        values = rng.standard_normal(shape)
        if dtype.kind in "iu":
            values = np.arange(values.size).reshape(shape) % 2
        found[info.name] = values.astype(dtype)
    return found


def run(
    proto: onnx.ModelProto, feeds: Arrays, optimized: bool = False
) -> tuple[list[np.ndarray], Counter[str]]:
    """The outputs by ONNX Runtime, and the operators of what it made of the model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        ops = Counter(node.op_type for node in onnx.load(path).graph.node)
    return list(session.run(None, feeds)), ops


def seen(model: Model, feeds: Arrays) -> Arrays:
    """Every tensor of the main graph on some inputs, by name, in numpy."""
    values = {**feeds, **{c.name: c.values for c in model.constants()}}
    for node in model.graph.nodes:
        inputs = [values[t.name] if t.name else None for t in node.inputs]
        values.update(zip((t.name for t in node.outputs), computed(node, inputs), strict=True))
    return values


def computed(node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """What a node computes, by the reference evaluator of the onnx package."""
    groups = int(node.attrs.get("group", 1))
    if node.op == "ConvTranspose" and groups > 1:  # the evaluator knows one group only
        x, w, *bias = (
            np.split(part, groups, axis) for part, axis in zip(inputs, (1, 0, 0), strict=False)
        )
        attrs = {key: value for key, value in node.attrs.items() if key != "group"}
        parts = [_evaluated(node.op, attrs, each)[0] for each in zip(x, w, *bias, strict=True)]
        return [np.concatenate(parts, axis=1)]
    return _evaluated(node.op, node.attrs, inputs, len(node.outputs))


def _evaluated(
    op: str, attrs: Mapping[str, object], inputs: Sequence[np.ndarray | None], outputs: int = 1
) -> list[np.ndarray]:
    proto = helper.make_node(
        op,
        ["" if value is None else f"i{place}" for place, value in enumerate(inputs)],
        [f"o{place}" for place in range(outputs)],
        **attrs,
    )
    given = {f"i{place}": value for place, value in enumerate(inputs) if value is not None}
    single = helper.make_model(
        helper.make_graph(
            [proto],
            "one",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
                )
                for name, value in given.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in proto.output],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    return [np.asarray(value) for value in ReferenceEvaluator(single).run(None, given)]


def scales_for(
    model: Model, units: Sequence[Unit], feeds: Arrays, target: Target
) -> dict[str, Scale]:
    """Grids that cover what is seen, within the bounds of what is absorbed; movement keeps its grid."""
    values = seen(model, feeds)
    found: dict[str, Scale] = {}
    for unit in units:
        for tensor in unit.inputs:
            found.setdefault(tensor.name, grid_over(values[tensor.name], target))
        if unit.kind == "movement":
            found[unit.output.name] = found[unit.inputs[0].name]
        else:
            found[unit.output.name] = grid_over(values[unit.output.name], target, bounds(unit))
    return found


def grid_over(
    values: np.ndarray, target: Target, limits: tuple[float, float] = (-math.inf, math.inf)
) -> Scale:
    grid = target.activations
    low = min(max(float(values.min(initial=0.0)), limits[0]), 0.0)
    high = max(min(float(values.max(initial=0.0)), limits[1]), 0.0)
    if target.symmetric:
        reach = max(-low, high) or grid.high
        return Scale(np.float32(reach / grid.high), np.asarray(0))
    scale = np.nextafter(np.float32((high - low) / grid.steps), np.float32(0)) or np.float32(1)
    return Scale(np.asarray(scale), np.asarray(round(grid.low - low / scale)))


def quantized(
    model: Model, feeds: Arrays, target: Target = CPU, leave: Sequence[str] = ()
) -> tuple[Model, list[np.ndarray], dict[str, Scale]]:
    """A copy with all units on integers but some, what numpy says that it gives, and the grids."""
    copy = model.copy()
    units = [unit for unit in units_of(copy, target) if unit.node.label not in leave]
    scales = scales_for(copy, units, feeds, target)
    expected = reference(copy, units, scales, target, feeds)
    Insertion(copy, target, scales).quantize(units)
    tidy(copy.graph)
    return copy, expected, scales


def reference(
    model: Model,
    units: Sequence[Unit],
    scales: Mapping[str, Scale],
    target: Target,
    feeds: Arrays,
) -> list[np.ndarray]:
    """The outputs with some units on integers, as the pattern is described: floats, rounded to grids."""
    made_by = {unit.node.uid: unit for unit in units}
    read = {id(tensor) for unit in units for tensor in unit.inputs}
    rounded = {
        unit.output.name
        for unit in units
        if target.quantizes_output and (not unit.gives_floats or id(unit.output) in read)
    }
    values = {**feeds, **{c.name: c.values for c in model.constants()}}
    for node in model.graph.nodes:
        inputs = [values[t.name] if t.name else None for t in node.inputs]
        unit = made_by.get(node.uid)
        if unit is not None:
            inputs = _integer_inputs(unit, inputs, scales, target)
        for tensor, value in zip(node.outputs, computed(node, inputs), strict=True):
            if tensor.name in rounded:
                value = rounded_to(value, scales[tensor.name], target)
            values[tensor.name] = value
    return [values[tensor.name] for tensor in model.graph.outputs]


def _integer_inputs(
    unit: Unit,
    inputs: Sequence[np.ndarray | None],
    scales: Mapping[str, Scale],
    target: Target,
) -> list[np.ndarray | None]:
    found = list(inputs)
    for place in unit.reads:
        found[place] = rounded_to(found[place], scales[unit.node.inputs[place].name], target)
    if unit.kind == "arithmetic":
        for place, tensor in enumerate(unit.node.inputs):
            if isinstance(tensor, Constant):
                found[place] = rounded_to(
                    found[place], grid_of_constant(found[place], target), target
                )
    if unit.weight is None:
        return found
    if unit.weight == 0:  # what stands on the left is rounded as activations are
        found[0] = rounded_to(found[0], grid_of_constant(found[0], target), target)
        return found
    axis = axis_of(unit.node, unit.weight)
    weight = found[unit.weight]
    others = tuple(place for place in range(weight.ndim) if place != axis)
    reach = np.abs(weight).max(axis=others, keepdims=True).astype(np.float64)
    step = np.where(reach > 0, reach / 127, 1.0).astype(np.float32)
    if unit.bias is not None:
        read = scales[unit.node.inputs[unit.reads[0]].name].scale
        bias = found[unit.bias]
        least = np.abs(bias.reshape(-1)).astype(np.float64) / (float(read) * BIAS_REACH)
        least = least.max() if axis is None else least.reshape(step.shape)
        step = np.maximum(step, np.asarray(least, np.float32))
        if target.integer_bias:
            flat = (np.float32(read) * step).astype(np.float32).reshape(-1).astype(np.float64)
            whole = np.rint(bias.reshape(-1) / flat)
            assert np.abs(whole).max(initial=0) <= 2**31 - 1
            found[unit.bias] = (whole * flat).astype(np.float32).reshape(bias.shape)
    whole = np.clip(np.rint(weight / step), -127, 127)
    found[unit.weight] = (whole * step).astype(np.float32)
    return found


def axis_of(node: Node, weight: int) -> int | None:
    """The axis of the output channels of weights, where a scale of its own for each is possible."""
    if node.op == "Conv":
        return 0
    if node.op == "ConvTranspose":
        return 1 if node.attrs.get("group", 1) == 1 else None
    if node.op == "Gemm":
        return 0 if node.attrs.get("transB", 0) else 1
    return 1 if weight == 1 and len(node.inputs[weight].shape) == 2 else None


def grid_of_constant(values: np.ndarray, target: Target) -> Scale:
    return Scale(*target.activations.parameters(values.min(), values.max(), target.symmetric))


def rounded_to(values: np.ndarray, scale: Scale, target: Target) -> np.ndarray:
    """``(clip(round(x / s) + z) - z) s`` in float32."""
    low, high = (-128, 127) if target.activations.low < 0 else (0, 255)
    steps = np.rint(values.astype(np.float32) / np.float32(scale.scale)) + float(scale.zero_point)
    clipped = np.clip(steps, low, high) - float(scale.zero_point)
    return (clipped.astype(np.float32) * np.float32(scale.scale)).astype(np.float32)


def tensor_named(model: Model, name: str) -> gs.Tensor:
    return next(
        tensor
        for node in model.graph.nodes
        for tensor in (*node.inputs, *node.outputs)
        if tensor.name == name
    )


def initializers(proto: onnx.ModelProto) -> Arrays:
    return {entry.name: numpy_helper.to_array(entry) for entry in proto.graph.initializer}
