"""Measure one tool on one model in child processes, so that a crash or a hang is a result."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.tools import TOOLS

ROOT = Path(__file__).parent.parent
OWN_PYTHON = sys.executable


@dataclass
class Result:
    """What is known of one tool on one model; None is "not measured".

    Attributes:
        model: the model's name.
        tool: the tool's name; ``original`` for the untouched model.
        status: ok, missing, refused (an error), crash or timeout.
        why: the reason of a status that is not ok, or of a wrong result.
        latency: for "on" and "off" the median, first and third quartile of the ratio to the
            original (for ``original`` itself: one number, its median in milliseconds).
    """

    model: str
    tool: str
    status: str = "ok"
    why: str = ""
    version: str = ""
    cpu_s: float | None = None
    wall_s: float | None = None
    rss_mib: float | None = None
    nodes: int | None = None
    init_bytes: int | None = None
    file_bytes: int | None = None
    correct: bool | None = None
    error: float | None = None
    runs: int | None = None
    interface: bool | None = None
    standard: bool | None = None
    idempotent: bool | None = None
    latency: dict[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Return whether the output is right, keeps the interface and uses no foreign operator."""
        return self.status == "ok" and bool(self.correct and self.interface and self.standard)

    def update(self, values: dict[str, Any]) -> None:
        """Take over the values of a child's answer that are fields of this class."""
        for key, value in values.items():
            if key in asdict(self):
                setattr(self, key, value)


def child(python: str, module: str, arguments: Sequence[str], timeout: float) -> dict[str, Any]:
    """Run ``python -m module`` and return the JSON object of its last line.

    A child that dies or outlasts ``timeout`` seconds gives ``{"status": ..., "why": ...}``.
    """
    command = [python, "-m", module, *arguments]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return {"status": "timeout", "why": f"longer than {timeout:g} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        answer: dict[str, Any] = json.loads(lines[-1])
        return answer
    if done.returncode < 0:
        why = f"killed by {signal.Signals(-done.returncode).name}"
    else:
        why = f"exit status {done.returncode}: {done.stderr.strip()[-300:]}"
    return {"status": "crash", "why": why}


def judged(result: Result, source: Path, target: Path, timeout: float) -> None:
    """Judge the model at ``target`` in a child and put the verdict into ``result``."""
    arguments = [result.model, str(source), str(target)]
    verdict = child(OWN_PYTHON, "benchmarks.judge", arguments, timeout)
    if verdict.pop("status", "ok") != "ok":
        verdict = {"correct": False, "why": f"judging it failed: {verdict['why']}"}
    result.update(verdict)


def original(model: str, source: Path, timeout: float) -> Result:
    """Return the facts of the untouched model; its comparison with itself must succeed."""
    result = Result(model, "original")
    judged(result, source, source, timeout)
    return result


def optimized(
    model: str, tool: str, source: Path, target: Path, python: str, timeout: float
) -> Result:
    """Run a tool on a model and judge what it wrote.

    Args:
        model: the model's name.
        tool: the tool's name.
        source: the original.
        target: where the tool writes.
        python: the interpreter in which the tool is installed.
        timeout: seconds for the tool, and again for judging.

    Returns:
        The result; for graphopt with the answer whether optimizing its output once more gives
        the same bytes.
    """
    result = Result(model, tool)
    answer = child(python, "benchmarks.run_tool", [tool, str(source), str(target)], timeout)
    result.update({"why": answer.get("reason", ""), **answer})
    if result.status != "ok":
        return result
    judged(result, source, target, timeout)
    if TOOLS[tool].own:
        again = target.with_suffix(".again.onnx")
        child(python, "benchmarks.run_tool", [tool, str(target), str(again)], timeout)
        result.idempotent = again.exists() and again.read_bytes() == target.read_bytes()
    return result
