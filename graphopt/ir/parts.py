"""Parts of a model: the nodes between some tensors of its main graph and others, as a model of their own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from graphopt.ir.copying import copy_function, copy_part, copy_tensor
from graphopt.ir.graph import Constant, Node, Variable
from graphopt.ir.model import Model
from graphopt.ir.surgery import producer, read_by


def part(model: Model, given: Mapping[str, np.dtype], wanted: Sequence[gs.Tensor]) -> Model:
    """The nodes that compute some tensors from others, and no more.

    Args:
        model: the whole; it is not changed, and its arrays are shared.
        given: tensors of its main graph by name, with their types, that need not be computed.
        wanted: tensors of its main graph that nodes compute; they become the outputs.

    Returns:
        A model whose inputs are those of the given tensors and of the model's own inputs that are read. The
        types of its outputs are not declared.
    """
    own = {id(tensor) for tensor in model.graph.inputs}
    needed: set[int] = set()
    inputs: dict[str, Variable] = {}
    stack = list(wanted)
    while stack:
        tensor = stack.pop()
        made = producer(tensor)
        if tensor.name in given and tensor.name not in inputs:
            inputs[tensor.name] = Variable(tensor.name, given[tensor.name])
        elif id(tensor) in own and tensor.name not in inputs:
            copied = copy_tensor(tensor)
            assert isinstance(copied, Variable)
            inputs[tensor.name] = copied
        elif tensor.name in inputs or made is None or made.graph is not model.graph:
            continue
        elif id(made) not in needed:
            needed.add(id(made))
            stack += read_by(made)
    nodes = [node for node in model.graph.nodes if id(node) in needed]
    header = onnx.ModelProto()
    header.CopyFrom(model.header)
    graph = copy_part(model.graph, nodes, list(inputs.values()), wanted)
    return Model(graph, [copy_function(function) for function in model.functions], header)


def live(model: Model, count: int) -> list[gs.Tensor]:
    """What the nodes after the first ``count`` of the main graph read of what was there before, in order.

    Constants are not among it.
    """
    nodes: Sequence[Node] = model.graph.nodes
    before = {id(tensor) for tensor in model.graph.inputs if not isinstance(tensor, Constant)}
    before.update(id(tensor) for node in nodes[:count] for tensor in node.outputs if tensor.name)
    found: dict[int, gs.Tensor] = {}
    for node in nodes[count:]:
        found.update((id(t), t) for t in read_by(node) if id(t) in before and id(t) not in found)
    return list(found.values())


def live_counts(model: Model) -> list[int]:
    """How many tensors ``live`` gives before each node of the main graph."""
    nodes: Sequence[Node] = model.graph.nodes
    born = {id(tensor): 0 for tensor in model.graph.inputs if not isinstance(tensor, Constant)}
    last: dict[int, int] = {}
    for number, node in enumerate(nodes):
        last.update((id(tensor), number) for tensor in read_by(node) if id(tensor) in born)
        born.update((id(tensor), number + 1) for tensor in node.outputs if tensor.name)
    change = [0] * (len(nodes) + 1)
    for tensor, end in last.items():
        change[born[tensor]] += 1
        change[end + 1] -= 1
    return list(itertools.accumulate(change[:-1]))
