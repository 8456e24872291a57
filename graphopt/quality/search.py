"""Inputs that a model accepts, found by trying.

Without data, a model is judged on inputs drawn to fit what it declares. Declarations say little:
which sizes a dynamic dimension may take, how large an index may be. So feeds are tried on the original
model, cheap ones first, until some are accepted; then other sizes, wider integers, and the integers
that the model compares its inputs with, so that both branches of an If are reached.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.errors import NativeDeathError, NativeError
from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.quality.inputs import Feeds, InputSpec, Plan, draw, specs

_NAMED = re.compile(r"Name:'([^']*)'")

Run = Callable[[Feeds], list[Any]]

SEARCH_SECONDS = 30.0
"""How long inputs that a model accepts are looked for."""

MAX_DEATHS = 3
"""Processes that a model may kill while inputs are looked for."""

CRASH_SECONDS = 2.0
"""How long a crash takes at most; what takes longer hung, and would hang again."""

SIZES = (8, 16, 32, 64, 1, 128, 224, 256, 320, 512, 640, 3, 2, 4, 12, 48, 96, 100, 576, 1024, 4096)
"""What a dynamic dimension that is not a batch is tried with, in this order."""

RANGES = (2, 1, 4, 10, 100, 1000, 10_000, 50_000)
"""Exclusive upper ends that integer inputs are tried with."""


@dataclass
class Sample:
    """Inputs that a model accepts and what it computes from them."""

    feeds: Feeds
    outputs: list[Any]

    def telling(self) -> bool:
        """Whether some output holds a finite number, so that a comparison means something."""
        floats = [o for o in self.outputs if isinstance(o, np.ndarray) and o.dtype.kind == "f"]
        filled = [o for o in floats if o.size]
        return not filled or any(bool(np.isfinite(o).any()) for o in filled)


def find_feeds(model: Model, run: Run, sets: int = 3) -> tuple[list[Sample], str]:
    """Find inputs that a model accepts.

    Args:
        model: the model.
        run: runs it once; raises NativeError where it does not accept what it is fed.
        sets: how many sets of inputs to look for, beside those for compared integers.

    Returns:
        The accepted inputs with their outputs, and where there are none the reason of the last try.
    """
    inputs = specs(model)
    if any(spec.dtype is None for spec in inputs):
        return [], "an input is not a tensor of a known type"
    trials = _Trials(inputs, run)
    plan, first, why = _first(trials, model)
    if plan is None or first is None:
        return [], why
    samples = [first]
    with contextlib.suppress(NativeDeathError):
        plan = _widest(trials, plan)
        for variant in itertools.islice(_variants(inputs, plan, model), sets + 5):
            sample, _ = trials(variant, len(samples) + 1)
            if sample is not None:
                samples.append(sample)
                sets += bool(variant.filled)
            if len(samples) >= sets:
                break
    return samples, ""


@dataclass
class _Trials:
    """Runs of a model on inputs that may not fit, within a time."""

    inputs: list[InputSpec]
    run: Run
    started: float = field(default_factory=time.monotonic)
    deaths: int = 0
    refused: int = 0

    def __call__(self, plan: Plan, seed: int) -> tuple[Sample | None, str]:
        """Run the model on inputs drawn by a plan; None and the reason where it refuses them.

        After each refusal other values are drawn, since it may be the values that are refused.

        Raises:
            NativeDeathError: it hung, or killed its process once too often.
        """
        if self._spent() > SEARCH_SECONDS:
            return None, f"no inputs that it accepts were found within {SEARCH_SECONDS:g} s"
        feeds = draw(self.inputs, plan, seed + self.refused)
        if feeds is None:
            return None, "an input would be too large"
        began = time.monotonic()
        try:
            return Sample(feeds, self.run(feeds)), ""
        except NativeDeathError as error:
            self.deaths += 1
            self.refused += 1
            if self.deaths >= MAX_DEATHS or time.monotonic() - began > CRASH_SECONDS:
                raise
            return None, error.what
        except NativeError as error:
            self.refused += 1
            return None, error.what

    def _spent(self) -> float:
        return time.monotonic() - self.started


def _first(trials: _Trials, model: Model) -> tuple[Plan | None, Sample | None, str]:
    """Find a first plan that the model accepts.

    Plain plans are tried first. If none is accepted, the one whose run came farthest is varied, one
    dimension at a time: the node that an error names tells how far a run came.
    """
    place = {node.name: index for index, node in enumerate(model.nodes()) if node.name}
    inputs = trials.inputs
    best, farthest, why = Plan(), -2, "no input fits"
    fallback: tuple[Plan, Sample] | None = None

    def attempt(plan: Plan) -> Sample | None:
        nonlocal best, farthest, why, fallback
        sample, reason = trials(plan, 1)
        if sample is not None:
            if sample.telling():
                return sample
            fallback = fallback or (plan, sample)
            return None
        reached = max((place.get(name, -1) for name in _NAMED.findall(reason)), default=-1)
        if reached > farthest:
            best, farthest, why = plan, reached, reason
        return None

    for plan in _attempts(inputs):
        sample = attempt(plan)
        if sample is not None:
            return plan, sample, ""
        if not inputs:
            break
    batches, others = free_dimensions(inputs)
    for key in (*others, *batches, *others):
        for size in SIZES:
            plan = best.but(sizes={key: size})
            sample = attempt(plan)
            if sample is not None:
                return plan, sample, ""
    return (*fallback, "") if fallback else (None, None, why)


def free_dimensions(inputs: Sequence[InputSpec]) -> tuple[list[str], list[str]]:
    """The keys of dynamic dimensions: those that look like a batch, and the others."""
    batches: dict[str, None] = {}
    others: dict[str, None] = {}
    for spec in inputs:
        for axis, dim in enumerate(spec.shape or ()):
            if isinstance(dim, str):
                looks = "batch" in dim.lower() or dim in ("N", "n", "B", "bs")
                first = axis == 0 and len(spec.shape or ()) > 1
                (batches if looks or first else others)[dim] = None
    return list(batches), [key for key in others if key not in batches]


def _attempts(inputs: list[InputSpec]) -> Iterator[Plan]:
    """Plans to try, the likeliest and cheapest first."""
    batches, others = free_dimensions(inputs)
    ranks = (2, 1, 3, 4, 0) if any(spec.shape is None for spec in inputs) else (2,)
    sizes = SIZES if others else (1,)
    base = dict.fromkeys(batches, 1)
    for size, rank in itertools.product(sizes, ranks):
        plan = Plan(sizes={**base, **dict.fromkeys(others, size)}, rank=rank)
        yield plan
        if size == sizes[0]:
            for end in RANGES[1:4]:
                yield plan.but(ends={spec.name: end for spec in inputs})
            yield plan.but(positive=True)
    for size in (2, 3, 4, 8, 16, 64):
        yield Plan(sizes=dict.fromkeys((*batches, *others), size))


def _widest(trials: _Trials, plan: Plan) -> Plan:
    """Widen the range of each integer input as far as the model accepts it."""
    for spec in trials.inputs:
        if spec.dtype is None or spec.dtype.kind not in "iu":
            continue
        for end in reversed(RANGES[3:]):  # too large an index fails early, and costs little
            wider = plan.but(ends={spec.name: end})
            if trials(wider, 1)[0] is not None:
                plan = wider
                break
    return plan


def _variants(inputs: list[InputSpec], plan: Plan, model: Model) -> Iterator[Plan]:
    """Other plans near one that was accepted: compared integers, other sizes, other values."""
    integers = [
        s.name for s in inputs if s.dtype is not None and s.dtype.kind in "iu" and not s.shape
    ]
    if integers:
        for value in compared_integers(model):
            yield plan.but(filled=dict.fromkeys(integers, value))
    batches, others = free_dimensions(inputs)
    if batches:
        yield plan.but(sizes=dict.fromkeys(batches, 2))
    if others:
        yield plan.but(sizes={key: 2 * plan.sizes.get(key, 1) for key in others})
        yield plan.but(sizes={key: plan.sizes.get(key, 1) + 1 for key in others})
        mixed = {key: plan.sizes.get(key, 1) * (1 + index % 2) for index, key in enumerate(others)}
        yield plan.but(sizes={**mixed, **dict.fromkeys(batches, 3)})
    if batches and others:
        yield plan.but(sizes={key: 2 * plan.sizes.get(key, 1) for key in (*batches, *others)})
    yield plan.but(positive=not plan.positive)


def compared_integers(model: Model) -> list[int]:
    """Small whole numbers that the model compares something with, in order of appearance."""
    found: dict[int, None] = {}
    for node in model.nodes():
        if node.op not in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"):
            continue
        for tensor in node.inputs:
            values = _small_integers(tensor)
            if values is not None:
                found.update(dict.fromkeys(int(v) for v in values.flat))
    return [value for value in found if 0 <= value < 1 << 31][:4]


def _small_integers(tensor: Any) -> np.ndarray | None:
    if tensor.inputs and tensor.inputs[0].op == "Constant":
        tensor = tensor.inputs[0].attrs.get("value")
    if not isinstance(tensor, Constant) or tensor.dtype.kind not in "iu":
        return None
    return tensor.values if int(np.prod(tensor.shape)) <= 4 else None
