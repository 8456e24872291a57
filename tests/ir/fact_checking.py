"""Compare inferred facts with the tensors of a run, under one consistent binding of the symbols."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime
from onnx import parser

from graphopt.ir.inference import Facts, infer
from graphopt.ir.model import Model
from graphopt.numerics.dims import Dim, Expr, evaluate, symbol, symbols

N = symbol("x[0]", 1)


class Binding:
    """Values of symbols, learnt from the first tensor in which one stands alone."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.claims: list[tuple[Dim, int, str]] = []

    def claim(self, dim: Dim, actual: int, where: str) -> None:
        self.claims.append((dim, int(actual), where))

    def verify(self) -> int:
        """Check all claims; return how many could not be, for want of a value."""
        pending, progress = self.claims, True
        while progress:
            progress, rest = False, []
            for dim, actual, where in pending:
                names = symbols(dim)
                if names <= self.values.keys():
                    found = evaluate(dim, self.values)
                    assert found == actual, f"{where}: {dim} is {actual}, not {found}"
                    progress = True
                elif len(names) == 1 and isinstance(dim, Expr) and repr(dim) in names:
                    self.values[repr(dim)] = actual
                    progress = True
                else:
                    rest.append((dim, actual, where))
            pending = rest
        return len(pending)


def claim_all(
    facts: Facts, actual: Iterable[tuple[gs.Tensor, object]], binding: Binding, where: str
) -> None:
    """Claim that every fact of these tensors holds of these arrays."""
    for tensor, array in actual:
        fact = facts.fact(tensor)
        name = f"{where}: {tensor.name}"
        if isinstance(array, list):
            assert fact.kind in ("sequence", "optional", "unknown"), name
            for entry in array if fact.kind == "sequence" else ():
                if fact.shape is not None:
                    assert len(fact.shape) == entry.ndim, name
                    for dim, size in zip(fact.shape, entry.shape, strict=True):
                        assert not isinstance(dim, int) or dim == size, name
            continue
        if array is None:
            assert fact.kind in ("optional", "unknown"), name
            continue
        array = np.asarray(array)
        assert fact.kind in ("tensor", "optional", "unknown"), f"{name}: {fact.kind}"
        if fact.dtype is not None:
            is_text = array.dtype.kind in "USO" and fact.dtype.kind == "O"
            assert is_text or fact.dtype == array.dtype, f"{name}: {fact.dtype}, {array.dtype}"
        if fact.shape is not None:
            assert len(fact.shape) == array.ndim, f"{name}: {fact.shape}, {array.shape}"
            for dim, size in zip(fact.shape, array.shape, strict=True):
                binding.claim(dim, size, f"{name}: {fact.shape}")
        if fact.value is not None:
            assert fact.value.shape == array.shape, f"{name}: {fact.value}"
            for entry, number in zip(fact.value.flat, array.flat, strict=True):
                assert number == int(number), f"{name}: {number}"
                binding.claim(entry, int(number), f"{name}: {fact.value}")


def load(text: str, opset: int = 17) -> Model:
    head = f'<ir_version: 9, opset_import: ["" : {opset}, "local" : 1]>\n'
    return Model.load(parser.parse_model(head + text))


def named(model: Model) -> dict[str, gs.Tensor]:
    found = {tensor.name: tensor for tensor in model.graph.inputs}
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        for node in graph.nodes:
            found |= {tensor.name: tensor for tensor in node.outputs}
            pending += [a for a in node.attrs.values() if isinstance(a, gs.Graph)]
    return found


def facts_of(text: str, opset: int = 17) -> tuple[Facts, dict[str, gs.Tensor]]:
    model = load(text, opset)
    return infer(model.graph, model.functions), named(model)


def check(text: str, *runs: dict[str, np.ndarray], opset: int = 17) -> None:
    """Run the model with all tensors of the main graph exposed and check every fact."""
    model = load(text, opset)
    facts, tensors = infer(model.graph, model.functions), named(model)
    proto = parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}]>\n' + text)
    outer = {t.name for node in model.graph.nodes for t in node.outputs if t.name}
    outer -= {info.name for info in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(outer))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    names = [entry.name for entry in session.get_outputs()]
    for feed in runs:
        binding = Binding()
        values = {**feed, **dict(zip(names, session.run(names, feed), strict=True))}
        claim_all(facts, [(tensors[name], a) for name, a in values.items()], binding, "run")
        assert binding.verify() == 0
