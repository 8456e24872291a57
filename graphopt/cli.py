"""The command line: a thin shell over the public API.

Nothing heavy is imported until a command runs, so that help answers at once. Results go to standard
output, everything else to standard error; ``--json -`` leaves nothing but JSON on standard output.

Exit codes: 0 success; 1 bad usage, recipe or data; 2 bad model; 3 the result or the compared model differs
from the original; 5 a resource limit was reached; 6 a runtime or provider is missing; 7 the output cannot
be written; 70 internal error; 130 interrupted.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphopt._version import __version__
from graphopt.errors import GateError, GraphoptError, UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from graphopt.pass_base import Limits
    from graphopt.pass_manager import Listener

INTERNAL_ERROR = 70
INTERRUPTED = 130

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class _Settings:
    """How much is said, and where."""

    def __init__(self) -> None:
        self.verbosity = 0
        self.color: bool | None = None

    def console(self, stderr: bool = True) -> Console:
        """A console for people; without colours where they are not wanted."""
        from rich.console import Console

        stream = sys.stderr if stderr else sys.stdout
        plain = self.color is False
        width = None if stream.isatty() or "COLUMNS" in os.environ else 120
        return Console(
            stderr=stderr,
            no_color=True if plain else None,
            force_terminal=True if self.color else (False if plain else None),
            highlight=False,
            markup=False,
            emoji=False,
            width=width,
        )

    @contextmanager
    def progress(self) -> Iterator[Listener]:
        """Tell where a run stands, on a terminal only."""
        console = self.console()
        if not console.is_terminal or self.verbosity < 0:
            yield lambda progress: None
            return
        with console.status("reading", spinner="dots") as status:
            yield lambda progress: status.update(progress.what)


_settings_key = "graphopt.settings"


def _settings() -> _Settings:
    context = click.get_current_context()
    settings: _Settings = context.meta.setdefault(_settings_key, _Settings())
    return settings


def _quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.meta.setdefault(_settings_key, _Settings()).verbosity = -1


def _verbose(context: click.Context, _: click.Parameter, value: int) -> None:
    if value:
        context.meta.setdefault(_settings_key, _Settings()).verbosity = value


def _color(context: click.Context, _: click.Parameter, value: str) -> None:
    chosen = {"always": True, "never": False}.get(value)
    if chosen is not None:
        context.meta.setdefault(_settings_key, _Settings()).color = chosen


def _talk(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has."""
    for option in (
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            expose_value=False,
            callback=_quiet,
            help="Say nothing but errors.",
        ),
        click.option(
            "-v",
            "--verbose",
            count=True,
            expose_value=False,
            callback=_verbose,
            help="Say more; -vv shows tracebacks.",
        ),
        click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            expose_value=False,
            callback=_color,
            help="When to use colours; NO_COLOR is respected.",
        ),
    ):
        command = option(command)
    return command


_JSON = click.option(
    "--json", "json_path", metavar="FILE", help="Write the result as JSON; - for standard output."
)
_DATA = click.option(
    "--data", metavar="FILE.npz", help="Inputs: one array per model input, axis 0 = sample."
)
_MODEL = click.argument("model")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="graphopt")
def app() -> None:
    r"""Make ONNX models smaller and faster, and prove it.

    \b
    graphopt optimize model.onnx            writes model.opt.onnx
    graphopt compare model.onnx model.opt.onnx

    Exit codes: 0 success, 1 usage, 2 bad model, 3 results differ, 5 resource limit,
    6 provider missing, 7 output not writable, 70 internal error, 130 interrupted.
    """


@app.command()
@_MODEL
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Where to write; - for standard output. Default: MODEL.opt.onnx beside the input.",
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
    metavar="FILE.toml",
    help="A recipe, or a pyproject.toml with a table [tool.graphopt].",
)
@click.option(
    "-s", "--skip", multiple=True, metavar="NAME", help="A pass to leave out; may be repeated."
)
@_DATA
@_JSON
@click.option("--plan", is_flag=True, help="Say what would run and write nothing.")
@click.option("--strict", is_flag=True, help="Fail unless the result is proven equal on numbers.")
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
@_talk
def optimize(
    model: str,
    output: str | None,
    passes: tuple[str, ...],
    recipe: str | None,
    skip: tuple[str, ...],
    data: str | None,
    json_path: str | None,
    plan: bool,
    strict: bool,
    growth: int,
    memory: int | None,
    timeout: float | None,
) -> None:
    """Optimize MODEL and prove that the result computes the same."""
    settings = _settings()
    if json_path == "-" and output == "-":
        raise UsageError("the model and the JSON cannot both go to standard output")
    recipe = recipe or _nearby_recipe(passes)
    if plan:
        _show_plan(passes or None, recipe, skip, json_path)
        return
    from graphopt.optimizer import optimize as run

    target = _target(model, output)
    with settings.progress() as listener:
        result = run(
            model,
            None if output == "-" or strict else target,
            passes=passes or None,
            recipe=recipe,
            skip=skip,
            data=data,
            limits=_limits(growth, memory, timeout),
            listener=listener,
            command=_command_line(),
        )
    report = result.report
    if strict and report.verdict.verdict != "equal":
        raise GateError(
            f"the result is not proven equal: {report.verdict.why}", "Nothing was written"
        )
    if output == "-":
        sys.stdout.buffer.write(result.model.to_bytes())
        sys.stdout.buffer.flush()
    elif strict:
        result.model.save(target)
    _write_json(json_path, report.to_json())
    if settings.verbosity >= 0:
        from graphopt.report.terminal import render_report

        console = settings.console()
        console.print(render_report(report, settings.verbosity > 0))
        if output != "-":
            console.print(f"wrote {printable(str(target))}", soft_wrap=True)


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


def _show_plan(
    passes: tuple[str, ...] | None, recipe: str | None, skip: tuple[str, ...], json_path: str | None
) -> None:
    from graphopt.optimizer import choose
    from graphopt.options import values_of

    chosen = choose(passes, recipe, skip)
    steps = [{"name": p.name, "exact": p.exact, "options": values_of(p)} for p in chosen.passes]
    _write_json(json_path, _dumps({"recipe": chosen.name, "passes": steps}))
    if json_path != "-":
        console = _settings().console(stderr=False)
        console.print(f"recipe {printable(chosen.name)}, {len(steps)} passes:")
        for step in steps:
            options = ", ".join(f"{k}={v}" for k, v in step["options"].items())  # type: ignore[attr-defined]
            kind = "exact" if step["exact"] else "lossy"
            console.print(f"  {step['name']}  ({kind}) {options}".rstrip())


def _dumps(value: Any) -> str:
    import json

    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"


def _write_json(path: str | None, text: str) -> None:
    if path == "-":
        click.echo(text, nl=False)
    elif path is not None:
        from graphopt.ir.storage import write_bytes

        write_bytes(Path(path), text.encode())


@app.command()
@_MODEL
@_JSON
@_talk
def inspect(model: str, json_path: str | None) -> None:
    """Show what MODEL consists of."""
    from dataclasses import asdict

    from graphopt.inspection import inspect_model

    found = inspect_model(model)
    _write_json(json_path, _dumps(asdict(found)))
    if json_path != "-":
        from graphopt.report.terminal import render_model

        console = _settings().console(stderr=False)
        console.print(render_model(found.model, found.operators, found.findings))


@app.command()
@click.argument("first")
@click.argument("second")
@_DATA
@_JSON
@click.option(
    "--latency/--no-latency", default=True, show_default=True, help="Time both, interleaved."
)
@_talk
def compare(
    first: str, second: str, data: str | None, json_path: str | None, latency: bool
) -> None:
    """Compare two models: structure, weights, numbers, size, latency.

    Exits with 3 where SECOND does not compute what FIRST computes within the tolerance.
    """
    from dataclasses import asdict

    from graphopt.bench import bench as time_models
    from graphopt.compare import compare as run
    from graphopt.ir.model import Model

    models = Model.load(first), Model.load(second)
    with _settings().progress():
        found = run(*models, data)
        timed = time_models(*models) if latency and found.numbers.verdict == "equal" else None
    result = {"same": found.same, **asdict(found), "latency": asdict(timed) if timed else None}
    _write_json(json_path, _dumps(result))
    if json_path != "-":
        from graphopt.report.terminal import render_comparison

        _settings().console(stderr=False).print(render_comparison(found, timed))
    if not found.same:
        sys.exit(GateError.exit_code)


@app.command()
@click.argument("models", nargs=-1, required=True)
@_DATA
@_JSON
@click.option(
    "--rounds", type=click.IntRange(5), default=50, show_default=True, help="Rounds to time."
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
@_talk
def bench(
    models: tuple[str, ...],
    data: str | None,
    json_path: str | None,
    rounds: int,
    threads: int,
    ort_optimizations: bool,
) -> None:
    """Time one model, or two against each other, in interleaved rounds.

    A difference is claimed only where it is larger than the noise, which is measured by timing the first
    model against itself in the same rounds.
    """
    from dataclasses import asdict

    from graphopt.bench import bench as run
    from graphopt.ir.model import Model
    from graphopt.quality.data import load_feeds

    if len(models) > 2:
        raise UsageError("bench takes one model or two")
    loaded = [Model.load(path) for path in models]
    feeds = load_feeds(data, loaded[0])[0] if data is not None else None
    with _settings().progress():
        found = run(
            *loaded, feeds=feeds, rounds=rounds, threads=threads, optimizations=ort_optimizations
        )
    _write_json(json_path, _dumps(asdict(found)))
    if json_path != "-":
        from graphopt.report.terminal import render_bench

        _settings().console(stderr=False).print(render_bench(found))


@app.group()
def passes() -> None:
    """List the passes there are, or show one."""


@passes.command("list")
@_JSON
@_talk
def passes_list(json_path: str | None) -> None:
    """List all passes, by family, in the order in which they run."""
    from graphopt.catalog import catalog

    entries = catalog()
    _write_json(json_path, _dumps([entry.brief() for entry in entries]))
    if json_path != "-":
        console = _settings().console(stderr=False)
        for entry in entries:
            console.print(f"{entry.name:<36} {entry.summary}", soft_wrap=True)


@passes.command("show")
@click.argument("name")
@_JSON
@_talk
def passes_show(name: str, json_path: str | None) -> None:
    """Show what the pass NAME does, when it refuses, and its options."""
    from graphopt.catalog import describe_pass

    entry = describe_pass(name)
    _write_json(json_path, _dumps(entry.full()))
    if json_path != "-":
        _settings().console(stderr=False).print(entry.text(), soft_wrap=True)


@app.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@_talk
def completion(shell: str) -> None:
    """Print the completion script for SHELL; source it from the shell's start-up file."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(app, {}, "graphopt", "_GRAPHOPT_COMPLETE").source())


@app.command()
@_talk
def schema() -> None:
    """Print the JSON Schema of the report."""
    from graphopt.report import json_schema

    click.echo(_dumps(json_schema()), nl=False)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; errors become one line on standard error."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = app.main(given, prog_name="graphopt", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.ClickException as error:
        return _fail(
            UsageError.exit_code, error.format_message().rstrip("."), "See graphopt --help"
        )
    except (click.Abort, KeyboardInterrupt):
        return _fail(INTERRUPTED, "interrupted")
    except BrokenPipeError:
        _close_stdout()
        return 0
    except GraphoptError as error:
        if _wants_traceback(given):
            raise
        return _fail(error.exit_code, str(error))
    except SystemExit as request:
        return request.code if isinstance(request.code, int) else 0
    except MemoryError:
        return _fail(5, "not enough memory", "Use a machine with more, or a smaller model")
    except Exception as error:
        if _wants_traceback(given):
            raise
        what = f"internal error: {type(error).__name__}: {printable(str(error))}"
        return _fail(INTERNAL_ERROR, what, "Run again with -vv and report what it prints")


def _close_stdout() -> None:
    """Whoever read our output has left: write the rest to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def _wants_traceback(arguments: list[str]) -> bool:
    return any(entry.startswith("-vv") for entry in arguments) or arguments.count("-v") > 1


def _fail(code: int, what: str, hint: str = "") -> int:
    line = f"graphopt: error: {printable(what, 3000)}"
    click.echo(f"{line}. {hint}" if hint else line, err=True)
    return code


def main() -> None:
    """The entry point of the program."""
    sys.exit(run())


if __name__ == "__main__":
    main()
