"""A function that the user names, ``module:function`` or ``file.py:function``.

It is code, and it runs only because the user named it. A module is found as Python finds it from the
current folder; a file finds its neighbours, when it is loaded and when its function runs. Whatever it raises
becomes one line that names the function and the line at fault.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from graphopt.errors import GraphoptError, UsageError, printable


@dataclass(frozen=True)
class UserFunction:
    """A function of the user's own.

    Attributes:
        text: as it was named.
        folder: where it finds its modules; None for one that the caller has already.
        call: the function itself.
    """

    text: str
    folder: Path | None
    call: Callable[..., Any] = field(repr=False)

    def __call__(self, *arguments: Any) -> Any:
        """Call it.

        Raises:
            UsageError: it raised something.
        """
        with running(self.text, self.folder):
            return self.call(*arguments)


def load_function(text: str) -> UserFunction:
    """The function that a text names.

    Args:
        text: ``module:function`` or ``path/to/file.py:function``.

    Raises:
        UsageError: the module, the file or the function is not there, or loading it fails.
    """
    where, _, name = text.rpartition(":")
    is_file = where.endswith(".py")
    folder = Path(where).resolve().parent if is_file else Path.cwd()
    if is_file and not Path(where).is_file():
        raise UsageError(f"cannot read {printable(text)}: no such file", "Check the path")
    with running(text, folder):
        module = _file(Path(where)) if is_file else _module(where)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        near = difflib.get_close_matches(name, known, 3)
        raise UsageError(
            f"{printable(where)} has no function {printable(name)!r}",
            f"Did you mean {' or '.join(map(printable, near))}?" if near else "",
        )
    return UserFunction(text, folder, found)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f"there is no module {printable(name)!r}",
                "Name a module that Python finds, or a file as in metrics.py:function",
            ) from None
        raise


def _file(path: Path) -> ModuleType:
    name = f"graphopt_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"cannot load {printable(str(path))!r} as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@contextmanager
def running(text: str, folder: Path | None) -> Iterator[None]:
    """Let code of the user's run: imports look into its folder first, errors are blamed on it.

    Args:
        text: the function as it was named.
        folder: where it finds its modules; None: where Python finds them anyway.

    Raises:
        UsageError: it raised something, or tried to end the program.
    """
    if folder is not None:
        sys.path.insert(0, str(folder))
    try:
        yield
    except GraphoptError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's code, whatever it raises
        what = type(error).__name__ + (f": {error}" if str(error) else "")
        raise UsageError(
            f"the function {printable(text)} failed with {printable(what, 500)}"
            f"{_place(error, folder)}"
        ) from None
    finally:
        if folder is not None:
            with suppress(ValueError):
                sys.path.remove(str(folder))


def _place(error: BaseException, folder: Path | None) -> str:
    """The line to look at: the last one that ran in the user's folder, or outside of packages."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" (line {error.lineno} of {printable(Path(error.filename).name)})"
    frames = [
        (Path(frame.filename), frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and not frame.filename.startswith("<")
    ]
    own = [
        (path, line)
        for path, line in frames
        if (path.is_relative_to(folder) if folder is not None else not _is_ours(path))
    ]
    return f" (line {own[-1][1]} of {printable(own[-1][0].name)})" if own else ""


def _is_ours(path: Path) -> bool:
    return path.is_relative_to(Path(__file__).parent) or path == Path(importlib.__file__ or "")
