"""How far the tensors inside a model moved: their signal-to-noise ratio against those of the original.

    SQNR = 10 log10 (sum of y^2 / sum of (y' - y)^2)

over some samples of the evaluation data, both models run without ONNX Runtime's own optimizations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from graphopt.assessment import Running
from graphopt.errors import NativeError
from graphopt.ir.model import Model
from graphopt.numerics.decibels import ratio_db
from graphopt.quality.data import Dataset
from graphopt.quality.inputs import Feeds
from graphopt.quality.session import Opened
from graphopt.report import StepReport
from graphopt.runtime.native import Native

COMPARED_SAMPLES = (32, 8, 2)
"""Samples on which tensors are compared; fewer where so many do not fit into memory."""


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
        Nothing for tensors that do not differ, hold no floats, have another shape, or no finite ratio, and
        for all where the models do not run.
    """
    names = sorted(set(tensors) & _made(before) & _made(after))
    if dataset is None or not names or after is before:
        return {}
    for samples in COMPARED_SAMPLES:
        with contextlib.suppress(NativeError):
            batches = [batch.feeds for batch in dataset.batches("evaluation", samples)]
            return _compared(before, after, names, native, batches, running)
    return {}


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


def _compared(
    before: Model,
    after: Model,
    names: Sequence[str],
    native: Native,
    batches: Sequence[Feeds],
    running: Running,
) -> dict[str, float]:
    powers = {name: [0.0, 0.0] for name in names}
    with (
        Opened(native, before, names, seconds=running.seconds) as first,
        Opened(native, after, names, seconds=running.seconds) as second,
    ):
        for feeds in batches:
            pairs = zip(names, first.run(feeds), second.run(feeds), strict=True)
            for name, old, new in pairs:
                if not isinstance(old, np.ndarray) or old.dtype.kind != "f":
                    continue
                if old.shape == new.shape:
                    wide = old.astype(np.float64)
                    powers[name][0] += float(np.square(wide).sum())
                    powers[name][1] += float(np.square(wide - new).sum())
    ratios = {name: ratio_db(*pair) for name, pair in powers.items()}
    return {name: ratio for name, ratio in ratios.items() if ratio is not None}
