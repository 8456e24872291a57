"""Remove what no output depends on.

A node goes when nothing reads its outputs and no graph returns them; so do initializers, local functions
and operator-set imports that nothing uses, declarations of tensors that are gone, and optional outputs that
nothing reads (trailing ones are dropped, inner ones omitted).

Refuses: graph inputs, used or not: they are the interface; a node without outputs, which acts by its
effects; the optional outputs of BatchNormalization, which choose its training form; initializers of a model
that carries training information, which may refer to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.graph import Constant, Graph, Node, Variable
from graphopt.ir.operators import optional_outputs
from graphopt.ir.surgery import Scope, is_used, remove
from graphopt.pass_base import Context, Edit, Pass, Skip, is_main


@dataclass(frozen=True)
class EliminateDeadCode(Pass):
    """Nodes, constants, functions and declarations without effect are removed."""

    name = "eliminate-dead-code"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for node in reversed(graph.nodes):
            if node.dead or node.uid in context.vetoed or not node.outputs:
                continue
            if not any(t.name and is_used(t) for t in node.outputs):
                remove(node)
                yield Edit(node, "nothing reads it")
            elif node.standard and _trim(node, int(graph.opset)):
                yield Edit(node, "outputs that nothing reads were dropped")
        if not context.model.header.training_info:
            yield from _initializers(graph)
        _declarations(graph)
        if is_main(graph, context):
            yield from _functions(context)
            yield from _imports(context)


def _trim(node: Node, opset: int) -> bool:
    """Omit optional outputs that nothing reads."""
    if node.op == "BatchNormalization" or (node.op == "Dropout" and len(node.inputs) > 2):
        return False
    optional = optional_outputs(node.op, opset)
    outputs = list(node.outputs)
    kept = [
        Variable("") if index in optional and t.name and not is_used(t) else t
        for index, t in enumerate(outputs)
    ]
    while kept and not kept[-1].name and len(kept) - 1 in optional:
        kept.pop()
    if len(kept) == len(outputs) and all(a is b for a, b in zip(kept, outputs, strict=True)):
        return False
    node.outputs = kept
    return True


def _initializers(graph: Scope) -> Iterator[Edit]:
    unused = {id(t) for t in graph.initializers if not is_used(t)}
    if not unused:
        return
    names = [t.name for t in graph.initializers if id(t) in unused]
    size = sum(t.nbytes for t in graph.initializers if id(t) in unused)
    graph.initializers = [t for t in graph.initializers if id(t) not in unused]
    shown = names[0] if len(names) == 1 else f"{len(names)} initializers"
    yield Edit(shown, f"nothing reads them; {size} bytes")


def _declarations(graph: Scope) -> None:
    """Forget declarations of tensors that are gone; no edit, for nothing else changes."""
    alive = {id(t) for node in graph.nodes if not node.dead for t in node.outputs}
    graph.declared = [t for t in graph.declared if id(t) in alive or isinstance(t, Constant)]
    if isinstance(graph, Graph) and graph.proto.value_info:
        graph.proto.ClearField("value_info")


def _functions(context: Context) -> Iterator[Edit]:
    model = context.model
    called: set[tuple[str, str, str]] = set()
    waiting: list[Scope] = [model.graph]
    by_key = {function.key: function for function in model.functions}
    while waiting:
        for node in waiting.pop().nodes:
            waiting.extend(node.bodies())
            key = (node.domain or "", node.op, node.overload)
            if key in by_key and key not in called:
                called.add(key)
                waiting.append(by_key[key])
    for function in [f for f in model.functions if f.key not in called]:
        model.functions.remove(function)
        yield Edit(function.name, "nothing calls this function")


def _imports(context: Context) -> Iterator[Edit]:
    """Drop the imports of operator sets that no node uses; the standard one stays."""
    model = context.model
    used = {"", "ai.onnx"}
    for scope in model.scopes():
        used.update(node.domain or "" for node in scope.nodes)
    for entry in list(model.header.opset_import):
        if entry.domain not in used:
            model.header.opset_import.remove(entry)
            yield Edit(entry.domain, "no node uses this operator set")
