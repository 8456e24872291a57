"""How far the tensors inside a model moved: their signal-to-noise ratio against those of the original.

    SQNR = 10 log10 (sum of y^2 / sum of (y' - y)^2)

over some samples of the evaluation data, both models run without ONNX Runtime's own optimizations.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from graphopt.assessment import Running
from graphopt.errors import NativeError
from graphopt.ir.model import Model
from graphopt.numerics.decibels import ratio_db
from graphopt.quality.data import Dataset
from graphopt.quality.session import Opened
from graphopt.report import StepReport
from graphopt.runtime.native import Native

COMPARED_SAMPLES = 32
"""Samples on which tensors are compared."""


def noise_ratios(
    before: Model,
    after: Model,
    tensors: Iterable[str],
    native: Native,
    dataset: Dataset | None,
    running: Running,
) -> dict[str, float]:
    """Signal-to-noise ratios of tensors of the main graph, in dB, by name.

    Args:
        before: the model that they are compared with.
        after: the result.
        tensors: names; what only one of the models computes is left out.
        native: the process to run both in.
        dataset: what they are run on; None: nothing is compared.
        running: how models are run.

    Returns:
        Nothing for tensors that do not differ, hold no floats, have another shape, or no finite ratio.
    """
    names = sorted(set(tensors) & _made(before) & _made(after))
    if dataset is None or not names or after is before:
        return {}
    powers = {name: [0.0, 0.0] for name in names}
    try:
        for name, old, new in _values(before, after, names, native, dataset, running):
            if old.shape == new.shape:
                powers[name][0] += float(np.square(old).sum())
                powers[name][1] += float(np.square(old - new).sum())
    except NativeError:
        return {}
    ratios = {name: ratio_db(*pair) for name, pair in powers.items()}
    return {name: ratio for name, ratio in ratios.items() if ratio is not None}


def with_noise(steps: Sequence[StepReport], ratios: dict[str, float]) -> list[StepReport]:
    """Steps whose rows of quantized nodes tell the ratio of what these give."""
    return [
        replace(
            step,
            quantized=[replace(row, sqnr_db=ratios.get(row.tensor)) for row in step.quantized],
        )
        for step in steps
    ]


def _made(model: Model) -> set[str]:
    return {str(tensor.name) for node in model.graph.nodes for tensor in node.outputs}


def _values(
    before: Model,
    after: Model,
    names: Sequence[str],
    native: Native,
    dataset: Dataset,
    running: Running,
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each tensor in both models, batch by batch, as float64."""
    with (
        Opened(native, before, names, seconds=running.seconds) as first,
        Opened(native, after, names, seconds=running.seconds) as second,
    ):
        for batch in dataset.batches("evaluation", COMPARED_SAMPLES):
            olds, news = first.run(batch.feeds), second.run(batch.feeds)
            for name, old, new in zip(names, olds, news, strict=True):
                if isinstance(old, np.ndarray) and old.dtype.kind == "f":
                    yield name, old.astype(np.float64), new.astype(np.float64)
