"""The walk over a graph: nodes in dependency order, every rule guarded, bodies and calls included.

A rule that raises, or an operator without a rule, leaves its outputs unknown. Work beyond one visit
per node (loop bodies again, function calls) and symbolic contents are drawn from budgets, so that a
hostile model cannot make inference slow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto

from graphopt.ir.inference.call import Call, Environment
from graphopt.ir.inference.constants import FAILURES, constant_fact, numpy_type
from graphopt.ir.inference.facts import MAX_RANK, UNKNOWN, Fact, Facts, Shape
from graphopt.ir.inference.order import dependency_order
from graphopt.ir.inference.registry import RULES
from graphopt.numerics.dims import Dim, Expr, symbol, symbols

STANDARD = frozenset({None, "", "ai.onnx"})
MAX_DEPTH = 30
EXTRA_VISITS = 20_000
SYMBOLIC_ELEMENTS = 20_000
NEWEST_OPSET = 1 << 16

Key = tuple[str, str, str]

_PLAIN = (AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.STRING)


class Engine:
    """One run of inference: local functions, the counter of symbols, the budget."""

    def __init__(
        self,
        functions: Iterable[gs.Function] = (),
        assumed: Mapping[int, bool] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.assumed = dict(assumed or {})
        self.sizes = dict(sizes or {})
        self.functions: dict[Key, gs.Function] = {}
        for function in functions:
            key = (_domain(function.domain), function.name, getattr(function, "overload", "") or "")
            self.functions[key] = function
        self.count = 0
        self.depth = 0
        self.visits = EXTRA_VISITS
        self.elements = SYMBOLIC_ELEMENTS

    def fresh(self, low: int | None = 0, high: int | None = None) -> Expr:
        """A symbol that occurs nowhere else."""
        self.count += 1
        return symbol(f"?{self.count}", low, high)

    def born_since(self, dim: Dim, mark: int) -> bool:
        """Whether a dim may mention symbols that were made after the counter stood at `mark`."""
        return any(
            name[0] == "~" or (name[0] == "?" and int(name[1:]) > mark) for name in symbols(dim)
        )

    def fact(self, tensor: gs.Tensor, facts: Facts) -> Fact:
        """What is known of a tensor; a constant is looked at when first met."""
        if isinstance(tensor, gs.Constant) and tensor not in facts:
            try:
                facts._set(tensor, constant_fact(tensor))
            except FAILURES:
                facts._set(tensor, UNKNOWN)
        return facts.fact(tensor)

    def declare(self, graph: gs.Graph, facts: Facts) -> None:
        """Set the facts of the inputs of a main graph: types, and dims that are numbers."""
        for index, tensor in enumerate(graph.inputs):
            facts._set(tensor, self._declared(tensor, index))

    def _declared(self, tensor: gs.Tensor, index: int) -> Fact:
        shape = tensor.shape
        dtype = numpy_type(tensor.dtype)
        if getattr(tensor, "type", "tensor_type") not in ("tensor_type", None) or dtype is None:
            return UNKNOWN
        if shape is None or len(shape) > MAX_RANK:
            return Fact(dtype)
        dims: list[Dim] = []
        for axis, dim in enumerate(shape):
            name = f"{tensor.name or index}[{axis}]"
            number = int(dim) if isinstance(dim, int) and dim > 0 else self.sizes.get(name, 0)
            dims.append(number if number > 0 else symbol(name, 1))
        return Fact(dtype, tuple(dims))

    def run(
        self, graph: gs.Graph, opset: int, facts: Facts, environment: Environment
    ) -> list[Fact] | None:
        """Infer all nodes of a graph and return the facts of its outputs.

        Returns:
            None where graphs are nested too deeply; then nothing was inferred.
        """
        if self.depth >= MAX_DEPTH:
            return None
        self.depth += 1
        try:
            ordered, cyclic = dependency_order(graph.nodes)
            for node in ordered:
                self._visit(node, opset, facts, environment)
            for node in cyclic:
                _store(node, (), facts)
        finally:
            self.depth -= 1
        return [self.fact(tensor, facts) for tensor in graph.outputs]

    def again(self, graph: gs.Graph) -> bool:
        """Whether the budget allows one more run over this graph, which is then paid."""
        cost = 1 + len(graph.nodes)
        if cost > self.visits or self.depth >= MAX_DEPTH:
            return False
        self.visits -= cost
        return True

    def follow(self) -> bool:
        """Whether one more symbolic element may be followed, which is then paid."""
        self.elements -= 1
        return self.elements >= 0

    def _visit(self, node: gs.Node, opset: int, facts: Facts, environment: Environment) -> None:
        outputs: Fact | Sequence[Fact] | None = None
        try:
            call = Call(node, opset, facts, self, environment)
            function = None
            if self.functions:
                key = (_domain(node.domain), node.op, getattr(node, "overload", "") or "")
                function = self.functions.get(key)
            if function is not None:
                outputs = self._expand(function, call)
            elif node.domain in STANDARD:
                found = RULES.get(node.op)
                outputs = found(call) if found is not None else None
        except FAILURES:
            outputs = None
        _store(node, (outputs,) if isinstance(outputs, Fact) else outputs or (), facts)
        for tensor in node.outputs if self.assumed else ():
            if id(tensor) in self.assumed:
                held = facts.fact(tensor)
                shape = (1,) if held.shape == (1,) else ()
                value = np.full(shape, int(self.assumed[id(tensor)]), dtype=object)
                facts._set(tensor, Fact(np.dtype(np.bool_), shape, value))

    def _expand(self, function: gs.Function, call: Call) -> list[Fact] | None:
        """The outputs of a local function, inferred through its body for this one call."""
        entered = self.enter(function, call)
        if entered is None:
            return None
        facts, _ = entered
        return [self.fact(tensor, facts) for tensor in function.outputs]

    def enter(self, function: gs.Function, call: Call) -> tuple[Facts, Environment] | None:
        """Infer the body of a local function for one call.

        Returns:
            The facts that hold in its body and the values of its attributes; None where the budget is spent.
        """
        if not self.again(function):
            return None
        environment = _defaults(function)
        for name in call.node.attrs:
            environment[name] = call.attribute(name)
        facts = Facts()
        for index, tensor in enumerate(function.inputs):
            facts._set(tensor, call.fact(index))
        if self.run(function, opset_of(function, call.opset), facts, environment) is None:
            return None
        return facts, environment


def opset_of(graph: gs.Graph, default: int = NEWEST_OPSET) -> int:
    """The version of the standard operators that a graph is written in."""
    opset = getattr(graph, "opset", None)
    return opset if isinstance(opset, int) and opset > 0 else default


def infer(
    graph: gs.Graph,
    functions: Iterable[gs.Function] = (),
    assumed: Mapping[int, bool] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Facts:
    """Infer types, shapes and small integer contents of all tensors of a graph.

    Only what the operators imply is used: types and positive dims of graph inputs, and constants.
    Declared shapes of outputs and of anything in between are ignored. A fact holds in every run
    that succeeds and meets what models rely on anyway: no axis of a graph input is empty, no window
    is wider than the padded axis that it slides over, neither a Reshape without ``allowzero`` nor
    the stacked outputs of a loop are empty, dims do not overflow the integers that carry them.

    Args:
        graph: a main graph, or a function's body, whose inputs are then unknown.
        functions: local functions of the model; they shadow standard operators.
        assumed: values of boolean tensors, by ``id``, to be taken for granted; for proofs by
            contradiction.
        sizes: of dynamic dimensions of the inputs, by symbol (``input[axis]``); the facts then hold for
            these sizes only.

    Returns:
        Facts of the tensors of the graph and of the bodies in it. In the body of a loop they hold
        for each iteration, with symbols that may vary between iterations.
    """
    engine = Engine(functions, assumed, sizes)
    facts = Facts()
    environment: Mapping[str, object] = {}
    if isinstance(graph, gs.Function):
        for tensor in graph.inputs:
            facts._set(tensor, UNKNOWN)
    else:
        engine.declare(graph, facts)
    engine.run(graph, opset_of(graph), facts, environment)
    return facts


def _defaults(function: gs.Function) -> dict[str, object]:
    """The values that a function's attributes have where a call does not give them."""
    values = {name: value for name, value in function.attrs.items() if value is not None}
    for entry in getattr(getattr(function, "proto", None), "attribute_proto", ()):
        if entry.type in _PLAIN:
            values[entry.name] = onnx.helper.get_attribute_value(entry)
    return values


def _domain(domain: str | None) -> str:
    return "" if domain in STANDARD else str(domain)


def _store(node: gs.Node, outputs: Sequence[Fact], facts: Facts) -> None:
    for index, tensor in enumerate(node.outputs):
        if tensor.name:
            fact = outputs[index] if index < len(outputs) else UNKNOWN
            if fact.shape is not None and not _plausible(fact.shape):
                fact = Fact(fact.dtype, kind=fact.kind)
            facts._set(tensor, fact)


def _plausible(shape: Shape) -> bool:
    return len(shape) <= MAX_RANK and all(not isinstance(dim, int) or dim >= 0 for dim in shape)
