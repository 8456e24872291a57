"""The commands that look at models: ``inspect``, ``compare`` and ``bench``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from graphopt.cli.console import JSON, MODEL, dumps, settings, talk, write_json
from graphopt.cli.options import BUDGET, DATA, METRIC, PROVIDER
from graphopt.errors import GateError, UsageError

if TYPE_CHECKING:
    from graphopt.quality.data import DataOptions
    from graphopt.quality.gate import Budget


@click.command()
@MODEL
@click.option(
    "--channels", is_flag=True, help="Show which channels can be cut, and which not and why."
)
@JSON
@talk
def inspect(model: str, channels: bool, json_path: str | None) -> None:
    """Show what MODEL consists of."""
    from dataclasses import asdict

    from graphopt.inspection import inspect_channels, inspect_model
    from graphopt.ir.model import Model

    loaded = Model.load(model)
    found = inspect_model(loaded)
    groups = inspect_channels(loaded) if channels else None
    result = asdict(found)
    if groups is not None:
        result["channels"] = [asdict(group) for group in groups]
    write_json(json_path, dumps(result))
    if json_path != "-":
        from graphopt.report.terminal.looks import render_channels, render_model

        console = settings().console(stderr=False)
        console.print(render_model(found.model, found.operators, found.findings, found.packed))
        if groups is not None:
            console.print()
            console.print(render_channels(groups))


@click.command()
@click.argument("first")
@click.argument("second")
@DATA
@METRIC
@BUDGET
@PROVIDER
@click.option(
    "--threads", type=click.IntRange(1), help="Threads for one operator. Default: see bench."
)
@JSON
@click.option(
    "--latency/--no-latency", default=True, show_default=True, help="Time both, interleaved."
)
@talk
def compare(
    first: str,
    second: str,
    data: DataOptions | None,
    metric: str | None,
    budget: Budget | None,
    provider: str,
    threads: int | None,
    json_path: str | None,
    latency: bool,
) -> None:
    """Compare two models: structure, weights, numbers, size, latency.

    Exits with 3 where SECOND does not compute what FIRST computes within the tolerance; with --max-drop,
    --floor or --metric, where it is not proven to keep to that budget.
    """
    from dataclasses import asdict

    from graphopt.assessment import Running
    from graphopt.bench import bench as time_models
    from graphopt.compare import compare as run
    from graphopt.ir.model import Model

    models = Model.load(first), Model.load(second)
    how = Running(provider, threads)
    with settings().progress() as listener:
        found = run(*models, data, metric=metric, budget=budget, running=how, listener=listener)
        comparable = not found.interface and found.numbers.verdict != "unproven"
        timed = None
        if latency and comparable:
            timed = time_models(*models, threads=threads or 1, provider=provider)
    result = {"same": found.same, **asdict(found), "latency": asdict(timed) if timed else None}
    write_json(json_path, dumps(result))
    if json_path != "-":
        from graphopt.report.terminal import render_comparison

        settings().console(stderr=False).print(render_comparison(found, timed))
    if not found.same:
        sys.exit(GateError.exit_code)


@click.command()
@click.argument("models", nargs=-1, required=True)
@DATA
@PROVIDER
@JSON
@click.option(
    "--rounds",
    type=click.IntRange(5),
    default=240,
    show_default=True,
    help="Rounds to time at most.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Threads for one operator.",
)
@click.option(
    "--ort-optimizations/--no-ort-optimizations",
    default=True,
    show_default=True,
    help="ONNX Runtime's own graph optimizations.",
)
@click.option("--profile", is_flag=True, help="Show where the time goes, node by node.")
@talk
def bench(
    models: tuple[str, ...],
    data: DataOptions | None,
    provider: str,
    json_path: str | None,
    rounds: int,
    threads: int,
    ort_optimizations: bool,
    profile: bool,
) -> None:
    """Time one model, or two against each other, in interleaved rounds.

    A difference is claimed only where it is larger than the noise, which is measured by timing the first
    model against itself in the same rounds.
    """
    from dataclasses import asdict

    from graphopt.bench import DEAREST, profile_nodes
    from graphopt.bench import bench as run
    from graphopt.ir.model import Model
    from graphopt.quality.data import first_feeds, open_dataset
    from graphopt.runtime.providers import Provider

    if len(models) > 2:
        raise UsageError("bench takes one model or two")
    loaded = [Model.load(path) for path in models]
    feeds = None
    if data is not None:
        feeds = first_feeds(open_dataset(data, loaded[0], calibrates=False))[0]
    with settings().progress():
        found = run(
            *loaded,
            feeds=feeds,
            rounds=rounds,
            threads=threads,
            optimizations=ort_optimizations,
            provider=provider,
        )
    profiles = []
    if profile:
        how = Provider.parse(provider)
        profiles = [
            profile_nodes(model, feeds, provider=how, threads=threads)[:DEAREST] for model in loaded
        ]
    nodes = [[asdict(node) for node in part] for part in profiles]
    write_json(json_path, dumps({**asdict(found), "nodes": nodes}))
    if json_path != "-":
        from graphopt.report.terminal import render_bench, render_profile

        console = settings().console(stderr=False)
        console.print(render_bench(found))
        for path, part in zip(models, profiles, strict=False):
            console.print(render_profile(path, part))
