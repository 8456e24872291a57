"""Replace a call of a local function by the function's body.

    y = f(x)   =>   the nodes of f, reading x and computing y

References to attributes of the function become the values of the call, or the function's defaults
(ONNX IR spec, model-local functions). What the call would grow to is counted before anything is
done, functions within functions included, so that a few nested functions cannot blow up a model.

Refuses: a model that would grow beyond the limit of nodes, or beyond ten times its size; a function
that imports other versions of operator sets than the model; an attribute that is itself a graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from graphopt.ir.graph import Function, Node
from graphopt.ir.inlining import inline_call
from graphopt.ir.model import Model
from graphopt.ir.surgery import Scope
from graphopt.pass_base import Context, Edit, Pass, Skip

GROWTH = 10
"""How many times its size a model may grow to by inlining."""

Key = tuple[str, str, str]


@dataclass(frozen=True)
class InlineFunctions(Pass):
    """Calls of local functions become the functions' nodes."""

    name = "inline-functions"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        model = context.model
        if not model.functions or _inside_function(graph):
            return
        functions = {function.key: function for function in model.functions}
        calls = [
            n for n in reversed(graph.nodes) if _key(n) in functions and n.uid not in context.vetoed
        ]
        if not calls:
            return
        total, limit = expanded_nodes(model, functions), _limit(model, context)
        while calls:
            node = calls.pop()
            function = functions[_key(node)]
            if total > limit:
                yield Skip(node, f"inlining would make {total} nodes, the limit is {limit}")
                continue
            why = _refusal(node, function, model)
            if why:
                yield Skip(node, why)
                continue
            made = inline_call(node, function)
            calls += [n for n in made if _key(n) in functions]
            yield Edit(node, f"the body of the function {function.name} took its place")


def _key(node: Node) -> Key:
    return (node.domain or "", node.op, node.overload)


def _inside_function(graph: Scope) -> bool:
    """Functions are inlined from the main graph down; their own bodies stay as they are."""
    scope: Scope | None = graph
    while scope is not None and scope.parent is not None:
        scope = scope.parent.graph
    return isinstance(scope, Function)


def _limit(model: Model, context: Context) -> int:
    own = sum(1 for _ in model.nodes())
    return min(context.limits.nodes, max(GROWTH * own, 1000))


def expanded_nodes(model: Model, functions: dict[Key, Function]) -> int:
    """How many nodes the main graph would have with every call inlined, counted without doing it."""
    sizes: dict[Key, int] = {}

    def size(scope: Scope) -> int:
        total, waiting = 0, [scope]
        while waiting:
            for node in waiting.pop().nodes:
                total += sizes.get(_key(node), 1)
                waiting.extend(node.bodies())
        return total

    for key in _callees_first(functions):
        sizes[key] = size(functions[key])
    return size(model.graph)


def _callees_first(functions: dict[Key, Function]) -> list[Key]:
    """The functions, each behind those that it calls; calls are known to have no cycle."""
    done: dict[Key, None] = {}
    for start in functions:
        stack = [start]
        while stack:
            key = stack[-1]
            waiting: list[Scope] = [functions[key]]
            called = []
            while waiting:
                for node in waiting.pop().nodes:
                    waiting.extend(node.bodies())
                    if _key(node) in functions and _key(node) not in done:
                        called.append(_key(node))
            if called:
                stack.extend(called)
            else:
                done.setdefault(stack.pop())
    return list(done)


def _refusal(node: Node, function: Function, model: Model) -> str:
    imports = {entry.domain: entry.version for entry in model.header.opset_import}
    for entry in function.proto.opset_import:
        if imports.setdefault(entry.domain, entry.version) != entry.version:
            domain = entry.domain or "ai.onnx"
            return f"the function imports version {entry.version} of {domain}, the model another"
    if any(isinstance(value, gs.Graph) for value in node.attrs.values()):
        return "an attribute of the call is a graph"
    known = {entry.domain for entry in model.header.opset_import}
    for entry in function.proto.opset_import:
        if entry.domain not in known:
            model.header.opset_import.append(entry)
    return ""
