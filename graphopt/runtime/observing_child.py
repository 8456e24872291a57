"""The part of observing that happens where the model runs: activations are taken in and forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.numerics.streaming import Accumulator, Spec
from graphopt.runtime.relay_child import known_to

FLOATS = frozenset({"tensor(float)", "tensor(double)", "tensor(float16)"})
"""Element types that numpy computes with, in ONNX Runtime's words."""

INTEGERS = frozenset(
    {f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64)}
    | {"tensor(bool)"}
)


@dataclass(frozen=True)
class Watch:
    """One statistic to accumulate.

    Attributes:
        spec: what.
        sources: the arrays it takes: number of the model, and name of the tensor there.
    """

    spec: Spec[Any]
    sources: tuple[tuple[int, str], ...]


class Observation:
    """Open sessions and what is accumulated of their outputs.

    Args:
        sessions: of ONNX Runtime; None for a model that nothing watches.
        names: of the tensors that the outputs of each session are, in order.
        watches: what to accumulate.
    """

    def __init__(
        self, sessions: Sequence[Any], names: Sequence[Sequence[str]], watches: Sequence[Watch]
    ) -> None:
        self.sessions = sessions
        self.watches = list(watches)
        outputs = [[] if session is None else session.get_outputs() for session in sessions]
        kinds = [
            {name: _kind(name, out) for name, out in zip(known, found, strict=True)}
            for known, found in zip(names, outputs, strict=True)
        ]
        self.outputs = [
            {name: out.name for name, out in zip(known, found, strict=True)}
            for known, found in zip(names, outputs, strict=True)
        ]
        self.why = [_objection(watch, kinds) for watch in watches]
        self.accumulators: list[Accumulator | None] = [
            None if why else watch.spec.start()
            for watch, why in zip(watches, self.why, strict=True)
        ]

    def run(self, feeds: Mapping[str, Any]) -> None:
        """Run every session on a batch and take in what is watched."""
        found = [self._outputs(number, feeds) for number in range(len(self.sessions))]
        for number, watch in enumerate(self.watches):
            accumulator: Any = self.accumulators[number]
            if accumulator is None:
                continue
            try:
                for arrays in _by_run([found[session][name] for session, name in watch.sources]):
                    accumulator.add(*arrays)
            except ValueError as error:
                self.why[number], self.accumulators[number] = str(error), None

    def shapes(self, feeds: Mapping[str, Any]) -> dict[tuple[int, str], list[tuple[int, ...]]]:
        """The shapes of what is watched on a batch, by number of the session and name; all held at once.

        One for each run of the scope that a tensor lies in.
        """
        found = [self._outputs(number, feeds) for number in range(len(self.sessions))]
        return {
            (number, name): [array.shape for array in _runs(held)]
            for number, own in enumerate(found)
            for name, held in own.items()
        }

    def _outputs(self, number: int, feeds: Mapping[str, Any]) -> dict[str, Any]:
        names: dict[str, None] = {}
        for watch, accumulator in zip(self.watches, self.accumulators, strict=True):
            if accumulator is not None:
                names.update((name, None) for session, name in watch.sources if session == number)
        if not names:
            return {}
        session = self.sessions[number]
        wanted = [self.outputs[number][name] for name in names]
        found = session.run(wanted, known_to(session, feeds))
        return dict(zip(names, found, strict=True))

    def take(self, number: int) -> dict[str, np.ndarray] | str:
        """Hand out what one watch accumulated, and forget it; or why there is nothing."""
        accumulator, self.accumulators[number] = self.accumulators[number], None
        return self.why[number] if accumulator is None else accumulator.state()


def _kind(name: str, output: Any) -> str:
    """The type of a tensor in ONNX Runtime's words; one of a body comes as a sequence of another name."""
    kind = str(output.type)
    return kind if output.name == name else kind.removeprefix("seq(")[:-1]


def _by_run(found: Sequence[np.ndarray | list[np.ndarray]]) -> Iterator[Sequence[np.ndarray]]:
    """What several tensors held: once, or in each run of their bodies.

    Raises:
        ValueError: they were not computed the same number of times.
    """
    runs = [_runs(entry) for entry in found]
    if len({len(entry) for entry in runs}) > 1:
        raise ValueError("the bodies that the tensors lie in do not run the same number of times")
    yield from zip(*runs, strict=True)


def _runs(found: np.ndarray | list[np.ndarray]) -> list[np.ndarray]:
    """What a tensor held in each run of its scope."""
    return found if isinstance(found, list) else [found]


def _objection(watch: Watch, kinds: Sequence[Mapping[str, str]]) -> str:
    """Why what a session gives cannot be accumulated; empty where it can."""
    for session, name in watch.sources:
        kind = kinds[session][name]
        if kind in INTEGERS and not watch.spec.integers:
            return f"it holds integers ({kind}), of which only the range is taken"
        if kind not in FLOATS | INTEGERS:
            return f"it is a {kind}, not a tensor of numbers that can be read"
    return ""
