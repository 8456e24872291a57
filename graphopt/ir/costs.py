"""What a model costs: nodes, parameters, bytes and multiply-accumulate operations (MACs).

MACs are those of the textbook: outputs times the length of the sum behind each. Everything else counts as
none. Dimensions that are only known at run time enter as symbols and are bound at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from graphopt.ir.graph import Constant, Function, Node
from graphopt.ir.inference import Facts
from graphopt.ir.inference.facts import Shape
from graphopt.ir.model import Model
from graphopt.ir.surgery import Scope
from graphopt.numerics.dims import Dim, evaluate, product, symbols

MacRule = Callable[[Node, Facts], Dim]


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


def count_macs(model: Model, facts: Facts, bindings: Mapping[str, int] | None = None) -> int | None:
    """Multiply-accumulates of one run; None where a shape that they depend on is not proven.

    Both branches of an If count, a Loop or Scan body counts once, a function's body not at all.

    Args:
        model: the model.
        facts: what is proven of its tensors.
        bindings: sizes of symbolic dimensions; 1 where one is missing.
    """
    total = 0
    for scope in model.scopes():
        for node in scope.nodes if not isinstance(scope, Function) else ():
            macs = node_macs(node, facts)
            if macs is None:
                return None
            total += bind(macs, bindings or {})
    return total


def bind(dim: Dim, bindings: Mapping[str, int]) -> int:
    """The value of a symbolic size; a symbol that is not bound counts as 1."""
    if isinstance(dim, int):
        return dim
    return evaluate(dim, {name: bindings.get(name, 1) for name in symbols(dim)})


def node_macs(node: Node, facts: Facts) -> Dim | None:
    """Multiply-accumulates of one node; None where its shapes are not known."""
    rule = RULES.get(node.op)
    if rule is None or not node.standard or node.dead:
        return 0
    try:
        return rule(node, facts)
    except (IndexError, TypeError, ValueError, KeyError):
        return None


def _shape(node: Node, facts: Facts, index: int, output: bool = False) -> Shape:
    tensor = (node.outputs if output else node.inputs)[index]
    shape = tuple(tensor.shape) if isinstance(tensor, Constant) else facts.shape(tensor)
    if shape is None:
        raise ValueError("unknown rank")
    return shape


def _conv(node: Node, facts: Facts) -> Dim:
    """Outputs times input channels of a group times kernel size."""
    return product((*_shape(node, facts, 0, output=True), *_shape(node, facts, 1)[1:]))


def _conv_transpose(node: Node, facts: Facts) -> Dim:
    """Inputs times output channels of a group times kernel size."""
    return product((*_shape(node, facts, 0), *_shape(node, facts, 1)[1:]))


def _gemm(node: Node, facts: Facts) -> Dim:
    inner = _shape(node, facts, 0)[0 if node.attrs.get("transA") else 1]
    return product((*_shape(node, facts, 0, output=True), inner))


def _matmul(node: Node, facts: Facts) -> Dim:
    return product((*_shape(node, facts, 0, output=True), _shape(node, facts, 0)[-1]))


def _qlinear_conv(node: Node, facts: Facts) -> Dim:
    return product((*_shape(node, facts, 0, output=True), *_shape(node, facts, 3)[1:]))


def _recurrent(node: Node, facts: Facts) -> Dim:
    """Steps times batch times the sizes of both weight tensors of a cell."""
    sequence = _shape(node, facts, 0)
    steps = product(sequence[:2])
    weights = product(_shape(node, facts, 1)) + product(_shape(node, facts, 2))
    return steps * weights


def _attention(node: Node, facts: Facts) -> Dim:
    """Scores and weighted values of scaled dot-product attention (opset 23), 4-D inputs."""
    query, key, value = (_shape(node, facts, index) for index in range(3))
    if len(query) != 4:
        raise ValueError("packed heads")
    scores = product((*query[:3], key[2]))
    return scores * query[3] + scores * value[3]


RULES: dict[str, MacRule] = {
    "Attention": _attention,
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _conv_transpose,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _matmul,
    "RNN": _recurrent,
}
"""How many multiply-accumulates an operator takes."""
