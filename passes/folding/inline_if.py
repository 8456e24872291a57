"""Replace an If whose condition is known by the branch that it always takes.

    If(true, then, else)   =>   the nodes of then

The condition is known when it is a constant, when its value follows from proven shapes, as in
``If(Size(Shape(x)) == 2)``, or by contradiction: if the branches give tensors of different rank, and
with one of them a later operator of the same scope must fail (an LSTM whose input has four axes), then no
run that succeeds takes it. Exporters leave such branches behind where a squeeze depends on a size.

Names that the branch shares with other parts of the model are changed; names of graph outputs never are.
The graph is sorted anew, since a branch may read what is computed later in the file.

Refuses: nothing but a condition that is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.contradictions import must_fail
from graphopt.ir.graph import Constant, Graph, Node
from graphopt.ir.inference import infer
from graphopt.ir.inlining import inline_body
from graphopt.ir.surgery import Scope
from graphopt.pass_base import Context, Edit, Pass, Skip


@dataclass(frozen=True)
class InlineIf(Pass):
    """An If with a known condition becomes the branch that is taken."""

    name = "inline-if"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "If"):
            condition = node.inputs[0]
            truth = _known(condition, context)
            known = truth is not None
            if truth is None and context.first_time("inline-if", node):
                truth = _by_contradiction(node, context)
            body = node.attrs.get("then_branch" if truth else "else_branch")
            if truth is None or not isinstance(body, Graph):
                continue
            inline_body(context.model, node, body)
            why = "is always taken" if known else "is taken whenever the run succeeds"
            yield Edit(node, f"its {'then' if truth else 'else'} branch {why}")


def _known(condition: gs.Tensor, context: Context) -> bool | None:
    """The value of a condition that is a constant or follows from proven shapes."""
    if isinstance(condition, Constant):
        value: np.ndarray | None = condition.values
    else:
        value = context.facts.constant_value(condition)
    return bool(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def _by_contradiction(node: Node, context: Context) -> bool | None:
    """The value of a condition whose opposite makes a node of the same scope fail."""
    branches = [node.attrs.get("then_branch"), node.attrs.get("else_branch")]
    if not all(isinstance(body, Graph) for body in branches):
        return None
    ranks = [[context.facts.rank(t) for t in body.outputs] for body in branches]
    if not any(a is not None and b is not None and a != b for a, b in zip(*ranks, strict=False)):
        return None
    model, graph = context.model, node.graph
    assert graph is not None
    possible = []
    for truth in (True, False):
        facts = infer(model.graph, model.functions, {id(node.inputs[0]): truth})
        if not any(must_fail(later, facts) for later in graph.nodes if not later.dead):
            possible.append(truth)
    return possible[0] if len(possible) == 1 else None
