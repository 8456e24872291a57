"""What a model costs: nodes, parameters, bytes and multiply-accumulate operations (MACs).

MACs are those of the textbook, see ``mac_rules``. A model's are those of its scopes, each as often as it
runs:

    If                the branch that is taken where that is proven, else the dearer one
    Loop              the body times the trip count, where that is proven and nothing else ends the loop
    Scan              the body times the length of the scanned axis, where that is proven
    other loops       the body once: what is counted is then a lower bound
    local functions   the body once for each call, with the shapes of that call
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from graphopt.ir.frames import Frame, UnprovenError
from graphopt.ir.graph import Constant, Node
from graphopt.ir.inference import Facts
from graphopt.ir.mac_contributed import FREE, LEARNERS, MICROSOFT
from graphopt.ir.mac_rules import STANDARD, Operands, Rule
from graphopt.ir.model import Model
from graphopt.ir.surgery import Scope


def count_nodes(scopes: Iterable[Scope]) -> int:
    """Nodes in some scopes, their bodies not included, Constant nodes not counted."""
    return sum(node.op != "Constant" for scope in scopes for node in scope.nodes)


def count_parameters(model: Model) -> int:
    """Elements of all floating-point constants, each stored one counted once."""
    return sum(
        int(np.prod(c.shape)) for c in model.constants() if c.dtype.kind == "f" or _is_small(c)
    )


def bytes_in_use(scopes: Iterable[Scope]) -> int:
    """Bytes of the constants that something in the scopes reads, each one counted once."""
    found: dict[int, int] = {}
    for scope in scopes:
        read = [*scope.outputs]
        for node in scope.nodes:
            read += node.inputs
            read += node.attrs.values()
        found.update((id(t), t.nbytes) for t in read if isinstance(t, Constant))
    return sum(found.values())


def _is_small(constant: Constant) -> bool:
    """Whether a constant holds quantized weights or a floating-point type that numpy lacks."""
    name = constant.dtype.name
    return "float" in name or name in ("int8", "uint8", "int4", "uint4", "int2", "uint2")


@dataclass(frozen=True)
class Products:
    """Multiply-accumulates as far as they are proven.

    Attributes:
        known: how many are proven.
        unknown: nodes that take more of them, nobody knows how many.
        why: the reason at the first of these.
    """

    known: int = 0
    unknown: int = 0
    why: str = ""

    def __add__(self, other: Products) -> Products:
        return Products(
            self.known + other.known, self.unknown + other.unknown, self.why or other.why
        )

    def times(self, count: int) -> Products:
        """All of it so many times."""
        return replace(self, known=self.known * count) if count else Products()


def count_macs(model: Model, facts: Facts, bindings: Mapping[str, int] | None = None) -> int | None:
    """Multiply-accumulates of one run; None where a shape that they depend on is not proven.

    Args:
        model: the model.
        facts: what is proven of its tensors.
        bindings: sizes of symbolic dimensions of the inputs; 1 where one is missing.
    """
    found = _Counter().scope(model.graph, Frame.of(model, facts, bindings))
    return None if found.unknown else found.known


def known_macs(
    model: Model,
    facts: Facts,
    cache: dict[int, tuple[Node, int]] | None = None,
    bindings: Mapping[str, int] | None = None,
) -> int:
    """Multiply-accumulates of one run as far as they are proven.

    Args:
        model: the model.
        facts: what is proven of its tensors.
        cache: those of nodes counted before on the same facts, by ``id``, with the node itself; filled.
        bindings: sizes of symbolic dimensions of the inputs; 1 where one is missing.
    """
    counter = _Counter() if cache is None else _Counter(cache)
    return counter.scope(model.graph, Frame.of(model, facts, bindings)).known


def macs_by_node(scope: Scope, frame: Frame, times: int = 1) -> Iterator[tuple[Node, Products]]:
    """Multiply-accumulates node by node.

    They add up to what ``count_macs`` gives, but for an If: here all branches that may be taken count. Nodes
    in bodies count as often as these run; a call of a local function counts as a whole.

    Args:
        scope: the main graph, or a body in it.
        frame: one run of it.
        times: how often it runs.
    """
    for node in scope.nodes:
        bodies = frame.bodies(node) if frame.function(node) is None else []
        for body in bodies:
            yield from macs_by_node(body, frame, times * frame.trips(node))
        if not bodies and not node.dead:
            yield node, macs_within(node, frame).times(times)


def macs_within(node: Node, frame: Frame) -> Products:
    """Multiply-accumulates of one run of one node, with all that runs in it."""
    return _Counter().node(node, frame)


@dataclass(frozen=True)
class _Counter:
    """Counts scope by scope; the cache holds nodes of the main graph and of bodies in it."""

    cache: dict[int, tuple[Node, int]] = field(default_factory=dict)

    def scope(self, scope: Scope, frame: Frame) -> Products:
        """One run of a scope."""
        total = Products()
        for node in scope.nodes:
            if not node.dead:
                total += self.node(node, frame)
        return total

    def node(self, node: Node, frame: Frame) -> Products:
        """One run of one node, with all that runs in it."""
        function = frame.function(node)
        if function is not None:
            try:
                return self.scope(function, frame.enter(node, function))
            except UnprovenError as error:
                return Products(0, 1, str(error))
        bodies = frame.bodies(node)
        if bodies:
            runs = [self.scope(body, frame) for body in bodies]
            why = next((run.why for run in runs if run.why), "")
            dearer = Products(max(r.known for r in runs), max(r.unknown for r in runs), why)
            return dearer.times(frame.trips(node))
        known = self.cache.get(id(node)) if frame.depth == 0 else None
        if known is None:
            try:
                known = (node, macs_of(node, frame))
            except UnprovenError as error:
                return Products(0, 1, str(error))
            if frame.depth == 0:
                self.cache[id(node)] = known
        return Products(known[1])


def macs_of(node: Node, frame: Frame) -> int:
    """Multiply-accumulates of one run of one node, the bodies in it and functions it calls not included.

    Raises:
        UnprovenError: a shape that they depend on, or what the operator does, is not known.
    """
    rule = _rule_of(node)
    if rule is None:
        return 0
    try:
        return rule(Operands(frame.call(node), frame))
    except UnprovenError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise UnprovenError(str(error)) from None


def _rule_of(node: Node) -> Rule | None:
    """How a node is counted; None where there is nothing to count."""
    domain = node.domain or ""
    if domain in ("", "ai.onnx"):
        return STANDARD.get(node.op)
    if domain == "ai.onnx.ml":
        return LEARNERS.get(node.op)
    found = MICROSOFT.get(node.op) if domain == "com.microsoft" else None
    if found is None and not (domain == "com.microsoft" and node.op in FREE):
        raise UnprovenError(f"what {domain}.{node.op} does is not known")
    return found
