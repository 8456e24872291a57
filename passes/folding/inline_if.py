"""Replace an If whose condition is known by the branch that it always takes.

    If(true, then, else)   =>   the nodes of then

The condition is known when it is a constant or when its value follows from proven shapes, as in
``If(Size(Shape(x)) == 2)``. Names that the branch shares with other parts of the model are changed; names
of graph outputs never are. The graph is sorted anew, since a branch may read what is computed later in
the file.

Refuses: nothing but a condition that is not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.graph import Constant, Graph
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
            if isinstance(condition, Constant):
                value = condition.values
            else:
                value = context.facts.constant_value(condition)
            if value is None or value.size != 1:
                continue
            taken = "then_branch" if bool(value.reshape(-1)[0]) else "else_branch"
            body = node.attrs.get(taken)
            if not isinstance(body, Graph):
                continue
            inline_body(context.model, node, body)
            yield Edit(node, f"its {taken.replace('_', ' ')} is always taken")
