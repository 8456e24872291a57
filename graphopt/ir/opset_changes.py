"""How a node is rewritten where its operator changed from one version of the standard to the next.

Source: the schemas and texts of the ONNX operator specification, all versions from 7 on. A rule rewrites
one node in place: it keeps its name, its number and the tensors that it computes.
"""

from __future__ import annotations

import numpy as np
import onnx

from graphopt.ir.arguments import dims
from graphopt.ir.graph import Node, Variable
from graphopt.ir.inference.facts import static
from graphopt.ir.opset_steps import (
    Rule,
    Step,
    add,
    allow,
    element_type,
    give,
    known_type,
    only_output,
    read,
    refusal,
    stored_values,
    take,
)
from graphopt.ir.surgery import input_or_none, insert, new_constant, new_tensor


def _moved(attribute: str, index: int = 1, keep_empty: bool = False) -> Rule:
    """The rule of an attribute of integers that became an input."""

    def rule(node: Node, step: Step) -> None:
        values = take(node, attribute)
        if values or (keep_empty and values is not None):
            give(node, index, np.array(values, np.int64), attribute)

    return rule


_AXES = _moved("axes")


def _squeeze(node: Node, step: Step) -> None:
    if read(node, "axes") == []:
        raise refusal(node, "runtimes do not agree on what its empty list of axes means")
    _AXES(node, step)


def _slice(node: Node, step: Step) -> None:
    for index, name in enumerate(("starts", "ends", "axes"), start=1):
        _moved(name, index, keep_empty=index < 3)(node, step)


def _topk(node: Node, step: Step) -> None:
    give(node, 1, np.array([take(node, "k")], np.int64), "k")


def _pad(node: Node, step: Step) -> None:
    _moved("pads", keep_empty=True)(node, step)
    value = take(node, "value", 0.0)
    if value != 0.0 and read(node, "mode", "constant") == "constant":
        give(node, 2, np.array(value, element_type(node, 0, step.facts)), "value")


def _clip(node: Node, step: Step) -> None:
    """Bounds that are left out are those of float32 before, of the element type after."""
    widest = float(np.finfo(np.float32).max)
    low, high = (take(node, name) for name in ("min", "max"))
    dtype = element_type(node, 0, step.facts)
    with np.errstate(over="ignore"):  # infinite in float16, as it was
        if low is not None or dtype != np.float32:
            give(node, 1, np.array(-widest if low is None else low).astype(dtype), "min")
        if high is not None or dtype != np.float32:
            give(node, 2, np.array(widest if high is None else high).astype(dtype), "max")


def _dropout(node: Node, step: Step) -> None:
    """Outside training it copies its input; what the mask then holds is another in each version."""
    only_output(node, "the mask that it returns means something else in newer operator sets")
    ratio = take(node, "ratio") if step.version == 12 else None
    if ratio is not None:
        give(node, 1, np.array(ratio, np.float32), "ratio")


def _normalization(node: Node, step: Step) -> None:
    if take(node, "spatial", 1) != 1:
        raise refusal(node, "it keeps statistics of each element (spatial=0), later ones do not")


def _normalization_in_training(node: Node, step: Step) -> None:
    if any(tensor.name for tensor in node.outputs[1:]):
        raise refusal(node, "it returns statistics, as in training")
    only_output(node, "")


def _softmax(node: Node, step: Step) -> None:
    """All axes from ``axis`` on were flattened into one; now ``axis`` is the only one."""
    axis = int(take(node, "axis", 1))
    shape = dims(node.inputs[0], step.facts)
    if shape is not None and -len(shape) <= axis < len(shape):
        long = [i for i in range(axis % len(shape), len(shape)) if shape[i] != 1]
        if len(long) <= 1:
            node.attrs["axis"] = long[0] if long else axis
            return
    node.attrs["axis"] = -1
    if axis != -1:
        _flatten(node, axis, step)


def _flatten(node: Node, axis: int, step: Step) -> None:
    """Let a node work on its input as a matrix and give the result the shape of the input."""
    source, target = node.inputs[0], node.outputs[0]
    assert node.graph is not None
    allow(node, "Reshape")
    shape = static(dims(source, step.facts))
    attrs: dict[str, object] = {}
    if shape is None or 0 in shape:
        wanted = add(node, "Shape", [source])
        attrs = {"allowzero": 1} if step.to >= 14 else {}
    else:
        wanted = new_constant(node.graph, "shape", np.array(shape, np.int64))
    node.inputs[0] = add(node, "Flatten", [source], axis=axis)
    result = new_tensor(node.graph, f"{target.name}/{node.op}")
    insert(node, "Reshape", [result, wanted], [target], attrs)
    node.outputs[0] = result


def _split(node: Node, step: Step) -> None:
    if input_or_none(node, 1) is None:
        node.attrs["num_outputs"] = len(node.outputs)


def _scatter(node: Node, step: Step) -> None:
    allow(node, "ScatterElements")
    node.op = "ScatterElements"


def _upsample_scales(node: Node, step: Step) -> None:
    give(node, 1, np.array(take(node, "scales"), np.float32), "scales")


def _upsample(node: Node, step: Step) -> int:
    """Scales are at least 1, so that all versions of Resize round down."""
    allow(node, "Resize")
    node.op = "Resize"
    if step.to < 11:
        return 10
    _resized(node, "floor")
    return 11


def _resize(node: Node, step: Step) -> None:
    """Opset 10 leaves open how the nearest pixel is found; runtimes round up to shrink, else down."""
    if read(node, "mode", "nearest") != "nearest":
        _resized(node, "floor")
        return
    scales = stored_values(input_or_none(node, 1))
    grows = scales is not None and scales.dtype.kind == "f" and bool((scales >= 1).all())
    shrinks = scales is not None and scales.dtype.kind == "f" and bool((scales <= 1).all())
    if not grows and not shrinks:
        raise refusal(
            node, "it may round up or down: its scales are not known, or on both sides of 1"
        )
    _resized(node, "floor" if grows else "ceil")


def _resized(node: Node, rounding: str) -> None:
    """From the inputs of opset 10 to those of opset 11."""
    node.attrs["coordinate_transformation_mode"] = "asymmetric"
    if read(node, "mode", "nearest") == "nearest":
        node.attrs["nearest_mode"] = rounding
    scales = node.inputs[1]
    give(node, 1, np.zeros(0, np.float32), "roi")
    node.inputs.append(scales)


def _resize_inputs(node: Node, step: Step) -> None:
    """What was an empty tensor, for want of an option, is now left out.

    With ``tf_half_pixel_for_nn``, which is gone, the coordinate was half a pixel larger than with
    ``half_pixel``; rounded down, it gives the pixel that the other gives rounded half up.
    """
    if read(node, "coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        rounding = read(node, "nearest_mode", "round_prefer_floor")
        if (read(node, "mode", "nearest"), rounding) != ("nearest", "floor"):
            raise refusal(node, "newer operator sets have no coordinates 'tf_half_pixel_for_nn'")
        node.attrs["coordinate_transformation_mode"] = "half_pixel"
        node.attrs["nearest_mode"] = "round_prefer_ceil"
    for index in (1, 2):
        values = stored_values(input_or_none(node, index))
        if values is not None and values.size == 0:
            node.inputs[index] = Variable("")


def _erf(node: Node, step: Step) -> None:
    dtype = known_type(node, 0, step.facts)
    if dtype is not None and dtype.kind in "iu":
        raise refusal(node, "newer operator sets have no Erf of integers")


def _roi_align(node: Node, step: Step) -> None:
    node.attrs["coordinate_transformation_mode"] = "output_half_pixel"


def _grid_sample(node: Node, step: Step) -> None:
    mode = take(node, "mode", "bilinear")
    node.attrs["mode"] = {"bilinear": "linear", "bicubic": "cubic"}.get(str(mode), mode)


def _dft(node: Node, step: Step) -> None:
    give(node, 2, np.array(take(node, "axis", 1), np.int64), "axis")


def _group_normalization(node: Node, step: Step) -> None:
    """Scale and bias were one for each group, now one for each channel; and the precision is said."""
    dtype = element_type(node, 0, step.facts)
    node.attrs["stash_type"] = int(onnx.helper.np_dtype_to_tensor_dtype(dtype))
    groups = int(read(node, "num_groups"))
    shape = dims(node.inputs[0], step.facts)
    channels = shape[1] if shape is not None and len(shape) > 1 else None
    if not isinstance(channels, int) or groups < 1 or channels % groups:
        raise refusal(
            node, "the number of its channels is not proven to be a multiple of its groups"
        )
    assert node.graph is not None
    each = new_constant(node.graph, "shape", np.array([groups, channels // groups], np.int64))
    axes = new_constant(node.graph, "axes", np.array([1], np.int64))
    flat = new_constant(node.graph, "shape", np.array([-1], np.int64))
    for index in (1, 2):
        column = add(node, "Unsqueeze", [node.inputs[index], axes])
        node.inputs[index] = add(node, "Reshape", [add(node, "Expand", [column, each]), flat])


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

CONVERSIONS: dict[tuple[str, int], Rule] = {
    ("BatchNormalization", 9): _normalization,
    ("BatchNormalization", 14): _normalization_in_training,
    ("Clip", 11): _clip,
    ("DFT", 20): _dft,
    ("Dropout", 10): _dropout,
    ("Dropout", 12): _dropout,
    ("Erf", 13): _erf,
    ("GridSample", 20): _grid_sample,
    ("GroupNormalization", 21): _group_normalization,
    ("Hardmax", 13): _softmax,
    ("LogSoftmax", 13): _softmax,
    ("Pad", 11): _pad,
    ("ReduceSum", 13): _AXES,
    ("Resize", 11): _resize,
    ("Resize", 13): _resize_inputs,
    ("RoiAlign", 16): _roi_align,
    ("Scatter", 11): _scatter,
    ("Slice", 10): _slice,
    ("Softmax", 13): _softmax,
    ("Split", 13): _moved("split"),
    ("Split", 18): _split,
    ("Squeeze", 13): _squeeze,
    ("TopK", 10): _topk,
    ("Unsqueeze", 13): _moved("axes", keep_empty=True),
    ("Upsample", 9): _upsample_scales,
    ("Upsample", 10): _upsample,
    **{(f"Reduce{what}", 18): _AXES for what in _REDUCTIONS},
}
"""By operator and version, how a node is rewritten."""
