"""From a protobuf message to the IR, forgetting nothing (ONNX IR spec, version 3 and newer)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import AttributeProto, helper

from graphopt.errors import ModelError, printable
from graphopt.ir.external import locate
from graphopt.ir.graph import Constant, Function, Graph, Node, Stored, Variable
from graphopt.packing.unpacker import Folder

MAX_DEPTH = 100

_EMPTY = ""


class _Scope:
    """Names visible at one nesting level; looks outward for what it does not hold."""

    def __init__(self, outer: _Scope | None = None) -> None:
        self.outer = outer
        self.tensors: dict[str, gs.Tensor] = {}
        self.depth: int = 0 if outer is None else outer.depth + 1
        if self.depth > MAX_DEPTH:
            raise ModelError(f"subgraphs are nested more than {MAX_DEPTH} levels deep")

    def find(self, name: str) -> gs.Tensor | None:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.tensors:
                return scope.tensors[name]
            scope = scope.outer
        return None


class Importer:
    """Reads the parts of one model.

    Args:
        folder: where external data may lie, or was unpacked to; None where there is no folder.
        opset: the version of the standard operators that the main graph imports.
        shadowed: standard operators that a local function redefines.
        overridable: whether an initializer that is also a graph input is only its default. Below IR
            version 4 every initializer had to be listed as an input, and all of them are constants.
    """

    def __init__(
        self,
        folder: Path | Folder | None,
        opset: int,
        shadowed: frozenset[str] = frozenset(),
        overridable: bool = True,
    ) -> None:
        self.folder = folder
        self.opset = opset
        self.shadowed = shadowed
        self.overridable = overridable

    def graph(self, proto: onnx.GraphProto, outer: _Scope | None = None) -> Graph:
        """A graph or subgraph, its tensors connected to those of the graphs around it."""
        graph = Graph(proto.name, self.opset)
        graph.shadowed = self.shadowed
        scope = _Scope(outer)
        infos = {info.name: info for info in proto.value_info}
        defaults = self._initializers(proto, graph, scope)
        for info in proto.input:
            if info.name in defaults and not self.overridable:
                scope.tensors[info.name].info = info
                continue
            tensor = variable(info)
            tensor.default = defaults.pop(info.name, None)
            graph.inputs.append(tensor)
            self._define(scope, tensor, "a graph input")
        graph.initializers = [t for t in graph.initializers if t.name in defaults]
        self._nodes(proto.node, graph, scope, infos)
        graph.outputs = [self._output(info, graph, scope) for info in proto.output]
        for constant in graph.initializers:
            constant.info = constant.info or infos.get(constant.name)
        graph.declared = [
            held
            for name in infos
            if (held := scope.tensors.get(name)) is not None and held.info is infos[name]
        ]
        known = {tensor.name for tensor in graph.declared}
        # what is declared of nothing here, or of an input or output that is declared as such too
        dangling = [info for name, info in infos.items() if name not in known]
        graph.proto.CopyFrom(_rest_of_graph(proto))
        graph.proto.value_info.extend(dangling)
        return graph

    def function(self, proto: onnx.FunctionProto) -> Function:
        """A local function; its inputs have neither type nor shape."""
        opset = opset_of(proto.opset_import) or self.opset
        function = Function(proto.name, proto.domain, proto.overload, opset)
        function.shadowed = self.shadowed
        outer_opset, self.opset = self.opset, opset
        scope = _Scope()
        infos = {info.name: info for info in proto.value_info}
        for name in proto.input:
            tensor = Variable(name)
            function.inputs.append(tensor)
            self._define(scope, tensor, "a function input")
        self._nodes(proto.node, function, scope, infos)
        for name in proto.output:
            found = scope.find(name)
            if found is None:
                raise ModelError(
                    f"function {printable(proto.name)!r} returns {printable(name)!r}, "
                    "which nothing in it computes"
                )
            found.is_output = True
            function.outputs.append(found)
        function.declared = [t for t in scope.tensors.values() if t.info is not None]
        for field in ("node", "input", "output", "value_info"):
            proto.ClearField(field)
        function.proto = proto
        self.opset = outer_opset
        return function

    def _initializers(
        self, proto: onnx.GraphProto, graph: Graph, scope: _Scope
    ) -> dict[str, Stored]:
        stored: dict[str, Stored] = {}
        for tensor in proto.initializer:
            self._add_constant(tensor.name, self.stored(tensor), graph, scope, stored)
        for sparse in proto.sparse_initializer:
            self._add_constant(sparse.values.name, self.stored(sparse), graph, scope, stored)
        return stored

    def _add_constant(
        self, name: str, values: Stored, graph: Graph, scope: _Scope, stored: dict[str, Stored]
    ) -> None:
        if not name:
            raise ModelError("an initializer has no name")
        if name in stored:
            raise ModelError(f"initializer {printable(name)!r} stands in the file twice")
        stored[name] = values
        constant = Constant(name, values)
        graph.initializers.append(constant)
        scope.tensors[name] = constant

    def stored(self, proto: onnx.TensorProto | onnx.SparseTensorProto) -> Stored:
        """The contents of a tensor message, its external data located and checked."""
        stored = Stored(proto)
        if any(dim < 0 for dim in proto.dims):
            raise ModelError(f"a stored tensor has the negative dimension {min(proto.dims)}")
        parts = (
            [proto.values, proto.indices] if isinstance(proto, onnx.SparseTensorProto) else [proto]
        )
        for part in parts:
            if part.data_location == onnx.TensorProto.EXTERNAL:
                if part is not proto:
                    raise ModelError("a sparse tensor keeps its parts in external data")
                stored.region = locate(part, self.folder, stored.nbytes)
        return stored

    def _define(self, scope: _Scope, tensor: gs.Tensor, what: str) -> None:
        held = scope.tensors.get(tensor.name)
        if held is not None and not isinstance(held, Constant):
            raise ModelError(
                f"tensor {printable(tensor.name)!r} is defined twice, again as {what}",
                "A name may be written once (SSA)",
            )
        scope.tensors[tensor.name] = tensor

    def _nodes(
        self,
        protos: list[onnx.NodeProto],  # a repeated field
        graph: Graph | Function,
        scope: _Scope,
        infos: dict[str, onnx.ValueInfoProto],
    ) -> None:
        outputs: list[list[gs.Tensor]] = []
        for proto in protos:
            made: list[gs.Tensor] = []
            for name in proto.output:
                tensor = Variable(name) if name == _EMPTY else _typed(name, infos.get(name))
                if name != _EMPTY:
                    if isinstance(scope.tensors.get(name), Constant):
                        raise ModelError(
                            f"tensor {printable(name)!r} is both an initializer and computed"
                        )
                    self._define(scope, tensor, f"an output of {printable(proto.name)!r}")
                made.append(tensor)
            outputs.append(made)
        for order, (proto, made) in enumerate(zip(protos, outputs, strict=True)):
            node = self._node(proto, made, scope)
            node.graph, node.order = graph, float(order)
            for body in node.bodies():
                body.parent = node
            graph.nodes.append(node)

    def _node(self, proto: onnx.NodeProto, outputs: list[gs.Tensor], scope: _Scope) -> Node:
        inputs = [self._input(name, proto, scope) for name in proto.input]
        attrs = {entry.name: self.attribute(entry, scope) for entry in proto.attribute}
        if len(attrs) != len(proto.attribute):
            raise ModelError(
                f"node {printable(proto.name or proto.op_type)!r} has an attribute twice"
            )
        domain = proto.domain or None
        return Node(
            proto.op_type, proto.name, attrs, inputs, outputs, domain, proto.overload, proto
        )

    def _input(self, name: str, proto: onnx.NodeProto, scope: _Scope) -> gs.Tensor:
        if name == _EMPTY:
            return Variable(_EMPTY)
        found = scope.find(name)
        if found is None:
            raise ModelError(
                f"node {printable(proto.name or proto.op_type)!r} reads {printable(name)!r}, "
                "which nothing defines",
                "The model is incomplete; run it through onnx.checker",
            )
        return found

    def attribute(self, proto: AttributeProto, scope: _Scope) -> object:
        """An attribute's value in graphsurgeon's terms; what it has no term for stays a message."""
        if proto.ref_attr_name:
            return gs.Node.AttributeRef(proto.ref_attr_name, type(None))
        if proto.type == AttributeProto.GRAPH:
            return self.graph(proto.g, scope)
        if proto.type == AttributeProto.GRAPHS:
            return [self.graph(entry, scope) for entry in proto.graphs]
        if proto.type == AttributeProto.TENSOR:
            return Constant(proto.t.name, self.stored(proto.t))
        return plain_attribute(proto)

    def _output(self, info: onnx.ValueInfoProto, graph: Graph, scope: _Scope) -> gs.Tensor:
        """The tensor that a graph returns; a declared output keeps its own declaration."""
        found = scope.find(info.name)
        if found is None:
            raise ModelError(
                f"graph output {printable(info.name)!r} is computed by nothing",
                "The model is incomplete; run it through onnx.checker",
            )
        found.is_output = True
        variable(info)  # refuses what it cannot read
        if isinstance(found, Constant) or all(found is not entry for entry in graph.inputs):
            found.info = info
        else:
            found.returned = info
        return found


def plain_attribute(proto: AttributeProto) -> object:
    """The value of an attribute that holds neither a tensor nor a graph."""
    kind = proto.type
    if kind == AttributeProto.INT:
        return proto.i
    if kind == AttributeProto.FLOAT:
        return proto.f
    if kind == AttributeProto.STRING:
        return _text(proto.s)
    if kind == AttributeProto.INTS:
        return list(proto.ints)
    if kind == AttributeProto.FLOATS:
        return list(proto.floats)
    if kind == AttributeProto.STRINGS:
        return [_text(entry) for entry in proto.strings]
    return proto


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def variable(info: onnx.ValueInfoProto) -> Variable:
    """A tensor as declared: dims that are not positive are unknown, whatever was meant."""
    dtype: np.dtype | None = None
    shape: tuple[int | str | None, ...] | None = None
    if info.type.WhichOneof("value") == "tensor_type":
        tensor_type = info.type.tensor_type
        if tensor_type.elem_type:
            try:
                dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor_type.elem_type))
            except KeyError:
                raise ModelError(
                    f"tensor {printable(info.name)!r} is declared with the unknown element type "
                    f"{tensor_type.elem_type}"
                ) from None
        if tensor_type.HasField("shape"):
            shape = tuple(_dim(dim) for dim in tensor_type.shape.dim)
    return Variable(info.name, dtype, shape, info)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value > 0 else None
    return dim.dim_param or None


def _typed(name: str, info: onnx.ValueInfoProto | None) -> Variable:
    return Variable(name) if info is None else variable(info)


def _rest_of_graph(proto: onnx.GraphProto) -> onnx.GraphProto:
    """What a graph message says beside its nodes and tensors. Empties the message it is given."""
    for field in ("node", "initializer", "sparse_initializer", "input", "output", "value_info"):
        proto.ClearField(field)
    return proto


def opset_of(imports: list[onnx.OperatorSetIdProto]) -> int | None:  # a repeated field
    """The version of the standard operator set among a model's imports; None if absent."""
    versions = [entry.version for entry in imports if entry.domain in ("", "ai.onnx")]
    return max(versions) if versions else None
