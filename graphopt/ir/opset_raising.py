"""Raising a model to a newer set of the standard operators, without changing what it computes.

A node is taken through the versions of its operator one by one. A step is named by the operator and the
version that brings it, and every step from opset 8 to ``NEWEST`` stands in one of three tables:

- ``WIDENED`` leaves each valid old node as it is: more types, negative axes, new optional inputs, new
  attributes whose default is the old behaviour, clearer texts;
- ``CONVERSIONS`` (``opset_changes``) rewrites the node, or refuses it for what it says;
- ``REFUSED`` has no conversion. So has a step that stands in no table.

Everything is tried on a copy first, so that a model is raised whole or not touched.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import onnx

from graphopt.ir.graph import STANDARD_DOMAINS, Function, Node
from graphopt.ir.importer import opset_of
from graphopt.ir.inference.engine import infer
from graphopt.ir.inference.facts import Facts
from graphopt.ir.model import Model
from graphopt.ir.operators import schema
from graphopt.ir.opset_changes import CONVERSIONS
from graphopt.ir.opset_steps import OpsetError, Step, check, refusal
from graphopt.ir.surgery import Scope, tidy

__all__ = ["NEWEST", "REFUSED", "WIDENED", "OpsetError", "objection", "raise_opset"]

NEWEST = 23
"""The newest operator set that models can be raised to."""

WIDENED: dict[int, str] = {
    8: "Max MaxPool Mean Min Sum",
    9: "Cast Constant Flatten Gemm Greater Less MatMul PRelu",
    10: "AveragePool MaxPool",
    11: """
        ArgMax ArgMin AveragePool Compress Concat Constant Conv ConvTranspose DepthToSpace Equal Flatten
        Gather Gemm Hardmax If LogSoftmax Loop LpPool MaxPool MaxUnpool NonMaxSuppression OneHot ReduceL1
        ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
        ReduceSumSquare Scan Slice Softmax Split Squeeze TopK Unsqueeze
        """,
    12: "ArgMax ArgMin Clip Constant GatherND Max MaxPool Min Pow ReduceMax ReduceMin",
    13: """
        Abs Add ArgMax ArgMin Cast Ceil Clip Concat Constant DepthToSpace DequantizeLinear Div Dropout Equal
        Exp Expand Flatten Floor Gather GatherElements GatherND Gemm Greater Identity If IsNaN LRN Less Log
        Loop MatMul Max Mean MeanVarianceNormalization Min Mod Mul Neg NegativeLogLikelihoodLoss NonZero Pad
        Pow QuantizeLinear Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
        ReduceMin ReduceProd ReduceSumSquare Relu Reshape ScatterElements ScatterND Shape Sigmoid Sign Size
        Slice SoftmaxCrossEntropyLoss SpaceToDepth Sqrt Sub Sum Tanh Tile Transpose
        """,
    14: "Add CumSum Div GRU Identity LSTM Mul RNN Relu Reshape Sub",
    15: "BatchNormalization Pow Shape",
    16: """
        GreaterOrEqual Identity If LeakyRelu LessOrEqual Loop PRelu Scan ScatterElements ScatterND Where
        """,
    18: "LpPool OptionalGetElement OptionalHasElement Pad Resize ScatterElements ScatterND",
    19: """
        AveragePool Cast CastLike Constant DequantizeLinear Equal Identity If Loop Pad QuantizeLinear
        Reshape Resize Scan Shape Size
        """,
    20: "ConstantOfShape IsInf IsNaN ReduceMax ReduceMin",
    21: """
        Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QLinearMatMul
        QuantizeLinear Reshape Scan Shape Size Squeeze Transpose Unsqueeze
        """,
    22: """
        Acos Acosh Asin Asinh Atan Atanh AveragePool Bernoulli Conv ConvTranspose Cos Cosh DeformConv Det
        Dropout Elu EyeLike GRU GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample HardSigmoid HardSwish
        InstanceNormalization LSTM LpNormalization LpPool MaxPool MaxRoiPool MaxUnpool Mish Multinomial
        NegativeLogLikelihoodLoss RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike RoiAlign
        Round Selu Sin Sinh Softplus Softsign Tan ThresholdedRelu
        """,
    23: """
        Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QuantizeLinear
        Reshape Scan Shape Size Squeeze Transpose Unsqueeze
        """,
}
"""By version, the operators whose change leaves every valid node of the version before as it is."""

REFUSED: dict[tuple[str, int], str] = {
    ("Scan", 9): "Scan of opset 8 works on batches of sequences, later ones do not",
}
"""By operator and version, why there is no conversion."""


def raise_opset(model: Model, to: int) -> None:
    """Rewrite a model, in place, in a newer version of the standard operators.

    The main graph, its bodies and the local functions are raised, each from its own version; what is
    that new already stays as it is. The IR version follows where the operator set demands it.

    Args:
        model: the model; every tensor keeps its name, every node its name and number.
        to: the version of the standard operators to import.

    Raises:
        OpsetError: a node cannot be raised; nothing was changed.
    """
    found = objection(model, to)
    if found:
        raise OpsetError(found)
    _raise(model, to)


def objection(model: Model, to: int) -> str:
    """Why a model cannot be raised to an operator set; empty where it can.

    Args:
        model: the model, which is not changed.
        to: the version of the standard operators.
    """
    try:
        _raise(model.copy(), to)
    except OpsetError as error:
        return str(error)
    return ""


def _raise(model: Model, to: int) -> None:
    newest = min(NEWEST, onnx.defs.onnx_opset_version())
    if to > newest:
        raise OpsetError(f"models can be raised to opset {newest} at most, not to {to}")
    old = [scope for scope in model.scopes() if int(scope.opset) < to]
    if not old:
        return
    if model.header.training_info:
        raise OpsetError("the model holds training information, which cannot be raised")
    nodes = [node for scope in old for node in scope.nodes if node.standard and not node.dead]
    changed = any(_rewritten(node, to) for node in nodes)
    facts = infer(model.graph, model.functions) if changed else Facts()
    for node in nodes:
        _raise_node(node, to, facts)
    for scope in old:
        scope.opset = to
        try:
            tidy(scope)
        except ValueError as error:  # a cycle
            raise OpsetError(f"the model cannot be raised: {error}") from None
    _import_newer(model, to, old)


def _rewritten(node: Node, to: int) -> bool:
    """Whether a step of a node is more than a widening."""
    return any(not _widens(node.op, version) for version in _steps(node, to))


def _steps(node: Node, to: int) -> list[int]:
    """The versions that change a node's operator on the way."""
    assert node.graph is not None
    return [v for v in _history(node.op) if int(node.graph.opset) < v <= to]


def _raise_node(node: Node, to: int, facts: Facts) -> None:
    assert node.graph is not None
    at = int(node.graph.opset)
    definition = schema(node.op, at)
    if definition is None:
        raise refusal(node, f"opset {at} has no such operator")
    if _rewritten(node, to):
        check(node, definition)
    while True:
        version = next((v for v in _history(node.op) if at < v <= to), None)
        if version is None:
            return
        at = version
        if not _widens(node.op, version):
            at = _convert(node, Step(version, to, facts)) or version


def _convert(node: Node, step: Step) -> int | None:
    rule = CONVERSIONS.get((node.op, step.version))
    if rule is None:
        why = REFUSED.get((node.op, step.version))
        why = why or f"how it changed in opset {step.version} is not known"
        raise refusal(node, why)
    return rule(node, step)


def _widens(op: str, version: int) -> bool:
    return op in _WIDENED.get(version, ())


_WIDENED = {version: frozenset(ops.split()) for version, ops in WIDENED.items()}


@functools.lru_cache(maxsize=1)
def _histories() -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for entry in onnx.defs.get_all_schemas_with_history():
        if entry.domain in STANDARD_DOMAINS:
            found.setdefault(entry.name, []).append(entry.since_version)
    return {name: sorted(versions) for name, versions in found.items()}


def _history(op: str) -> list[int]:
    """The versions that brought or changed an operator, oldest first."""
    return _histories().get(op, [])


def _import_newer(model: Model, to: int, raised: list[Scope]) -> None:
    """Say in the messages what the nodes are written in now; copies share those of functions."""
    header = model.header
    demanded = onnx.helper.OP_SET_ID_VERSION_MAP[("ai.onnx", to)]
    header.ir_version = max(header.ir_version, demanded)
    if any(scope is model.graph for scope in raised):
        if opset_of(header.opset_import) is None:
            header.opset_import.add(domain="")
        _set_version(header.opset_import, to)
    model.graph.import_domains = header.opset_import
    for scope in raised:
        if isinstance(scope, Function):
            proto = onnx.FunctionProto()
            proto.CopyFrom(scope.proto)
            _set_version(proto.opset_import, to)
            scope.proto = proto


def _set_version(imports: Iterable[onnx.OperatorSetIdProto], to: int) -> None:
    for entry in imports:
        if entry.domain in STANDARD_DOMAINS:
            entry.version = to
