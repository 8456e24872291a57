"""Inner tensors to compare beside the outputs.

An output that a bounded function gives, such as a sigmoid, says little where it saturates; what goes into the
function says more.
"""

from __future__ import annotations

from graphopt.ir.model import Model
from graphopt.ir.surgery import producer

MAX_WITNESS_DEPTH = 8
"""Operators above an output that are looked at for witnesses."""

SATURATING = frozenset(
    {"ArgMax", "ArgMin", "Clip", "HardSigmoid", "LogSoftmax", "Sigmoid", "Softmax", "Tanh", "TopK"}
)
"""Operators whose results say little of their inputs."""

PASSED_THROUGH = frozenset(
    {"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that are looked through on the way from an output up to a saturating operator."""


def witnesses(model: Model) -> list[str]:
    """Inner tensors of the main graph to compare beside the outputs: what saturating operators read."""
    found: dict[str, None] = {}
    for output in model.graph.outputs:
        node = producer(output)
        for _ in range(MAX_WITNESS_DEPTH):
            if node is None or node.op not in SATURATING | PASSED_THROUGH:
                break
            tensor = node.inputs[0]
            made = producer(tensor)
            if made is None or made.graph is not model.graph:
                break
            if node.op in SATURATING and not tensor.is_output:
                found[tensor.name] = None
            node = made
    return list(found)
