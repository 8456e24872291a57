"""The command ``optimize``."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
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
from graphopt.cli.options import BUDGET, CACHE, DATA, METRIC, PROVIDER, THREADS, said_budget
from graphopt.errors import GateError, UsageError, printable

if TYPE_CHECKING:
    from graphopt.optimizer import Result
    from graphopt.pass_base import Limits
    from graphopt.quality.data import DataOptions
    from graphopt.quality.gate import Budget
    from graphopt.recipe import Recipe
    from graphopt.runtime.cache import Cache


@click.command()
@MODEL
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Where to write; - for standard output; packed if it ends in .gopt. Default: MODEL.opt.onnx "
    "beside the input.",
)
@click.option(
    "-p",
    "--pass",
    "passes",
    multiple=True,
    metavar="NAME[:FIELD=VALUE,...]",
    help="A pass to run; may be repeated. 'folding' stands for all exact passes.",
)
@click.option(
    "-r",
    "--recipe",
    metavar="NAME|FILE.toml",
    help="A recipe: one of 'graphopt recipes list', a file, or a pyproject.toml with [tool.graphopt].",
)
@click.option(
    "-s", "--skip", multiple=True, metavar="NAME", help="A pass to leave out; may be repeated."
)
@DATA
@METRIC
@BUDGET
@PROVIDER
@THREADS
@click.option("--report", metavar="FILE.html", help="Write a report to look at.")
@JSON
@click.option(
    "--latency/--no-latency",
    default=None,
    help="Time the original and the result. Default: where a report is written.",
)
@click.option(
    "--pack/--no-pack",
    "packed",
    default=None,
    help="Pack the result as well, beside the output, as FILE.gopt. Default: as the recipe says.",
)
@click.option("--plan", is_flag=True, help="Say what would run and write nothing.")
@click.option(
    "--strict",
    is_flag=True,
    help="Fail unless the result is proven equal, or proven to keep to the budget.",
)
@click.option("--provenance", is_flag=True, help="Write what the passes did into the metadata.")
@CACHE
@click.option(
    "--growth",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="BYTES",
    help="How much the constants may outgrow the original's.",
)
@click.option(
    "--memory",
    type=click.IntRange(1),
    metavar="MIB",
    help="Memory for native code, beside what it starts with.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Longest time for one request to native code.",
)
@talk
def optimize(
    model: str,
    output: str | None,
    passes: tuple[str, ...],
    recipe: str | None,
    skip: tuple[str, ...],
    data: DataOptions | None,
    metric: str | None,
    budget: Budget | None,
    provider: str,
    threads: int | None,
    report: str | None,
    json_path: str | None,
    latency: bool | None,
    packed: bool | None,
    plan: bool,
    strict: bool,
    provenance: bool,
    cache: Cache | None,
    growth: int,
    memory: int | None,
    timeout: float | None,
) -> None:
    """Optimize MODEL and prove what it gained and what it cost."""
    said = settings()
    if json_path == "-" and output == "-":
        raise UsageError("the model and the JSON cannot both go to standard output")
    recipe = recipe or _nearby_recipe(passes)
    from graphopt.optimizer import choose

    if plan:
        _show_plan(choose(passes or None, recipe, skip, data is not None), json_path)
        return
    from graphopt.assessment import Running
    from graphopt.optimizer import optimize as run

    target = _target(model, output)
    require_folders(output, report, json_path)
    limits = _limits(growth, memory, timeout)
    with said.progress() as listener:
        result = run(
            model,
            None if output == "-" or strict else target,
            passes=passes or None,
            recipe=recipe,
            skip=skip,
            data=data,
            metric=metric,
            budget=said_budget(budget),
            strict=strict,
            running=Running(provider, threads, limits.request_seconds),
            latency=report is not None if latency is None else latency,
            details=report is not None,
            pack=packed,
            provenance=provenance,
            seed=data.seed if data is not None else 0,
            limits=limits,
            cache=cache,
            listener=listener,
            command=_command_line(),
        )
    if strict:
        _require_proof(result)
    if output == "-":
        sys.stdout.buffer.write(result.model.to_bytes())
        sys.stdout.buffer.flush()
    elif strict:
        result = _save(result, target)
    _tell(result, report, json_path, None if output == "-" else target)
    if result.report.exit_code:
        sys.exit(result.report.exit_code)


def _require_proof(result: Result) -> None:
    """Stop where the result is neither proven equal nor proven to keep to the budget.

    Raises:
        GateError: so it is.
    """
    report = result.report
    lossy = any(step.edits and not step.exact for step in report.steps)
    if lossy and (report.gate is None or report.gate.verdict != "pass"):
        why = report.gate.why if report.gate is not None else "there is no data to judge with"
        raise GateError(
            f"the result is not proven to keep to the budget: {why}", "Nothing was written"
        )
    if not lossy and report.verdict.verdict != "equal":
        raise GateError(
            f"the result is not proven equal: {report.verdict.why}", "Nothing was written"
        )


def _save(result: Result, target: Path) -> Result:
    """Write what is proven, and its archive where the run packed it."""
    from graphopt.archiving import packed_result

    result.model.save(target)
    packing = result.report.packing
    if packing is None:
        return result
    after = packed_result(result.model, target)
    report = replace(result.report, packing=replace(packing, after=after))
    return replace(result, report=report)


def _tell(result: Result, html: str | None, json_path: str | None, target: Path | None) -> None:
    """Write the reports that were asked for and show what came of it."""
    report = result.report
    write_json(json_path, report.to_json())
    if html is not None:
        from graphopt.report.html import render_html

        write_text(html, render_html(report))
    said = settings()
    if said.verbosity >= 0:
        from graphopt.report.terminal import render_report, render_written

        console = said.console()
        console.print(render_report(report, said.verbosity > 0, console.width))
        if target is not None:
            for line in render_written(report, str(target)):
                console.print(line, soft_wrap=True)
        if html is not None:
            console.print(f"report {printable(html)}", soft_wrap=True)


def _nearby_recipe(passes: tuple[str, ...]) -> str | None:
    """A pyproject.toml in the current folder whose table [tool.graphopt] was meant for this."""
    path = Path("pyproject.toml")
    if passes or not path.is_file():
        return None
    text = path.read_text(encoding="utf-8", errors="replace")
    return str(path) if "[tool.graphopt]" in text or "[[tool.graphopt." in text else None


def _target(model: str, output: str | None) -> Path:
    if output is not None:
        return Path(output)
    path = Path(model)
    return path.with_name(f"{path.stem}.opt.onnx")


def _limits(growth: int, memory: int | None, timeout: float | None) -> Limits:
    from graphopt.pass_base import Limits

    standard = Limits()
    seconds = timeout or standard.request_seconds
    if not math.isfinite(seconds):
        raise UsageError(f"--timeout wants a number of seconds, not {seconds}")
    return Limits(
        growth_bytes=growth,
        memory_bytes=None if memory is None else memory << 20,
        request_seconds=seconds,
        fold_seconds=min(standard.fold_seconds, seconds),
    )


def _command_line() -> list[str]:
    return ["graphopt", *sys.argv[1:]]


def _show_plan(chosen: Recipe, json_path: str | None) -> None:
    from graphopt.options import values_of

    steps = [{"name": p.name, "exact": p.exact, "options": values_of(p)} for p in chosen.passes]
    write_json(json_path, dumps({"recipe": chosen.name, "pack": chosen.pack, "passes": steps}))
    if json_path != "-":
        console = settings().console(stderr=False)
        console.print(f"recipe {printable(chosen.name)}, {len(steps)} passes:")
        for step in steps:
            options = ", ".join(f"{k}={v}" for k, v in step["options"].items())  # type: ignore[attr-defined]
            kind = "exact" if step["exact"] else "lossy"
            console.print(f"  {step['name']}  ({kind}) {options}".rstrip())
        if chosen.pack:
            console.print("the result is packed as well")
