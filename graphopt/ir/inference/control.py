"""Branches, loops and scans (ONNX operator spec: If, Loop, Scan).

A loop's state is generalized until the body keeps it: a dim that some iteration changes becomes a
symbol that may vary between iterations, and none of those symbols leaves the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from graphopt.ir.inference.broadcasting import meet
from graphopt.ir.inference.call import BOOL, INT64, Call, axis_of
from graphopt.ir.inference.facts import UNKNOWN, Fact
from graphopt.ir.inference.registry import rule
from graphopt.numerics.dims import Dim, is_positive

MAX_ROUNDS = 4


def body_of(call: Call, name: str) -> gs.Graph:
    """The graph in an attribute.

    Raises:
        TypeError: there is none.
    """
    body = call.attribute(name)
    if not isinstance(body, gs.Graph):
        raise TypeError(name)
    return body


@rule("If")
def branch(call: Call) -> list[Fact] | None:
    """What both branches have in common, or the one that is taken when that is known."""
    results = [
        call.engine.run(body_of(call, name), call.opset, call.facts, call.environment)
        for name in ("then_branch", "else_branch")
    ]
    yes, no = results
    if yes is None or no is None:
        return None
    taken = call.ints(0)
    if taken is not None and len(taken) == 1:
        return yes if taken[0] else no
    return [meet(a, b, call.fresh) for a, b in zip(yes, no, strict=True)]


@dataclass
class _State:
    """A carried tensor: what is known in each iteration, and which dims may vary."""

    fact: Fact
    varying: frozenset[int] = frozenset()

    def widened(self, result: Fact, fresh: Callable[[], Dim]) -> _State:
        """The state that covers this one and what an iteration made of it."""
        held = self.fact
        dtype = held.dtype if held.dtype == result.dtype else None
        kind = held.kind if held.kind == result.kind else "unknown"
        if held.shape is None or result.shape is None or len(held.shape) != len(result.shape):
            return _State(Fact(dtype, kind=kind))
        if kind != "tensor":
            same = held.shape == result.shape
            return _State(Fact(dtype, held.shape if same else None, kind=kind))
        varying = self.varying | {
            axis for axis, dim in enumerate(held.shape) if dim != result.shape[axis]
        }
        shape = tuple(
            fresh() if axis in varying and axis not in self.varying else dim
            for axis, dim in enumerate(held.shape)
        )
        return _State(Fact(dtype, shape), varying)

    def differs(self, other: _State) -> bool:
        """Whether the other state knows less."""
        a, b = self.fact, other.fact
        return (
            a.dtype != b.dtype
            or a.kind != b.kind
            or (a.shape is None) != (b.shape is None)
            or self.varying != other.varying
        )


@dataclass(frozen=True)
class _Loop:
    """A body with the facts of its inputs before and after the carried ones."""

    call: Call
    body: gs.Graph
    before: Sequence[Fact]
    after: Sequence[Fact]
    skipped: int

    def settle(self, initial: list[Fact]) -> tuple[list[Fact], list[Fact]] | None:
        """Find a state that the body keeps.

        Returns:
            Facts of the final state and of the body's outputs after the state, or None.
        """
        engine = self.call.engine
        states = [_State(Fact(fact.dtype, fact.shape, kind=fact.kind)) for fact in initial]
        for _ in range(MAX_ROUNDS):
            outputs = self._run(states)
            if outputs is None:
                return None
            results = outputs[self.skipped : self.skipped + len(states)]
            if len(results) != len(states):
                raise ValueError("the body does not return its state")
            wider = [
                state.widened(result, self.call.fresh)
                for state, result in zip(states, results, strict=True)
            ]
            if not any(a.differs(b) for a, b in zip(states, wider, strict=True)):
                return [_final(s, self.call) for s in states], outputs[self.skipped + len(states) :]
            states = wider
            if not engine.again(self.body):
                break
        outputs = self._run([_State(UNKNOWN) for _ in initial])
        if outputs is None:
            return None
        return [UNKNOWN] * len(initial), outputs[self.skipped + len(initial) :]

    def _run(self, states: list[_State]) -> list[Fact] | None:
        call = self.call
        given = [*self.before, *(state.fact for state in states), *self.after]
        if len(given) != len(self.body.inputs):
            raise ValueError("the body takes another number of inputs")
        for tensor, fact in zip(self.body.inputs, given, strict=True):
            call.facts._set(tensor, fact)
        return call.engine.run(self.body, call.opset, call.facts, call.environment)


def _final(state: _State, call: Call) -> Fact:
    fact = state.fact
    if fact.shape is None:
        return fact
    dims = (call.fresh() if axis in state.varying else dim for axis, dim in enumerate(fact.shape))
    return Fact(fact.dtype, tuple(dims), kind=fact.kind)


def _stacked(call: Call, fact: Fact, mark: int, length: Dim, axis: int) -> Fact:
    """A body's output stacked along a new axis; what varies inside the loop is forgotten."""
    if fact.shape is None or fact.kind != "tensor":
        return Fact(fact.dtype)
    keep = is_positive(length)
    dims: list[Dim] = [
        dim
        if isinstance(dim, int) or (keep and not call.engine.born_since(dim, mark))
        else call.fresh()
        for dim in fact.shape
    ]
    dims.insert(axis_of(axis, len(dims) + 1), length)
    return Fact(fact.dtype, tuple(dims))


@rule("Loop")
def loop(call: Call) -> list[Fact] | None:
    """Carried tensors, then one stack for each scan output."""
    body, mark = body_of(call, "body"), call.engine.count
    initial = [call.fact(index) for index in range(2, len(call.inputs))]
    counter = Fact(INT64, ())
    settled = _Loop(call, body, (counter, Fact(BOOL, ())), (), 1).settle(initial)
    if settled is None:
        return None
    finals, scans = settled
    return [*finals, *(_stacked(call, fact, mark, call.fresh(), 0) for fact in scans)]


@rule("Scan")
def scan(call: Call) -> list[Fact] | None:
    """Carried tensors, then one stack for each scan output; opset 8 had another form."""
    if call.opset < 9:
        return None
    body, mark, count = body_of(call, "body"), call.engine.count, call.integer("num_scan_inputs", 0)
    carried = len(call.inputs) - count
    axes = call.integers("scan_input_axes") or [0] * count
    slices, length = [], None
    for index, axis in enumerate(axes):
        shape, dtype = call.shape(carried + index), call.dtype(carried + index)
        if shape is None:
            slices.append(Fact(dtype))
            continue
        place = axis_of(axis, len(shape))
        length = shape[place] if length is None or isinstance(shape[place], int) else length
        slices.append(Fact(dtype, shape[:place] + shape[place + 1 :]))
    initial = [call.fact(index) for index in range(carried)]
    settled = _Loop(call, body, (), slices, 0).settle(initial)
    if settled is None:
        return None
    finals, scans = settled
    steps = call.fresh() if length is None else length
    places = call.integers("scan_output_axes") or [0] * len(scans)
    pairs = zip(scans, places, strict=True)
    return [*finals, *(_stacked(call, fact, mark, steps, axis) for fact, axis in pairs)]
