"""What the isolated process can be asked to do. Everything native happens here.

Models arrive as bytes or as a path. Arrays travel as they are; sequences as lists, absent optionals as
None.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx

from graphopt.runtime.blas import use_threads
from graphopt.runtime.interleaving import interleave
from graphopt.runtime.node_times_child import Recorded, record_each
from graphopt.runtime.observing_child import Observation, Watch
from graphopt.runtime.profiling import NodeSeconds, profile
from graphopt.runtime.providers import Provider, device_name
from graphopt.runtime.relay_child import arrays_of, known_to, write
from graphopt.runtime.sessions import open_session, start

Feeds = dict[str, Any]


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
        integers: bool = True,
        fold: bool = True,
        prepack: bool | None = None,
    ) -> list[str]:
        """Open a session under a key.

        Args:
            key: the name to run it by.
            model: its bytes or its path.
            backend: ``ort`` or ``reference`` (the evaluator of the onnx package).
            optimize: whether ONNX Runtime may apply its own graph optimizations.
            threads: threads for one operator.
            provider: ``cpu``, ``cuda`` or ``cuda:N``.
            integers: whether its optimizations may compute on integers.
            fold: whether they may compute constants in advance and hold them.
            prepack: whether kernels may hold weights a second time, for speed. None: not those of a model
                that comes as a path, which is large; mapped from its file they take no memory of their own.

        Returns:
            The names of the model's outputs.

        Raises:
            ProviderError: the provider is missing or does not start.
        """
        if backend == "reference":
            from onnx.reference import ReferenceEvaluator

            proto = onnx.load(model) if isinstance(model, str) else onnx.load_from_string(model)
            self.sessions[key] = ReferenceEvaluator(proto)
            return list(self.sessions[key].output_names)
        prepack = isinstance(model, bytes) if prepack is None else prepack
        session = open_session(
            model,
            optimize,
            threads,
            Provider.parse(provider),
            integers=integers,
            fold=fold,
            prepack=prepack,
        )
        self.sessions[key] = session
        return [output.name for output in session.get_outputs()]

    def run(self, key: str, feeds: Feeds, names: Sequence[str] | None = None) -> list[Any]:
        """Run an open session once; returns the named outputs, or all of them in order."""
        result: list[Any] = list(self.sessions[key].run(names or None, feeds))
        return result

    def run_known(self, key: str, feeds: Feeds | str) -> list[Any]:
        """Run an open session of ONNX Runtime on what it knows of a batch, or of the path of one."""
        session = self.sessions[key]
        result: list[Any] = list(session.run(None, known_to(session, arrays_of(feeds))))
        return result

    def relay(
        self, keys: Sequence[str], feeds: Feeds | str, kept: Sequence[str], path: str
    ) -> dict[str, str]:
        """Run open sessions on a batch and write what they return to a file; see ``relay_child``."""
        return write([self.sessions[key] for key in keys], feeds, kept, path)

    def close(self, key: str) -> None:
        """Forget a session."""
        self.sessions.pop(key, None)

    def time(
        self, keys: Sequence[str], feeds: Feeds, rounds: int, seconds: float, seed: int
    ) -> list[list[float]]:
        """Time open sessions in interleaved rounds.

        Args:
            keys: of the sessions.
            feeds: what all of them run on.
            rounds: rounds at most.
            seconds: stop after this long, but not before there are a few rounds.
            seed: of the order in which they take turns.

        Returns:
            For each session, seconds of a run in each round.
        """
        runs = [partial(self.sessions[key].run, None, feeds) for key in keys]
        return interleave(runs, rounds, seconds, seed)

    def profile(
        self,
        model: bytes | str,
        feeds: Feeds,
        runs: int,
        seconds: float,
        threads: int = 1,
        provider: str = "cpu",
    ) -> list[NodeSeconds]:
        """Run a model with ONNX Runtime's profiler on; seconds of each node as ONNX Runtime runs it.

        Args:
            model: its bytes or its path.
            feeds: what to run it on.
            runs: runs at most.
            seconds: stop after this long, but not before there is a run.
            threads: threads for one operator.
            provider: ``cpu``, ``cuda`` or ``cuda:N``.
        """
        return profile(model, feeds, runs, seconds, threads, Provider.parse(provider))

    def record_each(
        self,
        models: Sequence[bytes | str],
        feeds: Sequence[Feeds | None],
        seconds: float,
        threads: int = 1,
        provider: str = "cpu",
    ) -> list[Recorded]:
        """Run models one after another with the profiler on; see ``node_times_child``."""
        return record_each(models, feeds, seconds, threads, Provider.parse(provider))

    def provide(self, provider: str) -> str:
        """Start an execution provider; returns the name of its device, empty for the CPU.

        Raises:
            ProviderError: the provider is missing or does not start.
        """
        chosen = Provider.parse(provider)
        start(chosen)
        return device_name(chosen)

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

    def observe_open(
        self,
        key: str,
        models: Sequence[bytes | str | None],
        names: Sequence[Sequence[str]],
        watches: Sequence[Watch],
        threads: int = 1,
        provider: str = "cpu",
        fused: bool = False,
    ) -> list[str]:
        """Open models whose outputs are to be observed; ``close`` forgets them.

        Args:
            key: the name to observe by.
            models: the bytes or the path of each; None for one that nothing watches.
            names: what the outputs of each model are called in the watches, in order.
            watches: what to accumulate of their outputs.
            threads: threads for one operator, and for the products that are accumulated.
            provider: ``cpu``, ``cuda`` or ``cuda:N``.
            fused: whether ONNX Runtime may fuse what is not observed; what is rounded stays on floats.

        Returns:
            For each watch why it cannot be served; empty where it can.
        """
        use_threads(threads)
        sessions = []
        for model in models:
            if model is not None:
                self.open(key, model, "ort", fused, threads, provider, integers=False)
            sessions.append(self.sessions.pop(key, None))
        observation = Observation(sessions, names, watches)
        self.sessions[key] = observation
        return observation.why

    def observe_shapes(
        self, key: str, feeds: Feeds | str
    ) -> dict[tuple[int, str], list[tuple[int, ...]]]:
        """The shapes of what is observed, on a batch or the path of one, in each run of its scope."""
        found: dict[tuple[int, str], list[tuple[int, ...]]] = self.sessions[key].shapes(
            arrays_of(feeds)
        )
        return found

    def observe_run(self, key: str, feeds: Feeds | str) -> None:
        """Run what is observed on a batch, or the path of one, and take in what is watched."""
        self.sessions[key].run(arrays_of(feeds))

    def observe_take(self, key: str, number: int) -> dict[str, np.ndarray] | str:
        """What one watch accumulated, which is then forgotten; or why there is nothing."""
        taken: dict[str, np.ndarray] | str = self.sessions[key].take(number)
        return taken
