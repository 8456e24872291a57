"""Judging exact passes: does the candidate still compute what the original computes?

An output that a bounded function gives, such as a sigmoid, says little where it saturates. So what goes into
such a function is compared too, as long as the candidate still has a tensor of that name.

Both run in ONNX Runtime with its graph optimizations off (with them on, a fusion would be compared with
ONNX Runtime's own fusion) on the same inputs; what ONNX Runtime cannot run is run by the reference
evaluator of the onnx package. The original runs once; its outputs are kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.errors import NativeDeathError, NativeError, ResourceError
from graphopt.ir.model import Model
from graphopt.ir.operators import NONDETERMINISTIC
from graphopt.numerics.tolerance import Difference, compare, jitter
from graphopt.quality.inputs import Feeds
from graphopt.quality.search import find_feeds
from graphopt.quality.session import Opened
from graphopt.quality.witnesses import witnesses
from graphopt.runtime.native import Native

RUN_SECONDS = 20.0
"""How long one run of a model may take while it is judged."""


RANDOM = NONDETERMINISTIC | {"Dropout"}
"""Operators whose results may be others each time."""

JITTERS = 2
"""Times that the original is run with moved numbers where its rounding noise is wanted."""


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
        provider: what runs the models, as in ``cpu`` or ``cuda:0``.
    """

    def __init__(
        self,
        original: Model,
        native: Native,
        data: Sequence[Feeds] = (),
        seconds: float = RUN_SECONDS,
        provider: str = "cpu",
    ) -> None:
        self.native = native
        self.provider = provider
        self.seconds = seconds
        self.original = original
        self.data = list(data)
        self.backend = ""
        self.feeds: list[Feeds] = []
        self.references: list[list[Any]] = []
        self.why = ""
        self.opened = False
        self._ready = False
        self._noise: list[list[float]] | None = None
        self.outputs = [str(tensor.name) for tensor in original.graph.outputs]
        self.witnesses = witnesses(original)

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
        names = self.outputs + self.witnesses
        with self._opened(self.original, names, backend) as session:
            self.opened = self.opened or backend == "ort"
            if self.data:
                self.feeds = self.data
                self.references = [session.run(feeds) for feeds in self.data]
                return
            samples, self.why = find_feeds(self.original, session.run)
            self.feeds = [sample.feeds for sample in samples]
            self.references = [sample.outputs for sample in samples]
            if self.references and self._is_random(session):
                self.references, self.why = [], "its results are random"

    def against(self, model: Model) -> Equivalence:
        """A judge that compares with another model, on the same inputs."""
        return Equivalence(model, self.native, self.feeds, self.seconds, self.provider)

    def _opened(self, model: Model, names: Sequence[str], backend: str) -> Opened:
        return Opened(
            self.native,
            model,
            names,
            backend=backend,
            seconds=self.seconds,
            provider=self.provider,
        )

    def _is_random(self, session: Opened) -> bool:
        """Whether the original gives other results when it is run again."""
        if all(node.op not in RANDOM for node in self.original.nodes()):
            return False
        again = session.run(self.feeds[0])
        pairs = zip(self.references[0], again, strict=True)
        return not all(compare_any(old, new).equal for old, new in pairs)

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
        made = {t.name for node in candidate.graph.nodes for t in node.outputs}
        names = self.outputs + [name for name in self.witnesses if name in made]
        try:
            with self._opened(candidate, names, self.backend) as session:
                found = [dict(zip(names, session.run(f), strict=True)) for f in self.feeds]
        except NativeError as error:
            return Verdict(False, f"it does not run: {error.what}", backend=self.backend)
        verdict = self._compare(found, None)
        return verdict if verdict.passed else self._compare(found, self._rounding())

    def _rounding(self) -> list[list[float]]:
        """How far rounding alone moves each output, by set of inputs; measured once, when needed."""
        if self._noise is None:
            self._noise = [[0.0] * len(outputs) for outputs in self.references]
            for seed in range(JITTERS):
                with contextlib.suppress(NativeError):
                    self._measure(np.random.default_rng(seed), self._noise)
        return self._noise

    def _measure(self, rng: np.random.Generator, noise: list[list[float]]) -> None:
        moved = self.original.copy()
        floats = [constant for constant in moved.constants() if constant.dtype.kind == "f"]
        for constant in floats:
            constant.values = jitter(constant.values, rng)
        names = self.outputs + self.witnesses
        with self._opened(moved, names, self.backend) as session:
            for found, feeds, expected in zip(noise, self.feeds, self.references, strict=True):
                outputs = session.run({name: _moved(value, rng) for name, value in feeds.items()})
                for index, (reference, result) in enumerate(zip(expected, outputs, strict=True)):
                    largest = compare_any(reference, result).largest
                    found[index] = max(found[index], largest)
        for (
            constant
        ) in floats:  # models are circles of references and stay until they are looked for
            constant.values = np.empty(0, constant.dtype)

    def _compare(self, found: list[dict[str, Any]], noise: list[list[float]] | None) -> Verdict:
        names = self.outputs + self.witnesses
        largest: dict[str, float] = dict.fromkeys(self.outputs, 0.0)
        relative, why = 0.0, ""
        for number, (expected, results) in enumerate(zip(self.references, found, strict=True)):
            for index, (name, reference) in enumerate(zip(names, expected, strict=True)):
                if name not in results:
                    continue
                near = noise[number][index] if noise is not None else 0.0
                difference = compare_any(reference, results[name], near)
                if index < len(self.outputs):
                    largest[name] = max(largest[name], difference.largest)
                    relative = max(relative, difference.relative)
                if not difference.equal and not why:
                    what = "output" if index < len(self.outputs) else "inner tensor"
                    why = f"{what} {name!r}, input set {number + 1}: {difference.why}"
        worst = max(largest.values(), default=0.0)
        return Verdict(not why, why, worst, relative, largest, len(self.references), self.backend)


def _moved(value: Any, rng: np.random.Generator) -> Any:
    if isinstance(value, list):
        return [_moved(entry, rng) for entry in value]
    return jitter(value, rng) if isinstance(value, np.ndarray) else value


def compare_any(reference: Any, result: Any, noise: float = 0.0) -> Difference:
    """Compare outputs of any kind: tensors, sequences, maps, absent optionals."""
    if reference is None or result is None:
        same = reference is None and result is None
        return Difference(same, why="" if same else "an optional value is absent in one of them")
    if isinstance(reference, list | tuple):
        if not isinstance(result, list | tuple) or len(result) != len(reference):
            return Difference(False, why="a sequence of another length")
        parts = [compare_any(a, b, noise) for a, b in zip(reference, result, strict=True)]
        wrong = [part for part in parts if not part.equal]
        worst = max((part.largest for part in parts), default=0.0)
        scale = max((part.relative for part in parts), default=0.0)
        return Difference(not wrong, worst, scale, wrong[0].why if wrong else "")
    if isinstance(reference, dict):
        if not isinstance(result, dict) or list(reference) != list(result):
            return Difference(False, why="a map with other keys")
        return compare_any(list(reference.values()), list(result.values()), noise)
    return compare(np.asarray(reference), np.asarray(result), noise)
