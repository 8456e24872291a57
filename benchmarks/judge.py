"""Child process: judge one optimized model against its original; prints one line of JSON.

    python -m benchmarks.judge NAME ORIGINAL CANDIDATE

Both run in ONNX Runtime on the CPU with graph optimizations off: with them on, the runtime
would compare its own rewriting of the one with its own rewriting of the other.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from benchmarks import facts, feeds

RTOL = 1e-3
"""Largest error that counts as the same result, relative to the largest value of the output.

Rewrites change the order of float32 sums; over some hundred layers that stays below 1e-4 of
the scale, while a wrong rewrite is off by its whole size.
"""


def session(path: Path, optimized: bool) -> onnxruntime.InferenceSession:
    """Open a model on one CPU thread with the runtime's graph optimizations on or off."""
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    )
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def error_of(expected: Any, got: Any) -> float:
    """Return how far ``got`` is from ``expected``, relative to the largest expected value.

    NaNs must be in the same places and infinities the same; integers, booleans and strings
    equal. Whatever differs in kind, type or shape is infinitely wrong.
    """
    if type(expected) is not type(got):
        return float("inf")
    if not isinstance(expected, np.ndarray):
        return 0.0 if np.array_equal(expected, got) else float("inf")
    if expected.dtype != got.dtype or expected.shape != got.shape:
        return float("inf")
    if not np.issubdtype(expected.dtype, np.floating):
        return 0.0 if np.array_equal(expected, got) else float("inf")
    a, b = expected.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    if not np.isfinite(b[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    scale = max(float(np.abs(a[finite]).max()), 1e-6)
    return float(np.abs(a - b, where=finite, out=np.zeros_like(a)).max()) / scale


def _outputs(opened: onnxruntime.InferenceSession, feed: feeds.Feed) -> list[Any] | None:
    try:
        outputs: list[Any] = opened.run(None, feed)
    except Exception:
        return None
    return outputs


def _run(path: Path, inputs: list[feeds.Feed]) -> list[list[Any] | None]:
    opened = session(path, optimized=False)
    return [_outputs(opened, feed) for feed in inputs]


def compare(name: str, original: Path, candidate: Path) -> dict[str, Any]:
    """Return ``correct``, the largest ``error``, the ``runs`` compared and, if wrong, ``why``."""
    inputs = feeds.make(name, onnx.load(original))
    expected = _run(original, inputs)
    if not any(expected):
        return {"correct": None, "why": "the original runs on none of the inputs tried"}
    try:
        got = _run(candidate, inputs)
    except Exception as error:
        return {"correct": False, "why": f"does not load: {error}"[:400]}
    worst, runs = 0.0, 0
    for feed, before, after in zip(inputs, expected, got, strict=True):
        if before is None:
            continue
        shapes = {key: list(value.shape) for key, value in feed.items()}
        if after is None or len(after) != len(before):
            return {"correct": False, "why": f"fails on {shapes}"}
        off = max(map(error_of, before, after), default=0.0)
        if not off <= RTOL:
            return {"correct": False, "error": off, "why": f"differs on {shapes}"}
        worst, runs = max(worst, off), runs + 1
    return {"correct": True, "error": worst, "runs": runs}


def judge(name: str, original: Path, candidate: Path) -> dict[str, Any]:
    """Return the facts of the candidate, whether it keeps the interface and whether it is right."""
    try:
        after = facts.read(candidate)
    except Exception as error:
        return {"correct": False, "why": f"not readable: {error}"[:400]}
    before = facts.read(original)
    return {
        "nodes": after.nodes,
        "init_bytes": after.init_bytes,
        "file_bytes": after.file_bytes,
        "interface": (before.inputs, before.outputs) == (after.inputs, after.outputs),
        "standard": after.domains <= before.domains | {""},
        **compare(name, original, candidate),
    }


if __name__ == "__main__":
    print(json.dumps(judge(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
