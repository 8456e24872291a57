"""Operators that say sizes, counts or positions in numbers, when places leave what they read or compute.

    Conv, ConvTranspose     group                    RNN, GRU, LSTM        hidden_size
    Split                   sizes of the parts       GroupNormalization    num_groups
    Slice, Gather           positions                Reshape, Expand, ConstantOfShape, Resize    sizes
    Shape                   tells the old sizes      Constant              its contents
    Squeeze                 its axes

Shape tells the old sizes so that all that a model computes of sizes stays as it was; where such a number
then says how large a tensor becomes, the new size is put in its place. So nothing has to be known of the
arithmetic in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from graphopt.ir.arguments import AXES_INPUT_SINCE, axes_given, dims
from graphopt.ir.channel_choice import Places, Removal
from graphopt.ir.channel_movement import entries_of, slice_bounds
from graphopt.ir.channel_visit import literal
from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import Facts
from graphopt.ir.inference.facts import Shape
from graphopt.ir.surgery import discard, input_or_none, insert, new_constant, new_tensor, users


class Rewriting:
    """One change of a model.

    Args:
        facts: what was proven of its tensors before.
        removal: what leaves.
    """

    def __init__(self, facts: Facts, removal: Removal) -> None:
        self.facts = facts
        self.removal = removal
        self.said: dict[int, set[int]] = {}

    def rewrite(self, nodes: Iterable[Node]) -> None:
        """Let nodes say the new numbers, and then let Shape tell the old ones to all that still ask."""
        nodes = list(nodes)
        for rewriters in (_REWRITERS, {"Shape": _shape}):
            for node in nodes:
                rewriter = rewriters.get(node.op)
                if rewriter is not None and node.standard:
                    rewriter(self, node)

    def shape(self, tensor: gs.Tensor) -> Shape:
        """The dims before."""
        return dims(tensor, self.facts) or ()

    def size(self, tensor: gs.Tensor, axis: int) -> int:
        """The length of an axis before; it is known wherever places leave."""
        size = self.shape(tensor)[axis]
        assert isinstance(size, int)
        return size

    def say(self, node: Node, index: int, entries: dict[int, int]) -> None:
        """Let an integer input of a node have other entries at some positions."""
        tensor, scope = node.inputs[index], node.graph
        known = literal(tensor)
        if known is not None:
            values = known.copy()
            values.reshape(-1)[list(entries)] = list(entries.values())
            self.give(node, index, values)
            return
        assert scope is not None
        length = self.size(tensor, 0)
        mask, values = np.zeros(length, dtype=bool), np.zeros(length, dtype=np.int64)
        mask[list(entries)], values[list(entries)] = True, list(entries.values())
        dtype = self.facts.dtype(tensor) or np.dtype(np.int64)
        chosen = new_tensor(scope, f"{tensor.name}_sliced")
        given = new_constant(scope, f"{tensor.name}_mask", mask)
        sizes = new_constant(scope, f"{tensor.name}_sizes", values.astype(dtype))
        made = insert(node, "Where", [given, sizes, tensor], [chosen])
        self.said[made.uid] = set(entries)
        node.inputs[index] = chosen

    def give(self, node: Node, index: int, values: np.ndarray) -> None:
        """Give a node a constant input in place of what it has there."""
        scope, old = node.graph, input_or_none(node, index)
        assert scope is not None
        name = f"{node.name or node.op}_{index}" if old is None else old.name
        made = new_constant(scope, name, values)
        if index < len(node.inputs):
            node.inputs[index] = made
        else:
            node.inputs.append(made)
        if isinstance(old, Constant):
            discard(scope, old)


Rewriter = Callable[[Rewriting, Node], None]


def _kept(size: int, places: Places) -> npt.NDArray[np.bool_]:
    """Which places of an axis stay."""
    mask = np.ones(size, dtype=bool)
    mask[places] = False
    return mask


def _count(places: dict[int, Places], axis: int) -> int:
    return len(places[axis]) if axis in places else 0


def _conv(rewriting: Rewriting, node: Node) -> None:
    """The groups of which channels stay."""
    groups = int(node.attrs.get("group", 1))
    if groups == 1:
        return
    per_group = rewriting.size(node.inputs[1], 1)
    removal = rewriting.removal
    whole = removal.input(node, 0) if node.op == "Conv" else removal.output(node, 0)
    left = per_group - _count(removal.input(node, 1), 1)
    node.attrs["group"] = (per_group * groups - _count(whole, 1)) // left


def _split(rewriting: Rewriting, node: Node) -> None:
    """The parts as long as they are now."""
    data = node.inputs[0]
    axis = int(node.attrs.get("axis", 0)) % max(len(rewriting.shape(data)), 1)
    if axis not in rewriting.removal.input(node, 0):
        return
    removal = rewriting.removal
    sizes = [
        rewriting.size(tensor, axis) - _count(removal.output(node, index), axis)
        for index, tensor in enumerate(node.outputs)
    ]
    node.attrs.pop("num_outputs", None)
    if node.graph is not None and int(node.graph.opset) < 13:
        node.attrs["split"] = sizes
    else:
        rewriting.give(node, 1, np.array(sizes, np.int64))


def _slice(rewriting: Rewriting, node: Node) -> None:
    """Start and end where they are now."""
    data, places = node.inputs[0], rewriting.removal.input(node, 0)
    if not places:
        return
    starts: dict[int, int] = {}
    ends: dict[int, int] = {}
    bounds = slice_bounds(node, rewriting.facts, len(rewriting.shape(data)))
    for position, (axis, bound) in enumerate(bounds.items()):
        if bound is None or axis not in places:
            continue
        kept = _kept(rewriting.size(data, axis), places[axis])
        start, end, _ = bound.indices(len(kept))
        starts[position] = int(kept[:start].sum())
        ends[position] = starts[position] + int(kept[start:end].sum())
    for index, name, entries in ((1, "starts", starts), (2, "ends", ends)):
        if name in node.attrs:
            node.attrs[name] = [entries.get(i, v) for i, v in enumerate(node.attrs[name])]
        elif entries:
            rewriting.say(node, index, entries)


def _gather(rewriting: Rewriting, node: Node) -> None:
    """Where the picked places are now."""
    data, given = node.inputs[0], literal(node.inputs[1])
    axis = int(node.attrs.get("axis", 0)) % max(len(rewriting.shape(data)), 1)
    places = rewriting.removal.input(node, 0).get(axis)
    if places is None or given is None:
        return
    kept = _kept(rewriting.size(data, axis), places)
    wanted = given.astype(np.int64) % len(kept)
    wanted = wanted[kept[wanted]] if given.ndim else wanted
    rewriting.give(node, 1, np.asarray((np.cumsum(kept) - 1)[wanted]).astype(given.dtype))


def _shape(rewriting: Rewriting, node: Node) -> None:
    """Tell the old sizes."""
    shape, places = rewriting.shape(node.inputs[0]), rewriting.removal.input(node, 0)
    first = int(node.attrs.get("start", 0))
    picked = list(range(len(shape)))[first : node.attrs.get("end")]
    told = {i: shape[axis] for i, axis in enumerate(picked) if axis in places}
    entries = {i: size for i, size in told.items() if isinstance(size, int)}
    for user in users(node.outputs[0]) if entries else []:
        said = rewriting.said.get(user.uid, set())
        if entries.keys() <= said or _reads_none_of(user, entries, len(picked)):
            continue
        for index, tensor in enumerate(user.inputs):
            if tensor is node.outputs[0]:
                rewriting.say(user, index, entries)


def _reads_none_of(user: Node, entries: dict[int, int], length: int) -> bool:
    """Whether a reader of sizes takes only sizes that stay."""
    indices = literal(user.inputs[1]) if user.op == "Gather" else None
    return indices is not None and not any(int(i) % length in entries for i in indices.reshape(-1))


def _target(index: int) -> Rewriter:
    """The sizes of a result, said at this input."""

    def rewrite(rewriting: Rewriting, node: Node) -> None:
        result, target = node.outputs[0], input_or_none(node, index)
        places = rewriting.removal.output(node, 0)
        if target is None or not (places or rewriting.removal.input(node, 0)):
            return
        length = rewriting.size(target, 0)
        given = entries_of(target, rewriting.facts) or [None] * length
        skip = len(rewriting.shape(result)) - length
        sizes = {a: rewriting.size(result, a) - len(where) for a, where in places.items()}
        entries = {a - skip: n for a, n in sizes.items() if a >= skip and given[a - skip] != -1}
        if node.op == "Reshape" and not node.attrs.get("allowzero", 0):
            entries = _copied(rewriting, node, given) | entries
        if entries:
            rewriting.say(node, index, entries)

    return rewrite


def _copied(rewriting: Rewriting, node: Node, given: Sequence[int | None]) -> dict[int, int]:
    """The sizes that a Reshape copies, with a 0, from axes that change: as they were."""
    data, places = node.inputs[0], rewriting.removal.input(node, 0)
    copied = [axis for axis, entry in enumerate(given) if entry == 0 and axis in places]
    return {axis: rewriting.size(data, axis) for axis in copied}


def _squeeze(rewriting: Rewriting, node: Node) -> None:
    """The axes of one place, by name: an axis that is cut down to one place is none of them."""
    given, _ = axes_given(node, rewriting.facts)
    if given or not rewriting.removal.input(node, 0):
        return
    axes = [axis for axis, dim in enumerate(rewriting.shape(node.inputs[0])) if dim == 1]
    if node.graph is not None and int(node.graph.opset) < AXES_INPUT_SINCE["Squeeze"]:
        node.attrs["axes"] = axes
    else:
        rewriting.give(node, 1, np.array(axes, np.int64))


def _recurrent(rewriting: Rewriting, node: Node) -> None:
    """The hidden units that stay."""
    count = _count(rewriting.removal.input(node, 2), 2)
    if count:
        node.attrs["hidden_size"] = rewriting.size(node.inputs[2], 2) - count


def _group_normalization(rewriting: Rewriting, node: Node) -> None:
    """The groups that stay: whole ones leave."""
    count = _count(rewriting.removal.input(node, 0), 1)
    if count:
        size = rewriting.size(node.inputs[0], 1)
        node.attrs["num_groups"] = int(node.attrs["num_groups"]) * (size - count) // size


def _constant(rewriting: Rewriting, node: Node) -> None:
    """What stays of the contents."""
    value = literal(node.outputs[0])
    places = rewriting.removal.output(node, 0)
    if value is None:
        return
    for axis, where in places.items():
        value = np.compress(_kept(value.shape[axis], where), value, axis=axis)
    if places:
        node.attrs.clear()
        node.attrs["value"] = Constant("", value)


_REWRITERS: dict[str, Rewriter] = {
    "Constant": _constant,
    "ConstantOfShape": _target(0),
    "Conv": _conv,
    "ConvTranspose": _conv,
    "Expand": _target(1),
    "GRU": _recurrent,
    "Gather": _gather,
    "GroupNormalization": _group_normalization,
    "LSTM": _recurrent,
    "RNN": _recurrent,
    "Reshape": _target(1),
    "Resize": _target(3),
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
}
"""How the numbers that a node says change, by operator."""
