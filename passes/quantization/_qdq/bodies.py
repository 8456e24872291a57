"""Rounding in and around the bodies of control flow: the node that holds them is computed a second time.

Which body runs, and how often, must not depend on what is rounded: two runs could not be compared then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import onnx_graphsurgeon as gs

from graphopt.ir.copying import copy_node
from graphopt.ir.graph import Node
from graphopt.ir.nesting import homes
from graphopt.ir.surgery import names_of, new_tensor, producer, users

DECIDING = {"If": (0,), "Loop": (0, 1)}
"""Inputs of control flow that say which body runs, and how often."""


def repeated(node: Node, seconds: dict[int, gs.Tensor]) -> tuple[Node, Mapping[int, gs.Tensor]]:
    """Compute a node, with its bodies, once more beside itself.

    Args:
        node: of a main graph.
        seconds: second versions of what it may read, by ``id``; those of what it computes are added.

    Returns:
        The second node, and the copies of what is defined in its bodies, by ``id``.
    """
    graph = node.graph
    assert graph is not None
    made, copies = copy_node(node, seconds)
    made.graph, made.order, made.uid = graph, node.order + 0.25, names_of(graph).uid()
    made.name = names_of(graph).fresh(node.name or node.op)
    for old, new in zip(node.outputs, made.outputs, strict=True):
        if old.name:
            new.name, new.is_output = new_tensor(graph, old.name).name, False
            seconds[id(old)] = new
    graph.nodes.append(made)
    return made, copies


def rounded_inside(
    node: Node, tensor: gs.Tensor, rounding: Callable[[gs.Tensor, Node], gs.Tensor]
) -> dict[int, gs.Tensor]:
    """Compute a node once more, with one tensor of its bodies rounded.

    Args:
        node: of a main graph.
        tensor: defined in a body of it.
        rounding: inserts what rounds a tensor, beside a node, and gives the result.

    Returns:
        The second versions of what the node computes, by ``id``.
    """
    seconds: dict[int, gs.Tensor] = {}
    made, copies = repeated(node, seconds)
    copy, readers = copies[id(tensor)], dict.fromkeys(users(copies[id(tensor)]))
    maker = producer(copy)
    inputs = {key: scope for body in made.bodies() for key, scope in homes(body).items()}
    scope = inputs[id(copy)] if maker is None else maker.graph
    assert scope is not None
    result = rounding(copy, maker or scope.nodes[0])
    for reader in readers:
        reader.inputs = [result if read is copy else read for read in reader.inputs]
    if copy.is_output:
        scope.outputs = [result if entry is copy else entry for entry in scope.outputs]
        copy.is_output, result.is_output = False, True
    return seconds


def decides(tensors: Iterable[gs.Tensor]) -> bool:
    """Whether it may depend on some tensors which bodies run, or how often."""
    reached: set[int] = set()
    stack = list(tensors)
    while stack:
        tensor = stack.pop()
        if id(tensor) in reached:
            continue
        reached.add(id(tensor))
        for node in users(tensor):
            places = [n for n, read in enumerate(node.inputs) if read is tensor]
            if any(place in DECIDING.get(node.op, ()) for place in places):
                return True
            stack += [*node.outputs, *_entering(node, places)]
        made = producer(tensor)
        scope = None if made is None else made.graph
        if tensor.is_output and scope is not None and scope.parent is not None:
            places = [n for n, given in enumerate(scope.outputs) if given is tensor]
            if scope.parent.op == "Loop" and 0 in places:
                return True
            carried = 1 if scope.parent.op == "Loop" else 0
            stack += scope.parent.outputs
            stack += _entering(scope.parent, [place + carried for place in places])
    return False


def _entering(node: Node, places: Iterable[int]) -> list[gs.Tensor]:
    """The inputs of the bodies of a Loop or Scan that stand for some of its own."""
    if node.op not in ("Loop", "Scan"):
        return []
    return [t for body in node.bodies() for place in places for t in body.inputs[place : place + 1]]
