"""The observing room: a model is run over data, and statistics of its tensors are accumulated.

The tensors asked for become outputs; nodes that they do not depend on are not run. ONNX Runtime runs with
its graph optimizations off, unless they are asked for. Statistics are accumulated in the process that
runs the model: activations never travel, and only one batch of them is held at a time. First the shapes of
the tensors are asked for on the first batch; from these follows how many runs the statistics need within the
memory given, one where they fit. What cannot be observed is answered with a reason; the rest is observed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import onnxruntime

from graphopt.errors import NativeError, printable
from graphopt.ir.model import Model
from graphopt.numerics.streaming import Accumulator, Spec
from graphopt.runtime.cache import Cache, model_hash
from graphopt.runtime.exposing import Exposed
from graphopt.runtime.native import Native
from graphopt.runtime.observing_child import Watch
from graphopt.runtime.observing_plan import Tensors
from graphopt.runtime.observing_run import Run, Settings
from graphopt.runtime.tasks import Feeds

MEMORY_BYTES = 1 << 30
"""What the statistics of one run, with the tensors of one batch that they take in, may hold."""

A = TypeVar("A", bound=Accumulator)


@dataclass(frozen=True)
class Request(Generic[A]):
    """One statistic of a tensor.

    Attributes:
        tensor: its name in the model; an input, a constant, or computed by a node. What lies in the body of
            an If, Loop or Scan is taken in once for each run of the body.
        what: the statistic.
        target: the name of the second tensor, where the statistic is one of two tensors.
        target_in_other: whether the second tensor is one of the other model.
        more: the names of further tensors that the statistic takes, all of the first model.
    """

    tensor: str
    what: Spec[A]
    target: str = ""
    target_in_other: bool = False
    more: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a number of tensors that the statistic does not take.

        Raises:
            ValueError: there is a tensor too few or too many.
        """
        if 1 + bool(self.target) + len(self.more) != self.what.arrays:
            raise ValueError(f"{type(self.what).__name__} takes {self.what.arrays} tensors")


@dataclass(frozen=True)
class Answer(Generic[A]):
    """What came of a request.

    Attributes:
        value: the statistic; None where there is none.
        why: the reason why there is none.
    """

    value: A | None
    why: str = ""


class Answers(dict[Request[Any], Answer[Any]]):
    """The answers by request."""

    def of(self, request: Request[A]) -> A:
        """The statistic that was asked for.

        Raises:
            NativeError: there is none; the message says why.
        """
        answer: Answer[A] = self[request]
        if answer.value is None:
            raise NativeError(f"{printable(request.tensor)!r} cannot be observed: {answer.why}")
        return answer.value


@dataclass(frozen=True)
class Stream:
    """Batches that can be read again, from the start each time.

    Args:
        open: gives the batches; called for each reading.
    """

    open: Callable[[], Iterable[Feeds]]

    def __iter__(self) -> Iterator[Feeds]:
        return iter(self.open())


def observe(
    native: Native,
    model: Model,
    batches: Iterable[Feeds],
    requests: Iterable[Request[Any]],
    **options: Any,
) -> Answers:
    """Statistics of a model's tensors over data, all at once.

    Takes the arguments of ``observe_each``.

    Returns:
        An answer to every request.

    Raises:
        NativeError: the model cannot be run on the data.
        NativeDeathError: it killed its process, hung or used too much memory.
    """
    return Answers(observe_each(native, model, batches, requests, **options))


def observe_each(
    native: Native,
    model: Model,
    batches: Iterable[Feeds],
    requests: Iterable[Request[Any]],
    *,
    other: Model | None = None,
    cache: Cache | None = None,
    digest: str = "",
    memory_bytes: int = MEMORY_BYTES,
    provider: str = "cpu",
    threads: int = 1,
    seconds: float | None = None,
    progress: Callable[[str], None] | None = None,
    fused: bool = False,
) -> Iterator[tuple[Request[Any], Answer[Any]]]:
    """Statistics of a model's tensors over data, one by one, so that each can be used and dropped.

    Args:
        native: the process to run models in.
        model: the model.
        batches: complete sets of feeds. They are read once for each run, and the first one once more.
            Where they can be read only once (a generator) there is one run, and what does not fit into it
            is refused; give a ``Stream``.
        requests: what to observe.
        other: a second model that is run on the same feeds, for targets that lie in it.
        cache: where statistics are kept between calls.
        digest: of exactly these batches: the data, the part, the split, the limit, the batch size.
            Without it nothing is kept.
        memory_bytes: what the statistics of one run, with the tensors of one batch that they take in, may
            hold; the model's own memory is not counted.
        provider: the execution provider that runs the models.
        threads: threads for one operator, and for the products that are accumulated.
        seconds: how long one batch may take; None for what the process allows.
        progress: told in words what is going on.
        fused: whether ONNX Runtime may apply its graph optimizations, but none that computes on integers:
            faster where few tensors are asked for.

    Yields:
        Every request once, with its answer.

    Raises:
        NativeError: the model cannot be run on the data.
        NativeDeathError: it killed its process, hung or used too much memory.
    """
    settings = Settings(native, memory_bytes, provider, threads, seconds, progress, fused)
    models = [model] if other is None else [model, other]
    kept = _Kept(cache if digest else None, models, digest, f"{provider}{', fused' * fused}")
    tensors = [Tensors(entry) for entry in models]
    watches: dict[Request[Any], Watch] = {}
    for request in dict.fromkeys(requests):
        watch = _watch(request, tensors)
        answer = watch if isinstance(watch, Answer) else kept.get(request)
        if answer is not None:
            yield request, answer
        elif isinstance(watch, Watch):
            watches[request] = watch
    if not watches:
        return
    order = list(watches)
    with contextlib.ExitStack() as stack:
        exposed = [
            stack.enter_context(Exposed(entry, _inner_types(place, known, watches.values())))
            for place, (entry, known) in enumerate(zip(models, tensors, strict=True))
        ]
        run = Run(settings, exposed, list(watches.values()), batches)
        stack.callback(run.close)
        for number, found in run.results():
            if isinstance(found, str):
                yield order[number], Answer(None, found)
            else:
                kept.put(order[number], found)
                yield order[number], Answer(found)
            del found  # it may be large, and the next one comes before this name is used again


def _inner_types(place: int, known: Tensors, watches: Iterable[Watch]) -> dict[str, int]:
    """The types of the tensors that are watched in the bodies of one model, by name."""
    names = {name for watch in watches for number, name in watch.sources if number == place}
    inner = names - known.main.keys()
    return (
        {name: kind for name, kind in known.inner.types().items() if name in inner} if inner else {}
    )


def _watch(request: Request[Any], tensors: Sequence[Tensors]) -> Watch | Answer[Any]:
    """What to run for a request, or its answer where nothing need be run."""
    place = int(request.target_in_other)
    if place >= len(tensors):
        return Answer(None, "there is no other model")
    sources = [(0, request.tensor)] + ([(place, request.target)] if request.target else [])
    sources += [(0, name) for name in request.more]
    for number, name in sources:
        why = tensors[number].objection(name)
        if why:
            return Answer(None, f"{printable(name)!r}: {why}" if request.target else why)
    constants = [tensors[number].constant(name) for number, name in sources]
    if all(constant is None for constant in constants):
        return Watch(request.what, tuple(sources))
    if len(constants) > 1 or constants[0] is None:
        return Answer(None, "a constant does not depend on the data")
    return _of_constant(request.what, constants[0])


def _of_constant(spec: Spec[Any], values: np.ndarray) -> Answer[Any]:
    """A statistic of a constant, which is taken in once, whatever the number of batches."""
    whole = values.dtype.kind in "iub" or "int" in values.dtype.name
    if whole and not spec.integers:
        return Answer(None, f"it holds {values.dtype.name}, of which only the range is taken")
    try:
        spec.nbytes(values.shape)
        found = spec.start()
        found.add(values)
    except ValueError as error:
        return Answer(None, str(error))
    return Answer(found)


@dataclass(frozen=True)
class _Kept:
    """The statistics that are kept between calls."""

    cache: Cache | None
    models: Sequence[Model]
    digest: str
    provider: str
    hashes: dict[int, str] = field(default_factory=dict)

    def get(self, request: Request[Any]) -> Answer[Any] | None:
        entry = self.cache.get(self._key(request)) if self.cache is not None else None
        if entry is None:
            return None
        found = request.what.start()
        try:
            found.restore(entry.arrays)
        except (KeyError, ValueError):
            return None
        return Answer(found)

    def put(self, request: Request[Any], value: Accumulator) -> None:
        if self.cache is not None:
            self.cache.put(self._key(request), value.state())

    def _key(self, request: Request[Any]) -> str:
        used = self.models if request.target_in_other else self.models[:1]
        for number, model in enumerate(used):
            if number not in self.hashes:
                self.hashes[number] = model_hash(model)
        known = (self.hashes[number] for number in range(len(used)))
        runtime = (onnxruntime.__version__, self.provider)
        return Cache.key("observed", *runtime, self.digest, repr(request), *known)
