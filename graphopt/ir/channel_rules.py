"""Channels through operators that work element by element, normalize or pool.

Element by element, axes that are broadcast together are one. Statistics over channels change with every
channel that leaves, so LayerNormalization, Softmax and their like keep them; those over space, or within a
group of channels, do not.
"""

from __future__ import annotations

import numpy as np

from graphopt.ir.arguments import integers
from graphopt.ir.channel_visit import Axes, UnfollowedError, Visit, filled, follows, literal


@follows(
    *(
        "Abs",
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitwiseNot",
        "Cast",
        "Ceil",
        "Celu",
    ),
    *("Clip", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *("Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu"),
    *("Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt"),
    *("Swish", "Tan", "Tanh", "ThresholdedRelu"),
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater"),
    *("GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu"),
    *("Pow", "Sub", "Sum", "Where", "Xor"),
)
def elementwise(visit: Visit) -> Axes:
    """Tensors that are broadcast together."""
    return visit.broadcast([visit.axes(i) for i in range(len(visit.node.inputs)) if visit.has(i)])


@follows("CastLike")
def cast_like(visit: Visit) -> Axes:
    """The second operand gives its type only."""
    visit.axes(1)
    return visit.axes(0)


@follows("Dropout")
def dropout(visit: Visit) -> list[Axes]:
    """Nothing, in inference."""
    training = literal(visit.node.inputs[2]) if visit.has(2) else np.zeros(1)
    if training is None or training.any():
        raise UnfollowedError(f"{visit.label} is in training mode")
    return [visit.axes(0), visit.axes(0)]


@follows("BatchNormalization")
def batch_normalization(visit: Visit) -> Axes:
    """Four numbers a channel."""
    axes = visit.axes(0)
    if len(axes) < 2 or visit.node.attrs.get("training_mode", 0) or visit.results > 1:
        raise UnfollowedError(f"{visit.label} is in training mode")
    for index in range(1, 5):
        visit.join(axes[1], visit.axes(index)[0])
    return axes


@follows("InstanceNormalization")
def instance_normalization(visit: Visit) -> Axes:
    """Statistics over the spatial axes."""
    axes = visit.axes(0)
    for index in (1, 2):
        visit.join(axes[1], visit.axes(index)[0])
    visit.lock(axes[2:], f"{visit.label} computes statistics over it")
    return axes


@follows("GroupNormalization")
def group_normalization(visit: Visit) -> Axes:
    """Statistics over the channels of a group: whole groups leave."""
    axes, shape = visit.axes(0), visit.shape(0)
    groups = int(visit.node.attrs["num_groups"])
    why = f"{visit.label} computes statistics over it"
    if not isinstance(shape[1], int):
        raise UnfollowedError(f"{visit.label} has an unknown number of channels")
    group = visit.atoms.fresh(groups)
    inner = filled(visit.fixed(why), shape[1] // groups)
    visit.split(axes[1], [group, inner])
    for index in (1, 2):
        entries = visit.axes(index)[0]
        visit.join(entries, group if visit.shape(index)[0] == groups else axes[1])
    visit.lock(axes[2:], why)
    return axes


@follows("LayerNormalization", "RMSNormalization")
def layer_normalization(visit: Visit) -> list[Axes]:
    """Statistics over the last axes, which stay."""
    axes = visit.axes(0)
    first = int(visit.node.attrs.get("axis", -1)) % len(axes)
    visit.lock(axes[first:], f"{visit.label} computes statistics over it")
    scaled = [visit.axes(index) for index in (1, 2) if visit.has(index)]
    statistics = [*axes[:first], *[visit.fixed().reshape(1)] * (len(axes) - first)]
    return [visit.broadcast([axes, *scaled]), statistics, statistics]


@follows("Softmax", "LogSoftmax", "Hardmax")
def softmax(visit: Visit) -> Axes:
    """A distribution over one axis; below opset 13 over all from it on."""
    axes = visit.axes(0)
    old = visit.opset < 13
    axis = int(visit.node.attrs.get("axis", 1 if old else -1)) % len(axes)
    mixed = axes[axis:] if old else [axes[axis]]
    visit.lock(mixed, f"{visit.label} mixes the channels")
    return axes


@follows("LpNormalization", "CumSum", "CumProd", "LRN", "MeanVarianceNormalization", "Trilu")
def mixing(visit: Visit) -> Axes:
    """Some axes depend on each other along themselves."""
    axes, node = visit.axes(0), visit.node
    mixed = {"LRN": [1], "Trilu": [-2, -1]}.get(node.op)
    if node.op == "LpNormalization":
        mixed = [int(node.attrs.get("axis", -1))]
    elif node.op == "MeanVarianceNormalization":
        mixed = [int(axis) for axis in node.attrs.get("axes", (0, 2, 3))]
    elif mixed is None:
        mixed = integers(node.inputs[1], visit.facts)
    if mixed is None:
        raise UnfollowedError(f"{visit.label} works along an axis that is not known")
    visit.lock([axes[axis] for axis in mixed], f"{visit.label} mixes the channels")
    return axes


@follows("ArgMax", "ArgMin", "TopK")
def choosing(visit: Visit) -> list[Axes]:
    """The order of places along an axis is told, so they stay."""
    axes, node = visit.axes(0), visit.node
    axis = int(node.attrs.get("axis", -1 if node.op == "TopK" else 0)) % len(axes)
    visit.lock([axes[axis]], f"{visit.label} tells places along it")
    kept = [a if i != axis else visit.fixed() for i, a in enumerate(axes)]
    if node.op != "TopK" and not node.attrs.get("keepdims", 1):
        del kept[axis]
    return [kept, kept]


@follows("ReverseSequence")
def reverse_sequence(visit: Visit) -> Axes:
    """Time and batch stay."""
    axes = visit.axes(0)
    visit.lock(axes[:2], f"{visit.label} turns it around")
    return axes


@follows(
    *("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"),
    "GridSample",
)
def pool(visit: Visit) -> Axes:
    """Spatial axes stay, each channel is pooled by itself."""
    if visit.results > 1:
        raise UnfollowedError(f"{visit.label} tells places among all channels")
    axes = visit.axes(0)
    visit.lock(axes[2:], f"{visit.label} slides over it")
    if visit.node.op == "GridSample":
        visit.lock(visit.axes(1), f"{visit.label} reads it as positions")
    return [*axes[:2], *[visit.fixed()] * (len(axes) - 2)]


@follows("Resize", "Upsample")
def resize(visit: Visit) -> Axes:
    """Axes whose scale is 1 pass."""
    axes, before, after = visit.axes(0), visit.shape(0), visit.result()
    attrs = visit.node.attrs
    if attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize" or "axes" in attrs:
        raise UnfollowedError(f"{visit.label} names regions or axes")
    if attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnfollowedError(f"{visit.label} keeps the aspect ratio")
    scales = _scales(visit)
    made: Axes = []
    for axis, atoms in enumerate(axes):
        if before[axis] == after[axis] and (scales is None or scales[axis] == 1):
            made.append(atoms)
        else:
            visit.lock([atoms], f"{visit.label} resamples it")
            made.append(visit.fixed())
    return made


def _scales(visit: Visit) -> list[float] | None:
    """The scale of each axis; None where sizes are given instead."""
    node = visit.node
    if "scales" in node.attrs:
        return [float(scale) for scale in node.attrs["scales"]]
    index = 2 if node.op == "Resize" and visit.opset >= 11 else 1
    if not visit.has(index):
        return None
    found = literal(node.inputs[index])
    if found is None:
        raise UnfollowedError(f"{visit.label} has scales that are not constant")
    return [float(scale) for scale in found] if found.size else None


@follows("QuantizeLinear", "DequantizeLinear")
def quantization(visit: Visit) -> Axes:
    """A scale for all, or one for each place of an axis."""
    axes = visit.axes(0)
    if visit.node.attrs.get("block_size", 0):
        raise UnfollowedError(f"{visit.label} has a scale for each block")
    axis = int(visit.node.attrs.get("axis", 1)) % max(len(axes), 1)
    for index in (1, 2):
        scale = visit.axes(index) if visit.has(index) else []
        if len(scale) == 1 and len(np.atleast_1d(scale[0])) != 1:
            visit.join(axes[axis], scale[0])
        elif len(scale) > 1:
            raise UnfollowedError(f"{visit.label} has a scale for each block")
    return axes
