"""Measuring latency: interleaved, with a control, claiming nothing smaller than the noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphopt.errors import ModelError, NativeError
from graphopt.ir.costs import count_nodes
from graphopt.ir.model import Model
from graphopt.numerics.statistics import Ratio, Spread, ratio_of_blocks, spread
from graphopt.quality.equivalence import Equivalence
from graphopt.quality.inputs import Feeds
from graphopt.report.models import LatencyInfo, NodeTime
from graphopt.runtime.native import Native
from graphopt.runtime.profiling import NodeSeconds
from graphopt.runtime.providers import Provider, require
from graphopt.runtime.timing import Timings, time_models, written

Claim = Literal["faster", "slower", "no difference beyond noise"]

LEAST_DIFFERENCE = 0.02
"""A relative difference below this is never claimed, however narrow the interval."""

ROUNDS = 240
"""Rounds to time at most: twenty in each block."""

REQUEST_SECONDS = 300.0
"""How long loading a model, or searching inputs for it, may take."""

PROFILE_RUNS = 20
"""Runs that are profiled at most."""

PROFILE_EVENTS = 100_000
"""Runs of nodes that are profiled: about as many as fit into 100 MB of the profiler's file."""

PROFILE_SECONDS = 20.0
"""How long the runs of one model may be profiled."""

DEAREST = 20
"""Nodes that are named of each model."""


@dataclass(frozen=True)
class Bench:
    """Latencies of a model, and of another beside it.

    Attributes:
        first: seconds of the first model.
        second: seconds of the second; None where there is one model only.
        ratio: seconds of the second over seconds of the first.
        control: the same ratio of the first model with itself; what it is off by is noise.
        claim: what the figures allow to say of the second model.
        rounds: how many rounds were timed.
        threads: threads for one operator.
        optimizations: whether ONNX Runtime's own graph optimizations were on.
        shapes: the shapes of the inputs.
        provider: what ran the models.
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
    provider: str = "cpu"


def bench(
    first: Model,
    second: Model | None = None,
    *,
    feeds: Feeds | None = None,
    rounds: int = ROUNDS,
    threads: int = 1,
    optimizations: bool = True,
    seconds: float = 60.0,
    memory_bytes: int | None = None,
    provider: str = "cpu",
) -> Bench:
    """Time one model, or two against each other.

    The models run in turns, in several blocks with sessions of their own, and the first runs a second time
    under another session as a control.

    Args:
        first: a model.
        second: another with the same inputs.
        feeds: the inputs; drawn at random where this is None.
        rounds: how many rounds to time at most.
        threads: threads for one operator.
        optimizations: whether ONNX Runtime may apply its own graph optimizations.
        seconds: how long to time; a few rounds are timed however long they take.
        memory_bytes: address space that the runtime may use on the CPU.
        provider: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelError: a model does not run, or no inputs for it were found.
        ProviderError: the provider is missing.
        UsageError: there is no such provider.
    """
    chosen = Provider.parse(provider)
    models = {"first": first, "control": first}
    if second is not None:
        models["second"] = second
    with Native(chosen.address_space(memory_bytes), REQUEST_SECONDS) as native:
        require(native, chosen)
        given = _found_feeds(first, native) if feeds is None else feeds
        try:
            timings = time_models(
                native,
                models,
                given,
                rounds=rounds,
                seconds=seconds,
                threads=threads,
                optimize=optimizations,
                provider=chosen,
            )
        except NativeError as error:
            raise ModelError(f"the model cannot be timed: {error.what}") from None
    return _result(timings, second is not None, threads, optimizations, given, chosen)


def _result(
    timings: Timings,
    compared: bool,
    threads: int,
    optimizations: bool,
    feeds: Feeds,
    provider: Provider,
) -> Bench:
    """What timings say."""
    blocks = timings.blocks
    control = ratio_of_blocks(blocks["control"], blocks["first"])
    found = ratio_of_blocks(blocks["second"], blocks["first"]) if compared else None
    return Bench(
        spread(timings.all("first")),
        spread(timings.all("second")) if compared else None,
        found,
        control,
        None if found is None else claim(found, control),
        timings.rounds,
        threads,
        optimizations,
        {name: list(getattr(value, "shape", ())) for name, value in feeds.items()},
        str(provider),
    )


def claim(found: Ratio, control: Ratio) -> Claim:
    """What a ratio allows to say, given what a model's ratio with itself looks like."""
    noise = max(abs(control.low - 1), abs(control.high - 1), LEAST_DIFFERENCE)
    if found.high < 1 - noise:
        return "faster"
    if found.low > 1 + noise:
        return "slower"
    return "no difference beyond noise"


def measure_latency(
    before: Model,
    after: Model,
    feeds: Feeds,
    *,
    provider: str | Provider = "cpu",
    threads: int = 1,
    rounds: int = ROUNDS,
    seconds: float = 60.0,
    memory_bytes: int | None = None,
) -> LatencyInfo:
    """Time the original and the result against each other, and profile both node by node.

    Args:
        before: the original.
        after: the result, with the same inputs.
        feeds: what both run on.
        provider: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: threads for one operator.
        rounds: how many rounds to time at most.
        seconds: how long to time; a few rounds are timed however long they take.
        memory_bytes: address space that the runtime may use on the CPU.

    Raises:
        ModelError: a model does not run.
        ProviderError: the provider is missing.
        UsageError: there is no such provider.
    """
    timed = bench(
        before,
        after,
        feeds=feeds,
        rounds=rounds,
        threads=threads,
        seconds=seconds,
        memory_bytes=memory_bytes,
        provider=str(provider),
    )
    assert timed.second is not None and timed.ratio is not None and timed.claim is not None
    nodes_before, nodes_after = (
        profile_nodes(
            model,
            feeds,
            provider=Provider.parse(timed.provider),
            threads=threads,
            memory_bytes=memory_bytes,
        )
        for model in (before, after)
    )
    return LatencyInfo(
        provider=timed.provider,
        threads=threads,
        rounds=timed.rounds,
        before=timed.first,
        after=timed.second,
        ratio=timed.ratio,
        control=timed.control,
        claim=timed.claim,
        shapes=timed.shapes,
        operators_before=by_operator(nodes_before),
        operators_after=by_operator(nodes_after),
        nodes_before=nodes_before[:DEAREST],
        nodes_after=nodes_after[:DEAREST],
    )


def profile_nodes(
    model: Model,
    feeds: Feeds | None = None,
    *,
    provider: Provider = Provider(),  # noqa: B008 - a frozen value
    threads: int = 1,
    memory_bytes: int | None = None,
) -> list[NodeTime]:
    """Where the time of a run goes, node by node as ONNX Runtime runs them, the dearest first.

    Args:
        model: the model.
        feeds: what it runs on; drawn at random where this is None.
        provider: what runs it.
        threads: threads for one operator.
        memory_bytes: address space that the runtime may use on the CPU.

    Raises:
        ModelError: the model does not run.
        ProviderError: the provider is missing.
    """
    nodes = max(count_nodes(model.scopes()), 1)
    runs = max(min(PROFILE_RUNS, PROFILE_EVENTS // nodes), 1)
    limit = provider.address_space(memory_bytes)
    with Native(limit, REQUEST_SECONDS) as native, written({"model": model}) as paths:
        feeds = _found_feeds(model, native) if feeds is None else feeds
        try:
            found: list[NodeSeconds] = native.call(
                "profile", paths["model"], feeds, runs, PROFILE_SECONDS, threads, str(provider)
            )
        except NativeError as error:
            raise ModelError(f"the model cannot be profiled: {error.what}") from None
    total = sum(node.seconds for node in found)
    return [
        NodeTime(node.name, node.op, node.seconds, node.seconds / total if total else 0.0)
        for node in found
    ]


def by_operator(nodes: list[NodeTime]) -> list[NodeTime]:
    """The time of all nodes of each operator together, the dearest first."""
    rows: dict[str, NodeTime] = {}
    for node in nodes:
        row = rows.get(node.op, NodeTime(node.op, node.op, 0.0, 0.0, 0))
        rows[node.op] = NodeTime(
            node.op, node.op, row.seconds + node.seconds, row.share + node.share, row.count + 1
        )
    return sorted(rows.values(), key=lambda row: (-row.seconds, row.op))


def _found_feeds(model: Model, native: Native) -> Feeds:
    """Inputs that a model runs on, drawn at random.

    Raises:
        ModelError: there are none.
    """
    judge = Equivalence(model, native)
    judge.prepare()
    if judge.backend != "ort":
        raise ModelError(
            f"the model cannot be timed: {judge.why or 'ONNX Runtime does not run it'}"
        )
    return judge.feeds[0]
