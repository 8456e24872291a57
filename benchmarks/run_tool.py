"""Child process: run one tool on one model and print what it cost as one line of JSON.

    python -m benchmarks.run_tool TOOL IN OUT

Importing is not counted, nor is what a tool imports at its first call: a model of one node is
optimized before the clock starts. What the tool prints goes to the standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.tools import TOOLS, Tool


def cpu_seconds() -> float:
    """Return the CPU seconds, user and system, of this process and its ended children."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


def peak_mib() -> float:
    """Return the largest resident set so far, in MiB."""
    peaks = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in peaks) / 1024


def warm_up(tool: Tool) -> None:
    """Let the tool optimize a model of one node, so that its lazy imports are paid."""
    import onnx

    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]>'
        "g (float[N, 2] x) => (float[N, 2] y) { y = Relu(x) }"
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Exception):
        onnx.save(model, Path(folder, "in.onnx"))
        tool.optimize(Path(folder, "in.onnx"), Path(folder, "out.onnx"))


def measure(tool: Tool, source: Path, target: Path) -> dict[str, Any]:
    """Run the tool and return its status and its costs."""
    try:
        tool.prepare()
    except ImportError as error:
        return {"status": "missing", "reason": str(error)}
    warm_up(tool)
    cpu, wall = cpu_seconds(), time.perf_counter()
    try:
        tool.optimize(source, target)
    except Exception as error:
        return {"status": "refused", "reason": f"{type(error).__name__}: {error}"[:400]}
    costs = {
        "cpu_s": round(cpu_seconds() - cpu, 4),
        "wall_s": round(time.perf_counter() - wall, 4),
        "rss_mib": round(peak_mib(), 1),
    }
    if not target.exists():
        return {"status": "refused", "reason": "it wrote no file"}
    return {"status": "ok", **costs}


def version(tool: Tool) -> str:
    """Return the installed version of the tool's package, or an empty string."""
    try:
        return metadata.version(tool.package)
    except metadata.PackageNotFoundError:
        return ""


def main() -> None:
    """Keep the standard output for the one line of JSON, then measure."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    tool = TOOLS[sys.argv[1]]
    result = measure(tool, Path(sys.argv[2]), Path(sys.argv[3]))
    print(json.dumps({**result, "version": version(tool)}), file=answer, flush=True)


if __name__ == "__main__":
    main()
