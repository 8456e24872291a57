"""Judging exact passes: does the candidate still compute what the original computes?

Both run in ONNX Runtime with its graph optimizations off (with them on, a fusion would be compared with
ONNX Runtime's own fusion) on the same inputs; what ONNX Runtime cannot run is run by the reference
evaluator of the onnx package. The original runs once; its outputs are kept.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import NativeDeathError, NativeError, ResourceError
from graphopt.ir.model import Model
from graphopt.ir.storage import EMBED_LIMIT
from graphopt.numerics.tolerance import Difference, compare
from graphopt.quality.inputs import Feeds, find_feeds
from graphopt.runtime.native import Native

RUN_SECONDS = 20.0
"""How long one run of a model may take while it is judged."""


@dataclass(frozen=True)
class Verdict:
    """What judging found.

    Attributes:
        passed: True: equal within the tolerance; False: not; None: could not be told.
        why: what differs, or why it could not be told.
        largest: the largest absolute difference of any output on any input.
        relative: the same in units of the output's own size.
        outputs: the largest absolute difference by output.
        samples: how many sets of inputs were compared.
        backend: what ran the models: ``ort`` or ``reference``.
    """

    passed: bool | None
    why: str = ""
    largest: float = 0.0
    relative: float = 0.0
    outputs: dict[str, float] = field(default_factory=dict)
    samples: int = 0
    backend: str = ""


class Equivalence:
    """A judge that remembers what the original computes.

    Args:
        original: the model to be equal to.
        native: the process to run models in.
        data: real inputs, each a complete set of feeds; drawn ones are used where it is empty.
        seconds: how long one run may take.
    """

    def __init__(
        self,
        original: Model,
        native: Native,
        data: Sequence[Feeds] = (),
        seconds: float = RUN_SECONDS,
    ) -> None:
        self.native = native
        self.seconds = seconds
        self.original = original
        self.data = list(data)
        self.backend = ""
        self.feeds: list[Feeds] = []
        self.references: list[list[Any]] = []
        self.why = ""
        self.opened = False
        self._ready = False

    def prepare(self) -> None:
        """Run the original on the inputs to judge by; later calls do nothing."""
        if self._ready:
            return
        self._ready = True
        reasons = []
        for backend in ("ort", "reference"):
            try:
                self._prepare(backend)
            except (NativeError, ResourceError) as error:
                reasons.append(f"{backend}: {error.what}")
                if isinstance(error, NativeDeathError):
                    break
                continue
            if self.references:
                self.backend, self.why = backend, ""
                return
            reasons.append(f"{backend}: {self.why}")
        self.why = f"the original cannot be run ({'; '.join(reasons)})"

    def _prepare(self, backend: str) -> None:
        with _Opened(self.native, self.original, backend, self.seconds) as session:
            self.opened = True
            if self.data:
                self.feeds = self.data
                self.references = [session.run(feeds) for feeds in self.data]
                return
            samples, self.why = find_feeds(self.original, session.run)
            self.feeds = [sample.feeds for sample in samples]
            self.references = [sample.outputs for sample in samples]

    def bindings(self) -> dict[tuple[str, int], int]:
        """The sizes of the first inputs that were judged with, by input and axis."""
        first = self.feeds[0] if self.references else {}
        return {
            (name, axis): size
            for name, value in first.items()
            if isinstance(value, np.ndarray)
            for axis, size in enumerate(value.shape)
        }

    def judge(self, candidate: Model) -> Verdict:
        """Compare a candidate with the original on every set of inputs."""
        self.prepare()
        if not self.references:
            return Verdict(None, self.why)
        try:
            with _Opened(self.native, candidate, self.backend, self.seconds) as session:
                outputs = [session.run(feeds) for feeds in self.feeds]
        except NativeError as error:
            return Verdict(False, f"it does not run: {error.what}", backend=self.backend)
        return self._compare(outputs)

    def _compare(self, outputs: list[list[Any]]) -> Verdict:
        names = [tensor.name for tensor in self.original.graph.outputs]
        largest: dict[str, float] = dict.fromkeys(names, 0.0)
        relative = 0.0
        why = ""
        for number, (expected, found) in enumerate(zip(self.references, outputs, strict=True)):
            for name, reference, result in zip(names, expected, found, strict=True):
                difference = compare_any(reference, result)
                largest[name] = max(largest[name], difference.largest)
                relative = max(relative, difference.relative)
                if not difference.equal and not why:
                    why = f"output {name!r}, input set {number + 1}: {difference.why}"
        worst = max(largest.values(), default=0.0)
        return Verdict(
            not why, why, worst, relative, largest, len(self.references), self.backend
        )


def compare_any(reference: Any, result: Any) -> Difference:
    """Compare outputs of any kind: tensors, sequences, maps, absent optionals."""
    if reference is None or result is None:
        same = reference is None and result is None
        return Difference(same, why="" if same else "an optional value is absent in one of them")
    if isinstance(reference, list | tuple):
        if not isinstance(result, list | tuple) or len(result) != len(reference):
            return Difference(False, why="a sequence of another length")
        parts = [compare_any(a, b) for a, b in zip(reference, result, strict=True)]
        wrong = [part for part in parts if not part.equal]
        worst = max((part.largest for part in parts), default=0.0)
        scale = max((part.relative for part in parts), default=0.0)
        return Difference(not wrong, worst, scale, wrong[0].why if wrong else "")
    if isinstance(reference, dict):
        if not isinstance(result, dict) or list(reference) != list(result):
            return Difference(False, why="a map with other keys")
        return compare_any(list(reference.values()), list(result.values()))
    return compare(np.asarray(reference), np.asarray(result))


class _Opened:
    """A model opened as a session in the native process."""

    def __init__(self, native: Native, model: Model, backend: str, seconds: float) -> None:
        self.native = native
        self.seconds = seconds
        self.key = f"{backend}:{id(model)}"
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        native.call("open", self.key, self._source(model), backend, seconds=3 * seconds)

    def _source(self, model: Model) -> bytes | str:
        if model.weight_bytes() <= EMBED_LIMIT:
            return model.to_bytes()
        self._folder = tempfile.TemporaryDirectory(prefix="graphopt-")
        path = Path(self._folder.name) / "model.onnx"
        model.save(path)
        return str(path)

    def run(self, feeds: Feeds) -> list[Any]:
        answer: list[Any] = self.native.call("run", self.key, feeds, seconds=self.seconds)
        return answer

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(NativeError):
            self.native.call("close", self.key)
        if self._folder is not None:
            self._folder.cleanup()
