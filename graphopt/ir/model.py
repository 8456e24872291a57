"""Model: an ONNX model as the IR, with all that the IR has no place for."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from graphopt.errors import ModelError, ResourceError, printable
from graphopt.files import AtomicFile, unwritable, write_bytes
from graphopt.ir import storage
from graphopt.ir.copying import copy_scopes
from graphopt.ir.exporter import Exporter, embed
from graphopt.ir.graph import (
    STANDARD_DOMAINS,
    Constant,
    Function,
    Graph,
    Names,
    Node,
    element_bits,
)
from graphopt.ir.importer import Importer, opset_of
from graphopt.ir.screening import screen
from graphopt.packing.archive import is_packed
from graphopt.packing.format import SUFFIX
from graphopt.packing.packer import pack
from graphopt.packing.unpacker import Folder, has_magic, read_packed

EXTERNAL_THRESHOLD = 1024
"""Bytes below which a tensor stays inside the model even when the others leave it."""

_ALIGNMENT = 4096


@dataclass
class Model:
    """An ONNX model.

    Attributes:
        graph: the main graph.
        functions: the local functions, in the file's order.
        header: the model message without graph and functions (versions, metadata, opset imports).
        path: where it was read from, or None.
        external: whether its weights lay in files beside it.
    """

    graph: Graph
    functions: list[Function]
    header: onnx.ModelProto
    path: Path | None = None
    external: bool = field(default=False)

    @classmethod
    def load(cls, source: str | os.PathLike[str] | bytes | onnx.ModelProto) -> Model:
        """Read a model.

        Args:
            source: a path, the bytes of a model, or a message (which is not changed). A packed model
                (``graphopt.packing``) is known by its first bytes, whatever its name.

        Raises:
            ModelError: the file is missing, damaged, invalid, or refers to files outside its folder.
            ResourceError: the file is too large to be read.
        """
        if isinstance(source, onnx.ModelProto):
            proto = onnx.ModelProto()
            proto.CopyFrom(source)
            return cls._import(proto, None)
        if isinstance(source, bytes):
            if is_packed(source):
                return cls._unpack(source, None)
            return cls._import(storage.parse_model(source), None)
        path = Path(source)
        if has_magic(path):
            return cls._unpack(path, path)
        proto, folder = storage.read_model(path)
        model = cls._import(proto, path, folder)
        model.external = model.external and folder is None
        return model

    @classmethod
    def _unpack(cls, source: bytes | Path, path: Path | None) -> Model:
        """Read a packed model; its data files live as long as something in memory refers to them."""
        data, folder = read_packed(source, storage.PROTOBUF_LIMIT)
        shown = "the packed model" if path is None else printable(str(path))
        return cls._import(storage.parse_model(data, shown), path, folder)

    @classmethod
    def _import(
        cls, proto: onnx.ModelProto, path: Path | None, unpacked: Folder | None = None
    ) -> Model:
        screen(proto)
        opset = _require_opset(proto)
        folder = unpacked or (None if path is None else path.resolve().parent)
        shadowed = frozenset(f.name for f in proto.functions if f.domain in ("", "ai.onnx"))
        importer = Importer(folder, opset, shadowed, overridable=proto.ir_version >= 4)
        external = any(t.data_location == TensorProto.EXTERNAL for t in proto.graph.initializer)
        functions = [importer.function(entry) for entry in proto.functions]
        graph = importer.graph(proto.graph)
        graph.import_domains = proto.opset_import
        _check_functions(functions)
        proto.ClearField("functions")
        model = cls(graph, functions, proto, path, external)
        model._share_names()
        return model

    def _share_names(self) -> None:
        """Let all scopes draw new names and numbers from one table."""
        names = Names(self.names())
        for scope in self.scopes():
            scope.names = names
        nodes = list(self.nodes())
        names.next_uid = max((node.uid for node in nodes), default=-1) + 1
        for node in nodes:
            if node.uid < 0:
                node.uid = names.uid()

    @property
    def opset(self) -> int:
        """The version of the standard operator set that the main graph imports."""
        return int(self.graph.opset)

    def scopes(self) -> Iterator[Graph | Function]:
        """Every scope: the main graph, the functions, and all bodies in them, outermost first."""
        roots: list[Graph | Function] = [self.graph, *self.functions]
        for root in roots:
            stack = [root]
            while stack:
                scope = stack.pop()
                yield scope
                stack.extend(body for node in reversed(scope.nodes) for body in node.bodies())

    def nodes(self) -> Iterator[Node]:
        """Every node of every scope."""
        for scope in self.scopes():
            yield from scope.nodes

    def constants(self) -> list[Constant]:
        """Every constant that a save would write, each once, initializers first."""
        found: dict[int, Constant] = {}
        for scope in self.scopes():
            for constant in scope.initializers:
                found.setdefault(id(constant), constant)
            for node in scope.nodes:
                for tensor in (*node.inputs, *node.attrs.values()):
                    if isinstance(tensor, Constant):
                        found.setdefault(id(tensor), tensor)
        return list(found.values())

    def names(self) -> set[str]:
        """Every name of a tensor or node in every scope."""
        found: set[str] = set()
        for scope in self.scopes():
            found.update(t.name for t in scope.inputs)
            found.update(t.name for t in scope.initializers)
            for node in scope.nodes:
                found.add(node.name)
                found.update(t.name for t in node.outputs)
                found.update(t.name for t in node.inputs)
        return found

    def copy(self) -> Model:
        """An independent copy; messages and arrays, which nobody writes to, are shared."""
        header = onnx.ModelProto()
        header.CopyFrom(self.header)
        graph, functions = copy_scopes(self.graph, self.functions)
        model = Model(graph, functions, header, self.path, self.external)
        model._share_names()
        return model

    def to_proto(self) -> onnx.ModelProto:
        """The model as one message with all its data inside.

        Raises:
            ResourceError: it would be larger than protobuf can write.
        """
        if self.weight_bytes() > storage.EMBED_LIMIT:
            raise ResourceError(
                "the model is larger than 2 GiB, more than one message can hold",
                "Save it to a path: its weights then go to a file beside it",
            )
        return Exporter(embed).model(self.header, self.graph, self.functions)

    def to_bytes(self) -> bytes:
        """The model as the bytes of a file, the same for the same model."""
        return bytes(self.to_proto().SerializeToString(deterministic=True))

    def weight_bytes(self) -> int:
        """Bytes of all constants."""
        return sum(constant.nbytes for constant in self.constants())

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write the model; it appears whole or the old file stays as it was.

        Weights go to a data file beside it where they did before, or where one file cannot hold them.
        A name that ends in ``.gopt`` stands for a packed model with all of its files in it.

        Args:
            path: the file to write.

        Returns:
            The sha256 of the file of that name, in hex.

        Raises:
            OutputError: the file cannot be written.
        """
        target = Path(path)
        if target.suffix == SUFFIX:
            return self._save_packed(target)
        if self.external or self.weight_bytes() > storage.EMBED_LIMIT:
            return self._save_external(target)
        data = self.to_bytes()
        write_bytes(target, data)
        self._remove_stale(target, None)
        return hashlib.sha256(data).hexdigest()

    def _save_packed(self, target: Path) -> str:
        try:
            folder = tempfile.TemporaryDirectory(prefix=f".{target.name[:40]}.", dir=target.parent)
        except OSError as error:
            raise unwritable(target, error) from None
        with folder as name:
            plain = Path(name, target.with_suffix(".onnx").name)
            self.save(plain)
            return pack(plain, target).archive_sha256

    def _save_external(self, target: Path) -> str:
        with AtomicFile(target.with_name(f"{target.name}.data")) as weights:
            written: list[TensorProto] = []

            def beside(proto: TensorProto, constant: Constant) -> None:
                if constant.nbytes < EXTERNAL_THRESHOLD or constant.dtype == object:
                    embed(proto, constant)
                    return
                _write_outside(proto, constant, weights)
                written.append(proto)

            message = Exporter(beside).model(self.header, self.graph, self.functions)
            weights.finish()
            name = storage.data_name(target, weights.hash.hexdigest())
            for proto in written:
                proto.external_data[0].value = name
            data = message.SerializeToString(deterministic=True)
            with AtomicFile(target) as file:
                file.write(data)
                file.finish()
                if written:
                    weights.path = target.with_name(name)
                    weights.commit()
                file.commit()
        self._remove_stale(target, name if written else None)
        return hashlib.sha256(data).hexdigest()

    def _remove_stale(self, target: Path, keep: str | None) -> None:
        """Remove the data file of the output that was replaced; never one that was our input."""
        used = {
            constant.stored.region.path
            for constant in self.constants()
            if constant.stored is not None and constant.stored.region is not None
        }
        for stale in storage.stale_data(target, keep):
            if stale.resolve() not in used:
                with contextlib.suppress(OSError):
                    stale.unlink()


def _write_outside(proto: TensorProto, constant: Constant, weights: AtomicFile) -> None:
    stored = constant.stored
    if stored is not None and stored.region is not None and isinstance(stored.tensor, TensorProto):
        proto.CopyFrom(stored.tensor)
        del proto.external_data[:]
        raw: bytes | memoryview = memoryview(stored.region.map().data)
    elif stored is None and element_bits(constant.dtype) >= 8:
        values = np.ascontiguousarray(constant.values)
        proto.data_type = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
        proto.dims.extend(values.shape)
        raw = values.reshape(-1).view(np.uint8).data
    else:
        embed(proto, constant)
        if not proto.HasField("raw_data"):
            array = onnx.numpy_helper.to_array(proto)
            proto.CopyFrom(onnx.numpy_helper.from_array(array, proto.name))
        raw = proto.raw_data
        proto.ClearField("raw_data")
    weights.pad(_ALIGNMENT if len(raw) >= 1 << 20 else 64)
    proto.data_location = TensorProto.EXTERNAL
    for key, value in (("location", ""), ("offset", str(weights.size)), ("length", str(len(raw)))):
        proto.external_data.add(key=key, value=value)
    weights.write(raw)


def _require_opset(proto: onnx.ModelProto) -> int:
    """The version of the standard operators; a model without any may do without."""
    opset = opset_of(proto.opset_import)
    if opset is None and all(node.domain not in STANDARD_DOMAINS for node in proto.graph.node):
        return 1
    if opset is None or opset < 1:
        said = (
            "does not import a version" if opset is None else f"says that it uses version {opset}"
        )
        raise ModelError(
            f"the model {said} of the ONNX operators",
            "It must import an operator set of version 1 or higher",
        )
    if opset > onnx.defs.onnx_opset_version():
        raise ModelError(
            f"the model uses version {opset} of the ONNX operators; the installed onnx package knows "
            f"them up to {onnx.defs.onnx_opset_version()}",
            "Install a newer onnx package",
        )
    return opset


def _check_functions(functions: list[Function]) -> None:
    """Refuse functions that call themselves, through others or not."""
    by_key = {function.key: function for function in functions}
    if len(by_key) != len(functions):
        raise ModelError("two local functions have the same domain, name and overload")
    state: dict[tuple[str, str, str], int] = {}
    for start in by_key:
        stack = [(start, iter(_calls(by_key[start], by_key)))]
        state.setdefault(start, 1)
        if state[start] == 2:
            continue
        while stack:
            key, calls = stack[-1]
            for called in calls:
                if state.get(called) == 1:
                    raise ModelError(
                        f"local function {printable(called[1])!r} calls itself",
                        "ONNX functions may not be recursive",
                    )
                if called not in state:
                    state[called] = 1
                    stack.append((called, iter(_calls(by_key[called], by_key))))
                    break
            else:
                state[key] = 2
                stack.pop()


def _calls(
    function: Function, by_key: dict[tuple[str, str, str], Function]
) -> list[tuple[str, str, str]]:
    found = []
    stack: list[Graph | Function] = [function]
    while stack:
        for node in stack.pop().nodes:
            key = (node.domain or "", node.op, node.overload)
            if key in by_key:
                found.append(key)
            stack.extend(node.bodies())
    return found
