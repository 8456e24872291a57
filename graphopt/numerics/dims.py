"""The algebra of tensor dimensions: whole numbers, some of them known by name only.

A `Dim` is a plain ``int`` whenever it is constant, else an `Expr`: a polynomial over named symbols
in canonical form, so ``==`` means provably equal; unequal forms may denote equal numbers. Beside
the operators ``+ - * // %``:

    ceil(x / b)  = floor((x + b - 1) / b)        b > 0
    x mod b      = x - b floor(x / b)
    min, max     one of the operands where the sign of their difference is provable, else an atom

Source: Graham, Knuth, Patashnik, Concrete Mathematics, chapter 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphopt.numerics.polynomial import (
    Atom,
    Dim,
    Expr,
    exact_div,
    floor_div,
    lower_bound,
    lowest,
    opaque,
    ordered,
    polynomial,
    symbol,
    upper_bound,
)

__all__ = [
    "Dim",
    "Expr",
    "ceil_div",
    "evaluate",
    "exact_div",
    "floor_div",
    "is_non_negative",
    "is_positive",
    "lower_bound",
    "maximum",
    "minimum",
    "product",
    "symbol",
    "symbols",
    "upper_bound",
]

PROOF_STEPS = 8
"""Replacements tried in one proof."""


def product(dims: Iterable[Dim]) -> Dim:
    """Return the product of all dims; 1 for none."""
    result: Dim = 1
    for dim in dims:
        result = result * dim
    return result


def ceil_div(a: Dim, b: Dim) -> Dim:
    """Return ceil(a / b), under the same conditions as `floor_div`."""
    if isinstance(b, int) and b > 0:
        return floor_div(a + (b - 1), b)
    return -floor_div(-a, b)


def minimum(a: Dim, b: Dim) -> Dim:
    """Return the smaller of two dims, an opaque atom when that is not provable."""
    if is_non_negative(a - b):
        return b
    if is_non_negative(b - a):
        return a
    lows, highs = (lower_bound(a), lower_bound(b)), (upper_bound(a), upper_bound(b))
    known = [h for h in highs if h is not None]
    low = None if lows[0] is None or lows[1] is None else min(lows[0], lows[1])
    return opaque("min", ordered(a, b), low, min(known, default=None))


def maximum(a: Dim, b: Dim) -> Dim:
    """Return the larger of two dims, an opaque atom when that is not provable."""
    if is_non_negative(a - b):
        return a
    if is_non_negative(b - a):
        return b
    lows, highs = (lower_bound(a), lower_bound(b)), (upper_bound(a), upper_bound(b))
    known = [x for x in lows if x is not None]
    high = None if highs[0] is None or highs[1] is None else max(highs[0], highs[1])
    return opaque("max", ordered(a, b), max(known, default=None), high)


def is_non_negative(dim: Dim) -> bool:
    """Tell whether ``dim >= 0`` is provable."""
    return dim >= 0 if isinstance(dim, int) else _prove(dim, [PROOF_STEPS])


def is_positive(dim: Dim) -> bool:
    """Tell whether ``dim >= 1`` is provable."""
    return is_non_negative(dim - 1)


def evaluate(dim: Dim, bindings: Mapping[str, int]) -> int:
    """Return the number a dim denotes for these symbols; KeyError for an unbound one."""
    return _evaluate(dim, bindings, {})


def symbols(dim: Dim) -> frozenset[str]:
    """Return the names of all symbols that occur in `dim`."""
    if isinstance(dim, int):
        return frozenset()
    return frozenset().union(*(atom.names for monomial in dim.terms for atom in monomial))


def _evaluate(dim: Dim, bindings: Mapping[str, int], known: dict[Atom, int]) -> int:
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, coefficient in dim.terms.items():
        for atom in monomial:
            if atom not in known:
                known[atom] = _evaluate_atom(atom, bindings, known)
            coefficient *= known[atom]
        total += coefficient
    return total


def _evaluate_atom(atom: Atom, bindings: Mapping[str, int], known: dict[Atom, int]) -> int:
    if not atom.args:
        return bindings[next(iter(atom.names))]
    a, b = (_evaluate(arg, bindings, known) for arg in atom.args)
    if atom.kind == "floor":
        return a // b
    return a * b if atom.kind == "mul" else min(a, b) if atom.kind == "min" else max(a, b)


def _prove(expr: Expr, budget: list[int]) -> bool:
    """Prove expr >= 0 by bounds, then by replacing atoms with linear bounds of theirs."""
    low = lowest(expr.terms)
    if low is not None and low >= 0:
        return True
    for monomial, c in expr.terms.items():
        for index, atom in enumerate(monomial):
            others = monomial[:index] + monomial[index + 1 :]
            if not atom.args or any(o.low is None or o.low < 0 for o in others):
                continue
            for bound, scale in _linear_bounds(atom, c > 0):
                budget[0] -= 1
                if budget[0] < 0:
                    return False
                rest = polynomial({m: k * scale for m, k in expr.terms.items() if m != monomial})
                bounded = rest + bound * polynomial({others: c})
                if bounded >= 0 if isinstance(bounded, int) else _prove(bounded, budget):
                    return True
    return False


def _linear_bounds(atom: Atom, below: bool) -> list[tuple[Dim, int]]:
    """Return pairs (x, s), s > 0, with s * atom >= x when `below`, else s * atom <= x."""
    a, b = atom.args
    if atom.kind == "floor" and isinstance(b, int):
        return [(a - (b - 1), b)] if below else [(a, b)]
    if atom.kind == ("max" if below else "min"):
        return [(a, 1), (b, 1)]
    return []
