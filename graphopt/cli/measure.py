"""The commands that measure: ``sensitivity``, ``explain``, ``report`` and ``cache``."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import click

from graphopt.cli.console import (
    JSON,
    MODEL,
    dumps,
    require_folders,
    settings,
    talk,
    write_json,
    write_text,
)
from graphopt.cli.options import CACHE, DATA, METRIC, PROVIDER, THREADS
from graphopt.errors import UsageError, printable

if TYPE_CHECKING:
    from graphopt.alterations import Kind, Strength
    from graphopt.numerics.ranges import Method
    from graphopt.quality.data import DataOptions
    from graphopt.runtime.cache import Cache

_Strengths: TypeAlias = "dict[Kind, list[Strength]]"


def _numbers(_: click.Context, option: click.Parameter, text: str | None) -> list[float] | None:
    """Numbers with commas between them; percentages are shares."""
    if text is None:
        return None
    try:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return [float(p[:-1]) / 100 if p.endswith("%") else float(p) for p in parts]
    except ValueError:
        raise UsageError(f"cannot read --{option.name} {text!r}", "Write as in 8,4,2") from None


def _bits(_: click.Context, option: click.Parameter, text: str | None) -> _Strengths:
    """Bits of weights and of activations, by what is rounded."""
    found: _Strengths = {}
    for part in (text or "").replace(" ", "").lower().split(","):
        match = re.fullmatch(r"(?:w?(\d{1,3}))?(?:a(\d{1,3}))?", part)
        if match is None:
            raise UsageError(f"cannot read --{option.name} {text!r}", "Write as in 8,4,a8,w8a8")
        weights, activations = match.groups()
        if weights and activations:
            found.setdefault("both", []).append((float(weights), float(activations)))
        elif weights:
            found.setdefault("bits", []).append(float(weights))
        elif activations:
            found.setdefault("activations", []).append(float(activations))
    return found


@click.command()
@MODEL
@DATA
@METRIC
@click.option(
    "--sparsity", callback=_numbers, metavar="SHARES", help="Shares of zeros, as in 30%,50%."
)
@click.option(
    "--bits",
    callback=_bits,
    metavar="LIST",
    help="Bits of weights (8 or w8), of what a node reads (a8), of both (w8a8), as in 8,4,a8,w8a8.",
)
@click.option(
    "--ranges",
    type=click.Choice(["minmax", "percentile", "entropy", "mse"]),
    default="minmax",
    show_default=True,
    help="How the ranges of what nodes read are chosen.",
)
@click.option(
    "--clusters", callback=_numbers, metavar="NUMBERS", help="Numbers of values, as in 16,4."
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="PATTERN",
    help="Only layers of such a name, as in '*conv*'; may be repeated.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Samples that each variant is run on.",
)
@PROVIDER
@THREADS
@click.option("--report", metavar="FILE.html", help="Write a heat map to look at.")
@JSON
@CACHE
@talk
def sensitivity(
    model: str,
    data: DataOptions | None,
    metric: str | None,
    sparsity: list[float] | None,
    bits: _Strengths,
    ranges: Method,
    clusters: list[float] | None,
    layers: tuple[str, ...],
    samples: int,
    provider: str,
    threads: int | None,
    report: str | None,
    json_path: str | None,
    cache: Cache | None,
) -> None:
    """Measure the loss that each layer of MODEL causes alone, at several strengths.

    Without --sparsity, --bits or --clusters all three are measured, of weights alone. A run that was cut off
    goes on where it was when it is started again.
    """
    from dataclasses import asdict

    from graphopt.assessment import Running
    from graphopt.sensitivity_study import sensitivity as run

    if data is None:
        raise UsageError("sensitivity needs data", "Give some with --data")
    require_folders(report, json_path)
    strengths: dict[Kind, Sequence[Strength]] = {**bits}
    if sparsity:
        strengths = {"sparsity": sparsity, **strengths}
    if clusters:
        strengths["clusters"] = clusters
    with settings().progress() as listener:
        found = run(
            model,
            data,
            metric=metric,
            strengths=strengths or None,
            method=ranges,
            layers=layers,
            samples=samples,
            running=Running(provider, threads),
            seed=data.seed,
            cache=cache,
            listener=listener,
            command=["graphopt", *sys.argv[1:]],
        )
    write_json(json_path, dumps(asdict(found)))
    if report is not None:
        from graphopt.report.html import render_sensitivity_html

        write_text(report, render_sensitivity_html(found))
    if json_path != "-":
        from graphopt.report.terminal import render_sensitivity

        settings().console(stderr=False).print(render_sensitivity(found))


@click.command()
@click.argument("source")
@click.argument("node", required=False)
@JSON
@talk
def explain(source: str, node: str | None, json_path: str | None) -> None:
    """Tell which pass made, changed, removed or refused NODE, and why.

    SOURCE is a report in JSON (optimize --json), or a model written with --provenance. Without NODE,
    everything that the passes did is listed.
    """
    from dataclasses import asdict

    from graphopt.explain import explain as run
    from graphopt.explain import load_steps
    from graphopt.report.terminal import render_explanation, render_story

    steps = load_steps(source)
    if node is None:
        write_json(json_path, dumps([asdict(step) for step in steps]))
        shown = render_story(steps)
    else:
        found = run(steps, node)
        write_json(json_path, dumps(asdict(found)))
        shown = render_explanation(found)
    if json_path != "-":
        settings().console(stderr=False).print(shown)


@click.command()
@click.argument("source")
@click.option("-o", "--output", metavar="FILE.html", help="Default: SOURCE with .html.")
@talk
def report(source: str, output: str | None) -> None:
    """Draw the report SOURCE (optimize --json) as a page to look at."""
    from graphopt.report import Report
    from graphopt.report.html import render_html

    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {printable(source)}: {error}") from None
    target = output or str(path.with_suffix(".html"))
    write_text(target, render_html(Report.from_json(text)))
    if settings().verbosity >= 0:
        settings().console().print(f"wrote {printable(target)}", soft_wrap=True)


@click.group()
def cache() -> None:
    """Show or clear what is kept between runs."""


@cache.command("info")
@talk
def cache_info() -> None:
    """Show where results are kept and how much there is."""
    from graphopt.report.format import size
    from graphopt.runtime.cache import Cache, default_folder

    kept = Cache(default_folder())
    console = settings().console(stderr=False)
    console.print(f"{printable(str(default_folder()))}: {size(kept.size())}", soft_wrap=True)


@cache.command("clear")
@talk
def cache_clear() -> None:
    """Remove everything that is kept."""
    from graphopt.runtime.cache import Cache, default_folder

    Cache(default_folder()).clear()
