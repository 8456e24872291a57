"""Opening a data set: everything is read and checked once before any work starts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping

from graphopt.errors import UsageError, printable
from graphopt.ir.model import Model
from graphopt.quality.data.dataset import Dataset, Part
from graphopt.quality.data.digest import sample_hashes
from graphopt.quality.data.image_options import ImageOptions
from graphopt.quality.data.memory import ARRAYS, FEEDS
from graphopt.quality.data.options import DataOptions, DataSource
from graphopt.quality.data.source import Needs, Source
from graphopt.quality.data.sources import open_source
from graphopt.quality.data.split import CALIBRATION_MOST, Split, eighths
from graphopt.quality.data.streamed import Scanned, Selection, StreamedDataset
from graphopt.quality.inputs import optional_specs, specs


def open_dataset(options: DataOptions, model: Model, *, calibrates: bool = True) -> Dataset:
    """Open the data for a model.

    Args:
        options: where it is and how it is used.
        model: the model that it feeds.
        calibrates: whether some pass looks at data; otherwise all of it evaluates.

    Returns:
        The data set, read once from end to end.

    Raises:
        UsageError: data is missing, damaged, does not fit the model, or is not enough.
        ResourceError: a single sample is too large.
    """
    needs = model_needs(model, options.labels, options.image)
    calibration = options.calibration if options.calibration is not None else options.source
    evaluation = options.evaluation if options.evaluation is not None else options.source
    if options.calibration is None and options.evaluation is None:
        assert options.source is not None
        return _divided(options, options.source, needs, calibrates)
    if evaluation is None:
        raise UsageError("no evaluation data is given", "Give some beside the calibration data")
    if not calibrates:
        return _divided(options, evaluation, needs, calibrates)
    if calibration is None:
        raise UsageError("no calibration data is given", "Give some beside the evaluation data")
    return _apart(options, calibration, evaluation, needs)


def model_needs(model: Model, labels: str | None, image: ImageOptions | None) -> Needs:
    """What a model wants of data.

    Raises:
        UsageError: it takes no inputs, or some that are no tensors.
    """
    inputs, optional = specs(model), optional_specs(model)
    if not inputs:
        raise UsageError("the model takes no inputs, so data is of no use", "Leave the data out")
    for spec in inputs:
        if spec.kind != "tensor" or spec.dtype is None:
            kind = spec.kind if spec.kind != "tensor" else "of an unknown type"
            raise UsageError(
                f"the input {printable(spec.name)!r} is {_article(kind)}, and data sets hold tensors",
                "Leave the data out: inputs are then drawn",
            )
    tensors = tuple(s for s in optional if s.kind == "tensor" and s.dtype is not None)
    return Needs(tuple(inputs), tensors, labels, image=image or ImageOptions())


def _article(kind: str) -> str:
    return kind if kind.startswith("of") else f"a{'n' if kind[0] in 'aeiou' else ''} {kind}"


def _divided(
    options: DataOptions, given: DataSource, needs: Needs, calibrates: bool
) -> StreamedDataset:
    """One source, divided by the seed."""
    source = open_source(given, needs)
    _require_images(options, source)
    scanned = Scanned(source, needs)
    tally, shown = scanned.tally, scanned.source.about.shown
    parts: dict[Part, Selection] = {}
    share = 0
    if calibrates:
        if tally.units < 2:
            runs = f"{tally.samples} samples in one run" if tally.samples > 1 else "one sample"
            raise UsageError(
                f"{shown} holds {runs}, too few to divide into calibration and evaluation",
                "Give more samples, or give the calibration data apart",
            )
        share = eighths(options.split)
    split = Split(tally.units, share, _most_units(scanned), options.seed)
    if calibrates:
        parts["calibration"] = Selection(scanned, split, calibrates=True)
    parts["evaluation"] = Selection(scanned, split, calibrates=False)
    return StreamedDataset(
        source=_name(given),
        digest=tally.digest,
        samples=tally.samples,
        labels=_label_name(scanned),
        seed=options.seed,
        warnings=_warnings([scanned]),
        parts=parts,
        counts={part: selection.count() for part, selection in parts.items()},
    )


def _apart(
    options: DataOptions, calibration: DataSource, evaluation: DataSource, needs: Needs
) -> StreamedDataset:
    """Two sources, each with one purpose."""
    wanted = needs.to_calibrate()
    sources = open_source(calibration, wanted), open_source(evaluation, needs)
    _require_images(options, *sources)
    looked_at = Scanned(sources[0], wanted)
    tally = looked_at.tally
    split = Split(tally.units, 8, _most_units(looked_at), options.seed)
    first = Selection(looked_at, split, calibrates=True)
    hashes = frozenset(h for rows in first.rows() for h in sample_hashes(rows))
    judged = Scanned(sources[1], needs, hashes)
    second = Selection(judged, Split(judged.tally.units, 0, 0, options.seed), calibrates=False)
    counts: dict[Part, int] = {"calibration": first.count(), "evaluation": second.count()}
    warnings = _warnings([looked_at, judged])
    if counts["calibration"] < tally.samples:
        warnings.append(
            f"{counts['calibration']} of {tally.samples} samples of {looked_at.source.about.shown} "
            "calibrate, evenly spread"
        )
    if judged.tally.familiar:
        warnings.append(
            f"{judged.tally.familiar} evaluation samples are also among the calibration samples, so "
            "the verdict is too kind"
        )
    digests = f"{tally.digest} {judged.tally.digest}".encode()
    return StreamedDataset(
        source=f"{_name(calibration)} + {_name(evaluation)}",
        digest=hashlib.sha256(digests).hexdigest(),
        samples=tally.samples + judged.tally.samples,
        labels=_label_name(judged),
        seed=options.seed,
        warnings=warnings,
        parts={"calibration": first, "evaluation": second},
        counts=counts,
    )


def _require_images(options: DataOptions, *sources: Source) -> None:
    if options.image is not None and not any(source.about.images for source in sources):
        raise UsageError(
            f"{sources[-1].about.shown} holds no images, so a preprocessing of images has no use",
            "Leave it out: arrays are taken as they are",
        )


def _most_units(scanned: Scanned) -> int:
    """How many units calibrate at most."""
    return max(1, CALIBRATION_MOST * scanned.tally.units // scanned.tally.samples)


def _label_name(scanned: Scanned) -> str:
    if not scanned.tally.labels:
        return ""
    return scanned.needs.labels or scanned.source.about.label_name or "labels"


def _name(given: DataSource) -> str:
    if isinstance(given, str | os.PathLike):
        return os.fsdecode(given)
    if callable(given):
        return str(getattr(given, "__qualname__", "function"))
    return ARRAYS if isinstance(given, Mapping) else FEEDS


def _warnings(scanned: Iterable[Scanned]) -> list[str]:
    found: list[str] = []
    for each in scanned:
        found += each.source.about.notes
        if each.tally.left_out:
            found.append(
                f"{each.tally.left_out} samples of {each.source.about.shown} fill no run of the model and "
                "are left out"
            )
    return found
