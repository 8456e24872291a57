"""Reading types and small contents of constants and declared inputs, without changing them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues

from graphopt.ir.inference.facts import MAX_ELEMENTS, MAX_RANK, MAX_VALUE_RANK, Fact, value_of

FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a malformed node or tensor may raise while it is looked at."""

EXACT_INTEGERS = {
    np.dtype(np.float64): 1 << 53,
    np.dtype(np.float32): 1 << 24,
    np.dtype(np.float16): 1 << 11,
    np.dtype(ml_dtypes.bfloat16): 1 << 8,
}
"""Up to which magnitude a float type holds every integer."""

_TYPES = {
    code: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code))
    for code in onnx.TensorProto.DataType.values()
    if code != onnx.TensorProto.UNDEFINED
}


def numpy_type(dtype: object) -> np.dtype | None:
    """The numpy type of an ONNX element type number or of anything numpy understands."""
    if dtype is None:
        return None
    if isinstance(dtype, int):
        return _TYPES.get(dtype)
    try:
        found = np.dtype(dtype)  # type: ignore[call-overload]
    except FAILURES:
        return None
    return np.dtype(object) if found.kind in "USO" else found


def is_integer(dtype: np.dtype | None) -> bool:
    """Whether this is bool or an integer type that numpy itself has."""
    return dtype is not None and dtype.kind in "biu"


def in_range(value: int, dtype: np.dtype) -> bool:
    """Whether an integer is exactly representable in this type."""
    if dtype.kind == "b":
        return value in (0, 1)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return bool(info.min <= value <= info.max)
    return abs(value) <= EXACT_INTEGERS.get(dtype, -1)


def constant_array(tensor: gs.Tensor) -> np.ndarray | None:
    """The contents of a small constant of a plain numeric type; its own storage stays as it was."""
    if not isinstance(tensor, gs.Constant):
        return None
    stored = tensor._values
    shape = tuple(stored.shape)
    dtype = numpy_type(stored.dtype)
    if dtype is None or dtype.kind not in "biuf" or len(shape) > MAX_RANK:
        return None
    size = 1
    for dim in shape:
        size *= int(dim)
    if not 0 <= size <= MAX_ELEMENTS or isinstance(stored, SparseValues):
        return None
    try:
        return np.asarray(stored.load()) if isinstance(stored, LazyValues) else np.asarray(stored)
    except Exception:  # noqa: BLE001  # a broken constant is merely unknown; others report it
        return None


def constant_fact(tensor: gs.Constant) -> Fact:
    """The type, shape and, when small and integral, contents of a constant."""
    stored = tensor._values
    shape = tuple(int(dim) for dim in stored.shape)
    dtype = numpy_type(stored.dtype)
    if len(shape) > MAX_RANK:
        return Fact(dtype)
    value = None
    if dtype is not None and len(shape) <= MAX_VALUE_RANK and worth_reading(dtype):
        array = constant_array(tensor)
        if array is not None and array.shape == shape:
            value = integers(array)
    return Fact(dtype, shape, value_of(value, shape) if value is not None else None)


def worth_reading(dtype: np.dtype) -> bool:
    """Whether contents of this type are followed."""
    return is_integer(dtype) or dtype in EXACT_INTEGERS


def integers(array: np.ndarray) -> list[int] | None:
    """The elements as Python integers, or None when one is not an exactly known integer."""
    if array.dtype.kind in "biu":
        return [int(entry) for entry in array.ravel().tolist()]
    limit = EXACT_INTEGERS.get(array.dtype, -1)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        wide = array.astype(np.float64).ravel()
    whole = np.isfinite(wide) & (np.abs(wide) <= limit) & ~((wide == 0) & np.signbit(wide))
    if not bool(np.all(whole)) or not bool(np.all(wide == np.floor(wide))):
        return None
    return [int(entry) for entry in wide.tolist()]
