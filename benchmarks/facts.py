"""Facts of a model file that need no running: nodes, bytes, interface, operator domains.

Counted are all nodes but ``Constant``, those in If, Loop and Scan bodies and in the bodies of
model-local functions (once per definition) included. Initializer bytes are those of the
initializers and of the tensors in ``Constant`` nodes, as stored (sub-byte types packed).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.DOUBLE: 64,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
    TensorProto.INT32: 32,
    TensorProto.UINT32: 32,
    TensorProto.INT64: 64,
    TensorProto.UINT64: 64,
    TensorProto.BOOL: 8,
    TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
}
Value = tuple[str, str]


@dataclass(frozen=True)
class Facts:
    """What can be read off a model; ``inputs`` and ``outputs`` are ``(name, type)`` in order."""

    nodes: int
    init_bytes: int
    file_bytes: int
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    domains: frozenset[str]


def tensor_bytes(tensor: TensorProto) -> int:
    """Return the bytes that a tensor's values take when stored packed."""
    if tensor.data_type == TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    bits = int(math.prod(tensor.dims)) * _BITS.get(tensor.data_type, 8)
    return -(-bits // 8)


def _constant_bytes(node: NodeProto) -> int:
    total = 0
    for attribute in node.attribute:
        if attribute.HasField("t"):
            total += tensor_bytes(attribute.t)
        elif attribute.type in (AttributeProto.FLOAT, AttributeProto.FLOATS):
            total += 4 * max(1, len(attribute.floats))
        elif attribute.type in (AttributeProto.INT, AttributeProto.INTS):
            total += 8 * max(1, len(attribute.ints))
    return total


def subgraphs(nodes: Iterable[NodeProto]) -> Iterator[GraphProto]:
    """Yield every graph held by an attribute of the nodes, at any depth."""
    for node in nodes:
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield graph
                yield from subgraphs(graph.node)


def _all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    for body in (model.graph.node, *(function.node for function in model.functions)):
        yield from body
        for graph in subgraphs(body):
            yield from graph.node


def _all_graphs(model: ModelProto) -> Iterator[GraphProto]:
    yield model.graph
    for body in (model.graph.node, *(function.node for function in model.functions)):
        yield from subgraphs(body)


def _type_text(value: onnx.ValueInfoProto) -> str:
    """Return the kind and element type of a value, without its shape."""
    kind = value.type.WhichOneof("value")
    if kind == "tensor_type":
        return f"tensor {value.type.tensor_type.elem_type}"
    text = onnx.helper.printable_type(value.type) if kind else "none"
    return f"{kind} {text}"


def read(path: Path) -> Facts:
    """Return the facts of the model at ``path``.

    Raises:
        Exception: the file is no ONNX model.
    """
    model = onnx.load(path)
    stored = 0
    for graph in _all_graphs(model):
        stored += sum(map(tensor_bytes, graph.initializer))
        for sparse in graph.sparse_initializer:
            stored += tensor_bytes(sparse.values) + tensor_bytes(sparse.indices)
    nodes = list(_all_nodes(model))
    constants = [node for node in nodes if node.op_type == "Constant" and not node.domain]
    weights = {tensor.name for tensor in model.graph.initializer}
    return Facts(
        nodes=len(nodes) - len(constants),
        init_bytes=stored + sum(map(_constant_bytes, constants)),
        file_bytes=path.stat().st_size,
        inputs=tuple((v.name, _type_text(v)) for v in model.graph.input if v.name not in weights),
        outputs=tuple((v.name, _type_text(v)) for v in model.graph.output),
        domains=frozenset("" if node.domain == "ai.onnx" else node.domain for node in nodes),
    )
