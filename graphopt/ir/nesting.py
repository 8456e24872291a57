"""Scopes in scopes: the bodies of control flow, and what stands around them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_graphsurgeon as gs

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope, producer


def bodies_of(scope: Scope) -> Iterator[Scope]:
    """The bodies in a scope, outermost first."""
    for node in scope.nodes:
        for body in node.bodies():
            yield body
            yield from bodies_of(body)


def nodes_within(scope: Scope) -> Iterator[Node]:
    """The nodes of a scope in order, each followed by those in its bodies."""
    for node in scope.nodes:
        yield node
        for body in node.bodies():
            yield from nodes_within(body)


def enclosing(scope: Scope | None) -> Iterator[Node]:
    """The nodes in whose bodies a scope lies, the innermost first."""
    while scope is not None and scope.parent is not None:
        yield scope.parent
        scope = scope.parent.graph


def anchor(node: Node, scope: Scope) -> Node | None:
    """The node of a scope that a node is, or lies in; None where it does not lie in the scope."""
    for around in (node, *enclosing(node.graph)):
        if around.graph is scope:
            return around
    return None


def homes(scope: Scope) -> dict[int, Scope]:
    """Where the inputs of a scope, and of all bodies in it, belong, by ``id``."""
    scopes = (scope, *bodies_of(scope))
    return {id(tensor): found for found in scopes for tensor in found.inputs}


def home(tensor: gs.Tensor, inputs: dict[int, Scope]) -> Scope | None:
    """The scope that a tensor belongs to; None for constants.

    Args:
        tensor: any.
        inputs: as ``homes`` gives them.
    """
    made = producer(tensor)
    return inputs.get(id(tensor)) if made is None else made.graph
