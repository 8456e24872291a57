"""Normalizations and activations that are written out in operators older than their own.

A model whose opset lacks LayerNormalization, RMSNormalization or Gelu writes them out, and runtimes look for
just these patterns to run them as one kernel. Arithmetic that would pull a constant out of such a pattern
saves a node in the file and costs the kernel, so it leaves them alone.
"""

from __future__ import annotations

from graphopt.ir.graph import Node
from graphopt.ir.surgery import Scope
from graphopt.pass_base import Context
from graphopt.passes.folding._normalizations import normalization
from graphopt.passes.folding.fuse_gelu import written_gelu


def in_idiom(node: Node, context: Context) -> bool:
    """Whether a node is part of a written-out normalization or Gelu."""
    graph = node.graph
    if graph is None:
        return False
    return node.uid in context.analysis("idioms", graph, lambda: _idioms(graph, context))


def _idioms(graph: Scope, context: Context) -> frozenset[int]:
    """The numbers of all nodes of a scope that are part of one."""
    found: set[int] = set()
    if not any(True for _ in context.nodes(graph, "Erf", "Tanh", "Sqrt", "Pow")):
        return frozenset()
    for node in context.nodes(graph, "Div", "Mul"):
        norm = normalization(node, context)
        if norm is not None:
            found.update(part.uid for part in norm.nodes)
            scaled = node.outputs[0].outputs if norm.gamma is not None else []
            found.update(part.uid for part in (*scaled, norm.last))
        gelu = written_gelu(node, context)
        if gelu is not None:
            found.update(part.uid for part in gelu.nodes)
    return frozenset(found)
