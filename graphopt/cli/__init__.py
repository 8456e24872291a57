"""The command line: a thin shell over the public API.

Nothing heavy is imported until a command runs, so that help answers at once. Results go to standard
output, everything else to standard error; ``--json -`` leaves nothing but JSON on standard output.

Exit codes: 0 success; 1 bad usage, recipe or data; 2 bad model; 3 the result or the compared model differs
from the original; 4 a pass was left out for the budget (--strict); 5 a resource limit was reached;
6 a runtime or provider is missing; 7 the output cannot be written; 70 internal error; 130 interrupted.
"""

from __future__ import annotations

import os
import sys

import click

from graphopt._version import __version__
from graphopt.cli.catalogue import completion, passes, recipes, schema
from graphopt.cli.look import bench, compare, inspect
from graphopt.cli.measure import cache, explain, report, sensitivity
from graphopt.cli.optimize import optimize
from graphopt.cli.packing import pack, unpack
from graphopt.errors import (
    GraphoptError,
    NativeError,
    ResourceError,
    UsageError,
    printable,
)

INTERNAL_ERROR = 70
INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="graphopt")
def app() -> None:
    r"""Make ONNX models smaller and faster, and prove it.

    \b
    graphopt optimize model.onnx            writes model.opt.onnx
    graphopt compare model.onnx model.opt.onnx

    Exit codes: 0 success, 1 usage, 2 bad model, 3 results differ, 4 budget, 5 resource limit,
    6 provider missing, 7 output not writable, 70 internal error, 130 interrupted.
    """


for _command in (
    optimize,
    inspect,
    compare,
    bench,
    sensitivity,
    pack,
    unpack,
    explain,
    report,
    passes,
    recipes,
    cache,
    completion,
    schema,
):
    app.add_command(_command)


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
        if isinstance(error, NativeError) and "allocate memory" in error.what:
            hint = "Raise the limit on memory, or run with --threads 1"
            return _fail(ResourceError.exit_code, f"not enough memory: {error.what}", hint)
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
