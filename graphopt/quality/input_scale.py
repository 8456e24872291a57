"""How large the inputs were that a model was trained on, as far as it remembers.

A BatchNormalization that is not folded yet holds, for each channel ``c``, the mean ``m_c`` and the variance
``v_c`` of what stood before it in training. Where that is an affine function ``A x + b`` of an input, and the
input is ``x = s z + o`` of noise ``z`` with mean 0 and variance 1,

    m_c = o (A 1)_c + b_c            v_c = s^2 Var((A z)_c)

so runs on ``z``, on ones and on zeros tell ``s``, the median over channels, and ``o``, by least squares in
units of each channel's deviation, drawn to 0 as if it were of the size ``3 s``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node, Variable
from graphopt.ir.model import Model
from graphopt.ir.surgery import constant, producer
from graphopt.quality.inputs import Feeds

Run = Callable[[Sequence[str], Feeds], "list[np.ndarray]"]

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators of which a BatchNormalization keeps the statistics."""

AFFINE = frozenset(
    {
        *(
            "Add",
            "BatchNormalization",
            "Cast",
            "Div",
            "Flatten",
            "Identity",
            "Mul",
            "Pad",
            "Reshape",
        ),
        *("Squeeze", "Sub", "Transpose", "Unsqueeze"),
    }
)
"""Operators that may stand before them: affine in their first operand where the others are constants."""

REST = 3.0
"""How many deviations the mean of an input is expected to lie from 0."""

SMALLEST_SHARE = 1e-6
"""Share of the largest variance of a channel below which one is taken for dead."""

EXTREME = 1e4
"""A scale beyond which, up or down, the statistics are not believed."""


def scales(
    model: Model, names: Sequence[str], feeds: Feeds, run: Run
) -> dict[str, tuple[float, float]]:
    """The scale and the offset of inputs.

    Args:
        model: the model as it was given.
        names: the inputs that are noise of mean 0 and variance 1 in ``feeds``.
        feeds: a batch.
        run: gives inner tensors of the model for a batch.

    Returns:
        ``(s, o)`` by input; nothing where the model does not tell.

    Raises:
        NativeError: the model does not run on ones or zeros.
    """
    found: dict[str, tuple[float, float]] = {}
    for name, tensor, mean, variance in _normalized(model):
        if name not in names or name in found:
            continue
        value = feeds[name]
        probes = [value, np.zeros_like(value), np.ones_like(value)]
        told = [run([tensor], {**feeds, name: probe})[0] for probe in probes]
        if all(_fits(seen, len(mean)) for seen in told):
            scale = _solved(told, mean, variance)
            if scale is not None:
                found[name] = scale
    return found


def _fits(seen: object, channels: int) -> bool:
    ranked = isinstance(seen, np.ndarray) and seen.ndim > 1 and seen.shape[1] == channels
    return ranked and bool(np.isfinite(np.asarray(seen)).all())


def _solved(
    told: Sequence[np.ndarray], mean: np.ndarray, variance: np.ndarray
) -> tuple[float, float] | None:
    """Scale and offset from the answers to noise, zeros and ones, ``(N, channels, ...)`` each."""
    rows = [np.moveaxis(seen, 1, 0).reshape(len(mean), -1).astype(np.float64) for seen in told]
    spread = (rows[0] - rows[1]).var(axis=1)
    resting = rows[1].mean(axis=1)
    lift = rows[2].mean(axis=1) - resting
    alive = (spread > SMALLEST_SHARE * spread.max()) & (variance > SMALLEST_SHARE * variance.max())
    if not alive.any():
        return None
    scale = float(np.sqrt(np.median(variance[alive] / spread[alive])))
    if not 1 / EXTREME < scale < EXTREME:
        return None
    weight = 1 / variance[alive]
    moved = float(np.sum(weight * lift[alive] * (mean - resting)[alive]))
    offset = moved / (float(np.sum(weight * lift[alive] ** 2)) + (REST * scale) ** -2)
    return scale, offset


def _normalized(model: Model) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Input, tensor, means and variances wherever a product of an input is normalized."""
    for node in model.graph.nodes:
        if node.op != "BatchNormalization" or len(node.inputs) < 5:
            continue
        made = producer(node.inputs[0])
        mean, variance = _values(node.inputs[3]), _values(node.inputs[4])
        if made is None or made.op not in PRODUCTS or mean is None or variance is None:
            continue
        source = _source(made)
        known = [np.asarray(part, np.float64).ravel() for part in (mean, variance)]
        if source is not None and known[0].shape == known[1].shape and np.isfinite(known).all():
            yield source, str(node.inputs[0].name), known[0], known[1]


def _source(node: Node | None) -> str | None:
    """The graph input that a node's result is an affine function of; None where it is not."""
    first = True
    while node is not None and (first or node.op in AFFINE):
        varying = [t for t in node.inputs if _values(t) is None and not _absent(t)]
        if len(varying) != 1 or (node.op == "Div" and varying[0] is not node.inputs[0]):
            return None
        made = producer(varying[0])
        if made is None:
            return str(varying[0].name) if isinstance(varying[0], Variable) else None
        node, first = made, False
    return None


def _absent(tensor: gs.Tensor) -> bool:
    return isinstance(tensor, Variable) and not tensor.name and producer(tensor) is None


def _values(tensor: gs.Tensor) -> np.ndarray | None:
    """The values of a constant, or of what a Constant node makes; None for anything else."""
    made = producer(tensor)
    if made is not None and made.op == "Constant":
        return constant(made.attrs.get("value"))
    return constant(tensor)
