"""Bringing the nodes of a body, or of a function, into the scope that holds the call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx_graphsurgeon as gs

from graphopt.ir.copying import copy_function
from graphopt.ir.graph import Constant, Function, Graph, Node, Variable
from graphopt.ir.importer import plain_attribute
from graphopt.ir.model import Model
from graphopt.ir.surgery import Scope, insert, redirect


def inline_body(model: Model, node: Node, body: Graph, inputs: Sequence[gs.Tensor] = ()) -> None:
    """Put the nodes of a body in the place of the control-flow node that holds it.

    The body runs exactly once; what it returns becomes what the node computed. Other bodies of the
    node are dropped, and so is the node.

    Args:
        model: the model; its names must stay unique.
        node: an If, or a Loop that runs once.
        body: which of its bodies.
        inputs: what the body's inputs stand for.
    """
    graph = node.graph
    assert graph is not None
    results = list(body.outputs)
    for other in node.bodies():
        if other is not body:
            _discard(other)
    _adopt_names(model, body)
    for formal, actual in zip(body.inputs, inputs, strict=True):
        redirect(formal, actual)
        results = [actual if t is formal else t for t in results]
    for inner in body.nodes:
        inner.graph, inner.order = graph, node.order
    graph.nodes.extend(body.nodes)
    graph.declared.extend(body.declared)
    targets = list(node.outputs)
    local = {id(t) for inner in body.nodes for t in inner.outputs}
    node.attrs.clear()
    node.inputs.clear()
    node.outputs.clear()
    node.dead = True
    body.outputs, body.nodes = [], []
    _settle_outputs(model, results)
    _connect(node, targets, results, local)


def _connect(
    node: Node, targets: list[gs.Tensor], results: list[gs.Tensor], local: set[int]
) -> None:
    """Let the results take the place of the node's outputs, one by one."""
    renamed: dict[int, gs.Tensor] = {}
    for target, result in zip(targets, results, strict=False):
        source = renamed.get(id(result), result)
        if not target.name:
            continue
        if not target.is_output:
            redirect(target, source)
        elif id(source) in local and not source.is_output and source.inputs:
            made = source.inputs[0]
            position = next(i for i, t in enumerate(made.outputs) if t is source)
            made.outputs[position] = target
            redirect(source, target)
            renamed[id(result)] = target
        else:
            insert(node, "Identity", [source], [target])


def _settle_outputs(model: Model, tensors: list[gs.Tensor]) -> None:
    """Ask again whether some graph returns these tensors, after one that did is gone."""
    returned = {id(t) for scope in model.scopes() for t in scope.outputs}
    for tensor in tensors:
        tensor.is_output = id(tensor) in returned


def _discard(body: Graph) -> None:
    """Take a body out: nothing in it reads anything any more."""
    stack = [body]
    while stack:
        gone = stack.pop()
        for inner in gone.nodes:
            stack.extend(inner.bodies())
            inner.dead = True
            inner.inputs.clear()
            inner.outputs.clear()
        gone.nodes, gone.outputs = [], []


def _adopt_names(model: Model, body: Graph) -> None:
    """Rename what the body defines where the same name is used elsewhere in the model."""
    tensors: dict[int, gs.Tensor] = {}
    for scope in model.scopes():
        for tensor in _defined(scope):
            tensors[id(tensor)] = tensor
    counts = Counter(t.name for t in tensors.values())
    nodes = Counter(n.name for n in model.nodes() if n.name)
    names = body.names
    for tensor in _defined(body):
        if counts[tensor.name] > 1:
            counts[tensor.name] -= 1
            tensor.name = names.fresh(tensor.name)
    for inner in body.nodes:
        if nodes[inner.name] > 1:
            nodes[inner.name] -= 1
            inner.name = names.fresh(inner.name)


def _defined(scope: Scope) -> list[gs.Tensor]:
    """The tensors that a scope defines or holds, each once."""
    found: dict[int, gs.Tensor] = {id(t): t for t in (*scope.inputs, *scope.initializers)}
    for node in scope.nodes:
        found.update((id(t), t) for t in node.outputs if t.name)
        found.update((id(t), t) for t in node.inputs if isinstance(t, Constant))
    return list(found.values())


def inline_call(node: Node, function: Function) -> list[Node]:
    """Put a copy of a function's body in the place of a node that calls it.

    Everything in the copy gets a new name, and what refers to an attribute of the function gets the
    value that the call gives, or the function's default.

    Args:
        node: the call.
        function: what it calls; its operator sets must be those of the caller.

    Returns:
        The nodes that took its place.
    """
    graph = node.graph
    assert graph is not None
    copied = copy_function(function)
    values = {entry.name: plain_attribute(entry) for entry in function.proto.attribute_proto}
    values.update(node.attrs)
    _rename_copy(node, copied, values)
    results = list(copied.outputs)
    for index, formal in enumerate(copied.inputs):
        actual = node.inputs[index] if index < len(node.inputs) else Variable("")
        formal.is_output = False
        for user in list(formal.outputs):
            for position, tensor in enumerate(user.inputs):
                if tensor is formal:
                    user.inputs[position] = actual if actual.name else Variable("")
        results = [actual if t is formal else t for t in results]
    for inner in copied.nodes:
        inner.graph, inner.order = graph, node.order
    graph.nodes.extend(copied.nodes)
    local = {id(t) for inner in copied.nodes for t in inner.outputs}
    for tensor in results:
        tensor.is_output = tensor.is_output and id(tensor) not in local
    targets = list(node.outputs)
    node.inputs.clear()
    node.outputs.clear()
    node.dead = True
    _connect(node, targets, results, local)
    made: list[Node] = copied.nodes
    return made


def _rename_copy(node: Node, copied: Function, values: dict[str, object]) -> None:
    """Give all that a copied body defines new names and numbers, and its attributes their values."""
    assert node.graph is not None
    names = node.graph.names
    prefix = node.name or node.op
    waiting: list[Scope] = [copied]
    while waiting:
        scope = waiting.pop()
        scope.names = names
        scope.opset = node.graph.opset
        for tensor in _defined(scope):
            tensor.name = names.fresh(f"{prefix}/{tensor.name}")
        for inner in scope.nodes:
            inner.name = names.fresh(f"{prefix}/{inner.name or inner.op}")
            inner.uid = names.uid()
            for name, value in list(inner.attrs.items()):
                if isinstance(value, gs.Node.AttributeRef):
                    if value.name in values:
                        inner.attrs[name] = values[value.name]
                    else:
                        del inner.attrs[name]
            waiting.extend(inner.bodies())
