"""Nodes that cannot run: their inputs have shapes that the operator must refuse (ONNX operator spec).

A scope in which such a node stands never runs through. That makes it a proof: what was assumed to get
there is false in every run that succeeds.
"""

from __future__ import annotations

from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import Facts
from graphopt.ir.inference.facts import Shape

_RECURRENT = {0: 3, 1: 3, 2: 3}

RANKS: dict[str, dict[int, int]] = {
    "GRU": _RECURRENT,
    "Gemm": {0: 2, 1: 2},
    "LSTM": _RECURRENT,
    "RNN": _RECURRENT,
}
"""Ranks that operators demand of their inputs, by position."""


def must_fail(node: Node, facts: Facts) -> bool:
    """Whether a node is bound to fail; False where that is not proven."""
    if not node.standard:
        return False
    shapes = [_shape(node, index, facts) for index in range(len(node.inputs))]
    for index, rank in RANKS.get(node.op, {}).items():
        if index < len(shapes) and _has_other_rank(shapes[index], rank):
            return True
    if node.op == "Conv" and len(shapes) > 1:
        return _conv_fails(shapes[0], shapes[1], node)
    if node.op == "MatMul" and len(shapes) > 1:
        return _matmul_fails(shapes[0], shapes[1])
    if node.op == "Transpose" and isinstance(node.attrs.get("perm"), list):
        return _has_other_rank(shapes[0], len(node.attrs["perm"]))
    if node.op == "Concat":
        return len({len(shape) for shape in shapes if shape is not None}) > 1
    return False


def _shape(node: Node, index: int, facts: Facts) -> Shape | None:
    tensor = node.inputs[index]
    if isinstance(tensor, Constant):
        return tuple(tensor.shape)
    return facts.shape(tensor) if tensor.name else None


def _has_other_rank(shape: Shape | None, rank: int) -> bool:
    return shape is not None and len(shape) != rank


def _conv_fails(data: Shape | None, weight: Shape | None, node: Node) -> bool:
    if data is None or weight is None:
        return False
    if len(data) != len(weight) or len(data) < 3:
        return True
    group = node.attrs.get("group", 1)
    sizes = (data[1], weight[1], group)
    return all(isinstance(size, int) for size in sizes) and data[1] != weight[1] * group


def _matmul_fails(left: Shape | None, right: Shape | None) -> bool:
    if left is None or right is None:
        return False
    if not left or not right:
        return True
    inner = left[-1], right[-2] if len(right) > 1 else right[0]
    return all(isinstance(size, int) for size in inner) and inner[0] != inner[1]
