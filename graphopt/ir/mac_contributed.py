"""Multiply-accumulates of operators beyond the standard: ONNX Runtime's own, and classical learners.

Of the domain ``com.microsoft`` those are counted that ONNX Runtime's quantizer and offline optimizer write:

    FusedConv, FusedGemm, FusedMatMul  as the operator without its activation, scale or transposition
    QGemm, MatMulIntegerToFloat, ...   as on numbers that are not quantized
    MatMulNBits, MatMulBnb4            rows K N
    Attention, QAttention              the projection of the input, then as Attention of the standard
    LinearRegressor, SVMs              samples (elements of the coefficients and the support vectors)

An operator of ``com.microsoft`` that is neither counted nor known to be free of sums of products is unproven;
those of ``ai.onnx.ml`` that are not named here, such as trees, have none.

Source: ONNX Runtime, ContribOperators; ONNX operator specification, ai.onnx.ml.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphopt.ir.frames import UnprovenError
from graphopt.ir.mac_rules import Operands, Rule, conv, gemm, matmul, recurrent


def packed_matmul(node: Operands) -> int:
    """A product with a packed weight whose sizes are the attributes K and N."""
    rows = math.prod(node.shape(0)[:-1])
    return rows * node.positive("K") * node.positive("N")


def projected_attention(past: int) -> Rule:
    """Attention of com.microsoft: one product makes queries, keys and values of the input."""

    def count(node: Operands) -> int:
        batch, steps, inner = node.shape(0, 3)
        columns = node.shape(1, 2)[1]
        widths = node.call.integers("qkv_hidden_sizes") or [columns // 3] * 3
        if len(widths) != 3 or node.call.integer("past_present_share_buffer", 0):
            raise UnprovenError("how far the past reaches is not known")
        keys = steps + (node.shape(past, 5)[3] if node.given(past) else 0)
        return batch * steps * (inner * columns + keys * (widths[0] + widths[2]))

    return count


def multi_head_attention(node: Operands) -> int:
    """Attention of com.microsoft on inputs that are projected before."""
    batch, queries, width = node.shape(0, 3)
    key, value = node.shape(1), node.shape(2)
    if len(key) not in (3, 4) or len(value) != len(key) or node.given(8):
        raise UnprovenError("packed keys, or a cache of which a part is used")
    value_width = value[2] if len(value) == 3 else value[1] * value[3]
    keys = key[-2] + (node.shape(6, 4)[2] if node.given(6) else 0)
    return batch * queries * keys * (width + value_width)


def stored_vectors(*names: str) -> Rule:
    """Samples times the elements of some attributes."""

    def count(node: Operands) -> int:
        shape = node.shape(0)
        stored = [node.call.attribute(name) for name in names]
        elements = sum(len(entry) for entry in stored if isinstance(entry, Sequence))
        return (shape[0] if len(shape) > 1 else 1) * elements

    return count


MICROSOFT: dict[str, Rule] = {
    "Attention": projected_attention(4),
    "DynamicQuantizeLSTM": recurrent,
    "DynamicQuantizeMatMul": matmul(),
    "FusedConv": conv(),
    "FusedGemm": gemm(),
    "FusedMatMul": matmul(),
    "FusedMatMulActivation": matmul(),
    "GemmFastGelu": matmul(),
    "MatMulBnb4": packed_matmul,
    "MatMulInteger16": matmul(),
    "MatMulIntegerToFloat": matmul(),
    "MatMulNBits": packed_matmul,
    "MultiHeadAttention": multi_head_attention,
    "NhwcConv": conv(),
    "NhwcFusedConv": conv(),
    "QAttention": projected_attention(8),
    "QGemm": gemm(0, 3),
    "QLinearConv": conv(0, 3),
    "TransposeMatMul": matmul(),
}
"""Operators of ``com.microsoft`` that are counted."""

LEARNERS: dict[str, Rule] = {
    "LinearClassifier": stored_vectors("coefficients"),
    "LinearRegressor": stored_vectors("coefficients"),
    "SVMClassifier": stored_vectors("support_vectors", "coefficients"),
    "SVMRegressor": stored_vectors("support_vectors", "coefficients"),
}
"""Operators of ``ai.onnx.ml``; those that are not here have no sums of products."""

FREE = frozenset(
    {
        "BiasAdd",
        "BiasDropout",
        "BiasGelu",
        "BiasSoftmax",
        "BiasSplitGelu",
        "DequantizeLinear",
        "EmbedLayerNormalization",
        "ExpandDims",
        "FastGelu",
        "GatherBlockQuantized",
        "GatherND",
        "Gelu",
        "GemmaRotaryEmbedding",
        "GridSample",
        "GroupNorm",
        "IsAllFinite",
        "MulInteger",
        "NhwcMaxPool",
        "Pad",
        "QEmbedLayerNormalization",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMul",
        "QLinearReduceMean",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
        "QuantizeLinear",
        "QuickGelu",
        "Range",
        "ReduceSumInteger",
        "RemovePadding",
        "RestorePadding",
        "RotaryEmbedding",
        "SkipGroupNorm",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
        "Tokenizer",
        "Trilu",
        "Unique",
    }
)
"""Operators of ``com.microsoft`` without sums of products."""
