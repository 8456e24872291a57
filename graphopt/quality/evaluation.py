"""Running models over a part of the data, and what metrics make of their outputs.

Here ONNX Runtime's own optimizations are on: what counts is how the model does where it will run, with
the kernels that it will get there. The outputs of the original, which measures of fidelity compare with,
are computed once and kept on disk beyond a size, so that data larger than memory can be judged with.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from graphopt.errors import ModelError, NativeError, ResourceError, UsageError, printable
from graphopt.ir.model import Model
from graphopt.quality.data import Batch, Dataset, Part
from graphopt.quality.metrics import Metric, Observed, Rows
from graphopt.quality.session import Opened
from graphopt.runtime.native import Native

KEPT_IN_MEMORY = 64 << 20
"""Bytes of the original's outputs that are kept in memory; the rest goes to a temporary file."""

Outputs = dict[str, np.ndarray]


class Evaluation:
    """Metrics of models on one part of the data, against one original.

    Args:
        original: the model to compare with; it must stay as it is until ``before`` was called.
        native: the process to run models in.
        dataset: the data.
        metrics: what to measure.
        part: which part of the data.
        most: samples to use at most; all where this is None.
        seconds: how long one run may take.
        provider: what runs the models.
        threads: for one operator.
        listener: told how many samples of how many have been run.
    """

    def __init__(
        self,
        original: Model,
        native: Native,
        dataset: Dataset,
        metrics: Sequence[Metric],
        *,
        part: Part = "evaluation",
        most: int | None = None,
        seconds: float = 300.0,
        provider: str = "cpu",
        threads: int = 1,
        listener: Callable[[int, int], None] = lambda done, of: None,
    ) -> None:
        self.native = native
        self.dataset = dataset
        self.metrics = list(metrics)
        self.part: Part = part
        self.most = most
        self.seconds = seconds
        self.provider = provider
        self.threads = threads
        self.listener = listener
        self.samples = min(dataset.count(part), most or dataset.count(part))
        self._original = original
        self._names = _wanted(original, self.metrics)
        self._kept = _Kept() if any(not m.needs_labels for m in self.metrics) else None
        self._before: list[Rows] | None = None

    def before(self) -> list[Rows]:
        """Rows of the original, by metric; computed once.

        Raises:
            ModelError: it does not run on the data.
            UsageError: its outputs or the labels do not have the form that a metric wants.
        """
        if self._before is None:
            collected: list[list[Rows]] = [[] for _ in self.metrics]
            try:
                for batch, outputs in self._outputs(self._original):
                    if self._kept is not None:
                        self._kept.add(outputs)
                    self._collect(collected, batch, outputs, outputs)
            except NativeError as error:
                raise ModelError(
                    f"the model does not run on the data: {error.what}",
                    "Look at the names, shapes and values of the data",
                ) from None
            self._before = [_joined(rows, self.dataset) for rows in collected]
        return self._before

    def after(self, candidate: Model) -> list[Rows]:
        """Rows of a candidate, by metric.

        Raises:
            NativeError: it does not run.
        """
        self.before()
        collected: list[list[Rows]] = [[] for _ in self.metrics]
        kept = self._kept.read() if self._kept is not None else None
        for batch, outputs in self._outputs(candidate):
            reference = next(kept) if kept is not None else outputs
            self._collect(collected, batch, outputs, reference)
        return [_joined(rows, self.dataset) for rows in collected]

    def _collect(
        self, collected: list[list[Rows]], batch: Batch, outputs: Outputs, reference: Outputs
    ) -> None:
        for rows, metric in zip(collected, self.metrics, strict=True):
            rows.append(metric.rows(Observed(outputs, reference, batch.labels, batch.size)))

    def _outputs(self, model: Model) -> Iterator[tuple[Batch, Outputs]]:
        with Opened(
            self.native,
            model,
            self._names,
            seconds=self.seconds,
            optimize=True,
            provider=self.provider,
            threads=self.threads,
        ) as session:
            done = 0
            for batch in self.dataset.batches(self.part, self.most):
                yield batch, _arrays(self._names, session.run(batch.feeds))
                done += batch.size
                self.listener(done, self.samples)

    def close(self) -> None:
        """Give back what was kept."""
        if self._kept is not None:
            self._kept.close()

    def __enter__(self) -> Evaluation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def example(original: Model, native: Native, dataset: Dataset, **how: Any) -> tuple[Batch, Outputs]:
    """The first batch of the evaluation part and what the original makes of it.

    Raises:
        ModelError: the model does not run on the data.
    """
    names = [str(tensor.name) for tensor in original.graph.outputs]
    batch = next(iter(dataset.batches("evaluation")))
    try:
        with Opened(native, original, names, optimize=True, **how) as session:
            answers = session.run(batch.feeds)
    except NativeError as error:
        raise ModelError(
            f"the model does not run on the data: {error.what}",
            "Look at the names, shapes and values of the data",
        ) from None
    arrays = {n: a for n, a in zip(names, answers, strict=True) if isinstance(a, np.ndarray)}
    return batch, arrays


def _wanted(original: Model, metrics: Sequence[Metric]) -> list[str]:
    """The outputs that metrics look at; all where one of them does not say."""
    names = [str(tensor.name) for tensor in original.graph.outputs]
    asked = {metric.output for metric in metrics}
    return names if "" in asked else [name for name in names if name in asked]


def _arrays(names: Sequence[str], answers: Sequence[Any]) -> Outputs:
    return {
        name: answer
        for name, answer in zip(names, answers, strict=True)
        if isinstance(answer, np.ndarray)
    }


def _joined(rows: list[Rows], dataset: Dataset) -> Rows:
    if not rows:
        raise UsageError(f"{printable(dataset.source)} holds no samples to evaluate with")
    if len({part.shape[1] for part in rows}) != 1:
        raise UsageError("a metric gave statistics of varying number from batch to batch")
    return np.concatenate(rows)


class _Kept:
    """Outputs of the original in the order of the batches; on disk beyond a size."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(KEPT_IN_MEMORY, prefix="graphopt-")  # noqa: SIM115
        self._names: list[list[str]] = []

    def add(self, outputs: Outputs) -> None:
        kept = {name: _plain(array) for name, array in outputs.items() if array.dtype != object}
        self._names.append(list(kept))
        try:
            for array in kept.values():
                np.lib.format.write_array(self._file, array, allow_pickle=False)
        except OSError as error:
            raise ResourceError(
                f"the original's outputs cannot be kept for comparing: {error.strerror}",
                "Free space in the folder for temporary files, or set TMPDIR",
            ) from None

    def read(self) -> Iterator[Outputs]:
        self._file.seek(0)
        for names in self._names:
            yield {name: np.lib.format.read_array(self._file, allow_pickle=False) for name in names}

    def close(self) -> None:
        self._file.close()


def _plain(array: np.ndarray) -> np.ndarray:
    """An array of a type that numpy's file format knows."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array
