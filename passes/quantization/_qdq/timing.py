"""What each unit takes on floats and on integers, in the model itself, by ONNX Runtime's own profile.

Nodes and tensors of a copy are named after the number of the node that they come from. ONNX Runtime fuses
nodes and adds others, but names what it makes after what it was made of, so the profile can be read back:

    QLinearConv "g17:_token_3"          -> node 17 runs on integers
    Conv "g17:0_nchwc"                  -> node 17 on floats, in the blocked layout
    ReorderInput_token_9, Transpose_2   -> nobody's: layout, shared out by whoever reads the result

So it is also seen which units really became integer kernels, and which did not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from graphopt.ir.graph import Node, Variable
from graphopt.ir.model import Model
from graphopt.ir.nesting import nodes_within
from graphopt.runtime.profiling import NodeSeconds

MARK = re.compile(r"g(\d+):")

INTEGER = re.compile(
    r"^(QLinear|QGemm|MatMulInteger|NhwcMaxPool|QAttention|DynamicQuantize|QEmbed)"
)
"""The operators of integer kernels that ONNX Runtime makes of quantized patterns."""


@dataclass(frozen=True)
class Profile:
    """What a model takes.

    Attributes:
        seconds: by the number of a node, all that was made of it.
        ops: by the number of a node, the operators that were made of it.
        layout: what changes of layout take, which no node of the model asks for.
    """

    seconds: Mapping[int, float]
    ops: Mapping[int, frozenset[str]]
    layout: float

    @property
    def total(self) -> float:
        """Of one run."""
        return sum(self.seconds.values()) + self.layout

    def integer(self, uid: int) -> bool:
        """Whether a node became an integer kernel."""
        return any(INTEGER.match(op) for op in self.ops.get(uid, ()))


def marked(model: Model) -> Model:
    """A copy whose nodes and inner tensors are named after the numbers of the nodes."""
    copy = model.copy()
    kept = {t.name for t in (*copy.graph.inputs, *copy.graph.outputs)}
    for node in nodes_within(copy.graph):
        _mark(node, f"g{node.uid}:", kept)
    return copy


def _mark(node: Node, mark: str, kept: Collection[str]) -> None:
    """Name a node and what it computes."""
    node.name = mark
    for place, tensor in enumerate(node.outputs):
        if tensor.name and tensor.name not in kept and isinstance(tensor, Variable):
            tensor.name = f"{mark}{place}"


def read_profile(found: Sequence[NodeSeconds]) -> Profile:
    """Whose time a profile of a marked model shows."""
    seconds: dict[int, float] = {}
    ops: dict[int, set[str]] = {}
    layout = 0.0
    for row in found:
        mark = MARK.search(row.name)
        if mark is None:
            layout += row.seconds
            continue
        uid = int(mark.group(1))
        seconds[uid] = seconds.get(uid, 0.0) + row.seconds
        ops.setdefault(uid, set()).add(row.op)
    return Profile(seconds, {uid: frozenset(names) for uid, names in ops.items()}, layout)
