"""How one input is drawn, as far as its type, its sizes and its name tell what it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from graphopt.numerics.noise import coloured
from graphopt.quality.data.batching import BATCH_BYTES
from graphopt.quality.inputs import Feeds, InputSpec
from graphopt.quality.search import free_dimensions
from graphopt.runtime.cache import Cache

BATCH = 16
"""Samples in a batch, where the model takes any number and they are small."""

LENGTH = 64
"""What other free sizes grow to, where the original takes it."""

WIDEST = 1 << 24
"""Elements of one input beyond which free sizes are left as they are known to do."""

SMALLEST_FIELD = 8
"""Elements along an axis from which on a spectrum has a shape."""

LONG = 64
"""Elements of a vector from which on it is taken for a series."""

CHANNELS = (1, 2, 3, 4)
"""Sizes of an axis that tell that it counts colours or loudspeakers."""

Kind = Literal["kept", "floats", "positive", "pixels", "integers", "flags", "complex"]


@dataclass(frozen=True)
class Drawing:
    """How one input is drawn.

    Attributes:
        name: of the input.
        kind: ``kept``: its known value; ``floats``: noise of variance 1; ``positive``: noise between 0 and 1;
            ``pixels``: noise over the range of a byte; ``integers``: from 0 to the largest that is known;
            ``flags``: true or false; ``complex``: white noise.
        known: the value to keep, or one of the same shape and type, in the range to draw from.
        axes: that the spectrum of the noise falls over.
        scale: that noise is multiplied by.
        offset: that is added to it then.
    """

    name: str
    kind: Kind
    known: Any
    axes: tuple[int, ...] = ()
    scale: float = 1.0
    offset: float = 0.0

    @property
    def varied(self) -> bool:
        """Whether it is another one in each batch."""
        return self.kind != "kept"

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return tuple(np.shape(self.known))

    @property
    def nbytes(self) -> int:
        """Bytes of its values; 0 for a sequence."""
        return int(getattr(self.known, "nbytes", 0))

    @property
    def digest(self) -> str:
        """Of all that its values depend on, beside the seed."""
        values = self.known
        plain = isinstance(values, np.ndarray) and values.dtype != object
        data = np.ascontiguousarray(values).tobytes() if plain else _text(values)
        kind = str(getattr(values, "dtype", ""))
        how = repr((self.name, self.kind, self.shape, self.axes, self.scale, self.offset))
        return Cache.key(how, kind, data)

    def times(self, scale: float, offset: float) -> Drawing:
        """The same, scaled and moved."""
        return replace(self, scale=self.scale * scale, offset=self.offset * scale + offset)

    def draw(self, rng: np.random.Generator) -> Any:
        """Its value in one batch."""
        if self.kind == "kept":
            return self.known
        dtype = self.known.dtype
        if self.kind == "flags":
            return rng.integers(0, 2, self.shape).astype(dtype)
        if self.kind == "integers":
            low, high = min(int(self.known.min()), 0), int(self.known.max())
            kind = np.uint64 if low >= 0 else np.int64
            return rng.integers(low, high, self.shape, kind, endpoint=True).astype(dtype)
        noise = coloured(rng, self.shape, self.axes)
        if self.kind == "pixels":
            ends = np.iinfo(dtype)
            middle = (ends.min + ends.max) / 2
            return np.clip(np.rint(middle + 64 * noise), ends.min, ends.max).astype(dtype)
        if self.kind == "positive":
            noise = np.asarray(1 / (1 + np.exp(-noise)))
        if self.kind == "complex":
            return (noise + 1j * coloured(rng, self.shape, self.axes)).astype(dtype)
        return (noise * np.float32(self.scale) + np.float32(self.offset)).astype(dtype)


def _text(values: Any) -> str:
    """All elements of a value that is no array of numbers."""
    if isinstance(values, np.ndarray):
        return repr((values.shape, values.ravel().tolist()))
    if isinstance(values, list):
        return repr([_text(entry) for entry in values])
    return repr(values)


@dataclass(frozen=True)
class Sizes:
    """A size for each free dimension, by its key.

    Attributes:
        of: the sizes; a dimension that is missing keeps its own.
    """

    of: dict[str, int]

    @classmethod
    def tried(cls, inputs: Sequence[InputSpec], known: Feeds) -> list[Sizes]:
        """Those to try, the largest first; the last ones are those of the known feeds."""
        sizes = {
            dim: int(known[spec.name].shape[axis])
            for spec in inputs
            for axis, dim in enumerate(spec.shape or ())
            if isinstance(dim, str) and isinstance(known[spec.name], np.ndarray)
        }
        batches, others = ([k for k in keys if k in sizes] for keys in free_dimensions(inputs))
        longer = {**sizes, **{key: max(sizes[key], LENGTH) for key in others}}
        found = []
        for base in (longer, sizes):
            shapes = [cls(base).shape(spec, known[spec.name]) for spec in inputs]
            if any(int(np.prod(shape, dtype=object)) > WIDEST for shape in shapes):
                continue
            one = {**base, **dict.fromkeys(batches, 1)}
            nbytes = sum(cls(one).nbytes(spec, known[spec.name]) for spec in inputs)
            many = min(max(BATCH_BYTES // max(nbytes, 1), 1), BATCH)
            found.append(cls({**base, **dict.fromkeys(batches, many)}))
        return [*found, cls(sizes)]

    def shape(self, spec: InputSpec, value: Any) -> tuple[int, ...]:
        """The shape of an input whose known value is given."""
        shape = tuple(np.shape(value))
        if spec.shape is None or len(shape) != len(spec.shape) or 0 in shape:
            return shape
        pairs = zip(spec.shape, shape, strict=True)
        return tuple(self.of.get(d, n) if isinstance(d, str) else n for d, n in pairs)

    def nbytes(self, spec: InputSpec, value: Any) -> int:
        """Bytes of that input."""
        each = value.dtype.itemsize if isinstance(value, np.ndarray) else 0
        return int(np.prod(self.shape(spec, value), dtype=object)) * each


def drawings(
    inputs: Sequence[InputSpec], known: Feeds, sizes: Sizes, *, alone: bool, positive: bool
) -> Iterator[Drawing]:
    """How each input is drawn.

    Args:
        inputs: what the model declares.
        known: feeds that it runs on.
        sizes: of free dimensions.
        alone: whether only the largest input of floats is drawn, and the rest is kept.
        positive: whether floats lie between 0 and 1.
    """
    grown = {
        spec.name: _grown(known[spec.name], sizes.shape(spec, known[spec.name])) for spec in inputs
    }
    floats = [name for name, value in grown.items() if _is_float(value)]
    largest = max(floats, key=lambda name: int(grown[name].size), default="")
    rows = any(np.ndim(value) > 1 for value in grown.values())
    batches = frozenset(free_dimensions(inputs)[0])
    for spec in inputs:
        value = grown[spec.name]
        found = Drawing(spec.name, "kept", value)
        drawable = isinstance(value, np.ndarray) and value.ndim > 0 and value.size > 0
        if drawable and (not alone or spec.name == largest):
            found = _drawing(found, spec, batches, rows)
        if positive and found.kind == "floats":
            found = replace(found, kind="positive")
        yield found


def _drawing(kept: Drawing, spec: InputSpec, batches: frozenset[str], rows: bool) -> Drawing:
    """How an input of numbers is drawn.

    Args:
        kept: the drawing that keeps it.
        spec: what the model declares of it.
        batches: the keys of free dimensions that count samples.
        rows: whether some input has two axes or more. Beside such a one, whole numbers along a single axis
            are one for each sample: a length, a speaker, a rate.
    """
    value: np.ndarray = kept.known
    if value.dtype == object:
        return kept
    numbers = value.dtype.kind in "iufb" or _is_float(value)
    if numbers and "mask" in spec.name.lower():
        return replace(kept, known=np.ones(value.shape, value.dtype))
    axes = _field(value.shape, spec, batches)
    if value.dtype.kind == "b":
        return replace(kept, kind="flags")
    if value.dtype.kind == "c":
        return replace(kept, kind="complex")
    if _is_float(value):
        return replace(kept, kind="floats", axes=axes)
    if value.dtype.kind not in "iu" or (value.ndim == 1 and rows):
        return kept
    if value.dtype.itemsize == 1 and len(axes) > 1:
        return replace(kept, kind="pixels", axes=axes)
    return replace(kept, kind="integers")


def _field(shape: tuple[int, ...], spec: InputSpec, batches: frozenset[str]) -> tuple[int, ...]:
    """The axes of space, or of time, that an input lies along; none where it has none."""
    rank = len(shape)
    if rank in (4, 5):
        last = shape[-1] in CHANNELS and shape[1] not in CHANNELS
        axes = tuple(range(1, rank - 1) if last else range(2, rank))
    elif rank == 3:
        free = [isinstance(dim, str) and dim not in batches for dim in spec.shape or (0, 0, 0)]
        axes = (2,) if shape[1] in CHANNELS or (free[2] and not free[1]) else (1,)
    else:
        axes = (rank - 1,) if rank and shape[-1] >= LONG else ()
    counted = any(dim in batches for axis, dim in enumerate(spec.shape or ()) if axis in axes)
    small = any(shape[axis] < SMALLEST_FIELD for axis in axes)
    return () if counted or small else axes


def _is_float(value: Any) -> bool:
    """Whether it is an array of floats, of whatever width."""
    return isinstance(value, np.ndarray) and (
        value.dtype.kind == "f" or "float" in value.dtype.name
    )


def _grown(value: Any, shape: tuple[int, ...]) -> Any:
    """An array of another shape, the same elements over and over."""
    if not isinstance(value, np.ndarray) or value.shape == shape:
        return value
    pairs = zip(shape, value.shape, strict=True)
    return value[np.ix_(*(np.arange(new) % old for new, old in pairs))]
