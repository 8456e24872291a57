"""From the IR back to a protobuf message; what was not touched is written as it was read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, helper, numpy_helper

from graphopt.ir.graph import Constant, Function, Graph, Node, Variable
from graphopt.ir.importer import plain_attribute

TensorWriter = Callable[[onnx.TensorProto, Constant], None]
"""Writes the values of a constant into a message: inside it, or beside the model."""


def embed(proto: onnx.TensorProto, constant: Constant) -> None:
    """Write the values of a constant into the message itself."""
    stored = constant.stored
    if stored is not None and isinstance(stored.tensor, onnx.TensorProto):
        proto.CopyFrom(stored.embedded())
    else:
        proto.CopyFrom(numpy_helper.from_array(constant.values))


class Exporter:
    """Writes the parts of one model.

    Args:
        write: how the values of constants are written.
    """

    def __init__(self, write: TensorWriter = embed) -> None:
        self.write = write
        self.placed: dict[int, list[Constant]] = {}

    def model(
        self, header: onnx.ModelProto, graph: Graph, functions: Iterable[Function]
    ) -> onnx.ModelProto:
        """The whole model: the header it was read with, its graph and its functions."""
        proto = onnx.ModelProto()
        proto.CopyFrom(header)
        self.placed = place_constants(graph)
        self.graph(proto.graph, graph)
        if proto.ir_version < 4:
            for constant in self.placed[id(graph)]:
                self._declare(proto.graph.input, constant)
        for function in functions:
            self.function(proto.functions.add(), function)
        return proto

    def graph(self, proto: onnx.GraphProto, graph: Graph) -> None:
        """Fill a message with a graph."""
        proto.CopyFrom(graph.proto)
        proto.ClearField("value_info")
        if proto.name != graph.name:
            proto.name = graph.name
        for node in graph.nodes:
            self.node(proto.node.add(), node)
        for constant in self.placed.get(id(graph), graph.initializers):
            self._initializer(proto, constant)
        for tensor in graph.inputs:
            self._declare(proto.input, tensor)
            if isinstance(tensor, Variable) and tensor.default is not None:
                self._initializer(proto, Constant(tensor.name, tensor.default))
        for tensor in graph.outputs:
            returned = tensor.returned if isinstance(tensor, Variable) else None
            self._declare(proto.output, tensor, returned)
        alive = {id(t) for node in graph.nodes for t in node.outputs}
        alive |= {id(t) for t in self.placed.get(id(graph), graph.initializers)}
        for tensor in graph.declared:
            if id(tensor) in alive and not tensor.is_output and tensor.info is not None:
                self._declare(proto.value_info, tensor)
        proto.value_info.extend(graph.proto.value_info)

    def function(self, proto: onnx.FunctionProto, function: Function) -> None:
        """Fill a message with a local function; its constants become Constant nodes."""
        proto.CopyFrom(function.proto)
        proto.input.extend(tensor.name for tensor in function.inputs)
        proto.output.extend(tensor.name for tensor in function.outputs)
        for constant in self.placed_in(function):
            node = proto.node.add(op_type="Constant", output=[constant.name])
            value = node.attribute.add(name="value", type=AttributeProto.TENSOR)
            self.write(value.t, constant)
        for node in function.nodes:
            self.node(proto.node.add(), node)
        alive = {id(t) for node in function.nodes for t in node.outputs}
        for tensor in function.declared:
            if id(tensor) in alive and tensor.info is not None:
                self._declare(proto.value_info, tensor)

    def placed_in(self, function: Function) -> list[Constant]:
        """The constants that a function uses, each once, in order of use."""
        placed = place_constants(function)
        own = placed.pop(id(function), [])
        self.placed.update(placed)
        return own

    def node(self, proto: onnx.NodeProto, node: Node) -> None:
        """Fill a message with a node, reusing the one it was read from."""
        if node.proto is not None:
            proto.CopyFrom(node.proto)
            for field in ("input", "output", "attribute"):
                proto.ClearField(field)
        proto.op_type = node.op
        if proto.name != node.name:
            proto.name = node.name
        if proto.domain != (node.domain or ""):
            proto.domain = node.domain or ""
        if proto.overload != node.overload:
            proto.overload = node.overload
        proto.input.extend(tensor.name for tensor in node.inputs)
        proto.output.extend(tensor.name for tensor in node.outputs)
        read = {} if node.proto is None else {a.name: a for a in node.proto.attribute}
        for name, value in node.attrs.items():
            self._attribute(proto.attribute.add(), name, value, read.get(name))

    def _attribute(
        self, proto: AttributeProto, name: str, value: object, read: AttributeProto | None
    ) -> None:
        if isinstance(value, Graph):
            _attribute_frame(proto, name, AttributeProto.GRAPH, read)
            self.graph(proto.g, value)
        elif isinstance(value, list) and value and isinstance(value[0], Graph):
            _attribute_frame(proto, name, AttributeProto.GRAPHS, read)
            for entry in value:
                self.graph(proto.graphs.add(), entry)
        elif isinstance(value, Constant):
            _attribute_frame(proto, name, AttributeProto.TENSOR, read)
            self.write(proto.t, value)
            if proto.t.name != value.name:
                proto.t.name = value.name
        elif isinstance(value, AttributeProto):
            proto.CopyFrom(value)
        elif read is not None and _says(read, value):
            proto.CopyFrom(read)
        elif isinstance(value, gs.Node.AttributeRef):
            proto.name, proto.ref_attr_name = name, value.name
            proto.type = AttributeProto.UNDEFINED if read is None else read.type
        else:
            kind = read.type if read is not None and value == [] else None
            empty = AttributeProto.INTS if value == [] and kind is None else kind
            note = read.doc_string if read is not None and read.doc_string else None
            proto.CopyFrom(helper.make_attribute(name, value, note, attr_type=empty))

    def _initializer(self, proto: onnx.GraphProto, constant: Constant) -> None:
        stored = constant.stored
        if stored is not None and isinstance(stored.tensor, onnx.SparseTensorProto):
            sparse = proto.sparse_initializer.add()
            sparse.CopyFrom(stored.tensor)
            sparse.values.name = constant.name
            return
        tensor = proto.initializer.add()
        self.write(tensor, constant)
        if tensor.name != constant.name:
            tensor.name = constant.name

    def _declare(
        self,
        field: Iterable[onnx.ValueInfoProto],
        tensor: gs.Tensor,
        declared: onnx.ValueInfoProto | None = None,
    ) -> None:
        info = field.add()  # type: ignore[attr-defined]
        if declared is not None:
            info.CopyFrom(declared)
        elif tensor.info is not None:
            info.CopyFrom(tensor.info)
        elif tensor.dtype is not None:
            elem_type = helper.np_dtype_to_tensor_dtype(tensor.dtype)
            info.CopyFrom(helper.make_tensor_value_info(tensor.name, elem_type, tensor.shape))
        if info.name != tensor.name:
            info.name = tensor.name


def _says(read: AttributeProto, value: object) -> bool:
    """Whether an attribute, as it was read, already says what it shall say."""
    if isinstance(value, gs.Node.AttributeRef):
        return bool(read.ref_attr_name == value.name)
    return not read.ref_attr_name and bool(plain_attribute(read) == value)


def _attribute_frame(
    proto: AttributeProto,
    name: str,
    kind: AttributeProto.AttributeType,
    read: AttributeProto | None,
) -> None:
    proto.name, proto.type = name, kind
    if read is not None and read.doc_string:
        proto.doc_string = read.doc_string


def place_constants(root: Graph | Function) -> dict[int, list[Constant]]:
    """Which graph stores which constant: the innermost one around all its users.

    A graph's own initializers stay where they are, as long as they can be seen by their users.

    Args:
        root: the main graph or a function.

    Returns:
        For each scope, by ``id``, the constants to write there, in the file's order.
    """
    paths: dict[int, tuple[Graph | Function, ...]] = {}
    wanted: dict[int, tuple[Constant, tuple[Graph | Function, ...]]] = {}
    owner: dict[int, Graph | Function] = {}
    stack: list[tuple[Graph | Function, ...]] = [(root,)]
    scopes: list[Graph | Function] = []
    while stack:
        path = stack.pop()
        scope = path[-1]
        paths[id(scope)] = path
        scopes.append(scope)
        for constant in scope.initializers:
            owner[id(constant)] = scope
        bodies: list[tuple[Graph | Function, ...]] = []
        for node in scope.nodes:
            for tensor in node.inputs:
                _want(wanted, tensor, path)
            bodies += [(*path, body) for body in node.bodies()]
        for tensor in scope.outputs:
            _want(wanted, tensor, path)
        stack.extend(reversed(bodies))
    placed: dict[int, list[Constant]] = {id(scope): [] for scope in scopes}
    for scope in scopes:
        for constant in scope.initializers:
            seen = wanted.get(id(constant))
            if seen is None or seen[1][: len(paths[id(scope)])] == paths[id(scope)]:
                placed[id(scope)].append(constant)
            else:
                owner.pop(id(constant))
    for constant, path in wanted.values():
        if id(constant) not in owner:
            placed[id(path[-1])].append(constant)
    return placed


def _want(
    wanted: dict[int, tuple[Constant, tuple[Graph | Function, ...]]],
    tensor: gs.Tensor,
    path: tuple[Graph | Function, ...],
) -> None:
    if not isinstance(tensor, Constant):
        return
    seen = wanted.get(id(tensor))
    if seen is None:
        wanted[id(tensor)] = (tensor, path)
        return
    shared = 0
    for mine, theirs in zip(seen[1], path, strict=False):
        if mine is not theirs:
            break
        shared += 1
    wanted[id(tensor)] = (tensor, path[:shared])
