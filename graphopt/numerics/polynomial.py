"""Integer polynomials in canonical form: the numbers behind `graphopt.numerics.dims`.

An `Expr` is a polynomial with integer coefficients over *atoms*. An atom is a named symbol or an
operation that does not simplify (floor division, minimum, maximum) of canonical operands. For
integers and b, m, g > 0, floor division is brought to a canonical form by

    floor((b q + r) / b)        = q + floor(r / b)        coefficients of r in [0, b)
    floor((g x + c) / (g b))    = floor((x + floor(c / g)) / b)
    floor((floor(x / m) + c)/b) = floor((x + m c) / (m b))

Sources: Graham, Knuth, Patashnik, Concrete Mathematics, chapter 3; for exact division Cox, Little,
O'Shea, Ideals, Varieties, and Algorithms, chapter 2. A polynomial that grows too large becomes one
symbol named by its digest: still equal to itself, no longer simplified.
"""

from __future__ import annotations

import hashlib
from math import gcd
from operator import attrgetter

MAX_TERMS, MAX_DEGREE, MAX_DEPTH = 16, 8, 12
MAX_COEFFICIENT = 1 << 127
MAX_BOUND = 1 << 63
MAX_KEY = 160
MAX_SHOWN = 6

_by_key = attrgetter("key")


class Atom:
    """A symbol or an opaque operation; equal when the keys are equal."""

    __slots__ = ("args", "depth", "high", "key", "kind", "low", "names")

    def __init__(
        self, kind: str, args: tuple[Dim, ...], name: str, low: int | None, high: int | None
    ) -> None:
        key = f"{kind}:{name}" if not args else f"{kind}({','.join(_key(a) for a in args)})"
        self.key = key if len(key) <= MAX_KEY or not args else f"{kind}#{_digest(key)}"
        self.kind = kind
        self.args = args
        self.low = low
        self.high = high
        inner = [a for arg in args if isinstance(arg, Expr) for m in arg.terms for a in m]
        self.depth: int = 1 + max((a.depth for a in inner), default=0)
        self.names: frozenset[str] = frozenset([name]).union(*(a.names for a in inner)) - {""}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Atom) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        if not self.args:
            return self.key.partition(":")[2]
        if self.depth > MAX_SHOWN:
            return f"{self.kind}(...)"
        if self.kind == "floor":
            return f"({self.args[0]!r})//({self.args[1]!r})"
        return f"{self.kind}({', '.join(map(repr, self.args))})"


Monomial = tuple[Atom, ...]
Terms = dict[Monomial, int]


class Expr:
    """An immutable integer polynomial that is not a constant; made by `symbol` and operators."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._hash: int | None = None

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Expr) and self.terms == other.terms)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self.terms.items()))
        return self._hash

    def __add__(self, other: Dim) -> Dim:
        terms = dict(self.terms)
        for monomial, coefficient in _terms(other).items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return polynomial(terms)

    __radd__ = __add__

    def __neg__(self) -> Expr:
        return Expr({m: -c for m, c in self.terms.items()})

    def __sub__(self, other: Dim) -> Dim:
        return self + -other

    def __rsub__(self, other: Dim) -> Dim:
        return -self + other

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            return polynomial({m: c * other for m, c in self.terms.items()})
        if len(self.terms) * len(other.terms) > MAX_TERMS * MAX_TERMS // 4:
            return opaque("mul", ordered(self, other), _sign(self, other), None)
        terms: Terms = {}
        for m1, c1 in self.terms.items():
            for m2, c2 in other.terms.items():
                monomial = tuple(sorted(m1 + m2, key=_by_key)) if m1 and m2 else m1 or m2
                terms[monomial] = terms.get(monomial, 0) + c1 * c2
        return polynomial(terms)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floor_div(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floor_div(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return self - other * floor_div(self, other)

    def __repr__(self) -> str:
        parts = []
        for monomial, c in sorted(self.terms.items(), key=_term_key):
            body = "*".join(map(repr, monomial))
            sign = "-" if c < 0 else "+"
            number = str(abs(c)) if abs(c) != 1 or not body else ""
            parts.append(f" {sign} {number}{'*' if number and body else ''}{body}")
        text = "".join(parts)
        return text[3:] if text.startswith(" + ") else f"-{text[3:]}"


Dim = int | Expr


def symbol(name: str, minimum: int | None = 0, maximum: int | None = None) -> Expr:
    """Return the symbol of this name, known to lie in [minimum, maximum] (None: no bound)."""
    return Expr({(Atom("sym", (), name, minimum, maximum),): 1})


def exact_div(a: Dim, b: Dim) -> Dim | None:
    """Return the q with ``a == q * b`` as polynomials, or None when there is none to be found."""
    if isinstance(b, int):
        if b == 0 or any(c % b for c in _terms(a).values()):
            return None
        return a // b if isinstance(a, int) else polynomial({m: c // b for m, c in a.terms.items()})
    rest, quotient = dict(_terms(a)), Terms()
    lead, factor = min(b.terms.items(), key=_term_key)
    while rest:
        monomial, coefficient = min(rest.items(), key=_term_key)
        part = _remove(monomial, lead)
        if part is None or coefficient % factor or len(quotient) > MAX_TERMS:
            return None
        quotient[part] = coefficient // factor
        for m, c in b.terms.items():
            target = tuple(sorted(m + part, key=_by_key))
            rest[target] = rest.get(target, 0) - c * quotient[part]
            if rest[target] == 0:
                del rest[target]
    return polynomial(quotient)


def floor_div(a: Dim, b: Dim) -> Dim:
    """Return floor(a / b). A symbolic b is taken to be nonzero; 0 raises ZeroDivisionError."""
    if isinstance(b, int):
        if b < 0:
            return floor_div(-a, -b)
        if b == 0:
            raise ZeroDivisionError("division of a dim by zero")
        if isinstance(a, int):
            return a // b
        quotient = polynomial({m: c // b for m, c in a.terms.items()})
        rest = polynomial({m: c % b for m, c in a.terms.items()})
        return quotient if isinstance(rest, int) else quotient + _floor_of_rest(rest, b)
    whole = exact_div(a, b)
    if whole is not None:
        return whole
    common = _shared_factor(_terms(a)) if not isinstance(a, int) else ()
    if shared := tuple(x for x in common if x in _shared_factor(b.terms))[:1]:
        factor = Expr({shared: 1})
        return floor_div(exact_div(a, factor) or 0, exact_div(b, factor) or 0)
    return opaque("floor", (a, b), _sign(a, b), None)


def lower_bound(dim: Dim) -> int | None:
    """Return a number that `dim` never falls below, or None; cheap, not the tightest."""
    return dim if isinstance(dim, int) else lowest(dim.terms)


def upper_bound(dim: Dim) -> int | None:
    """Return a number that `dim` never exceeds, or None; cheap, not the tightest."""
    if isinstance(dim, int):
        return dim
    low = lowest({m: -c for m, c in dim.terms.items()})
    return None if low is None else -low


def _floor_of_rest(rest: Expr, b: int) -> Dim:
    """Return floor(rest / b) for coefficients of rest in [0, b)."""
    constant = rest.terms.get((), 0)
    shared = gcd(b, *(c for m, c in rest.terms.items() if m))
    if shared > 1:
        shrunk = polynomial({m: c // shared for m, c in rest.terms.items()})
        return floor_div(shrunk, b // shared)
    inner = [(m, c) for m, c in rest.terms.items() if m]
    if len(inner) == 1 and inner[0][1] == 1 and len(inner[0][0]) == 1:
        atom = inner[0][0][0]
        if atom.kind == "floor" and isinstance(atom.args[1], int):
            return floor_div(atom.args[0] + atom.args[1] * constant, atom.args[1] * b)
    low, high = (None if x is None else x // b for x in (lower_bound(rest), upper_bound(rest)))
    return low if low is not None and low == high else opaque("floor", (rest, b), low, high)


def lowest(terms: Terms) -> int | None:
    """Return a number the polynomial never falls below, from the bounds of its atoms alone."""
    total = 0
    for monomial, c in terms.items():
        bound = 1
        for atom in monomial:
            edge = atom.low if c > 0 else atom.high
            if edge is None or edge < 0 or atom.low is None or atom.low < 0:
                edge = edge if len(monomial) == 1 else None
            if edge is None:
                return None
            bound *= edge
        total += c * bound
    return min(total, MAX_BOUND) if total >= -MAX_BOUND else None


def opaque(kind: str, args: tuple[Dim, Dim], low: int | None, high: int | None) -> Dim:
    """Return an operation that does not simplify, as an atom with these bounds."""
    return polynomial({(Atom(kind, args, "", low, high),): 1})


def _sign(*dims: Dim) -> int | None:
    """Return 0 when no dim can be negative, else None."""
    bounds = [lower_bound(dim) for dim in dims]
    return 0 if all(bound is not None and bound >= 0 for bound in bounds) else None


def polynomial(terms: Terms) -> Dim:
    """Return the canonical dim of these terms."""
    if not all(terms.values()):
        terms = {m: c for m, c in terms.items() if c}
    if not terms:
        return 0
    if len(terms) == 1 and () in terms:
        return terms[()]
    expr = Expr(terms)
    if len(terms) > MAX_TERMS or any(_is_large(m, c) for m, c in terms.items()):
        return symbol(f"~{_digest(_key(expr))}", lower_bound(expr), upper_bound(expr))
    return expr


def _is_large(monomial: Monomial, c: int) -> bool:
    deep = any(atom.depth > MAX_DEPTH for atom in monomial)
    return deep or len(monomial) > MAX_DEGREE or abs(c) > MAX_COEFFICIENT


def _terms(dim: Dim) -> Terms:
    return dim.terms if isinstance(dim, Expr) else {(): dim} if dim else {}


def ordered(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """Return two operands of a commutative operation in canonical order."""
    return (a, b) if _key(a) <= _key(b) else (b, a)


def _term_key(term: tuple[Monomial, int]) -> tuple[int, list[str]]:
    return -len(term[0]), [a.key for a in term[0]]


def _key(dim: Dim) -> str:
    if isinstance(dim, int):
        return str(dim)
    terms = sorted(dim.terms.items(), key=_term_key)
    return "+".join(f"{c}*{'*'.join(a.key for a in m)}" for m, c in terms)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _shared_factor(terms: Terms) -> Monomial:
    first, *others = terms
    return tuple(a for a in dict.fromkeys(first) if all(a in m for m in others))


def _remove(monomial: Monomial, part: Monomial) -> Monomial | None:
    """Return monomial / part, or None when it does not divide."""
    rest = list(monomial)
    for atom in part:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)
