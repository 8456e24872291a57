"""Models that return inner tensors, and run no more than is needed for them.

The inner tensors become outputs of the main graph; nodes that none of them depends on are left out. Those in
bodies of control flow are brought out as sequences (``hoisting``). Weights of a large model are written to a
file once, beside which models with other outputs may be opened.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import onnx
from onnx import helper

from graphopt.errors import OutputError, ResourceError
from graphopt.ir.model import Model
from graphopt.ir.opset_raising import raise_opset
from graphopt.ir.storage import EMBED_LIMIT
from graphopt.runtime.hoisting import OPSET, Hoisting, defined_within

SEND_BYTES = 64 << 20
"""Bytes of weights up to which a model is sent to the process that runs it, rather than written to a file."""

_STANDARD = ("", "ai.onnx")


class Exposed:
    """A model that can be opened with inner tensors as outputs.

    Args:
        model: the model; it is not changed.
        types: of the tensors in bodies that may be asked for, by name: element types as in TensorProto.

    Raises:
        ResourceError: it is too large to be sent, and there is no room for it in the folder for
            temporary files.
    """

    def __init__(self, model: Model, types: Mapping[str, int] | None = None) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._types = dict(types or {})
        if self._types and model.opset < OPSET:
            model = model.copy()
            raise_opset(model, OPSET)
        if model.weight_bytes() <= SEND_BYTES:
            self.proto = model.to_proto()
            return
        try:
            self.proto = self._write(model)
        except (OSError, OutputError) as error:
            self.close()
            if model.weight_bytes() > EMBED_LIMIT:
                raise ResourceError(
                    f"the model cannot be written to the folder for temporary files: {error}",
                    "Make room there, or set TMPDIR to another folder",
                ) from None
            self.proto = model.to_proto()

    def _write(self, model: Model) -> onnx.ModelProto:
        self._folder = tempfile.TemporaryDirectory(prefix="graphopt-")
        self._path = Path(self._folder.name) / "model.onnx"
        replace(model, external=True).save(self._path)
        return onnx.load(self._path, load_external_data=False)

    def whole(self) -> bytes | str:
        """The model as it is, as bytes or a path."""
        if self._folder is None:
            return bytes(self.proto.SerializeToString())
        return str(self._path)

    def returning(self, names: Sequence[str]) -> bytes | str:
        """The model, as bytes or a path, that returns these tensors, in order.

        Those in bodies come as sequences, with an element for each run of the body.
        """
        proto, results = self._hoisted(names, shapes=False)
        return self._source(proto, [results.get(name, name) for name in names], [])

    def shapes_of(self, names: Sequence[str]) -> bytes | str:
        """The model that returns only the shapes of these tensors, in order; of those in bodies, sequences.

        ONNX Runtime starts at the last node that nothing reads and runs what that needs. With the shapes
        after all other nodes, the first tensor's last, each is taken as soon as its tensor is there, and
        no tensor is kept longer than without.
        """
        proto, results = self._hoisted(names, shapes=True)
        taken = {name for node in proto.graph.node for name in (*node.output, *node.input)}
        free = "shape"
        while any(name.startswith(free) for name in taken):
            free += "_"
        made = {n: results.get(n, f"{free}{number}") for number, n in enumerate(names)}
        order = {name: n for n, node in enumerate(proto.graph.node) for name in node.output}
        late = sorted(names, key=lambda name: -order.get(name, -1))
        nodes = [
            helper.make_node("Shape", [name], [made[name]]) for name in late if name not in results
        ]
        if all(entry.domain not in _STANDARD for entry in proto.opset_import):
            proto.opset_import.add(domain="", version=13)
        return self._source(proto, list(made.values()), nodes)

    def _hoisted(
        self, names: Sequence[str], shapes: bool
    ) -> tuple[onnx.ModelProto, dict[str, str]]:
        """The part of the model for some tensors, and by name the sequences of those in bodies."""
        proto = _part(self.proto, names, self._types)
        types = {name: self._types[name] for name in names if name in self._types}
        return proto, Hoisting(proto.graph, types, shapes).hoist() if types else {}

    def _source(
        self, proto: onnx.ModelProto, outputs: Sequence[str], nodes: Iterable[onnx.NodeProto]
    ) -> bytes | str:
        declared = {info.name: info for info in (*proto.graph.output, *proto.graph.input)}
        known = [
            declared.get(name) or helper.make_empty_tensor_value_info(name) for name in outputs
        ]
        proto.graph.ClearField("output")
        proto.graph.output.extend(known)
        proto.graph.node.extend(nodes)
        data = proto.SerializeToString()
        if self._folder is None:
            return bytes(data)
        handle, name = tempfile.mkstemp(suffix=".onnx", dir=self._folder.name)
        with open(handle, "wb") as file:  # noqa: PTH123 - a handle, not a path
            file.write(data)
        return name

    def close(self) -> None:
        """Remove what was written."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Exposed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _part(
    whole: onnx.ModelProto, names: Iterable[str], inner: Iterable[str] = ()
) -> onnx.ModelProto:
    """The nodes and initializers that some tensors depend on, with all inputs.

    Args:
        whole: the model.
        names: of the tensors.
        inner: names of tensors that lie in bodies; those of them that are wanted need the node around them.
    """
    wanted = set(names)
    within = wanted.intersection(inner)
    nodes = []
    for node in reversed(whole.graph.node):
        if not wanted.isdisjoint(node.output) or (
            within and not within.isdisjoint(defined_within(node))
        ):
            nodes.append(node)
            wanted.update(_reads(node))
    part = onnx.ModelProto()
    for field in ("ir_version", "producer_name", "domain", "model_version"):
        setattr(part, field, getattr(whole, field))
    part.opset_import.extend(whole.opset_import)
    part.functions.extend(whole.functions)
    part.graph.name = whole.graph.name
    part.graph.node.extend(reversed(nodes))
    part.graph.input.extend(whole.graph.input)
    part.graph.output.extend(whole.graph.output)
    given = {info.name for info in whole.graph.input} | wanted
    part.graph.initializer.extend(t for t in whole.graph.initializer if t.name in given)
    part.graph.sparse_initializer.extend(
        t for t in whole.graph.sparse_initializer if t.values.name in given
    )
    made = {name for node in nodes for name in node.output}
    part.graph.value_info.extend(info for info in whole.graph.value_info if info.name in made)
    return part


def _reads(node: onnx.NodeProto) -> set[str]:
    """All names that a node and the bodies in it read."""
    found: set[str] = set()
    stack = [node]
    while stack:
        inner = stack.pop()
        found.update(inner.input)
        for attribute in inner.attribute:
            for graph in (attribute.g, *attribute.graphs):
                found.update(info.name for info in graph.output)
                stack.extend(graph.node)
    found.discard("")
    return found
