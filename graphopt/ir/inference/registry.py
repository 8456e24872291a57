"""Which rule infers which operator: filled by the decorator `rule` when a family is imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from graphopt.ir.inference.call import Call
from graphopt.ir.inference.facts import Fact

Outputs = Fact | Sequence[Fact] | None
Rule = Callable[[Call], Outputs]

R = TypeVar("R", bound=Rule)

RULES: dict[str, Rule] = {}
"""Rules of the standard domain by operator."""


def rule(*operators: str) -> Callable[[R], R]:
    """Register a function as the rule of these operators of the standard domain."""

    def register(function: R) -> R:
        for operator in operators:
            RULES[operator] = function
        return function

    return register
