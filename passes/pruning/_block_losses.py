"""What is lost without a block, measured on the calibration data.

    at the block       E (y - x)^2 / Var y       y: what leaves it, x: what would be read instead
    at the outputs     E (a - b)^2 / Var b       a, b: an output without the block, and with it

The second is what counts and takes a run of the model for each block; it is the mean over the outputs that
hold floats. The first is had for all blocks in one run, as the second moment of a difference that is added
to a copy of the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_graphsurgeon as gs

from graphopt.errors import NativeError
from graphopt.ir.blocks import Block
from graphopt.ir.bypassing import bypass_blocks
from graphopt.ir.graph import Node
from graphopt.ir.inference import Facts
from graphopt.ir.model import Model
from graphopt.ir.surgery import insert, new_tensor, producer, tidy
from graphopt.numerics.streaming import Cross, CrossSpec, FeatureRows, MomentsSpec, Sampling
from graphopt.pass_base import Observe
from graphopt.runtime.observing import Request

ELEMENTS = Sampling(1 << 16)
"""Elements of an output that are compared in each batch."""


def local_losses(model: Model, blocks: Sequence[Block], observe: Observe) -> list[float]:
    """The relative error at the exit of each block when its source is read instead.

    Args:
        model: the model that they were found in; not changed.
        blocks: of which some may be alternatives.
        observe: gives statistics of tensors.

    Returns:
        For each block; infinite where it cannot be measured.
    """
    copy = model.copy()
    tensors = {t.name: t for node in copy.graph.nodes for t in node.outputs}
    tensors.update((tensor.name, tensor) for tensor in copy.graph.inputs)
    differences = []
    for block in blocks:
        exit_ = tensors[block.where]
        made = producer(exit_)
        assert made is not None
        differences.append(_after(made, "Sub", [exit_, tensors[block.source]], "difference"))
    tidy(copy.graph)
    asked = [
        (Request(block.where, MomentsSpec()), Request(name, MomentsSpec()))
        for block, name in zip(blocks, differences, strict=True)
    ]
    answers = observe(copy, [request for pair in asked for request in pair])
    losses = []
    for pair in asked:
        whole, lost = (answers[request].value for request in pair)
        known = whole is not None and lost is not None and whole.count and lost.count == whole.count
        losses.append(_share(float(lost.second), float(whole.variance)) if known else math.inf)
    return losses


def output_losses(
    model: Model, facts: Facts, blocks: Sequence[Block], observe: Observe
) -> list[float] | None:
    """The relative error at the model's outputs without each block alone.

    Args:
        model: the model that they were found in; not changed.
        facts: what is proven of its tensors.
        blocks: to be taken out one at a time.
        observe: gives statistics of tensors.

    Returns:
        For each block, infinite where the rest cannot be compared; None where no output holds floats.
    """
    names = [t.name for t in model.graph.outputs if _is_float(t, facts) and producer(t)]
    if not names:
        return None
    whole = model.copy()
    targets = _flattened(whole, names)
    return [_output_loss(model, whole, targets, names, block, observe) for block in blocks]


def _output_loss(
    model: Model,
    whole: Model,
    targets: Sequence[str],
    names: Sequence[str],
    block: Block,
    observe: Observe,
) -> float:
    without = model.copy()
    bypass_blocks(without, {block.where: block.source})
    spec = CrossSpec(FeatureRows(0), FeatureRows(0), sampling=ELEMENTS)
    asked = [
        Request(tensor, spec, target, target_in_other=True)
        for tensor, target in zip(_flattened(without, names), targets, strict=True)
    ]
    try:
        answers = observe(without, asked, other=whole)
    except NativeError:
        return math.inf
    errors = [_error(answers[request].value) for request in asked]
    known = [error for error in errors if error is not None]
    return sum(known) / len(known) if known else math.inf


def _error(found: Cross | None) -> float | None:
    """E (a - b)^2 / Var b from the moments of a and b; None where they could not be taken."""
    if found is None or not found.gram.rows:
        return None
    gap = float(found.gram.mean[0] - found.mean[0])
    spread = float(found.variance[0])
    square = float(found.gram.covariance()[0, 0]) + spread - 2 * float(found.covariance()[0, 0])
    return _share(max(square, 0.0) + gap * gap, spread)


def _share(part: float, whole: float) -> float:
    if not part:
        return 0.0
    share = part / whole if whole > 0 else math.inf
    return share if math.isfinite(share) else math.inf


def _flattened(model: Model, names: Sequence[str]) -> list[str]:
    """Tensors that hold the elements of some outputs as one row; they are added to the model."""
    tensors = {t.name: t for t in model.graph.outputs}
    found = []
    for name in names:
        made = producer(tensors[name])
        assert made is not None
        found.append(_after(made, "Flatten", [tensors[name]], "elements", {"axis": 0}))
    tidy(model.graph)
    return found


def _after(
    node: Node, op: str, inputs: list[gs.Tensor], name: str, attrs: dict[str, object] | None = None
) -> str:
    """Add a node behind another; the name of what it computes."""
    graph = node.graph
    assert graph is not None
    made = new_tensor(graph, f"{inputs[0].name}/{name}")
    insert(node, op, inputs, [made], attrs).order += 0.5
    return str(made.name)


def _is_float(tensor: gs.Tensor, facts: Facts) -> bool:
    dtype = facts.dtype(tensor)
    return dtype is not None and dtype.kind == "f"
