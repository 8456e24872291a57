"""The commands that measure: ``sensitivity``, ``explain``, ``report`` and ``cache``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

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
    from graphopt.quality.data import DataOptions
    from graphopt.runtime.cache import Cache


def _numbers(_: click.Context, option: click.Parameter, text: str | None) -> list[float] | None:
    """Numbers with commas between them; percentages are shares."""
    if text is None:
        return None
    try:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return [float(p[:-1]) / 100 if p.endswith("%") else float(p) for p in parts]
    except ValueError:
        raise UsageError(f"cannot read --{option.name} {text!r}", "Write as in 8,4,2") from None


@click.command()
@MODEL
@DATA
@METRIC
@click.option(
    "--sparsity", callback=_numbers, metavar="SHARES", help="Shares of zeros, as in 30%,50%."
)
@click.option("--bits", callback=_numbers, metavar="NUMBERS", help="Bits, as in 8,4.")
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
    bits: list[float] | None,
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

    Without --sparsity, --bits or --clusters all three are measured. A run that was cut off goes on where it
    was when it is started again.
    """
    from dataclasses import asdict

    from graphopt.assessment import Running
    from graphopt.sensitivity_study import sensitivity as run

    if data is None:
        raise UsageError("sensitivity needs data", "Give some with --data")
    require_folders(report, json_path)
    given = {"sparsity": sparsity, "bits": bits, "clusters": clusters}
    strengths = {kind: values for kind, values in given.items() if values}
    with settings().progress() as listener:
        found = run(
            model,
            data,
            metric=metric,
            strengths=strengths or None,  # type: ignore[arg-type]
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
