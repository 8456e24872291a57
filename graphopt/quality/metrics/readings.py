"""The ways in which labels can be read as labels of a model's outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from graphopt.ir.model import Model
from graphopt.quality.metrics.entries import lines, metadata
from graphopt.quality.metrics.labels import are_whole, flat
from graphopt.quality.metrics.outputs import (
    as_numbers,
    by_sample,
    is_float,
    is_score,
    is_text,
    is_wide_integer,
)
from graphopt.quality.metrics.scores import class_scores, classified, thresholds

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Reading:
    """A metric that may fit, as it is written, and why."""

    text: str
    why: str


def readings(model: Model, labels: np.ndarray, outputs: Outputs) -> Iterator[list[Reading]]:
    """Forms that labels may have, the most telling first; each with the metrics that would read it.

    Args:
        model: the original.
        labels: of one batch, samples on axis 0.
        outputs: the original's outputs for that batch.
    """
    if labels.ndim == 0 or len(labels) == 0:
        return
    plain = flat(as_numbers(labels))
    if is_text(plain):
        yield _names(model, plain, outputs)
        yield _texts(model, plain, outputs)
        return
    if plain.dtype.kind not in "fiub":
        return
    if _one_hot(plain):
        yield _shaped("top1", plain, outputs, "the labels are one-hot rows of an output's shape")
    if are_whole(plain):
        if plain.ndim == 1:
            yield _classes(model, plain, outputs)
        else:
            yield _frames(model, plain, outputs)
            yield [*_elements(plain, outputs), *_numbers(plain, outputs)]
    if not _bits(plain) or _probable(plain, outputs):
        yield _shaped("mse", plain, outputs, "the labels are numbers of an output's shape")


def _bits(labels: np.ndarray) -> bool:
    return bool(np.isin(labels, (0, 1)).all())


def _one_hot(labels: np.ndarray) -> bool:
    if labels.ndim != 2 or not _bits(labels):
        return False
    return bool((labels.astype(np.int64).sum(axis=1) == 1).all())


def _probable(labels: np.ndarray, outputs: Outputs) -> bool:
    """Whether an output of the labels' shape lies between 0 and 1, as labels of 0 and 1 do."""
    same = [as_numbers(a) for a in outputs.values() if is_float(a) and _alike(a, labels)]
    return any(bool(((a >= 0) & (a <= 1)).all()) for a in same)


def _alike(array: np.ndarray, labels: np.ndarray) -> bool:
    return array.ndim > 0 and len(array) == len(labels) and flat(array).shape == labels.shape


def _shaped(metric: str, labels: np.ndarray, outputs: Outputs, why: str) -> list[Reading]:
    return [
        Reading(f"{metric}@{name}", f"{why} ({name!r})")
        for name, array in outputs.items()
        if _alike(array, labels) and not is_text(array)
    ]


def _classes(model: Model, labels: np.ndarray, outputs: Outputs) -> list[Reading]:
    """One class per sample: scores, one column of a probability or logit, or numbers of classes."""
    size, known, found = len(labels), thresholds(model), []
    for name, array in outputs.items():
        rows = classified(array, size)
        if rows is None or is_text(rows):
            continue
        why = f"the labels are numbers of classes, the output {name!r} predicts classes"
        if rows.shape[1] > 1 or is_wide_integer(rows):
            found.append(Reading(f"top1@{name}", why))
        elif _bits(labels):
            why = f"the labels are 0 and 1, the output {name!r} is one number per sample"
            found.append(Reading(f"top1{_threshold(rows, known.get(name))}@{name}", why))
    return found


def _threshold(column: np.ndarray, known: float | None) -> str:
    """The option that says what one number means, where the graph does not."""
    if known is not None:
        return ""
    probable = bool(((column >= 0) & (column <= 1)).all())
    return f":threshold={0.5 if probable else 0}"


def _names(model: Model, labels: np.ndarray, outputs: Outputs) -> list[Reading]:
    """Names of classes, which the model's metadata may list."""
    sizes = {name: class_scores(array, len(labels)) for name, array in outputs.items()}
    return [
        Reading(
            f"top1:classes=@{key}@{name}", f"the labels are names of classes, listed in {key!r}"
        )
        for key, count in _lists(model)
        for name, rows in sizes.items()
        if rows is not None and rows.shape[1] == count
    ]


def _lists(model: Model) -> list[tuple[str, int]]:
    """Keys of the model's metadata that may hold lists, and how long these are."""
    safe = {key: text for key, text in metadata(model).items() if not set(key) & set("@,:= ")}
    return [(key, count) for key, text in safe.items() if (count := len(lines(text))) > 1]


def _layouts(array: np.ndarray, size: int) -> list[str]:
    """The ways to read an output as scores of steps."""
    if not is_score(array) or array.ndim != 3 or array.shape[2] < 2:
        return []
    return [layout for axis, layout in enumerate(("ntc", "tnc")) if array.shape[axis] == size]


def _texts(model: Model, labels: np.ndarray, outputs: Outputs) -> list[Reading]:
    """Texts that an output spells with a charset of the model's metadata."""
    found = []
    for name, array in outputs.items():
        for layout in _layouts(array, len(labels)):
            for key, count in _lists(model):
                lacking = array.shape[2] - count
                if lacking not in (0, 1, 2):
                    continue
                space = ",space=append" if lacking == 2 else ""
                why = f"the labels are texts, the output {name!r} spells with the charset {key!r}"
                base = f"cer:charset=@{key}{space},layout={layout}"
                found += [Reading(f"{base}{blank}@{name}", why) for blank in ("", ",blank=-1")]
    return found


def _numbers(labels: np.ndarray, outputs: Outputs) -> list[Reading]:
    """Sequences of numbers, as scores of steps or as numbers."""
    found = []
    for name, array in outputs.items():
        why = f"the labels are sequences of numbers, the output {name!r} holds sequences"
        if is_wide_integer(array):
            found += [Reading(f"cer:decode={how}@{name}", why) for how in ("none", "greedy")]
        for layout in _layouts(array, len(labels)):
            base = f"cer:layout={layout}"
            found += [Reading(f"{base}{blank}@{name}", why) for blank in ("", ",blank=-1")]
    return found


def _frames(model: Model, labels: np.ndarray, outputs: Outputs) -> list[Reading]:
    """A class for every element of an output that tells it by one number, as speech in a frame of sound.

    Labels of 0 and 1 that are floats may be numbers as well.
    """
    if labels.dtype.kind not in "iub" or not _bits(labels):
        return []
    known, found = thresholds(model), []
    for name, array in outputs.items():
        if not _one_each(array, labels):
            continue
        numbers = as_numbers(array)
        cut = known.get(name)
        if cut is None and not bool(((numbers >= 0) & (numbers <= 1)).all()):
            continue
        why = f"the labels are 0 and 1, the output {name!r} is one number for each of them"
        found.append(Reading(f"element-accuracy{_threshold(numbers, cut)}@{name}", why))
    return found


def _one_each(array: np.ndarray, labels: np.ndarray) -> bool:
    """Whether an output holds one float for each label."""
    rows = by_sample(array, len(labels))
    return rows is not None and is_float(rows) and flat(rows).shape == labels.shape


def _elements(labels: np.ndarray, outputs: Outputs) -> list[Reading]:
    why = "the labels are a class for every element of the output"
    return [
        Reading(f"element-accuracy@{name}", f"{why} {name!r}")
        for name, array in outputs.items()
        if not _one_each(array, labels)
    ]
