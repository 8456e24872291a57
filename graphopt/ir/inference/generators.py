"""Operators that make tensors, spectra and text (ONNX operator spec: Constant, Range, ...)."""

from __future__ import annotations

from math import ceil

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.inference.call import FLOAT, INT64, Call, axis_of
from graphopt.ir.inference.constants import (
    constant_array,
    constant_fact,
    integers,
    is_integer,
    numpy_type,
)
from graphopt.ir.inference.facts import MAX_ELEMENTS, Fact, Shape, static
from graphopt.ir.inference.registry import rule
from graphopt.numerics.dims import Dim, ceil_div, floor_div, is_non_negative, maximum

STRING = np.dtype(object)


@rule("Constant")
def constant(call: Call) -> Fact | None:
    """A tensor, or one of the attributes for scalars and lists (opset 12)."""
    for name in ("value", "sparse_value"):
        tensor = call.attribute(name)
        if isinstance(tensor, gs.Constant):
            return constant_fact(tensor)
    value = call.attribute("value_int")
    if isinstance(value, int):
        return call.result(INT64, (), [value])
    entries = call.integers("value_ints")
    if entries is not None:
        return call.result(INT64, (len(entries),), entries)
    for name, dtype in (("value_float", FLOAT), ("value_string", STRING)):
        if call.attribute(name) is not None:
            return Fact(dtype, ())
    for name, dtype in (("value_floats", FLOAT), ("value_strings", STRING)):
        many = call.attribute(name)
        if isinstance(many, (list, tuple)):
            return Fact(dtype, (len(many),))
    return None


@rule("ConstantOfShape")
def constant_of_shape(call: Call) -> Fact:
    """One element repeated; float zero by default."""
    target = call.elements(0)
    if target is None:
        wanted = call.shape(0)
        shape = call.fresh_shape(wanted[0]) if wanted else None
    else:
        shape = tuple(entry if is_non_negative(entry) else call.fresh() for entry in target)
    filler = call.attribute("value")
    dtype: np.dtype | None = FLOAT
    entries: list[int] | None = [0]
    if filler is None:
        pass
    elif isinstance(filler, gs.Constant):
        dtype = numpy_type(filler._values.dtype)
        array = constant_array(filler)
        entries = None if array is None else integers(array)
    else:
        raise TypeError("value")
    fixed = static(shape)
    count = 0 if fixed is None else int(np.prod(fixed, dtype=object))
    repeated = entries * count if entries is not None and count <= MAX_ELEMENTS else None
    return call.result(dtype, shape, repeated)


@rule("Range")
def sequence(call: Call) -> Fact:
    """As many elements as fit: max(ceil((limit - start) / delta), 0)."""
    dtype = call.common_dtype()
    bounds = [call.value(index) for index in range(3)]
    if any(bound is None or bound.size != 1 for bound in bounds):
        return Fact(dtype, (_float_count(call),))
    start, limit, delta = (bound.flat[0] for bound in bounds if bound is not None)
    if not isinstance(delta, int):
        return Fact(dtype, (call.fresh(),))
    count = maximum(ceil_div(limit - start, delta), 0)
    if not isinstance(count, int) or count > 256:
        return Fact(dtype, (count,))
    return call.result(dtype, (count,), [start + index * delta for index in range(count)])


def _float_count(call: Call) -> Dim:
    """The length of a range of constant floats, told where rounding cannot change it."""
    bounds = [call.floats(index) for index in range(3)]
    if is_integer(call.common_dtype()) or any(not bound for bound in bounds):
        return call.fresh()
    start, limit, delta = (bound[0] for bound in bounds if bound)
    steps = (limit - start) / delta
    if not abs(steps) < 1e6 or abs(steps - round(steps)) < 1e-3:
        return call.fresh()
    return max(ceil(steps), 0)


@rule("EyeLike", "Bernoulli", "RandomNormalLike", "RandomUniformLike")
def like(call: Call) -> Fact:
    """The shape of the input, its type unless one is named."""
    named = call.integer("dtype", 0)
    return Fact(numpy_type(named) if named else call.dtype(0), call.shape(0))


@rule("RandomNormal", "RandomUniform")
def random(call: Call) -> Fact:
    """A shape that is named."""
    shape = call.integers("shape")
    return Fact(numpy_type(call.integer("dtype", 1)), None if shape is None else tuple(shape))


@rule("Multinomial")
def multinomial(call: Call) -> Fact:
    """[batch, samples]."""
    shape = call.shape(0)
    batch = shape[0] if shape else call.fresh()
    return Fact(numpy_type(call.integer("dtype", 6)), (batch, call.integer("sample_size", 1)))


@rule("BlackmanWindow", "HammingWindow", "HannWindow")
def window(call: Call) -> Fact:
    """As long as wanted."""
    size = call.elements(0)
    length = size[0] if size and is_non_negative(size[0]) else call.fresh()
    return Fact(numpy_type(call.integer("output_datatype", 1)), (length,))


@rule("MelWeightMatrix")
def mel_weights(call: Call) -> Fact:
    """[spectrum bins, mel bins]."""
    mels, length = call.elements(0), call.elements(1)
    rows = floor_div(length[0], 2) + 1 if length else call.fresh()
    columns = mels[0] if mels and is_non_negative(mels[0]) else call.fresh()
    return Fact(numpy_type(call.integer("output_datatype", 1)), (rows, columns))


@rule("DFT")
def dft(call: Call) -> Fact:
    """A complex spectrum along one axis; one half of it when one-sided."""
    shape, dtype = call.shape(0), call.dtype(0)
    if shape is None:
        return Fact(dtype)
    rank = len(shape)
    given = [call.integer("axis", 1)] if call.opset < 20 else call.ints(2) if call.has(2) else [-2]
    if not given or call.integer("inverse", 0):
        return Fact(dtype, call.fresh_shape(rank))
    axis = axis_of(given[0], rank)
    dims: list[Dim] = [*shape[:-1], 2]
    if call.has(1):
        length = call.elements(1)
        dims[axis] = length[0] if length and is_non_negative(length[0]) else call.fresh()
    if call.integer("onesided", 0):
        dims[axis] = floor_div(dims[axis], 2) + 1
    return Fact(dtype, tuple(dims))


@rule("STFT")
def stft(call: Call) -> Fact:
    """[batch, frames, bins, 2]."""
    shape, step, dtype = call.shape(0), call.elements(1), call.dtype(0)
    length = call.elements(3) if call.has(3) else None
    width: Dim | None = length[0] if length else None
    if width is None and call.has(2):
        size = call.shape(2)
        width = size[0] if size else None
    batch = shape[0] if shape else call.fresh()
    if shape is None or width is None or not step:
        return Fact(dtype, (batch, call.fresh(), call.fresh(), 2))
    frames = floor_div(shape[1] - width, step[0]) + 1
    bins = floor_div(width, 2) + 1 if call.integer("onesided", 1) else width
    return Fact(dtype, (batch, frames, bins, 2))


@rule("StringNormalizer")
def normalize_strings(call: Call) -> Fact:
    """Stop words may be dropped from the last axis."""
    shape = call.shape(0)
    kept: Shape | None = None if not shape else (*shape[:-1], call.fresh())
    return Fact(STRING, kept)


@rule("StringSplit")
def split_strings(call: Call) -> list[Fact]:
    """A new last axis of data-dependent length; then the count of parts."""
    shape = call.shape(0)
    return [Fact(STRING, None if shape is None else (*shape, call.fresh())), Fact(INT64, shape)]


@rule("TfIdfVectorizer")
def tf_idf(call: Call) -> Fact:
    """One column for each n-gram index."""
    shape, indexes = call.shape(0), call.integers("ngram_indexes")
    columns: Dim = max(indexes) + 1 if indexes else call.fresh()
    return Fact(FLOAT, None if shape is None else (*shape[:-1], columns))


@rule("ImageDecoder")
def decode_image(call: Call) -> Fact:
    """[height, width, channels] of bytes."""
    gray = call.text("pixel_format", "RGB") == "Grayscale"
    return Fact(np.dtype(np.uint8), (call.fresh(), call.fresh(), 1 if gray else 3))
