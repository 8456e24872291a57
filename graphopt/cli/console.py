"""What all commands share: how much is said and where, common options, results as JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphopt.errors import OutputError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from graphopt.outcome import Listener, Progress


class Settings:
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
        from rich.live import Live
        from rich.text import Text

        # Without a thread of its own: a process with one thread can be forked, which is far cheaper.
        with Live(Text("reading"), console=console, auto_refresh=False, transient=True) as live:
            yield lambda progress: live.update(Text(_line(progress), "dim"), refresh=True)


def _line(progress: Progress) -> str:
    share = "" if progress.done is None else f" {progress.done:.0%}"
    return f"{printable(progress.what)}{share} …"


_settings_key = "graphopt.settings"


def settings() -> Settings:
    """The settings of the command that is running."""
    context = click.get_current_context()
    found: Settings = context.meta.setdefault(_settings_key, Settings())
    return found


def _quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.meta.setdefault(_settings_key, Settings()).verbosity = -1


def _verbose(context: click.Context, _: click.Parameter, value: int) -> None:
    if value:
        context.meta.setdefault(_settings_key, Settings()).verbosity = value


def _color(context: click.Context, _: click.Parameter, value: str) -> None:
    chosen = {"always": True, "never": False}.get(value)
    if chosen is not None:
        context.meta.setdefault(_settings_key, Settings()).color = chosen


def talk(command: Callable[..., Any]) -> Callable[..., Any]:
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


JSON = click.option(
    "--json", "json_path", metavar="FILE", help="Write the result as JSON; - for standard output."
)
MODEL = click.argument("model")


def dumps(value: Any) -> str:
    """A value as JSON text, ending with a newline."""
    import json

    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"


def write_json(path: str | None, text: str) -> None:
    """Write JSON where it was asked for: to a file, to standard output for ``-``, or nowhere."""
    if path == "-":
        click.echo(text, nl=False)
    elif path is not None:
        write_text(path, text)


def require_folders(*paths: str | None) -> None:
    """Refuse paths whose folder is not there, before any work is done for them.

    Raises:
        OutputError: so it is.
    """
    for path in paths:
        if path not in (None, "-") and not Path(str(path)).parent.is_dir():
            raise OutputError(
                f"cannot write {printable(str(path))}: its folder is not there",
                "Make the folder first; nothing was done",
            )


def write_text(path: str, text: str) -> None:
    """Write a file, whole or not at all."""
    from graphopt.files import write_bytes

    write_bytes(Path(path), text.encode())
