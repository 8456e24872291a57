"""The tasks of the quantization benchmark: models, data, what counts as right, what is to be reached.

Every task becomes a folder with ``model.onnx``, ``calib.npz`` (32 samples without labels) and ``eval.npz``
(other samples of the same kind, with labels). Axis 0 of every array counts the samples.

    metric     the share of decisions equal to the labels; without labels, of the float model's
    agreement  the same, against the decisions of the float model
    IoU        of text masks, |a and b| / |a or b|, 1 where both are empty; the mean over pages
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fetch import CACHE
from benchmarks.tasks import file_types, ocr_directions, ocr_faint_words, ocr_pages, speech

Arrays = dict[str, np.ndarray]
Metadata = Mapping[str, str]

SEED = 5
CALIBRATION = 32
LAB = ("mnist_resnet.onnx", "mnist_calib.npz", "mnist_test.npz")


class MissingError(Exception):
    """Something that a task is made from is not on this machine."""


@dataclass(frozen=True)
class Target:
    """What a quantized model must reach.

    Attributes:
        drop: how much the metric may lose, a share.
        agreement: the least agreement with the float model, a share.
        speed: the least time of the float model / time of the quantized one.
        size: the largest file, as a share of the float model's.
    """

    drop: float
    agreement: float
    speed: float
    size: float


@dataclass(frozen=True)
class Task:
    """A model with data.

    Attributes:
        name: of the task and of its folder.
        model: its place in the cache; None where it comes from a folder that the user names.
        samples: makes the data, batches with the labels among them.
        label: the key of the labels; "" where there are none.
        count: the samples to evaluate on.
        decide: from the first output of a run and the metadata of the model to decisions, with as
            many of them as a sample has labels.
        alike: how much decisions are like others, from 0 to 1.
        target: what is to be reached.
    """

    name: str
    model: str | None
    samples: Callable[[], Iterator[Arrays]] | None
    label: str
    count: int
    decide: Callable[[np.ndarray, Metadata], np.ndarray]
    alike: Callable[[np.ndarray, np.ndarray], float]
    target: Target


def best(scores: np.ndarray, _: Metadata) -> np.ndarray:
    """The position of the largest score."""
    positions: np.ndarray = scores.reshape(len(scores), -1).argmax(axis=1)
    return positions


def read(scores: np.ndarray, metadata: Metadata) -> np.ndarray:
    """Words by greedy CTC decoding: best characters, repeats once, blanks (0) away."""
    characters = ["", *metadata["character"].splitlines(), " "]
    words = []
    for line in scores.argmax(axis=2):
        kept = line[np.diff(line, prepend=-1) != 0]
        words.append("".join(characters[index] for index in kept))
    return np.array(words)


def text_mask(probabilities: np.ndarray, _: Metadata) -> np.ndarray:
    """Where there is text."""
    mask: np.ndarray = probabilities > 0.3
    return mask


def voiced(probabilities: np.ndarray, _: Metadata) -> np.ndarray:
    """Which frames are speech: one sample with all of its frames."""
    frames: np.ndarray = probabilities[None] > 0.5
    return frames


def equal(decisions: np.ndarray, others: np.ndarray) -> float:
    """The share of equal decisions."""
    return float((decisions == others).mean())


def iou(masks: np.ndarray, others: np.ndarray) -> float:
    """Intersection over union, the mean over pages."""
    axes = tuple(range(1, masks.ndim))
    both, either = (masks & others).sum(axis=axes), (masks | others).sum(axis=axes)
    return float(np.where(either > 0, both / np.maximum(either, 1), 1.0).mean())


OCR, VAD = "rapidocr-onnxruntime", "silero-vad/silero_vad_16k_sequence.onnx"
MAGIKA = "magika/magika_standard_v3_3.onnx"

TASKS = {
    task.name: task
    for task in (
        Task(
            "rec",
            f"{OCR}/ch_PP-OCRv4_rec_infer.onnx",
            ocr_faint_words.samples,
            "word",
            320,
            read,
            equal,
            Target(drop=0.0095, agreement=0.0, speed=1.25, size=0.45),
        ),
        Task(
            "cls",
            f"{OCR}/ch_ppocr_mobile_v2.0_cls_infer.onnx",
            ocr_directions.samples,
            "turned",
            300,
            best,
            equal,
            Target(drop=0.008, agreement=0.0, speed=1.0, size=0.35),
        ),
        Task(
            "det",
            f"{OCR}/ch_PP-OCRv4_det_infer.onnx",
            ocr_pages.samples,
            "",
            40,
            text_mask,
            iou,
            Target(drop=0.05, agreement=0.95, speed=1.1, size=0.5),
        ),
        Task(
            "magika",
            MAGIKA,
            file_types.samples,
            "label",
            300,
            best,
            equal,
            Target(drop=1.0, agreement=0.99, speed=1.9, size=0.3),
        ),
        Task(
            "vad",
            VAD,
            speech.samples,
            "speech",
            48,
            voiced,
            equal,
            Target(drop=0.01, agreement=0.0, speed=3.7, size=0.35),
        ),
        Task(
            "mnist",
            None,
            None,
            "y",
            2000,
            best,
            equal,
            Target(drop=0.001, agreement=0.0, speed=1.9, size=0.3),
        ),
    )
}


def prepare(task: Task, folder: Path, lab: Path | None) -> str:
    """Write the folder of a task.

    Args:
        task: whose folder.
        folder: where the folders of all tasks are.
        lab: the folder with the files of ``LAB``, for the task without a model in the cache.

    Returns:
        What it holds, in words.

    Raises:
        MissingError: the model or something that makes the data is not there.
    """
    model = _model(task, lab)
    try:
        calibration, evaluation = _parts(task, lab)
    except FileNotFoundError as error:
        raise MissingError(f"{task.name}: {error}") from None
    place = folder / task.name
    place.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model, place / "model.onnx")
    calibration.pop(task.label, None)
    np.savez(place / "calib.npz", **calibration)  # type: ignore[arg-type]
    np.savez(place / "eval.npz", **evaluation)  # type: ignore[arg-type]
    shapes = ", ".join(f"{name} {array.shape}" for name, array in evaluation.items())
    return f"{place}: {shapes}"


def _model(task: Task, lab: Path | None) -> Path:
    if task.model is None and lab is None:
        raise MissingError(f"{task.name} needs --lab, a folder with {', '.join(LAB)}")
    path = CACHE / task.model if task.model else Path(lab or "", LAB[0])
    if not path.is_file():
        how = "python -m benchmarks.fetch" if task.model else "--lab must name the folder with it"
        raise MissingError(f"{task.name}: there is no {path}; {how}")
    return path


def _parts(task: Task, lab: Path | None) -> tuple[Arrays, Arrays]:
    """Calibration and evaluation, in a random order that is always the same."""
    if task.samples is None:
        calibration, evaluation = (_shuffled(_loaded(Path(lab or "", name))) for name in LAB[1:])
        return _rows(calibration, 0, CALIBRATION), _rows(evaluation, 0, task.count)
    batches = list(task.samples())
    made = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    mixed = _shuffled(made)
    return _rows(mixed, 0, CALIBRATION), _rows(mixed, CALIBRATION, CALIBRATION + task.count)


def _loaded(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _shuffled(arrays: Arrays) -> Arrays:
    order = np.random.default_rng(SEED).permutation(len(next(iter(arrays.values()))))
    return {name: array[order] for name, array in arrays.items()}


def _rows(arrays: Arrays, start: int, stop: int) -> Arrays:
    return {name: array[start:stop] for name, array in arrays.items()}
