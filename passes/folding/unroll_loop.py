"""Replace a Loop that runs once, or never, by what it computes.

    loop(1, true, v) { c', v', s } = v', [s]        each scan output gets an axis of size 1
    loop(0, c, v)                  = v

A Loop runs once when its trip count is 1 and its condition holds at first, or when the body's
condition is constantly false. It runs never when its trip count is 0 or its condition is false at
first.

Refuses: scan outputs that are empty, whose shape would have to be known; a body with so many scan
outputs that there would be more nodes than before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.arguments import integers, with_axes
from graphopt.ir.graph import Constant, Graph, Node
from graphopt.ir.inlining import inline_body
from graphopt.ir.surgery import (
    Scope,
    input_or_none,
    insert,
    is_used,
    new_constant,
    new_tensor,
    producer,
    redirect,
    remove,
)
from graphopt.pass_base import Context, Edit, Pass, Skip


@dataclass(frozen=True)
class UnrollLoop(Pass):
    """A Loop that runs once or never becomes straight code."""

    name = "unroll-loop"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in context.nodes(graph, "Loop"):
            body = node.attrs.get("body")
            trips = _trips(node, context)
            if trips is None or not isinstance(body, Graph):
                continue
            carried = len(body.inputs) - 2
            if len(node.inputs) != carried + 2:
                continue
            scans = [t for t in node.outputs[carried:] if t.name and is_used(t)]
            if trips == 0:
                returned = sum(bool(t.is_output) for t in node.outputs)
                if scans or returned > 1 + len(body.nodes):
                    yield Skip(node, "it never runs, but the shape of its result is not known")
                    continue
                _skip_body(node, carried)
                yield Edit(node, "it never runs")
            elif len(scans) > 1 + _spared(body):
                yield Skip(node, "it runs once, but straight code would take more nodes")
            else:
                _run_once(node, body, carried, context)
                yield Edit(node, "it runs once")


def _trips(node: Node, context: Context) -> int | None:
    """How often a Loop runs, if that is 0 or 1 for sure."""
    limit, condition = input_or_none(node, 0), input_or_none(node, 1)
    count = integers(limit, context.facts) if limit is not None else None
    if count is not None and len(count) == 1 and count[0] <= 0:
        return 0
    start = [1] if condition is None else integers(condition, context.facts)
    if start is None or len(start) != 1:
        return None
    if not start[0]:
        return 0
    if count is not None and count == [1]:
        return 1
    body = node.attrs.get("body")
    if limit is not None and (count is None or len(count) != 1):
        return None
    return 1 if isinstance(body, Graph) and _stops(body.outputs[0], context) else None


def _stops(condition: gs.Tensor, context: Context) -> bool:
    """Whether a body's condition is always false."""
    made = producer(condition)
    if made is not None and made.op == "Constant" and isinstance(made.attrs.get("value"), Constant):
        condition = made.attrs["value"]
    return integers(condition, context.facts) == [0]


def _spared(body: Graph) -> int:
    """How many nodes only the condition needs: none or one is counted."""
    made = producer(body.outputs[0])
    if made is None or made.op == "Constant" or made.graph is not body:
        return 0
    alone = len(made.outputs) == 1 and not made.outputs[0].outputs
    return int(alone and not any(t is made.outputs[0] for t in body.outputs[1:]))


def _skip_body(node: Node, carried: int) -> None:
    """Let the initial values take the place of the final ones."""
    for initial, target in zip(node.inputs[2:], list(node.outputs[:carried]), strict=True):
        if not target.name:
            continue
        if target.is_output:
            insert(node, "Identity", [initial], [target])
        else:
            redirect(target, initial)
    remove(node)


def _run_once(node: Node, body: Graph, carried: int, context: Context) -> None:
    """Put the body in the place of the Loop."""
    graph = node.graph
    assert graph is not None
    label = node.name or node.op
    for index, target in enumerate(list(node.outputs)):
        if index < carried or not target.name or not is_used(target):
            continue
        value = new_tensor(graph, f"{label}/value")
        inputs, attrs = with_axes(graph, "Unsqueeze", value, [0], f"{label}/axes")
        insert(node, "Unsqueeze", inputs, [target], attrs)
        node.outputs[index] = value
    number = new_constant(graph, f"{label}/iteration", np.array(0, np.int64))
    going = new_constant(graph, f"{label}/condition", np.array(True))
    initial = list(node.inputs[2:])
    condition = body.outputs[0]
    body.outputs = list(body.outputs[1:])
    inline_body(context.model, node, body, [number, going, *initial])
    if not isinstance(condition, Constant):
        scopes = context.model.scopes()
        condition.is_output = any(t is condition for scope in scopes for t in scope.outputs)
        made = producer(condition)
        if made is not None:
            remove(made)
