"""Workers that each do many cases and are replaced when they die or hang."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from benchmarks.backend_cases import Case
from benchmarks.backend_run import Engine, Outcome, Status, find_engine, run_case
from benchmarks.tools import TOOLS, Tool

GRACE_SECONDS = 5.0
"""How long after its own alarm a worker may live before it is killed."""
_FORK = multiprocessing.get_context("fork")
"""Forked workers share the cases, which take seconds to make, with their parent."""


def _alarm(*_: Any) -> None:
    raise TimeoutError


def _quiet() -> None:
    """Send whatever the tools print to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def _attend(case: Case, tool: Tool, pipe: Connection, timeout: float) -> Outcome:
    """Run a case under an alarm, telling the parent when the engine is known."""
    engine: Engine | None = None
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        engine = find_engine(case)
        pipe.send(engine)
        if engine is None:
            return Outcome(case.name, "unusable")
        return run_case(case, tool.optimize, engine)
    except TimeoutError:
        status: Status = "timeout" if engine else "unusable"
        return Outcome(case.name, status, engine, f"longer than {timeout:g} s")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _work(cases: Sequence[Case], tool: Tool, pipe: Connection, timeout: float) -> None:
    """Take indices of cases from the pipe and answer with the engine, then the outcome."""
    _quiet()
    signal.signal(signal.SIGALRM, _alarm)
    tool.prepare()
    while (index := pipe.recv()) is not None:
        pipe.send(_attend(cases[index], tool, pipe, timeout))


@dataclass
class _Worker:
    """A worker process and the case that it is on."""

    process: BaseProcess
    pipe: Connection
    index: int | None = None
    since: float = 0.0
    engine: Engine | None = None

    def give(self, index: int) -> None:
        """Hand the worker its next case."""
        self.index, self.since, self.engine = index, time.monotonic(), None
        self.pipe.send(index)

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


class Pool:
    """Runs cases on a tool in several worker processes."""

    def __init__(self, cases: Sequence[Case], tool: str, jobs: int, timeout: float) -> None:
        """Prepare, without starting anything.

        Args:
            cases: what to run.
            tool: name of the tool, which must be importable in this interpreter.
            jobs: number of worker processes.
            timeout: seconds for one case, baseline included.
        """
        self._cases = cases
        self._tool = TOOLS[tool]
        self._jobs = min(jobs, len(cases))
        self._timeout = timeout

    def _start(self) -> _Worker:
        ours, theirs = _FORK.Pipe()
        arguments = (self._cases, self._tool, theirs, self._timeout)
        process = _FORK.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _lost(self, worker: _Worker, status: str) -> Outcome:
        """Return the outcome of the case that a dead or hanging worker was on."""
        assert worker.index is not None
        name = self._cases[worker.index].name
        if worker.engine is None:
            return Outcome(name, "unusable", None, f"{status} while running the original")
        if status == "timeout":
            return Outcome(name, "timeout", worker.engine, f"longer than {self._timeout:g} s")
        code = worker.process.exitcode or 0
        cause = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return Outcome(name, "crash", worker.engine, f"the process died: {cause}")

    def _poll(self, worker: _Worker) -> Outcome | None:
        """Read what a worker has to say; a dead or hanging one is stopped and answered for."""
        try:
            while worker.pipe.poll():
                message = worker.pipe.recv()
                if isinstance(message, Outcome):
                    return message
                worker.engine = message
        except (EOFError, OSError):
            worker.process.join()
            return self._lost(worker, "crash")
        if time.monotonic() - worker.since > self._timeout + GRACE_SECONDS:
            worker.stop()
            return self._lost(worker, "timeout")
        return None

    def run(self) -> Iterator[Outcome]:
        """Yield the outcome of every case as it comes, in no particular order."""
        todo = iter(range(len(self._cases)))
        workers: list[_Worker] = []
        try:
            for index in (i for _, i in zip(range(self._jobs), todo, strict=False)):
                worker = self._start()
                workers.append(worker)
                worker.give(index)
            while workers:
                wait([worker.pipe for worker in workers], timeout=1.0)
                for position, worker in enumerate(list(workers)):
                    outcome = self._poll(worker)
                    if outcome is None:
                        continue
                    yield outcome
                    self._next(workers, position, next(todo, None))
                workers = [worker for worker in workers if worker.index is not None]
        finally:
            for worker in workers:
                worker.stop()

    def _next(self, workers: list[_Worker], position: int, index: int | None) -> None:
        """Give a worker, or its successor when it is dead, the next case; idle ones are stopped."""
        worker = workers[position]
        alive = not worker.pipe.closed and worker.process.is_alive()
        if index is None:
            worker.index = None
            worker.stop()
            return
        if not alive:
            worker = workers[position] = self._start()
        worker.give(index)


def check_platform() -> None:
    """Exit with a message where processes cannot be forked."""
    if "fork" not in multiprocessing.get_all_start_methods():
        sys.exit("error: the backend benchmark needs a system that can fork processes")
