"""Compute the logarithm of a softmax in one go.

    log(softmax(x, axis)) = logsoftmax(x, axis)

The axis means the same for both operators in every operator set (before 13 it splits the input into
a matrix). LogSoftmax is computed as ``x - max - log(sum(exp(x - max)))``: where a probability is
too small for the type the original gives minus infinity, and this its true logarithm.

Refuses: probabilities that are used elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.arguments import feeding
from graphopt.ir.surgery import Scope, replace
from graphopt.pass_base import Context, Edit, Pass, Skip


@dataclass(frozen=True)
class LogSoftmax(Pass):
    """Log after Softmax becomes LogSoftmax."""

    name = "log-softmax"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Log"):
            softmax = feeding(node.inputs[0], node, "Softmax")
            if softmax is None:
                continue
            replace(node, "LogSoftmax", [softmax.inputs[0]], dict(softmax.attrs))
            yield Edit(node, "Softmax and Log are one LogSoftmax")
