"""What the isolated process can be asked to do. Everything native happens here.

Models arrive as bytes or as a path. Arrays travel as they are; sequences as lists, absent optionals as
None.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

Feeds = dict[str, Any]

ERROR_LEVEL = 4
"""ONNX Runtime's severity 'fatal': what is wrong comes back as an error, not on the terminal."""


class Tasks:
    """The state of the isolated process: its open sessions by key."""

    def __init__(self) -> None:
        self.sessions: dict[str, Any] = {}

    def open(
        self,
        key: str,
        model: bytes | str,
        backend: str = "ort",
        optimize: bool = False,
        threads: int = 1,
        provider: str = "cpu",
    ) -> list[str]:
        """Open a session under a key.

        Args:
            key: the name to run it by.
            model: its bytes or its path.
            backend: ``ort`` or ``reference`` (the evaluator of the onnx package).
            optimize: whether ONNX Runtime may apply its own graph optimizations.
            threads: threads for one operator.
            provider: ``cpu`` or ``cuda``.

        Returns:
            The names of the model's outputs.
        """
        if backend == "reference":
            from onnx.reference import ReferenceEvaluator

            proto = onnx.load(model) if isinstance(model, str) else onnx.load_from_string(model)
            self.sessions[key] = ReferenceEvaluator(proto)
            return list(self.sessions[key].output_names)
        session = _session(model, optimize, threads, provider)
        self.sessions[key] = session
        return [output.name for output in session.get_outputs()]

    def run(self, key: str, feeds: Feeds, names: Sequence[str] | None = None) -> list[Any]:
        """Run an open session once; returns the named outputs, or all of them in order."""
        result: list[Any] = list(self.sessions[key].run(names or None, feeds))
        return result

    def close(self, key: str) -> None:
        """Forget a session."""
        self.sessions.pop(key, None)

    def time(
        self, keys: Sequence[str], feeds: Feeds, rounds: int, warm_up: int
    ) -> list[list[float]]:
        """Time open sessions in interleaved rounds; seconds of each run, by session."""
        for key in keys:
            for _ in range(warm_up):
                self.sessions[key].run(None, feeds)
        seconds: list[list[float]] = [[] for _ in keys]
        for number in range(rounds):
            order = range(len(keys)) if number % 2 == 0 else reversed(range(len(keys)))
            for index in order:
                started = time.perf_counter()
                self.sessions[keys[index]].run(None, feeds)
                seconds[index].append(time.perf_counter() - started)
        return seconds

    def evaluate(self, model: bytes, backend: str = "ort") -> list[np.ndarray]:
        """Run a model without inputs once and forget it."""
        self.open("", model, backend)
        try:
            return self.run("", {})
        finally:
            self.close("")

    def check(self, model: bytes | str, full: bool = False) -> None:
        """Run the checker of the onnx package; it raises on an invalid model."""
        onnx.checker.check_model(model, full_check=full)

    def describe(self) -> dict[str, Any]:
        """Versions and execution providers of the runtime."""
        import onnxruntime

        return {
            "onnxruntime": onnxruntime.__version__,
            "onnx": onnx.__version__,
            "providers": onnxruntime.get_available_providers(),
        }


_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def _session(model: bytes | str, optimize: bool, threads: int, provider: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERROR_LEVEL
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = optimize
    return onnxruntime.InferenceSession(model, options, providers=[_PROVIDERS[provider]])
