"""What the nodes of models take on the machine at hand: the table that decisions about speed are made from.

ONNX Runtime's own profiler tells what each node takes that it really runs, after its own fusions. A timing
can only be too long, never too short: another process took its turn, or the caches were cold. And where the
buffers of a session happen to lie biases all its runs. So each model is opened anew in a few blocks that lie
apart in time, with all the other models between them. A block gives for each node the mean over those runs
that are not disturbed: at most a tenth, and a microsecond, longer than the lower quartile (the profiler
counts whole microseconds; their mean is finer). The median over the blocks is what the node takes.

Writing down the time of a node takes a microsecond or more itself, as much as a small node. So each session
runs without the profiler too, and what the nodes take together beyond that is taken off them in equal parts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from graphopt.ir.graph import Variable
from graphopt.ir.model import Model
from graphopt.runtime.cache import Cache, model_hash
from graphopt.runtime.environment import environment
from graphopt.runtime.native import Native
from graphopt.runtime.node_times_child import Recorded
from graphopt.runtime.profiling import NodeSeconds
from graphopt.runtime.timing import written

BLOCKS = 3
"""Times that each model is opened anew."""

CHUNK = 16
"""Models in one request."""

DISTURBED = 1.1
"""A run this much longer than the lower quartile was disturbed; a microsecond more is rounding."""

OWN = 0.1
"""The least part of a profiled time that is the node's own."""

SECONDS = 120.0
"""How long all runs of one question may take together, but for the fewest of each model."""

REQUEST_SECONDS = 120.0
"""How long opening a model, and its fewest runs, may take."""

Times = list[NodeSeconds]
"""What the nodes of one model take, the dearest first."""


@dataclass
class NodeTimes:
    """Measures what the nodes of models take; what was measured once is remembered.

    Attributes:
        native: the process to run models in.
        feeds: inputs of the user's model. Models with the same inputs run on these, others on drawn ones.
        cache: where times are kept between runs.
        provider: what runs the models.
        threads: threads for one operator.
        seconds: how long the runs of one question may take together, but for the fewest of each model.
        progress: told in words what is going on, and how much of it is done, from 0 to 1.
    """

    native: Native
    feeds: Mapping[str, Any] = field(default_factory=dict)
    cache: Cache | None = None
    provider: str = "cpu"
    threads: int = 1
    seconds: float = SECONDS
    progress: Callable[[str, float], None] = lambda what, done: None
    _known: dict[str, Times] = field(default_factory=dict)
    _machine: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Tell what all times depend on, whatever the model."""
        found = environment()
        self._machine = (
            onnxruntime.__version__,
            *(found.get(name, "") for name in ("cpu", "platform")),
            self.provider,
            str(self.threads),
        )

    def __call__(self, models: Sequence[Model], anew: bool = False) -> list[Times]:
        """What the nodes of each model take, as ONNX Runtime runs them with its own optimizations on.

        Args:
            models: any number of small ones, or whole ones. The shapes of their inputs must be fixed, or
                fit the feeds. Equal ones are measured once.
            anew: measure all of them side by side, whatever is known: to tell which takes least.

        Raises:
            NativeError: a model does not open or run.
            NativeDeathError: it killed its process, hung or used too much memory.
            OutputError: there is no room for temporary files.
        """
        keys = [self._key(model) for model in models]
        missing: dict[str, Model] = {}
        for key, model in zip(keys, models, strict=True):
            if anew or (key not in self._known and not self._restored(key)):
                missing.setdefault(key, model)
        for key, found in self._measured(missing):
            self._known[key] = found
            self._keep(key, found)
        return [self._known[key] for key in keys]

    def _measured(self, models: Mapping[str, Model]) -> Iterator[tuple[str, Times]]:
        """The times of models that nothing is known of."""
        if not models:
            return
        keys = list(models)
        feeds = [dict(self.feeds) if self._fits(model) else None for model in models.values()]
        blocks: list[list[Times]] = [[] for _ in keys]
        until = time.monotonic() + self.seconds
        with written(models) as paths:
            for block in range(BLOCKS):
                for start in range(0, len(keys), CHUNK):
                    done = block * len(keys) + start
                    total = BLOCKS * len(keys)
                    self.progress(f"timing the nodes of {len(keys)} models", done / total)
                    share = max(until - time.monotonic(), 0.0) / (total - done)
                    chunk = slice(start, start + CHUNK)
                    recorded: list[Recorded] = self.native.call(
                        "record_each",
                        [paths[key] for key in keys[chunk]],
                        feeds[chunk],
                        share,
                        self.threads,
                        self.provider,
                        seconds=CHUNK * share + REQUEST_SECONDS,
                    )
                    for place, runs in enumerate(recorded, start):
                        blocks[place].append(steady(runs))
        for key, found in zip(keys, blocks, strict=True):
            yield key, between(found)

    def _fits(self, model: Model) -> bool:
        """Whether a model takes the feeds as they are."""
        inputs = [t for t in model.graph.inputs if isinstance(t, Variable) and t.default is None]
        if not self.feeds or {tensor.name for tensor in inputs} - self.feeds.keys():
            return False
        if self.feeds.keys() - {tensor.name for tensor in model.graph.inputs}:
            return False
        return all(_takes(tensor, self.feeds[tensor.name]) for tensor in inputs)

    def _key(self, model: Model) -> str:
        """All that times depend on, as far as it can be told."""
        fits = self._fits(model)
        shapes = {name: _form(value) for name, value in self.feeds.items()} if fits else {}
        forms = repr(sorted(shapes.items()))
        return Cache.key("node times of plain runs", *self._machine, forms, model_hash(model))

    def _restored(self, key: str) -> bool:
        entry = self.cache.get(key) if self.cache is not None else None
        if entry is None:
            return False
        try:
            names, seconds = entry.facts["nodes"], entry.arrays["seconds"].tolist()
            self._known[key] = [
                NodeSeconds(str(name), str(op), float(value))
                for (name, op), value in zip(names, seconds, strict=True)
            ]
        except (KeyError, TypeError, ValueError):
            return False
        return True

    def _keep(self, key: str, found: Times) -> None:
        if self.cache is not None:
            seconds = np.array([node.seconds for node in found], np.float64)
            self.cache.put(key, {"seconds": seconds}, {"nodes": [[n.name, n.op] for n in found]})


def steady(recorded: Recorded) -> Times:
    """What each node takes in the runs that nothing disturbed, without what the profiler costs."""
    keys = list({key: None for run in recorded.runs for key in run})
    taken = [_usual([run.get(key, 0) for run in recorded.runs], 1.0) for key in keys]
    seconds = _unburdened(np.array(taken) / 1e6, _usual(recorded.plain, 0.0))
    return _sorted(
        [NodeSeconds(*key, float(value)) for key, value in zip(keys, seconds, strict=True)]
    )


def _usual(taken: Sequence[float], rounding: float) -> float:
    """The mean of what is not disturbed."""
    values = np.array(taken, np.float64)
    return float(values[values <= DISTURBED * np.quantile(values, 0.25) + rounding].mean())


def _unburdened(seconds: np.ndarray, whole: float) -> np.ndarray:
    """Times of nodes without what writing down each of them takes, so that they fit into a plain run."""
    excess = float(seconds.sum()) - whole
    if excess <= 0:
        return seconds
    least = OWN * seconds
    found = np.maximum(seconds - excess / len(seconds), least)
    spare, missing = found - least, float(found.sum()) - whole
    if missing > 0 and spare.sum() > 0:
        found = found - spare * min(missing / float(spare.sum()), 1.0)
    return np.asarray(found)


def between(blocks: Sequence[Times]) -> Times:
    """The median over blocks of what each node takes."""
    tables = [{(node.name, node.op): node.seconds for node in block} for block in blocks]
    keys = {key: None for table in tables for key in table}
    return _sorted(
        [NodeSeconds(*key, median(table.get(key, 0.0) for table in tables)) for key in keys]
    )


def _sorted(found: Times) -> Times:
    return sorted(found, key=lambda node: (-node.seconds, node.name, node.op))


def _takes(tensor: Variable, value: Any) -> bool:
    """Whether an input of a model takes a value."""
    if not isinstance(value, np.ndarray) or tensor.dtype is None:
        return tensor.dtype is None
    if tensor.shape is None:
        return bool(value.dtype == tensor.dtype)
    fixed = [dim if isinstance(dim, int) and dim > 0 else None for dim in tensor.shape]
    return (
        value.dtype == tensor.dtype
        and len(fixed) == value.ndim
        and all(dim in (None, size) for dim, size in zip(fixed, value.shape, strict=True))
    )


def _form(value: Any) -> str:
    """The type and the shape of an input."""
    return f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
