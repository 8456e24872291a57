"""Measuring latency: interleaved, with a control, claiming nothing smaller than the noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphopt.errors import ModelError, NativeError
from graphopt.ir.model import Model
from graphopt.numerics.statistics import Ratio, Spread, ratio, spread
from graphopt.quality.equivalence import Equivalence
from graphopt.quality.inputs import Feeds
from graphopt.runtime.native import Native

Claim = Literal["faster", "slower", "no difference beyond noise"]

LEAST_DIFFERENCE = 0.02
"""A relative difference below this is never claimed, however narrow the interval."""


@dataclass(frozen=True)
class Bench:
    """Latencies of a model, and of another beside it.

    Attributes:
        first: seconds of the first model.
        second: seconds of the second; None where there is one model only.
        ratio: seconds of the second over seconds of the first, round by round.
        control: the same ratio of the first model with itself; what it is off by is noise.
        claim: what the figures allow to say of the second model.
        rounds: how many rounds were timed.
        threads: threads for one operator.
        optimizations: whether ONNX Runtime's own graph optimizations were on.
        shapes: the shapes of the inputs.
    """

    first: Spread
    second: Spread | None
    ratio: Ratio | None
    control: Ratio
    claim: Claim | None
    rounds: int
    threads: int
    optimizations: bool
    shapes: dict[str, list[int]]


def bench(
    first: Model,
    second: Model | None = None,
    *,
    feeds: Feeds | None = None,
    rounds: int = 50,
    threads: int = 1,
    optimizations: bool = True,
    seconds: float = 120.0,
    memory_bytes: int | None = None,
) -> Bench:
    """Time one model, or two against each other.

    The models run in turns in one process, in alternating order, and the first runs a second time under
    another session as a control.

    Args:
        first: a model.
        second: another with the same inputs.
        feeds: the inputs; drawn at random where this is None.
        rounds: how many rounds to time.
        threads: threads for one operator.
        optimizations: whether ONNX Runtime may apply its own graph optimizations.
        seconds: how long a request to the runtime may take.
        memory_bytes: address space that it may use.

    Raises:
        ModelError: a model does not run, or no inputs for it were found.
    """
    with Native(memory_bytes, seconds) as native:
        if feeds is None:
            judge = Equivalence(first, native)
            judge.prepare()
            if judge.backend != "ort":
                raise ModelError(
                    f"the model cannot be timed: {judge.why or 'ONNX Runtime does not run it'}"
                )
            feeds = judge.feeds[0]
        models = {"first": first, "control": first}
        if second is not None:
            models["second"] = second
        try:
            for key, model in models.items():
                native.call("open", key, model.to_bytes(), "ort", optimizations, threads)
            timings = native.call("time", list(models), feeds, rounds, 3)
        except NativeError as error:
            raise ModelError(f"the model cannot be timed: {error.what}") from None
    times = dict(zip(models, timings, strict=True))
    control = ratio(times["control"], times["first"])
    found = ratio(times["second"], times["first"]) if second is not None else None
    return Bench(
        spread(times["first"]),
        spread(times["second"]) if second is not None else None,
        found,
        control,
        None if found is None else claim(found, control),
        rounds,
        threads,
        optimizations,
        {name: list(getattr(value, "shape", ())) for name, value in feeds.items()},
    )


def claim(found: Ratio, control: Ratio) -> Claim:
    """What a ratio allows to say, given what a model's ratio with itself looks like."""
    noise = max(abs(control.low - 1), abs(control.high - 1), LEAST_DIFFERENCE)
    if found.high < 1 - noise:
        return "faster"
    if found.low > 1 + noise:
        return "slower"
    return "no difference beyond noise"
