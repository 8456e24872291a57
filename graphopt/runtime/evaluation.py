"""Evaluating nodes whose inputs are constants, outside this process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper

from graphopt.errors import NativeDeathError, NativeError
from graphopt.ir.exporter import Exporter
from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model
from graphopt.ir.surgery import producer
from graphopt.runtime.native import Native


class Evaluator:
    """Computes constant tensors.

    Args:
        native: the process to compute them in.
        seconds: how long one batch may take.
    """

    def __init__(self, native: Native, seconds: float) -> None:
        self.native = native
        self.seconds = seconds

    def __call__(
        self, model: Model, nodes: Sequence[Node], wanted: Sequence[gs.Tensor]
    ) -> dict[int, np.ndarray | str]:
        """Compute tensors from constants.

        The nodes run as one small model in ONNX Runtime without optimizations. If that fails, each
        wanted tensor is computed apart, by ONNX Runtime or else by the reference evaluator.

        Args:
            model: the model that the nodes are part of; gives the versions.
            nodes: nodes in topological order; their inputs are constants or computed by earlier ones.
            wanted: the tensors to return.

        Returns:
            For each wanted tensor, by ``id``, its values or the reason why there are none.
        """
        if not wanted:
            return {}
        try:
            arrays = self._run(model, nodes, wanted, "ort")
            return dict(zip(map(id, wanted), arrays, strict=True))
        except NativeError as error:
            if len(wanted) == 1:
                return {id(wanted[0]): self._alone(model, nodes, wanted[0], str(error.what))}
        found: dict[int, np.ndarray | str] = {}
        for tensor in wanted:
            needed = _needed(nodes, tensor)
            found.update(self(model, needed, [tensor]))
        return found

    def _alone(
        self, model: Model, nodes: Sequence[Node], tensor: gs.Tensor, why: str
    ) -> np.ndarray | str:
        try:
            return self._run(model, nodes, [tensor], "reference")[0]
        except NativeDeathError as error:
            return error.what
        except NativeError:
            return why

    def _run(
        self, model: Model, nodes: Sequence[Node], wanted: Sequence[gs.Tensor], backend: str
    ) -> list[np.ndarray]:
        data = constant_model(model, nodes, wanted).SerializeToString()
        answers = self.native.call("evaluate", data, backend, seconds=self.seconds)
        if not all(isinstance(answer, np.ndarray | np.generic) for answer in answers):
            raise NativeError("the value is not a tensor")
        return [np.asarray(answer) for answer in answers]


def _needed(nodes: Sequence[Node], tensor: gs.Tensor) -> list[Node]:
    """The nodes that a tensor depends on, in the order given."""
    known = {id(node) for node in nodes}
    found: set[int] = set()
    stack = [tensor]
    while stack:
        made = producer(stack.pop())
        if made is not None and id(made) in known and id(made) not in found:
            found.add(id(made))
            stack.extend(made.inputs)
    return [node for node in nodes if id(node) in found]


def constant_model(
    model: Model, nodes: Sequence[Node], wanted: Sequence[gs.Tensor]
) -> onnx.ModelProto:
    """A model without inputs that computes the wanted tensors by the given nodes."""
    proto = onnx.ModelProto(ir_version=max(model.header.ir_version, 4))
    graph = nodes[0].graph
    opset = model.opset if graph is None else int(graph.opset)
    proto.opset_import.add(domain="", version=opset)
    proto.graph.name = "constants"
    exporter = Exporter()
    constants: dict[int, Constant] = {}
    for node in nodes:
        exporter.node(proto.graph.node.add(), node)
        for tensor in node.inputs:
            if isinstance(tensor, Constant):
                constants[id(tensor)] = tensor
    for constant in constants.values():
        message = proto.graph.initializer.add()
        exporter.write(message, constant)
        message.name = constant.name
    for tensor in wanted:
        proto.graph.output.append(helper.make_empty_tensor_value_info(tensor.name))
    return proto
