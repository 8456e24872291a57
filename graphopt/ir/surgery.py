"""The few verbs that edit a graph. Everything that a pass changes, it changes through these.

They keep three promises. A graph output keeps its tensor, so its name, type and place never change. A
node that loses its last use goes away with all that only it used. New nodes ask for the place of the
node they stand in for; the graph is brought back into order by ``tidy``, once, after a pass.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Function, Graph, Names, Node, Variable

Scope = Graph | Function


def producer(tensor: gs.Tensor) -> Node | None:
    """The node that computes a tensor; None for constants, graph inputs and omitted inputs."""
    return tensor.inputs[0] if tensor.inputs else None


def users(tensor: gs.Tensor) -> list[Node]:
    """The nodes that read a tensor, in any scope; one that reads it twice stands there twice."""
    return list(tensor.outputs)


def sole_user(tensor: gs.Tensor) -> Node | None:
    """The one node that reads a tensor once, in the scope that computes it; else None.

    A tensor that a graph returns has no sole user, nor has one that is read from inside a body.
    """
    if tensor.is_output or len(tensor.outputs) != 1:
        return None
    user: Node = tensor.outputs[0]
    made = producer(tensor)
    return None if made is not None and made.graph is not user.graph else user


def is_used(tensor: gs.Tensor) -> bool:
    """Whether a node reads a tensor or a graph returns it."""
    return bool(tensor.outputs) or bool(tensor.is_output)


def input_or_none(node: Node, index: int) -> gs.Tensor | None:
    """A node's input, or None where it is omitted."""
    if index >= len(node.inputs) or not node.inputs[index].name:
        return None
    return node.inputs[index]


def constant(tensor: gs.Tensor | None) -> np.ndarray | None:
    """The values of a constant tensor; None for anything else."""
    return tensor.values if isinstance(tensor, Constant) else None


def splat(tensor: gs.Tensor | None) -> np.generic | None:
    """The one value that all elements of a constant have; None for anything else.

    The value keeps the tensor's dtype. NaNs are equal to nothing.
    """
    if not isinstance(tensor, Constant) or tensor.dtype == object:
        return None
    values = tensor.values
    if values.size == 0 or not bool((values == values.flat[0]).all()):
        return None
    first: np.generic = values.flat[0]
    return first


def new_constant(graph: Scope, base: str, values: np.ndarray) -> Constant:
    """A constant for a node of ``graph`` to read, with a name made from ``base``."""
    names = names_of(graph)
    made = Constant(names.fresh(base), np.asarray(values))
    names.bytes_made += made.nbytes
    return made


def new_tensor(graph: Scope, base: str) -> Variable:
    """A tensor for a node of ``graph`` to compute, with a name made from ``base``."""
    return Variable(names_of(graph).fresh(base))


def names_of(graph: Scope) -> Names:
    """The names of the model that a scope belongs to."""
    names: Names = graph.names
    return names


def insert(
    near: Node,
    op: str,
    inputs: Sequence[gs.Tensor],
    outputs: Sequence[gs.Tensor],
    attrs: dict[str, object] | None = None,
    name: str = "",
) -> Node:
    """Add a node of the standard domain beside another, in the same scope.

    Args:
        near: the node whose place it takes or shares.
        op: its operator.
        inputs: what it reads; a Variable with an empty name for an omitted one.
        outputs: what it computes; their earlier producers lose them.
        attrs: its attributes.
        name: a base for its name; made from ``near`` when empty.
    """
    graph = near.graph
    assert graph is not None
    for tensor in outputs:
        for old in list(tensor.inputs):
            position = next(i for i, t in enumerate(old.outputs) if t is tensor)
            old.outputs[position] = Variable("")
    label = names_of(graph).fresh(name or f"{near.name or near.op}/{op}")
    node = Node(op, label, dict(attrs or {}), list(inputs), list(outputs))
    node.graph, node.order, node.uid = graph, near.order, names_of(graph).uid()
    graph.nodes.append(node)
    return node


def replace(
    node: Node,
    op: str,
    inputs: Sequence[gs.Tensor],
    attrs: dict[str, object] | None = None,
    outputs: Sequence[gs.Tensor] | None = None,
) -> Node:
    """Let a new node of the standard domain compute what ``node`` computed, and remove ``node``.

    The new node keeps the name and the number, so people and vetoes find it again. What only ``node``
    used goes away with it.

    Args:
        node: the node that goes; of a matched group, the last one.
        op: the operator of the new node.
        inputs: what the new node reads.
        attrs: its attributes.
        outputs: what it computes; all outputs of ``node`` by default.
    """
    graph = node.graph
    assert graph is not None
    targets = list(node.outputs if outputs is None else outputs)
    made = Node(op, node.name, dict(attrs or {}), list(inputs))
    made.graph, made.order, made.uid = graph, node.order, node.uid
    if node.proto is not None:
        made.proto = type(node.proto)()
        made.proto.doc_string = node.proto.doc_string
        made.proto.metadata_props.extend(node.proto.metadata_props)
        if not node.proto.doc_string:
            made.proto.ClearField("doc_string")
    graph.nodes.append(made)
    for tensor in targets:
        for old in list(tensor.inputs):
            position = next(i for i, t in enumerate(old.outputs) if t is tensor)
            old.outputs[position] = Variable("")
    made.outputs = targets
    remove(node)
    return made


def bypass(node: Node, source: gs.Tensor | None = None, output: int = 0) -> bool:
    """Let everything that reads an output of ``node`` read ``source`` instead, and remove the node.

    Args:
        node: the node to take out; its other outputs must be unused.
        source: what to read instead; the node's first input by default.
        output: which output.

    Returns:
        False, and nothing is changed, where a graph output would have to become an alias of something
        that cannot take its name: a graph input, a constant, another output, an outer tensor.
    """
    source = node.inputs[0] if source is None else source
    target = node.outputs[output]
    if source is target or any(is_used(t) for t in node.outputs if t is not target):
        return False
    if target.is_output:
        return _rename(node, source, target)
    redirect(target, source)
    remove(node)
    return True


def redirect(old: gs.Tensor, new: gs.Tensor) -> None:
    """Let every node that reads ``old`` read ``new``; graph outputs are left alone."""
    for user in users(old):
        read = user.inputs
        position = 0
        while True:
            try:
                position = read.index(old, position)
            except ValueError:
                break
            read[position] = new


def discard(graph: Scope, constant: Constant) -> None:
    """Drop an initializer of a scope that nothing reads any more; one in use stays."""
    if not is_used(constant):
        graph.initializers = [t for t in graph.initializers if t is not constant]


def _rename(node: Node, source: gs.Tensor, target: gs.Tensor) -> bool:
    """Let the node that computes ``source`` compute the graph output ``target`` in its place."""
    made = producer(source)
    if made is None or made.graph is not node.graph or source.is_output or made is node:
        return False
    position = next(i for i, t in enumerate(made.outputs) if t is source)
    index = next(i for i, t in enumerate(node.outputs) if t is target)
    node.outputs[index] = Variable("")
    made.outputs[position] = target
    redirect(source, target)
    remove(node)
    return True


def remove(node: Node) -> None:
    """Take out a node whose outputs nothing reads, and then all that only it used."""
    stack = [node]
    while stack:
        gone = stack.pop()
        if gone.dead or any(is_used(t) for t in gone.outputs if t.name):
            continue
        gone.dead = True
        for tensor in read_by(gone):
            made = producer(tensor)
            if made is not None and not made.dead and made is not gone:
                stack.append(made)
        _disconnect(gone)


def read_by(node: Node) -> list[gs.Tensor]:
    """What a node reads, itself or from inside its bodies."""
    found = list(node.inputs)
    stack = list(node.bodies())
    while stack:
        body = stack.pop()
        found += body.outputs
        for inner in body.nodes:
            found += inner.inputs
            stack.extend(inner.bodies())
    return found


def _disconnect(node: Node) -> None:
    stack = [node]
    while stack:
        gone = stack.pop()
        for body in gone.bodies():
            stack.extend(body.nodes)
        gone.inputs.clear()
        gone.outputs.clear()


def tidy(graph: Scope) -> None:
    """Drop the dead nodes of a scope and bring the others into a topological order.

    The order is stable: nodes stay where they were as far as their inputs allow, and new ones come
    as early as the node they stand in for.
    """
    alive = [node for node in graph.nodes if not node.dead]
    if len(alive) == len(graph.nodes) and _in_order(alive):
        return
    graph.nodes = _sorted(alive)
    for order, node in enumerate(graph.nodes):
        node.order = float(order)


def _needs(node: Node) -> set[int]:
    """The nodes of the same scope that must come before a node, by ``id``."""
    found = set()
    for tensor in read_by(node) if any(True for _ in node.bodies()) else node.inputs:
        made = producer(tensor)
        if made is not None and made.graph is node.graph and made is not node:
            found.add(id(made))
    return found


def _in_order(nodes: list[Node]) -> bool:
    seen: set[int] = set()
    for node in nodes:
        if not _needs(node) <= seen:
            return False
        seen.add(id(node))
    return True


def _sorted(nodes: list[Node]) -> list[Node]:
    """Kahn's algorithm with a heap on the wanted place."""
    place = {id(node): (node.order, index) for index, node in enumerate(nodes)}
    waits: dict[int, int] = {}
    wakes: dict[int, list[Node]] = {}
    for node in nodes:
        needed = _needs(node) & place.keys()
        waits[id(node)] = len(needed)
        for key in needed:
            wakes.setdefault(key, []).append(node)
    by_key = {id(node): node for node in nodes}
    heap = [(*place[key], key) for key, count in waits.items() if count == 0]
    heapq.heapify(heap)
    ordered = []
    while heap:
        *_, key = heapq.heappop(heap)
        ordered.append(by_key[key])
        for node in wakes.get(key, ()):
            waits[id(node)] -= 1
            if waits[id(node)] == 0:
                heapq.heappush(heap, (*place[id(node)], id(node)))
    if len(ordered) != len(nodes):
        raise ValueError("the graph has a cycle")
    return ordered
