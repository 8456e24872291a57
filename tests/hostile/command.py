"""The command line in a process of its own that has limits on memory, files and time.

The process is forked, so that nothing has to be imported again; what runs in it is what the program's
entry point runs.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import graphopt.cli
import graphopt.optimizer
import graphopt.report.terminal
from graphopt.registry import builtin_passes

builtin_passes()

INFINITE = resource.RLIM_INFINITY


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: its exit code, or minus the signal that killed it; None where it ran out of time.
        out: what it wrote to standard output.
        err: what it wrote to standard error.
        seconds: how long it took.
        mebibytes: the most memory that it, or a child of it, held.
    """

    code: int | None
    out: str
    err: str
    seconds: float
    mebibytes: int


def graphopt_command(
    arguments: Sequence[str],
    folder: Path,
    seconds: float = 30.0,
    address_space: int = INFINITE,
    file_bytes: int = INFINITE,
    kill_after: float | None = None,
) -> Ended:
    """Run ``graphopt`` with some arguments.

    Args:
        arguments: the arguments.
        folder: where it runs; its temporary files go to ``tmp`` in it.
        seconds: when it is killed.
        address_space: RLIMIT_AS of it and of its children, in bytes.
        file_bytes: RLIMIT_FSIZE.
        kill_after: when it is killed on purpose.
    """
    (folder / "tmp").mkdir(exist_ok=True)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _become(arguments, folder, (out.fileno(), err.fileno()), address_space, file_bytes)
        code, usage = _wait(pid, started, kill_after or seconds)
        out.seek(0)
        err.seek(0)
        return Ended(
            code,
            out.read().decode(errors="backslashreplace"),
            err.read().decode(errors="backslashreplace"),
            time.monotonic() - started,
            usage.ru_maxrss >> 10,
        )


def _become(
    arguments: Sequence[str],
    folder: Path,
    streams: tuple[int, int],
    address_space: int,
    file_bytes: int,
) -> None:
    """The life of the child; does not return."""
    code = 99
    faulthandler.disable()
    try:
        os.setsid()
        os.chdir(folder)
        tempfile.tempdir = str(folder / "tmp")
        os.environ["TMPDIR"] = tempfile.tempdir
        for number, stream in enumerate(streams, 1):
            os.dup2(stream, number)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        sys.argv = ["graphopt", *arguments]
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        code = graphopt.cli.run(list(arguments))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(pid: int, started: float, seconds: float) -> tuple[int | None, resource.struct_rusage]:
    pause = 0.002
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            _end_group(pid)
            return os.waitstatus_to_exitcode(status), usage
        if time.monotonic() - started > seconds:
            _end_group(pid)
            _, _, usage = os.wait4(pid, 0)
            return None, usage
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _end_group(pid: int) -> None:
    """End what the run left behind: it led a process group of its own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def snapshot(root: Path, ignore: Sequence[Path] = ()) -> dict[str, tuple[int, int, int]]:
    """Everything below a folder: kind and mode, size, time of the last change."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder) / name
            if path not in ignore:
                state = path.lstat()
                found[str(path.relative_to(root))] = (
                    state.st_mode,
                    state.st_size if name in files else 0,
                    state.st_mtime_ns if name in files else 0,
                )
    return found
