"""The part of observing that happens where the model runs: activations are taken in and forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        sources: the arrays it takes: number of the session, and name of the output there.
    """

    spec: Spec[Any]
    sources: tuple[tuple[int, str], ...]


class Observation:
    """Open sessions and what is accumulated of their outputs.

    Args:
        sessions: of ONNX Runtime; None for a model that nothing watches.
        watches: what to accumulate.
    """

    def __init__(self, sessions: Sequence[Any], watches: Sequence[Watch]) -> None:
        self.sessions = sessions
        self.watches = list(watches)
        kinds = [
            {} if session is None else {out.name: out.type for out in session.get_outputs()}
            for session in sessions
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
                accumulator.add(*(found[session][name] for session, name in watch.sources))
            except ValueError as error:
                self.why[number], self.accumulators[number] = str(error), None

    def shapes(self, feeds: Mapping[str, Any]) -> dict[tuple[int, str], tuple[int, ...]]:
        """The shapes of what is watched on a batch, by number of the session and name; all held at once."""
        found = [self._outputs(number, feeds) for number in range(len(self.sessions))]
        return {(n, name): held.shape for n, own in enumerate(found) for name, held in own.items()}

    def _outputs(self, number: int, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        names: dict[str, None] = {}
        for watch, accumulator in zip(self.watches, self.accumulators, strict=True):
            if accumulator is not None:
                names.update((name, None) for session, name in watch.sources if session == number)
        if not names:
            return {}
        session = self.sessions[number]
        found = session.run(list(names), known_to(session, feeds))
        return dict(zip(names, found, strict=True))

    def take(self, number: int) -> dict[str, np.ndarray] | str:
        """Hand out what one watch accumulated, and forget it; or why there is nothing."""
        accumulator, self.accumulators[number] = self.accumulators[number], None
        return self.why[number] if accumulator is None else accumulator.state()


def _objection(watch: Watch, kinds: Sequence[Mapping[str, str]]) -> str:
    """Why what a session gives cannot be accumulated; empty where it can."""
    for session, name in watch.sources:
        kind = kinds[session][name]
        if kind in INTEGERS and not watch.spec.integers:
            return f"it holds integers ({kind}), of which only the range is taken"
        if kind not in FLOATS | INTEGERS:
            return f"it is a {kind}, not a tensor of numbers that can be read"
    return ""
