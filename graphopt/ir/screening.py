"""What must hold of a message before anything else looks at it.

Protobuf checks neither text nor sizes: a string field may hold any bytes, and a tensor may claim a shape
that its data does not fill, so that whoever trusts the shape reserves memory for terabytes. Both are
refused here, in one walk over the whole message that copies no weights and does not recurse. So is
external data where nobody would look for it: training information, sparse tensors, lists of tensors.
"""

from __future__ import annotations

import itertools
import math

import onnx
from google.protobuf.message import Message
from onnx import SparseTensorProto, TensorProto, helper, numpy_helper

from graphopt.errors import ModelError, printable
from graphopt.ir.graph import element_bits

_HIDDEN = frozenset(
    {"training_info", "sparse_initializer", "sparse_tensor", "sparse_tensors", "tensors"}
)
"""Fields below which a tensor must hold its own data."""

_TYPED_FIELDS = (
    "float_data",
    "int32_data",
    "string_data",
    "int64_data",
    "double_data",
    "uint64_data",
)


def screen(proto: onnx.ModelProto) -> None:
    """Refuse a message whose text is not text, or whose tensors hold other data than they say.

    Raises:
        ModelError: with the field or tensor at fault.
    """
    stack: list[tuple[Message, bool]] = [(proto, False)]
    while stack:
        message, hidden = stack.pop()
        if isinstance(message, TensorProto):
            _screen_tensor(message, hidden)
            continue
        if isinstance(message, SparseTensorProto):
            _screen_sparse(message)
        for field, value in message.ListFields():
            if field.type == field.TYPE_STRING:
                texts = (value,) if isinstance(value, str | bytes) else value
                if not all(isinstance(text, str) for text in texts):
                    raise ModelError(
                        f"the field {field.full_name} holds bytes that are not UTF-8 text"
                    )
            elif field.type == field.TYPE_MESSAGE:
                below = hidden or field.name in _HIDDEN
                entries = (value,) if isinstance(value, Message) else value
                stack.extend((entry, below) for entry in entries)


def _screen_tensor(tensor: TensorProto, hidden: bool) -> None:
    texts: tuple[object, ...] = (tensor.name, tensor.doc_string)
    if not all(isinstance(text, str) for text in texts):
        raise ModelError("the name or description of a tensor is not UTF-8 text")
    name = printable(tensor.name)
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(f"tensor {name!r} has the negative dimension {min(tensor.dims)}")
    if tensor.data_location == TensorProto.EXTERNAL:
        if hidden:
            raise ModelError(
                f"tensor {name!r} keeps its data in a file where only initializers and constants may",
                "Save the model with its data inside",
            )
        return
    _screen_size(tensor, name)


def _screen_sparse(sparse: SparseTensorProto) -> None:
    """One index for each value, in ascending order, inside the shape (ONNX IR spec, sparse tensors)."""
    name = printable(str(sparse.values.name))
    for part in (sparse.values, sparse.indices):
        _screen_tensor(part, hidden=True)
    count, shape = math.prod(sparse.values.dims), list(sparse.dims)
    fits = list(sparse.indices.dims) in ([count], [count, len(shape)])
    if not fits or sparse.indices.data_type != TensorProto.INT64 or any(dim < 0 for dim in shape):
        raise ModelError(
            f"the indices of the sparse tensor {name!r} do not fit its values and shape"
        )
    indices = numpy_helper.to_array(sparse.indices)
    rows = [tuple(row) for row in indices.reshape(count, -1).tolist()]
    ends = [math.prod(shape)] if indices.ndim == 1 else shape
    inside = all(0 <= index < end for row in rows for index, end in zip(row, ends, strict=True))
    if not inside or any(a >= b for a, b in itertools.pairwise(rows)):
        raise ModelError(
            f"the indices of the sparse tensor {name!r} are not in ascending order inside {shape}",
            "The file is damaged",
        )


def _screen_size(tensor: TensorProto, name: str) -> None:
    """The data must fill the shape, in the field that the element type calls for."""
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        field = helper.tensor_dtype_to_field(tensor.data_type)
    except KeyError:
        raise ModelError(
            f"tensor {name!r} has the unknown element type {tensor.data_type}",
            "The file is damaged or newer than the installed onnx package",
        ) from None
    count, bits = math.prod(tensor.dims), element_bits(dtype)
    if tensor.HasField("raw_data"):
        needed, held, what = (count * bits + 7) // 8, len(tensor.raw_data), "bytes"
        if dtype == object:
            raise ModelError(f"tensor {name!r} keeps text as raw data, which has no meaning")
    else:
        parts = 2 if dtype.kind == "c" else 1
        needed = count * parts if bits > 4 else (count * bits + 7) // 8
        held, what = len(getattr(tensor, field)), "entries"
    if held != needed:
        shape = printable(str(list(tensor.dims)))
        raise ModelError(
            f"tensor {name!r} of shape {shape} needs {needed} {what} of data but holds {held}",
            "The file is damaged",
        )
    for other in _TYPED_FIELDS:
        if len(getattr(tensor, other)) and (other != field or tensor.HasField("raw_data")):
            raise ModelError(f"tensor {name!r} holds data in the field {other} beside its own")
