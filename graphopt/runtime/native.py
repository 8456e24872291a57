"""Native code behind glass: a child process that may die without harm.

Constant folding, checkers and sessions run models that nobody has vouched for; an integer division
can kill the process that computes it. So they run in a child: its death, its hanging and its hunger
for memory come back as a ``NativeDeathError``, and the next request gets a new child. Where it is
safe the child is forked, which costs milliseconds; elsewhere it is started afresh.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
import warnings
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe
from types import TracebackType
from typing import Any

import onnxruntime  # noqa: F401 - imported before the fork, so that no child has to

from graphopt.errors import GraphoptError, NativeDeathError, NativeError, printable
from graphopt.runtime.tasks import Tasks


class Native:
    """A process that runs native code on request.

    Args:
        memory_bytes: address space that it may use beyond what it starts with; None for no limit.
        seconds: how long a request may take unless it says otherwise.
    """

    def __init__(self, memory_bytes: int | None = None, seconds: float = 60.0) -> None:
        self.memory_bytes = memory_bytes
        self.seconds = seconds
        self.generation = 0
        self._child: _Child | None = None

    @property
    def alive(self) -> bool:
        """Whether the process that served the last request still stands."""
        return self._child is not None

    def call(self, task: str, *args: Any, seconds: float | None = None, **kwargs: Any) -> Any:
        """Ask for one of the ``Tasks``.

        Args:
            task: the method's name.
            args: its arguments.
            seconds: how long it may take.
            kwargs: more of its arguments.

        Raises:
            NativeError: the request failed; the message says why.
            NativeDeathError: it killed the process, hung or used too much memory.
            GraphoptError: what the task itself raised, such as ``ProviderError``.
        """
        child = self._child
        if child is None:
            child = self._child = _start(self.memory_bytes)
            self.generation += 1
        allowed = self.seconds if seconds is None else seconds
        try:
            child.connection.send((task, args, kwargs))
            if not child.connection.poll(allowed):
                self._kill()
                raise NativeDeathError(f"{task} did not finish within {allowed:g} s")
            ok, answer = child.connection.recv()
        except (EOFError, OSError):
            raise NativeDeathError(f"{task} killed the process that ran it{self._kill()}") from None
        if not ok:
            raise answer if isinstance(answer, GraphoptError) else NativeError(answer)
        return answer

    def _kill(self) -> str:
        """End the child; says how it died."""
        child, self._child = self._child, None
        return child.kill() if child is not None else ""

    def close(self) -> None:
        """End the child."""
        self._kill()

    def __enter__(self) -> Native:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Child:
    """One running process and the line to it."""

    def __init__(self, connection: Connection, pid: int, process: Any = None) -> None:
        self.connection = connection
        self.pid = pid
        self.process = process

    def kill(self) -> str:
        self.connection.close()
        if self.process is not None:
            self.process.kill()
            self.process.join()
            return f" (exit code {self.process.exitcode})"
        status = self._reap(grace=0.2)
        if status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._reap(grace=None)
            return ""
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return f" (signal {signal.Signals(number).name})"
        return f" (exit code {os.WEXITSTATUS(status)})"

    def _reap(self, grace: float | None) -> int | None:
        until = None if grace is None else time.monotonic() + grace
        while True:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, 0 if until is None else os.WNOHANG)
                if pid:
                    return status
                if until is not None and time.monotonic() < until:
                    time.sleep(0.005)
                    continue
            return None


def _start(memory_bytes: int | None) -> _Child:
    if sys.platform.startswith("linux") and threading.active_count() == 1:
        return _fork(memory_bytes)
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, memory_bytes), daemon=True)
    process.start()
    theirs.close()
    return _Child(ours, process.pid or 0, process)


def _fork(memory_bytes: int | None) -> _Child:
    ours, theirs = Pipe()
    with warnings.catch_warnings():
        # Python warns of threads in the parent. The ones that there are belong to numpy's BLAS, which
        # ends them before a fork; Python's own are excluded by the caller.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        theirs.close()
        return _Child(ours, pid)
    try:
        ours.close()
        _serve(theirs, memory_bytes)
    finally:
        os._exit(0)


def _serve(connection: Connection, memory_bytes: int | None) -> None:
    """The life of the child: answer requests until the line is cut."""
    _silence()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if memory_bytes is not None:
        _limit_memory(memory_bytes)
    tasks = Tasks()
    while True:
        try:
            name, args, kwargs = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (True, getattr(tasks, name)(*args, **kwargs))
        except MemoryError:
            answer = (False, "not enough memory within the limit")
        except GraphoptError as error:
            answer = (False, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the one who asked
            answer = (False, f"{type(error).__name__}: {printable(str(error), 2000)}")
        try:
            connection.send(answer)
        except (BrokenPipeError, ConnectionError):
            return
        except Exception as error:  # noqa: BLE001 - an answer that cannot be sent
            connection.send((False, f"the result cannot be returned: {printable(str(error))}"))


def _silence() -> None:
    """Nothing that native code prints, or Python about its death, reaches the user's terminal."""
    faulthandler.disable()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def _limit_memory(memory_bytes: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no path of ours
        used = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + memory_bytes
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
