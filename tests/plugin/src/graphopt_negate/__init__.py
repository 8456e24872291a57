"""Merge a product with a negation.

    -(a * c) = a * (-c)          c constant

Refuses: a product that something else reads too; a product without a constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graphopt import Context, Edit, Pass, Skip
from graphopt.ir.pattern import Any, Op, find
from graphopt.ir.surgery import Scope, constant, new_constant, replace

NEGATED_PRODUCT = Op(
    "Neg", name="neg", inputs=(Op("Mul", name="mul", inputs=(Any("x"), Any("c", constant=True))),)
)


@dataclass(frozen=True)
class MergeNegations(Pass):
    """A negation goes into the constant of the product before it."""

    name = "merge-negations"

    largest: int = field(
        default=1 << 20, metadata={"help": "elements of the largest constant to change"}
    )

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for match in find(context.nodes(graph, "Neg"), NEGATED_PRODUCT):
            values = constant(match.tensor("c"))
            assert values is not None
            if values.size > self.largest:
                yield Skip(match["neg"], f"the constant has more than {self.largest} elements")
                continue
            negated = new_constant(graph, match.tensor("c").name, -values)
            replace(match["neg"], "Mul", [match.tensor("x"), negated])
            yield Edit(match["mul"], "took over the sign")
