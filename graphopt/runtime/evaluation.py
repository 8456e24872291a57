"""Evaluating nodes whose inputs are constants, outside this process."""

from __future__ import annotations

import time
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

OBJECTION = "Exception during initialization"
"""How ONNX Runtime says that a kernel exists but objects to its constants, such as a divisor of zero."""

ATTEMPTS = 4
"""Parts that the time for a batch is cut into: how long one run of a part of it may take."""


class Evaluator:
    """Computes constant tensors, and remembers what could not be computed.

    Args:
        native: the process to compute them in.
        seconds: how long one batch may take.
    """

    def __init__(self, native: Native, seconds: float) -> None:
        self.native = native
        self.seconds = seconds
        self.failed: dict[tuple[int, str], str] = {}

    def __call__(
        self, model: Model, nodes: Sequence[Node], wanted: Sequence[gs.Tensor]
    ) -> dict[int, np.ndarray | str]:
        """Compute tensors from constants.

        The nodes run as one small model in ONNX Runtime without optimizations. If that fails, each half
        of the wanted tensors is computed apart, and so on. What ONNX Runtime has no kernel for is computed
        by the reference evaluator; what fails when it runs, such as a division by zero, is not, for it
        would be given a value that it never has. What failed is not tried again.

        Args:
            model: the model that the nodes are part of; gives the versions.
            nodes: nodes in topological order; their inputs are constants or computed by earlier ones.
            wanted: the tensors to return.

        Returns:
            For each wanted tensor, by ``id``, its values or the reason why there are none.
        """
        until = time.monotonic() + self.seconds
        found = {id(t): self.failed[_key(t)] for t in wanted if _key(t) in self.failed}
        result: dict[int, np.ndarray | str] = dict(found)
        stack = [[tensor for tensor in wanted if id(tensor) not in found]]
        while stack:
            group = stack.pop()
            if not group:
                continue
            needed = _needed(nodes, group)
            try:
                arrays = self._run(model, needed, group, "ort", until)
                result.update(zip(map(id, group), arrays, strict=True))
            except NativeError as error:
                middle = len(group) // 2
                if middle:
                    stack += [group[middle:], group[:middle]]
                else:
                    result[id(group[0])] = self._alone(model, needed, group[0], error, until)
        return result

    def _alone(
        self,
        model: Model,
        nodes: Sequence[Node],
        tensor: gs.Tensor,
        error: NativeError,
        until: float,
    ) -> np.ndarray | str:
        """One tensor by the reference evaluator, or why there is none."""
        if isinstance(error, _UnsupportedError):
            try:
                return self._run(model, nodes, [tensor], "reference", until)[0]
            except NativeDeathError as death:
                error = death
            except NativeError:
                pass
        self.failed[_key(tensor)] = error.what
        return error.what

    def _run(
        self,
        model: Model,
        nodes: Sequence[Node],
        wanted: Sequence[gs.Tensor],
        backend: str,
        until: float,
    ) -> list[np.ndarray]:
        seconds = min(self.seconds / ATTEMPTS, until - time.monotonic())
        if seconds <= 0:
            raise NativeDeathError(
                f"no time is left of the {self.seconds:g} s for computing constants"
            )
        data = constant_model(model, nodes, wanted).SerializeToString()
        try:
            self.native.call("open", "constants", data, backend, seconds=seconds)
        except NativeDeathError:
            raise
        except NativeError as error:
            if OBJECTION in error.what:
                raise
            raise _UnsupportedError(error.what) from None
        answers = self.native.call("run", "constants", {}, seconds=seconds)
        self.native.call("close", "constants")
        if not all(isinstance(answer, np.ndarray | np.generic) for answer in answers):
            raise NativeError("the value is not a tensor")
        return [np.asarray(answer) for answer in answers]


class _UnsupportedError(NativeError):
    """A runtime has no kernel for some node."""


def _key(tensor: gs.Tensor) -> tuple[int, str]:
    """The same for the same tensor in every replay of the same changes."""
    made = producer(tensor)
    return (-1 if made is None else made.uid, tensor.name)


def _needed(nodes: Sequence[Node], wanted: Sequence[gs.Tensor]) -> list[Node]:
    """The nodes that tensors depend on, in the order given."""
    known = {id(node) for node in nodes}
    found: set[int] = set()
    stack = list(wanted)
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
