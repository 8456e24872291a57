"""Where a scope runs: what is known there, as numbers.

The cost of a model is the cost of its scopes, each as often as it runs. A frame is one run of a scope:
the facts that hold in it, with the dynamic dimensions of the model's inputs bound to sizes. A body of
If, Loop or Scan runs in the frame of the scope around it; a call of a local function opens a new one.
A size that does not follow from the inputs' shapes is not guessed: it is unproven.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_graphsurgeon as gs

from graphopt.ir.graph import Function, Graph, Node
from graphopt.ir.inference import Facts, infer
from graphopt.ir.inference.call import Call, Environment
from graphopt.ir.inference.constants import FAILURES
from graphopt.ir.inference.engine import MAX_DEPTH, Engine, opset_of
from graphopt.ir.model import Model
from graphopt.ir.surgery import input_or_none, producer
from graphopt.numerics.dims import Dim, Expr, evaluate, symbols

FIRST_SYMBOL = 1 << 40
"""Where the numbers of unknown dimensions in the bodies of functions begin: beyond all that facts use."""


class UnprovenError(ValueError):
    """A size does not follow from the shapes of the inputs."""


def symbol_sizes(
    model: Model, facts: Facts, bindings: Mapping[tuple[str, int], int]
) -> dict[str, int]:
    """The symbolic dimensions of a model's inputs as sizes.

    Args:
        model: the model.
        facts: what is proven of its tensors.
        bindings: sizes by input and axis; 1 where one is missing, nothing where all are.
    """
    found: dict[str, int] = {}
    for tensor in model.graph.inputs if bindings else ():
        for axis, dim in enumerate(facts.shape(tensor) or ()):
            if isinstance(dim, Expr):
                size = bindings.get((tensor.name, axis), 1)
                found.update(dict.fromkeys(symbols(dim), size))
    return found


@dataclass(frozen=True)
class Frame:
    """One run of a scope.

    Attributes:
        engine: infers the bodies of local functions.
        facts: what is proven of the tensors in it.
        sizes: of every symbol that stands for a dynamic dimension of an input.
        opset: of the standard operators.
        environment: values of the attributes of the function that it is the body of.
        depth: calls of functions around it; 0 in the main graph.
    """

    engine: Engine
    facts: Facts
    sizes: Mapping[str, int]
    opset: int
    environment: Environment
    depth: int = 0

    @classmethod
    def of(cls, model: Model, facts: Facts, bindings: Mapping[str, int] | None = None) -> Frame:
        """The frame of a model's main graph.

        Args:
            model: the model.
            facts: what is proven of its tensors.
            bindings: sizes of symbolic dimensions of the inputs; 1 where one is missing. More is known of
                these sizes than of any, so where some are given the facts are inferred anew.
        """
        known = bindings or {}
        names = _symbols(model, facts)
        if any(name in known for name in names):
            facts = infer(model.graph, model.functions, sizes=known)
        engine = Engine(model.functions)
        engine.count = FIRST_SYMBOL
        sizes = {name: known.get(name, 1) for name in names}
        return cls(engine, facts, sizes, opset_of(model.graph), {})

    def number(self, dim: Dim) -> int:
        """A dimension as a number.

        Raises:
            UnprovenError: it depends on more than the inputs' shapes.
        """
        if isinstance(dim, int):
            return dim
        try:
            return evaluate(dim, self.sizes)
        except (KeyError, ZeroDivisionError):
            raise UnprovenError("its shape is not known before a run") from None

    def shape(self, tensor: gs.Tensor) -> tuple[int, ...]:
        """The sizes of a tensor's axes.

        Raises:
            UnprovenError: they are not known.
        """
        fact = self.engine.fact(tensor, self.facts)
        if fact.kind != "tensor" or fact.shape is None:
            raise UnprovenError("the rank is not known")
        return tuple(map(self.number, fact.shape))

    def call(self, node: Node) -> Call:
        """A node as it is called here: attributes resolved, with the facts of its inputs."""
        return Call(node, self.opset, self.facts, self.engine, self.environment)

    def function(self, node: Node) -> Function | None:
        """The local function that a node calls, or None."""
        domain = "" if node.domain in (None, "ai.onnx") else str(node.domain)
        found: Function | None = self.engine.functions.get((domain, node.op, node.overload or ""))
        return found

    def enter(self, node: Node, function: Function) -> Frame:
        """The frame of a function's body for one call.

        Raises:
            UnprovenError: the calls are too many or nested too deeply.
        """
        call = self.call(node)
        try:
            entered = self.engine.enter(function, call) if self.depth < MAX_DEPTH else None
        except FAILURES:
            entered = None
        if entered is None:
            raise UnprovenError("the function's body is not inferred")
        facts, environment = entered
        opset = opset_of(function, self.opset)
        return replace(
            self, facts=facts, opset=opset, environment=environment, depth=self.depth + 1
        )

    def bodies(self, node: Node) -> list[Graph]:
        """The bodies of a node that may run: of an If whose condition is proven, one."""
        taken = self._truth(input_or_none(node, 0)) if node.op == "If" else None
        if taken is None:
            return list(node.bodies())
        body = node.attrs.get("then_branch" if taken else "else_branch")
        return [body] if isinstance(body, Graph) else []

    def trips(self, node: Node) -> int:
        """How often a node runs each of its bodies; 1 where that is not proven."""
        try:
            if node.op == "Loop":
                return self._loop_trips(node)
            if node.op == "Scan" and self.opset >= 9:
                return self._scan_trips(node)
        except FAILURES:
            pass
        return 1

    def _loop_trips(self, node: Node) -> int:
        """The trip count, where nothing else ends the loop (ONNX operator spec: Loop)."""
        most, go = input_or_none(node, 0), input_or_none(node, 1)
        if go is not None and self._truth(go) is False:
            return 0
        (body,) = node.bodies()
        goes_on = _source(body.outputs[0], len(body.nodes))
        starts = go is None or self._truth(go) is True
        stays = self._truth(goes_on) is True or goes_on is body.inputs[1]
        value = None if most is None else self.engine.fact(most, self.facts).value
        if value is None or value.size != 1 or not (starts and stays):
            return 1
        return max(self.number(value.flat[0]), 0)

    def _scan_trips(self, node: Node) -> int:
        """The length of the first scanned input along its axis (ONNX operator spec: Scan)."""
        call = self.call(node)
        count = call.integer("num_scan_inputs", 0)
        axis = (call.integers("scan_input_axes") or [0])[0]
        return self.shape(node.inputs[len(node.inputs) - count])[axis]

    def _truth(self, tensor: gs.Tensor | None) -> bool | None:
        """The value of a condition where it is proven."""
        if tensor is None:
            return None
        self.engine.fact(tensor, self.facts)
        value = self.facts.constant_value(tensor)
        return bool(value.flat[0]) if value is not None and value.size == 1 else None


def _symbols(model: Model, facts: Facts) -> set[str]:
    """What stands for the dynamic dimensions of the inputs."""
    shapes = [facts.shape(tensor) or () for tensor in model.graph.inputs]
    return {name for shape in shapes for dim in shape for name in symbols(dim)}


def _source(tensor: gs.Tensor, most: int) -> gs.Tensor:
    """What a tensor is a copy of, through at most so many Identity nodes."""
    for _ in range(most):
        made = producer(tensor)
        if made is None or made.op != "Identity":
            break
        tensor = made.inputs[0]
    return tensor
