"""What a run is asked for, and what it needs to begin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from graphopt.assessment import Data, Running, open_data
from graphopt.errors import UsageError
from graphopt.ir.model import Model
from graphopt.outcome import Listener
from graphopt.pass_base import Limits
from graphopt.quality.data import Dataset
from graphopt.quality.gate import Budget
from graphopt.quality.metrics import Metric
from graphopt.recipe import Recipe
from graphopt.runtime.cache import Cache
from graphopt.runtime.native import Native
from graphopt.runtime.providers import Provider, require

UNLIMITED_SPLIT = 7 / 8
"""The share of the data for passes to look at where nothing limits the loss: an eighth tells what it is."""

NATIVE_BYTES = 3 << 30
"""Address space that native code may use beside six times the model's weights."""


@dataclass(frozen=True)
class Request:
    """What a run is asked for; see ``graphopt.optimize``.

    Attributes:
        named: whether the caller named what is to run; what was not asked for may well be left out.
    """

    model: Model
    recipe: Recipe
    data: Data | None
    labels: str | None
    metric: str | Metric | None
    budget: Budget
    strict: bool
    named: bool
    running: Running
    latency: bool
    pack: bool
    details: bool
    provenance: bool
    seed: int
    limits: Limits
    cache: Cache | None
    listener: Listener
    command: tuple[str, ...]

    @property
    def lossy(self) -> list[str]:
        """The names of the lossy passes."""
        return [step.name for step in self.recipe.passes if not step.exact]

    @property
    def observes(self) -> bool:
        """Whether a pass looks at data."""
        return any(step.observes for step in self.recipe.passes)

    def dataset(self) -> Dataset | None:
        """The data, checked.

        Raises:
            UsageError: it does not fit, or a pass needs data and there is none.
        """
        if self.data is None:
            for step in self.recipe.passes:
                if "data" in step.needs:
                    raise UsageError(f"the pass {step.name!r} needs data", "Give some with --data")
            if self.metric is not None:
                raise UsageError("a metric needs data", "Give some with --data")
            return None
        return open_data(
            self.data,
            self.model,
            labels=self.labels,
            seed=self.seed,
            calibrates=self.observes,
            split=None if self.budget.limited else UNLIMITED_SPLIT,
        )


@contextmanager
def running_native(
    how: Running, weight_bytes: int, memory_bytes: int | None = None
) -> Iterator[Native]:
    """A process to run models in, with what was asked for to run them.

    Args:
        how: provider and time.
        weight_bytes: of the models that it will run.
        memory_bytes: address space that it may use; None for room in proportion to the weights. What runs
            on CUDA reserves more address space than it uses, and is not limited.

    Raises:
        ProviderError: the provider is missing.
    """
    provider = Provider.parse(how.provider)
    memory = memory_bytes or NATIVE_BYTES + 6 * weight_bytes
    with Native(provider.address_space(memory), how.seconds) as native:
        require(native, provider)
        yield native
