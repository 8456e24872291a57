"""The vocabulary of the IR: onnx-graphsurgeon's graph, node and tensor, made lossless.

graphsurgeon forgets what it has no field for (doc strings, metadata, exotic types, sparse tensors,
quantization annotations) and compares nodes and tensors deeply. These subclasses add no second
vocabulary: they remember the protobuf message they were read from, compare by identity (so they may
be keys, and lists of them stay fast) and know the graph they stand in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger import G_LOGGER

from graphopt.errors import ModelError, printable
from graphopt.ir.external import ExternalRegion
from graphopt.ir.indexed import Indexed

G_LOGGER.severity = G_LOGGER.CRITICAL  # a library does not write to its user's terminal

STANDARD_DOMAINS = frozenset({None, "", "ai.onnx"})


class Names:
    """The names and numbers that are taken in a model, and new ones beside them.

    ``bytes_made`` counts the bytes of all constants that were made since the model was read.
    """

    def __init__(self, taken: set[str], next_uid: int = 0) -> None:
        self.taken = taken
        self.last: dict[str, int] = {}
        self.next_uid = next_uid
        self.bytes_made = 0

    def fresh(self, base: str) -> str:
        """A name that nothing in the model has; ``base`` itself when it is free."""
        name, number = base, self.last.get(base, 0)
        while name in self.taken or not name:
            number += 1
            name = f"{base or 'tensor'}_{number}"
        self.last[base] = number
        self.taken.add(name)
        return name

    def uid(self) -> int:
        """A number for a new node, the same in every replay of the same changes."""
        self.next_uid += 1
        return self.next_uid - 1


class Stored(LazyValues):
    """The contents of a constant as they stand in the file, decoded when first asked for.

    Args:
        proto: a TensorProto or SparseTensorProto.
        region: where the bytes lie, for external data.
    """

    def __init__(
        self,
        proto: onnx.TensorProto | onnx.SparseTensorProto,
        region: ExternalRegion | None = None,
    ) -> None:
        self.tensor = proto
        self.region = region
        values = proto.values if isinstance(proto, onnx.SparseTensorProto) else proto
        try:
            self.dtype: np.dtype = np.dtype(helper.tensor_dtype_to_np_dtype(values.data_type))
        except KeyError:
            raise ModelError(
                f"tensor {printable(values.name)!r} has the unknown element type {values.data_type}",
                "The file is damaged or newer than the installed onnx package",
            ) from None
        self.shape: tuple[int, ...] = tuple(proto.dims)
        self.bits = element_bits(self.dtype)
        self._array: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the values take in the file, packed types packed, indices of sparse ones included."""
        if isinstance(self.tensor, onnx.SparseTensorProto):
            count = math.prod(self.tensor.values.dims)
            indices = math.prod(self.tensor.indices.dims)
            return int((count * self.bits + 7) // 8 + 8 * indices)
        count = int(np.prod(self.shape, dtype=object)) if self.shape else 1
        return (count * self.bits + 7) // 8

    def load(self) -> np.ndarray:
        """The values as a read-only array of ``shape`` and ``dtype``.

        A mapped file stays mapped only as long as the array is used, so that its pages are not held.

        Raises:
            ModelError: the stored bytes do not fit the declared shape.
        """
        if self._array is None:
            try:
                array = self._decode()
            except ModelError:
                raise
            except Exception as error:
                name = getattr(self.tensor, "name", "") or "a sparse tensor"
                raise ModelError(
                    f"tensor {printable(name)!r} cannot be decoded: {error}"
                ) from error
            array = array.view()
            array.flags.writeable = False
            if self.region is not None:
                return array
            self._array = array
        return self._array

    def _decode(self) -> np.ndarray:
        if isinstance(self.tensor, onnx.SparseTensorProto):
            return _densify(self.tensor)
        if self.region is None:
            array = numpy_helper.to_array(self.tensor)
        elif self.bits >= 8 and self.dtype != object:
            array = self.region.map().view(self.dtype)
        else:
            array = numpy_helper.to_array(self.embedded())
        return np.asarray(array).reshape(self.shape)

    def embedded(self) -> onnx.TensorProto | onnx.SparseTensorProto:
        """The tensor with its bytes inside, whether or not they lie outside now."""
        if self.region is None:
            return self.tensor
        proto = onnx.TensorProto()
        proto.CopyFrom(self.tensor)
        del proto.external_data[:]
        proto.ClearField("data_location")
        proto.raw_data = self.region.read()
        return proto


def _densify(sparse: onnx.SparseTensorProto) -> np.ndarray:
    """Dense values of a sparse tensor (ONNX IR spec: linear [NNZ] or coordinate [NNZ, rank])."""
    values = numpy_helper.to_array(sparse.values)
    indices = numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), dtype=values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


PACKED = {
    2: ("int2", "uint2"),
    4: ("int4", "uint4", "float4_e2m1fn"),
    6: ("float6_e2m3fn", "float6_e3m2fn"),
}
"""Element types of which several share a byte of raw data, by their bits."""


def element_bits(dtype: np.dtype) -> int:
    """Bits that one element takes when stored; 8 for strings, whose length varies."""
    name = dtype.name
    for bits, names in PACKED.items():
        if name in names:
            return bits
    return 8 if dtype == object else dtype.itemsize * 8


class Variable(gs.Variable):
    """A tensor that is known at run time only.

    Attributes:
        info: what the file declares of it, or None. A declaration is kept, never believed.
        is_output: whether the graph that it stands in returns it.
        default: for a graph input, the initializer that fills it when the caller does not.
        returned: for a graph input that is returned as it is, what the file declares of the output.
    """

    def __init__(
        self,
        name: str,
        dtype: np.dtype | None = None,
        shape: tuple[int | str | None, ...] | None = None,
        info: onnx.ValueInfoProto | None = None,
    ) -> None:
        super().__init__(name, dtype=dtype, shape=shape)
        self.info = info
        self.is_output = False
        self.default: Stored | None = None
        self.returned: onnx.ValueInfoProto | None = None

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Constant(gs.Constant):
    """A tensor whose contents are in the file. Its ``values`` are read-only: assign a new array."""

    info: onnx.ValueInfoProto | None = None
    is_output = False

    def __init__(self, name: str, values: np.ndarray | Stored | Indexed) -> None:
        if isinstance(values, np.ndarray):
            values = _frozen(values)
        super().__init__(name, values)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def values(self) -> np.ndarray:
        """The contents, shape and dtype as declared; ml_dtypes for what numpy lacks."""
        return self._values.load() if isinstance(self._values, LazyValues) else self._values

    @values.setter
    def values(self, values: np.ndarray | Stored | Indexed) -> None:
        self._values = _frozen(values) if isinstance(values, np.ndarray) else values

    @property
    def stored(self) -> Stored | None:
        """The file's own message, as long as the values are untouched."""
        return self._values if isinstance(self._values, Stored) else None

    @property
    def indexed(self) -> Indexed | None:
        """Its few values and their places, where it is held so."""
        return self._values if isinstance(self._values, Indexed) else None

    @property
    def nbytes(self) -> int:
        """Bytes that the values take in a file, types below a byte packed."""
        if isinstance(self._values, Stored | Indexed):
            return self._values.nbytes
        if self._values.dtype == object:
            return sum(len(str(text).encode()) for text in self._values.flat)
        return int((self._values.size * element_bits(self._values.dtype) + 7) // 8)


def _frozen(values: np.ndarray) -> np.ndarray:
    view = values.view()
    view.flags.writeable = False
    return view


class Node(gs.Node):
    """An operator call.

    Attributes:
        proto: the message it was read from, or None for a node made here.
        graph: the graph it stands in.
        uid: a number that is the node's own in its model and stays with it through copies.
        dead: removed; it leaves the graph's list at the next tidying.
        order: where it wants to stand among the nodes of its graph.
    """

    def __init__(
        self,
        op: str,
        name: str = "",
        attrs: dict[str, object] | None = None,
        inputs: list[gs.Tensor] | None = None,
        outputs: list[gs.Tensor] | None = None,
        domain: str | None = None,
        overload: str = "",
        proto: onnx.NodeProto | None = None,
    ) -> None:
        super().__init__(op, name, attrs, inputs, outputs, domain)
        self.overload = overload
        self.proto = proto
        self.graph: Graph | None = None
        self.uid = -1
        self.dead = False
        self.order = 0.0

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def standard(self) -> bool:
        """Whether it is an operator of the ONNX standard that no local function shadows."""
        if self.domain not in STANDARD_DOMAINS:
            return False
        return self.graph is None or (self.op not in self.graph.shadowed)

    @property
    def label(self) -> str:
        """A name for people: its own, or else what it computes."""
        if self.name:
            return printable(self.name)
        first = next((t.name for t in self.outputs if t.name), "")
        if not first and self.proto is not None and self.proto.output:
            first = self.proto.output[
                0
            ]  # a node that was removed is still known by what it computed
        return printable(f"{self.op}→{first}")

    def bodies(self) -> Iterator[Graph]:
        """The subgraphs that its attributes hold (If, Loop, Scan, SequenceMap)."""
        for value in self.attrs.values():
            if isinstance(value, Graph):
                yield value
            elif isinstance(value, list):
                yield from (entry for entry in value if isinstance(entry, Graph))


class Graph(gs.Graph):
    """A scope of nodes: the main graph or the body of a control-flow operator.

    Attributes:
        proto: the rest of the message it was read from (doc string, annotations, metadata).
        initializers: its constants in the file's order, used or not.
        declared: the variables that the file declares in ``value_info``, in order.
        parent: the node whose body this is, or None.
        shadowed: standard operator names that a local function of the model redefines.
        names: the names that are taken in the model, shared by all its scopes.
    """

    def __init__(self, name: str = "", opset: int = 1) -> None:
        super().__init__(name=name, opset=opset)
        self.name = name
        self.proto = onnx.GraphProto()
        self.initializers: list[Constant] = []
        self.declared: list[Variable] = []
        self.parent: Node | None = None
        self.shadowed: frozenset[str] = frozenset()
        self.names: Names = Names(set())

    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Function(gs.Function):
    """A local function: a scope of nodes with its own opset. Its constants are Constant nodes."""

    def __init__(self, name: str, domain: str, overload: str = "", opset: int = 1) -> None:
        super().__init__(name, domain, opset=opset)
        self.overload = overload
        self.proto = onnx.FunctionProto()
        self.initializers: list[Constant] = []
        self.declared: list[Variable] = []
        self.parent: Node | None = None
        self.shadowed: frozenset[str] = frozenset()
        self.names: Names = Names(set())

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def key(self) -> tuple[str, str, str]:
        """What a node calls it by: domain, name and overload."""
        return (self.domain, self.name, self.overload)
