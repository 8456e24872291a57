"""Copying scopes: new nodes and tensors, shared messages and arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant, Function, Graph, Node, Variable
from graphopt.ir.surgery import read_by


class _Copier:
    def __init__(self) -> None:
        self.tensors: dict[int, gs.Tensor] = {}

    def tensor(self, tensor: gs.Tensor) -> gs.Tensor:
        made = self.tensors.get(id(tensor))
        if made is None:
            made = copy_tensor(tensor)
            self.tensors[id(tensor)] = made
        return made

    def scope(self, source: Graph | Function, target: Graph | Function) -> None:
        target.doc_string = source.doc_string
        target.import_domains = source.import_domains
        target.proto = source.proto
        target.shadowed = source.shadowed
        target.inputs = [self.tensor(t) for t in source.inputs]
        target.initializers = [self.tensor(t) for t in source.initializers]
        for node in source.nodes:
            made = self.node(node)
            made.graph = target
            target.nodes.append(made)
        target.outputs = [self.tensor(t) for t in source.outputs]
        target.declared = [self.tensor(t) for t in source.declared]

    def node(self, node: Node) -> Node:
        made = Node(
            node.op,
            node.name,
            {},
            [self.tensor(t) if t.name else Variable("") for t in node.inputs],
            [self.tensor(t) if t.name else Variable("") for t in node.outputs],
            node.domain,
            node.overload,
            node.proto,
        )
        made.uid, made.order = node.uid, node.order
        for name, value in node.attrs.items():
            made.attrs[name] = self.value(value, made)
        return made

    def value(self, value: object, node: Node) -> object:
        if isinstance(value, Graph):
            body = Graph(value.name, value.opset)
            body.parent = node
            self.scope(value, body)
            return body
        if isinstance(value, list):
            return [self.value(entry, node) for entry in value]
        return self.tensor(value) if isinstance(value, Constant) else value


def copy_tensor(tensor: gs.Tensor) -> gs.Tensor:
    """A tensor of its own with the same name, type and contents, connected to nothing."""
    if isinstance(tensor, Constant):
        constant = Constant(tensor.name, tensor._values)
        constant.info = tensor.info
        constant.is_output = tensor.is_output
        return constant
    variable = Variable(tensor.name, tensor.dtype, tensor.shape, tensor.info)
    variable.is_output = tensor.is_output
    variable.default, variable.returned = tensor.default, tensor.returned
    return variable


def copy_function(function: Function) -> Function:
    """An independent copy of a function."""
    made = Function(function.name, function.domain, function.overload, function.opset)
    made.attrs = dict(function.attrs)
    _Copier().scope(function, made)
    return made


def copy_node(node: Node, seconds: Mapping[int, gs.Tensor]) -> tuple[Node, dict[int, gs.Tensor]]:
    """Copy a node with its bodies; the copy stands in no graph yet.

    What it reads from outside its bodies, and all constants, are shared with the original.

    Args:
        node: any.
        seconds: what the copy reads in the place of tensors outside, by ``id`` of these.

    Returns:
        The copy, and by ``id`` of each tensor that the node or its bodies define, the copy of that. Names in
        bodies stay; what the node itself computes has the names of the original and must get others.
    """
    copier = _Copier()
    inner = {id(t) for body in node.bodies() for t in _defined(body)}
    for tensor in read_by(node):
        if id(tensor) not in inner:
            copier.tensors[id(tensor)] = seconds.get(id(tensor), tensor)
    made = copier.node(node)
    for old, new in zip(node.bodies(), made.bodies(), strict=True):
        _adopt(old, new)
    return made, copier.tensors


def _defined(body: Graph) -> list[gs.Tensor]:
    """What a body and those in it compute or take in."""
    found = list(body.inputs)
    for node in body.nodes:
        found += node.outputs
        for inner in node.bodies():
            found += _defined(inner)
    return found


def _adopt(old: Graph, new: Graph) -> None:
    """Let a copied body draw from the names of the original, and store no constants of its own."""
    new.names, new.initializers = old.names, []
    for one, two in zip(old.nodes, new.nodes, strict=True):
        for inner, copied in zip(one.bodies(), two.bodies(), strict=True):
            _adopt(inner, copied)


def copy_part(
    graph: Graph, nodes: Iterable[Node], inputs: Sequence[Variable], outputs: Sequence[gs.Tensor]
) -> Graph:
    """Copy some nodes of a main graph into a graph of their own.

    Args:
        graph: the main graph.
        nodes: of it, in topological order.
        inputs: stand for tensors of the same names, which the nodes read and none of them computes.
        outputs: tensors that the nodes compute.
    """
    copier = _Copier()
    given = {tensor.name: tensor for tensor in inputs}
    made = Graph(graph.name, graph.opset)
    made.import_domains, made.inputs = graph.import_domains, list(inputs)
    for node in nodes:
        for tensor in read_by(node):
            if tensor.name in given:
                copier.tensors[id(tensor)] = given[tensor.name]
        copied = copier.node(node)
        copied.graph = made
        made.nodes.append(copied)
    made.outputs = [given.get(tensor.name) or copier.tensor(tensor) for tensor in outputs]
    for tensor in made.outputs:
        tensor.is_output = True
    return made


def copy_scopes(graph: Graph, functions: list[Function]) -> tuple[Graph, list[Function]]:
    """Copy a main graph and the functions of its model."""
    copier = _Copier()
    made = Graph(graph.name, graph.opset)
    copier.scope(graph, made)
    return made, [copy_function(function) for function in functions]
