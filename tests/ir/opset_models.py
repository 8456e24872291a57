"""Models of one operator at any operator set, and whether raising them keeps their numbers."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from graphopt.ir.model import Model
from graphopt.ir.opset_raising import raise_opset

F = np.float32


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(F)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def attribute(name: str, value: object) -> onnx.AttributeProto:
    kind = onnx.AttributeProto.INTS if value == [] else None
    return helper.make_attribute(name, value, attr_type=kind)


def info(name: str, values: np.ndarray) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(values.dtype)
    return helper.make_tensor_value_info(name, kind, values.shape)


def one(
    op: str,
    opset: int,
    inputs: list[np.ndarray | None],
    fixed: Iterable[int] = (),
    outputs: int = 1,
    in_body: bool = False,
    free: bool = False,
    **attrs: object,
) -> onnx.ModelProto:
    """A model of one node.

    Args:
        op: its operator.
        opset: the version it is written in.
        inputs: example values; None for an omitted input.
        fixed: the positions of inputs that are initializers.
        outputs: how many.
        in_body: whether it stands in both branches of an If.
        free: whether the sizes of the graph inputs are left open, so that only ranks are known.
        attrs: its attributes.
    """
    names = ["" if values is None else f"i{k}" for k, values in enumerate(inputs)]
    results = [f"o{k}" for k in range(outputs)]
    node = helper.make_node(op, names, results)
    node.attribute.extend(attribute(name, value) for name, value in attrs.items())
    given = [(k, v) for k, v in enumerate(inputs) if v is not None]
    infos = [info(f"i{k}", values) for k, values in given if k not in fixed]
    for dim in (dim for entry in infos for dim in entry.type.tensor_type.shape.dim if free):
        dim.ClearField("dim_value")
    held = [numpy_helper.from_array(values, f"i{k}") for k, values in given if k in fixed]
    nodes, declared = [node], [onnx.ValueInfoProto(name=name) for name in results]
    if in_body:
        infos.append(helper.make_tensor_value_info("yes", T.BOOL, []))
        nodes = [helper.make_node("If", ["yes"], results)]
        for branch in ("then_branch", "else_branch"):
            inner = helper.make_node(op, names, [f"{branch}{k}" for k in range(outputs)])
            inner.attribute.extend(node.attribute)
            returned = [onnx.ValueInfoProto(name=name) for name in inner.output]
            body = helper.make_graph([inner], branch, [], returned)
            nodes[0].attribute.append(helper.make_attribute(branch, body))
    graph = helper.make_graph(nodes, "g", infos, declared, held)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=4 if opset < 13 else 8)


def run(proto: bytes, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    results: list[np.ndarray] = session.run(None, feed)
    return results


def typed(proto: onnx.ModelProto, results: list[np.ndarray]) -> onnx.ModelProto:
    """The model with the types of its outputs declared, as the checker wants."""
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    bodies = [a.g for node in made.graph.node for a in node.attribute if a.HasField("g")]
    for graph in (made.graph, *bodies):
        for entry, values in zip(graph.output, results, strict=True):
            entry.CopyFrom(info(entry.name, values))
    return made


def assert_same(
    proto: onnx.ModelProto, feed: dict[str, np.ndarray], to: int, tolerance: float = 0
) -> Model:
    """The raised model is valid and computes the same."""
    model = Model.load(proto)
    raise_opset(model, to)
    assert model.opset == to
    raised = model.to_proto()
    before = run(proto.SerializeToString(), feed)
    onnx.checker.check_model(typed(raised, before))
    after = run(raised.SerializeToString(), feed)
    for old, new in zip(before, after, strict=True):
        assert (old.dtype, old.shape) == (new.dtype, new.shape)
        np.testing.assert_allclose(new, old, rtol=tolerance, atol=tolerance)
    return model


def feed_of(inputs: list[np.ndarray | None], fixed: Iterable[int]) -> dict[str, np.ndarray]:
    return {f"i{k}": v for k, v in enumerate(inputs) if v is not None and k not in fixed}


X = floats(2, 3, 4, 5)
IMAGE = floats(1, 2, 7, 8)
EMPTY = np.zeros(0, F)
