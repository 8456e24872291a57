"""Which metric to judge with where the user names none, and which ones are worth a report.

With labels, the forms that labels can have are gone through from the most telling to the least. Where one
of them allows several readings (several outputs, several layouts), each is tried on the first batch and
the one by which the original does best is taken: an output does better on the labels that are about it.

Without labels it is a measure of fidelity: agreement of the decisions where the model predicts classes, or
one probability for each step of a sequence, and there are enough of them to ever prove so small a drop; else
one that every sample says something about, such as the overlap of masks where the model gives maps of
probabilities. The directions of embeddings are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np

from graphopt.errors import UsageError
from graphopt.ir.model import Model
from graphopt.quality.metrics.base import Metric, Observed
from graphopt.quality.metrics.decisions import ElementAgreement, rarer
from graphopt.quality.metrics.embeddings import is_embedding
from graphopt.quality.metrics.fidelity import Agreement, Cosine, Equal
from graphopt.quality.metrics.kl import KL, are_probabilities
from graphopt.quality.metrics.masks import SoftIoU
from graphopt.quality.metrics.noise import SQNR, WorstDifference
from graphopt.quality.metrics.outputs import as_numbers, is_float, is_text, listed, shown, tensors
from graphopt.quality.metrics.parsing import parse_metric
from graphopt.quality.metrics.readings import Reading, readings
from graphopt.quality.metrics.scores import PROBABILITY, class_scores, thresholds
from graphopt.quality.metrics.variation import TotalVariation, is_distribution

LOSSES_TO_TELL = 6.0
"""Samples times the largest drop from which agreement is taken. Below 3 not even a perfect candidate is
proven at 95 % (rule of three); 6 leaves room for the verdicts after the first, which are stricter."""

RARER = 0.05
"""The share of the rarer decision from which the decisions of all steps are counted."""

SAME = 1e-3
"""How near labels are to an output, in units of its size, that are the original's own output."""

Outputs = Mapping[str, np.ndarray]


def choose_metric(
    model: Model,
    samples: int,
    labels_example: np.ndarray | None,
    outputs_example: Outputs,
    max_drop: float | None,
    size: int | None = None,
) -> tuple[Metric, str]:
    """The metric to judge with.

    Args:
        model: the original.
        samples: that it will be judged on.
        labels_example: labels of one batch; None where there are none.
        outputs_example: the original's outputs for that batch.
        max_drop: the largest drop allowed; None: no limit.
        size: samples in that batch; None where every output has them on its first axis.

    Returns:
        The metric, and the reason in words.

    Raises:
        UsageError: the labels fit no output, or no output can be compared.
    """
    outputs_example = tensors(outputs_example)
    if labels_example is None:
        text, why = _fidelity(model, samples, outputs_example, max_drop, size)
        return parse_metric(text, model), why
    for form in readings(model, labels_example, outputs_example):
        fitting = [
            (score, reading)
            for reading in form
            if (score := _score(model, reading, labels_example, outputs_example)) is not None
        ]
        if fitting:
            _, best = max(fitting, key=lambda entry: entry[0])  # the first of equals
            why = best.why
            if len(fitting) > 1:
                why += f"; of {len(fitting)} readings that fit, the original does best by this one"
            return _unless_own(parse_metric(best.text, model), why, labels_example, outputs_example)
    raise UsageError(
        f"no metric is known for labels {shown(labels_example)} and the outputs "
        f"{listed(outputs_example)}",
        "Name one: --metric cosine needs no labels, --metric module:function is your own",
    )


def _score(model: Model, reading: Reading, labels: np.ndarray, outputs: Outputs) -> float | None:
    """How well the original does, higher is better; None where the metric does not fit."""
    seen = Observed(dict(outputs), dict(outputs), labels, len(labels))
    try:
        metric = parse_metric(reading.text, model)
        value = metric.value(metric.rows(seen))
    except UsageError:
        return None
    return value if metric.higher_is_better else 1 - value


def _unless_own(
    metric: Metric, why: str, labels: np.ndarray, outputs: Outputs
) -> tuple[Metric, str]:
    """Fidelity instead of an error of zero, where the labels are what the original gives."""
    if metric.name != "mse":
        return metric, why
    own = as_numbers(outputs[metric.output]).astype(np.float64).reshape(-1)
    gap = np.abs(own - as_numbers(labels).astype(np.float64).reshape(-1)).max()
    if not gap <= SAME * np.abs(own).mean():
        return metric, why
    why = f"the labels are the original's own output {metric.output!r}"
    return SQNR(output=metric.output), why


def _fidelity(
    model: Model, samples: int, outputs: Outputs, max_drop: float | None, size: int | None
) -> tuple[str, str]:
    floats = {name: array for name, array in outputs.items() if is_float(array)}
    if not floats:
        if all(is_text(array) for array in outputs.values()):
            raise UsageError(
                f"no output can be compared: {listed(outputs)}",
                "Give labels, or a function of your own: --metric module:function",
            )
        return "equal", "no labels, and no output holds floats"
    where = f"@{next(iter(floats))}" if len(floats) == 1 else ""
    several = " in the output where they do so least" if len(floats) > 1 else ""
    why_not = ""
    if _predict_classes(model, floats, size):
        if max_drop is None or samples * max_drop >= LOSSES_TO_TELL:
            return f"agreement{where}", "no labels; the outputs are scores of classes"
        why_not = f", and {samples} samples are too few to prove so small a drop of agreement"
    answers = _answers(model, floats)
    if _decide_steps(model, answers, size):
        steps = sum(array.size for array in answers.values()) / (size or 1)
        if max_drop is None or samples * steps * max_drop >= LOSSES_TO_TELL:
            at = f"@{next(iter(answers))}" if len(answers) == 1 else ""
            why = "no labels; the output is a probability for each step, above or below 0.5"
            return f"element-agreement{at}", why
    likely = _probabilities(model, answers)
    if likely:
        at = f"@{likely[0]}" if len(likely) == 1 else ""
        return f"tv{at}", f"no labels{why_not}; the outputs are probabilities"
    if _are_masks(model, answers, size):
        at = f"@{next(iter(answers))}" if len(answers) == 1 else ""
        return f"soft-iou{at}", f"no labels; a map of probabilities is a mask{several}"
    if any(array.size <= (len(array) if array.ndim else 1) for array in floats.values()):
        why = (
            f"no labels; an output is one number per sample; signal and noise are compared{several}"
        )
        return f"sqnr{where}", why
    return f"cosine{where}", f"no labels{why_not}; directions of outputs are compared{several}"


def _scores(array: np.ndarray, size: int | None) -> np.ndarray | None:
    return class_scores(array, (len(array) if array.ndim else 1) if size is None else size)


def _answers(model: Model, floats: Outputs) -> dict[str, np.ndarray]:
    """The outputs without states, which a caller gives back at the next run.

    A state has the shape that an input declares in numbers.
    """
    declared = {tuple(t.shape) for t in model.graph.inputs if t.shape is not None}
    return {name: array for name, array in floats.items() if array.shape not in declared}


def _decide_steps(model: Model, answers: Outputs, size: int | None) -> bool:
    """Whether all answers are one probability for each step of a sequence, decided either way often enough.

    Where nearly all steps are decided alike, as in a map that is mostly background, the few others hardly
    count in a share of all.
    """
    known = thresholds(model)
    return bool(answers) and all(
        known.get(name) == PROBABILITY
        and _is_sequence(array, size)
        and array.size > (len(array) if size is None else size)
        and ElementAgreement().fits(array, len(array))
        and not is_distribution(array)
        and rarer(array) >= RARER
        for name, array in answers.items()
    )


def _is_sequence(array: np.ndarray, size: int | None) -> bool:
    """Whether an output has one axis beside that of the samples: a map, or boxes, have more."""
    aligned = array.ndim > 1 and size in (None, len(array))
    return len([length for length in array.shape[int(aligned) :] if length > 1]) == 1


def _probabilities(model: Model, answers: Outputs) -> list[str]:
    """The outputs that are probabilities, where all are: of classes, or of one thing for each row.

    A map of probabilities, as of what a pixel belongs to, is none of these: most of it may be background.
    """
    known = thresholds(model)
    metric = TotalVariation()
    for name, array in answers.items():
        single = array.size <= (len(array) if array.ndim else 1) and known.get(name) == PROBABILITY
        if not (single or is_distribution(array)):
            return []
        if not metric.fits(array, len(array) if array.ndim else 1):
            return []
    return list(answers)


def _are_masks(model: Model, answers: Outputs, size: int | None) -> bool:
    """Whether all answers are maps of probabilities, some of which exceed a half and some do not."""
    known = thresholds(model)
    return bool(answers) and all(
        known.get(name) == PROBABILITY
        and array.ndim > 1
        and size in (None, 1, len(array))
        and not _is_sequence(array, size)
        and array.size > len(array)
        and SoftIoU().fits(array)
        and not is_distribution(array)
        and rarer(array) > 0
        for name, array in answers.items()
    )


def _predict_classes(model: Model, floats: Outputs, size: int | None) -> bool:
    """Whether all outputs are scores of classes: one that has their form, or several probabilities."""
    scores = [_scores(array, size) for array in floats.values()]
    if len(scores) == 1:
        return scores[0] is not None and not is_embedding(model, next(iter(floats)), scores[0])
    return all(rows is not None and are_probabilities(rows) for rows in scores)


def fidelity_metrics(model_outputs_example: Outputs, size: int | None = None) -> list[Metric]:
    """The measures of fidelity that are worth reporting, output by output.

    Args:
        model_outputs_example: the original's outputs for one batch, by name.
        size: samples in that batch; None where every output has them on its first axis.

    Returns:
        Metrics bound to one output each: agreement where it has the form of scores of classes, cosine, sqnr,
        worst, and kl and tv where it holds probabilities; equal for integers and booleans; none for strings.
    """
    return list(
        chain(*(_of_output(name, a, size) for name, a in tensors(model_outputs_example).items()))
    )


def _of_output(name: str, array: np.ndarray, size: int | None) -> list[Metric]:
    if is_text(array):
        return []
    if not is_float(array):
        equal = Equal(output=name)
        return [equal] if equal.fits(array, len(array) if array.ndim else 1) else []
    found: list[Metric] = [SQNR(output=name), WorstDifference(output=name)]
    if array.ndim and array.size > len(array):
        found.insert(0, Cosine(output=name))
    if _scores(array, size) is not None:
        found.insert(0, Agreement(output=name))
    if array.ndim > 1 and array.shape[-1] > 1 and are_probabilities(as_numbers(array)):
        found += [KL(output=name), TotalVariation(output=name)]
    return found
