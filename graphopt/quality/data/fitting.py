"""Fitting samples to a model's inputs: names, element types, shapes, finite numbers.

What a sample is follows from ranks. Let an input declare rank r.

    array of rank r        axis 0 is the input's own axis 0; samples are joined along it
    array of rank r + 1    axis 0 counts samples, each of them the whole input; one sample a run
    r = 0, rank 1          one value for each sample; samples of one value may share a run
    r = 0, rank 0          one value for all samples

Where samples are joined, a fixed first dimension d says how many a run takes. No value ever changes: a
number is converted only to a type that holds it exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from graphopt.errors import UsageError, printable
from graphopt.quality.data.rows import Form, Rows
from graphopt.quality.data.source import Needs, Piece
from graphopt.quality.inputs import InputSpec


def fit(piece: Piece, needs: Needs, position: int) -> Iterator[Rows]:
    """Check a piece against a model's inputs.

    Args:
        piece: as the source gave it.
        needs: what the model wants.
        position: the number of its first sample.

    Yields:
        Its samples, parted where the values of scalar inputs change.

    Raises:
        UsageError: an input is missing, or a type, shape or value does not fit.
    """
    arrays, forms = {}, {}
    names, _ = needs.without_labels().pick(piece.arrays.keys(), piece.where)
    specs = {spec.name: spec for spec in needs.all}
    count = _count(piece)
    if count == 0:
        return
    for name in names:
        spec, array = specs[name], piece.arrays[name]
        array = converted(array, spec, piece.where)
        if array.ndim == 0 and spec.shape == ():
            array = np.broadcast_to(array, (count,))
        forms[name] = _form(array, spec, piece)
        held = f"the array {printable(name)!r} of {piece.where} holds"
        _require_finite(array, held, position)
        arrays[name] = array
    labels = None if piece.labels is None else _labels(piece.labels, count, piece.where, position)
    run = _run(arrays, forms, specs, piece.where)
    if piece.complete:
        if run not in (0, count):
            raise UsageError(
                f"{piece.where} holds {count} samples, one run of the model takes {run}"
            )
        run = count
    yield from _by_scalars(Rows(arrays, labels, forms, run))


def _count(piece: Piece) -> int:
    """How many samples a piece has."""
    sizes = {name: len(array) for name, array in piece.arrays.items() if array.ndim}
    if not sizes:
        raise UsageError(f"{piece.where} holds no samples: no array has an axis to count them")
    first = next(iter(sizes))
    for name, size in sizes.items():
        if size != sizes[first]:
            raise UsageError(
                f"{piece.where} has {sizes[first]} samples of {printable(first)!r} and {size} of "
                f"{printable(name)!r}",
                "Axis 0 of every array counts the samples",
            )
    return sizes[first]


def converted(array: np.ndarray, spec: InputSpec, where: str) -> np.ndarray:
    """An array in an input's element type.

    Raises:
        UsageError: the type does not hold every value exactly.
    """
    wants, has = spec.dtype, array.dtype
    if not has.isnative:
        array = array.astype(has.newbyteorder("="))
        has = array.dtype
    if wants is None or has == wants:
        if has == object and not all(isinstance(text, str) for text in array.flat):
            raise UsageError(f"the array {printable(spec.name)!r} of {where} holds objects")
        return array
    if wants == object and has.kind == "U":
        return array.astype(object)
    if wants.kind in "iu" and has.kind in "iu":
        range_ = np.iinfo(wants)
        if not array.size or range_.min <= int(array.min()) <= int(array.max()) <= range_.max:
            return array.astype(wants)
        why = f" and {wants} does not hold all of its values"
    elif _is_float(has) and _is_float(wants) and np.can_cast(has, wants, "safe"):
        return array.astype(wants)
    else:
        why = f", the model wants {'text' if wants == object else wants}"
    raise UsageError(
        f"the array {printable(spec.name)!r} of {where} is {printable(str(has), 60)}{why}",
        f"Convert it: array.astype({'str' if wants == object else repr(str(wants))})",
    )


def _is_float(dtype: np.dtype) -> bool:
    """Whether a type is a float of numpy's or one of the narrow ones beside it."""
    return dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)


def _form(array: np.ndarray, spec: InputSpec, piece: Piece) -> Form:
    """How samples feed an input, by its rank and the array's."""
    shape, sample = spec.shape, array.shape[1:]
    if array.ndim and piece.complete != "whole":
        if shape is None:
            return "joined"
        if array.ndim == len(shape) and _agree(sample, shape[1:]):
            return "joined"
    if array.ndim and piece.complete != "rows":
        if shape is None and piece.complete:
            return "whole"
        if shape is not None and len(sample) == len(shape) and _agree(sample, shape):
            return "whole" if shape or piece.complete else "scalar"
    wants = "any shape" if shape is None else _shown(shape)
    batch = "" if piece.complete == "whole" else " with the batch first"
    raise UsageError(
        f"the array {printable(spec.name)!r} of {piece.where} has samples of shape "
        f"{_shown(sample) if array.ndim else 'none'}, the model wants {wants}{batch}",
        "Axis 0 counts the samples; a sample that is the whole input takes one more axis in front",
    )


def _agree(has: tuple[int, ...], wants: tuple[int | str, ...]) -> bool:
    return all(
        not isinstance(want, int) or want == size for size, want in zip(has, wants, strict=True)
    )


def _shown(shape: tuple[int | str, ...]) -> str:
    comma = "," if len(shape) == 1 else ""
    return f"({', '.join(printable(str(size), 40) for size in shape)}{comma})"


def _run(
    arrays: dict[str, np.ndarray], forms: dict[str, Form], specs: dict[str, InputSpec], where: str
) -> int:
    """How many samples a run takes; 0: any number."""
    sizes = {"": 1} if "whole" in forms.values() else {}
    for name in arrays:
        shape = specs[name].shape
        if forms[name] == "joined" and shape and isinstance(shape[0], int):
            sizes[name] = shape[0]
    if len(set(sizes.values())) > 1:
        sizes.pop("", None)
        name = max(sizes, key=lambda n: sizes[n])
        raise UsageError(
            f"a run of the model takes {sizes[name]} rows of {printable(name)!r} and another number "
            f"of other inputs, so rows of {where} are no samples",
            f"Give {printable(name)!r} one more axis in front, which counts the samples",
        )
    return next(iter(sizes.values()), 0)


def _labels(labels: np.ndarray, count: int, where: str, position: int) -> np.ndarray:
    """Labels as numbers, flags or text."""
    if labels.ndim == 0 or len(labels) != count:
        have = len(labels) if labels.ndim else "no"
        raise UsageError(f"{where} has {count} samples and {have} labels")
    if labels.dtype == object and all(isinstance(text, str) for text in labels.flat):
        labels = labels.astype(str)
    if labels.dtype.kind == "S":
        try:
            labels = np.char.decode(labels, "utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"the labels of {where} are text, but not in UTF-8") from None
    if labels.dtype.kind not in "biufU":
        raise UsageError(
            f"the labels of {where} are {printable(str(labels.dtype), 60)}",
            "Give numbers or text",
        )
    _require_finite(labels, f"the labels of {where} hold", position)
    return labels if labels.dtype.isnative else labels.astype(labels.dtype.newbyteorder("="))


def _require_finite(array: np.ndarray, held: str, position: int) -> None:
    if not (_is_float(array.dtype) or array.dtype.kind == "c") or np.isfinite(array).all():
        return
    wrong = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    raise UsageError(
        f"{held} NaN or infinity, first in sample {position + int(wrong.argmax())}",
        "Take such samples out or fill them",
    )


def _by_scalars(rows: Rows) -> Iterator[Rows]:
    """Part rows where the value of a scalar input changes."""
    cuts = [0, rows.count]
    for name, form in rows.forms.items():
        if form == "scalar":
            array = rows.arrays[name]
            cuts += (np.flatnonzero(array[1:] != array[:-1]) + 1).tolist()
    bounds = sorted(set(cuts))
    if len(bounds) == 2:
        yield rows
        return
    for start, stop in pairwise(bounds):
        yield rows.take(slice(start, stop))
