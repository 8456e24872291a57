"""The narrow waist: what a pass is, what it may ask for, and what it says it did.

A pass is a frozen dataclass. Its fields are its options, and the one source of them for the command
line, recipes, documentation and the report. Its module's docstring states its algebra and when it
refuses. It changes the graph it is given through ``graphopt.ir.surgery`` and yields an ``Edit`` after
each change, so that a stage can be replayed up to its n-th edit, or a ``Skip`` for a change that it
refused; a ``Finding`` is what it has to tell of a node beside that. It never knows accuracy.
"""

from __future__ import annotations

import abc
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar, cast

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.errors import printable
from graphopt.ir.graph import Graph, Node
from graphopt.ir.inference import Facts
from graphopt.ir.model import Model
from graphopt.ir.surgery import Scope

if TYPE_CHECKING:
    from graphopt.numerics.streaming import Sampling
    from graphopt.quality.data import Dataset
    from graphopt.runtime.profiling import NodeSeconds
    from graphopt.runtime.relay import Relay


@dataclass(frozen=True)
class _Remark:
    """What a pass says of a node."""

    node: Node | str

    @property
    def label(self) -> str:
        """The node's name for people."""
        return self.node.label if isinstance(self.node, Node) else printable(self.node)


@dataclass(frozen=True)
class Edit(_Remark):
    """One change that was made.

    Args:
        node: the node it is about: the one that stays, or the one that went.
        what: what was done, in words.
    """

    what: str


@dataclass(frozen=True)
class Skip(_Remark):
    """One change that was refused.

    Args:
        node: the node it is about.
        why: the reason, in words.
    """

    why: str


@dataclass(frozen=True)
class Finding(_Remark):
    """What there is to tell of a node, whether it was changed or not; of several of one node the last counts.

    Args:
        node: the node it is about.
        row: a dataclass of ``graphopt.report`` that the report of a step has a list of.
    """

    row: object


Remark: TypeAlias = "Edit | Skip | Finding"
"""What a pass yields."""


@dataclass(frozen=True)
class Limits:
    """What a run may spend.

    Attributes:
        fold_bytes: the largest constant that folding may make, in bytes.
        growth_bytes: how much all constants together may outgrow the original's, in bytes.
        fold_seconds: how long one evaluation of constants may take.
        nodes: the most nodes that inlining may make.
        memory_bytes: address space that native code may use beyond what it starts with; None: no limit.
        request_seconds: how long one request to native code may take.
    """

    fold_bytes: int = 64 << 20
    growth_bytes: int = 0
    fold_seconds: float = 20.0
    nodes: int = 100_000
    memory_bytes: int | None = None
    request_seconds: float = 300.0


T = TypeVar("T")

FREE_BYTES = 64
"""Bytes that a constant may take in the place of a node whatever the budget says."""


class Observe(Protocol):
    """Statistics of a model's tensors on the calibration data, or on drawn inputs where a run has no data.

    See ``graphopt.runtime.observing``.
    """

    def __call__(
        self,
        model: Model,
        requests: Sequence[Any],
        other: Model | None = None,
        over: Relay | None = None,
    ) -> dict[Any, Any]:
        """The answers by request, of the whole data or of what a relay has come to."""

    def sampling(self, features: int) -> Sampling:
        """Which rows of each batch are enough for the moments of a layer with so many features."""

    def first(self, samples: int) -> Observe:
        """One that looks at about so many samples only, where the data has more."""

    def fused(self) -> Observe:
        """One that is faster where few tensors are asked for: the runtime fuses all others."""

    def relay(self) -> Relay:
        """A relay at the start of the data. Whoever takes one closes it."""

    def source(self) -> Model | None:
        """The model as it was read, where inputs are drawn: what it keeps of its training. None with data."""


class Measure(Protocol):
    """What the nodes of models take on the machine at hand; see ``graphopt.runtime.node_times``."""

    def __call__(self, models: Sequence[Model], anew: bool = False) -> list[list[NodeSeconds]]:
        """The nodes of each model, the dearest first; measured side by side, or as once before."""


Evaluate = Callable[[Model, Sequence[Node], Sequence[gs.Tensor]], "dict[int, np.ndarray | str]"]
"""Computes tensors by nodes whose inputs are constants; by ``id``, the values or why there are none."""


@dataclass
class Context:
    """All that a pass may ask for.

    Attributes:
        model: the model being changed; a pass reads it for what lies outside its scope.
        facts: proven types, shapes and small integer values of tensors.
        limits: what may be spent.
        budget: bytes by which the constants may still grow.
        evaluate: runs nodes on constants where their crash does no harm.
        rng: the only source of randomness.
        vetoed: nodes, by ``uid``, at which the running pass may not act.
        macs: multiply-accumulates of nodes on the present facts, by ``id``, with the node itself.
        data: the user's data, of which a pass may look at the calibration part only; None where there is
            none.
        sizes: of the inputs' symbolic dimensions, as in the inputs that are judged with; 1 where one is
            missing.
        observe: runs a model over the calibration part, or over drawn inputs where there is no data, and
            gives statistics of its tensors; None where nothing can be run.
        measure: gives what the nodes of models take on the machine at hand; None where nothing can.
        memo: what a pass has found out about the model that it began with, for its next attempts at it.
        original: the model before the first lossy change, whose nodes have the same numbers; None where
            nothing lossy was done, or where exact passes rewrote its result since.
    """

    model: Model
    facts: Facts
    limits: Limits = field(default_factory=Limits)
    budget: int = 0
    evaluate: Evaluate | None = None
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    vetoed: frozenset[int] = frozenset()
    macs: dict[int, tuple[Node, int]] = field(default_factory=dict)
    data: Dataset | None = None
    observe: Observe | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    measure: Measure | None = None
    memo: dict[Hashable, Any] = field(default_factory=dict)
    original: Model | None = None
    _scopes: list[Scope] | None = None
    _index: dict[int, dict[str, list[Node]]] = field(default_factory=dict)
    _tried: set[tuple[str, int]] = field(default_factory=set)
    _analyses: dict[tuple[str, int], object] = field(default_factory=dict)

    def scopes(self) -> list[Scope]:
        """Every scope of the model, outermost first, as it was after the last change."""
        if self._scopes is None:
            self._scopes = list(self.model.scopes())
        return self._scopes

    def nodes(self, graph: Scope, *ops: str) -> Iterator[Node]:
        """The nodes of the standard domain in one scope, in topological order.

        Nodes that die meanwhile, that are vetoed, or whose attributes refer to those of a function
        (so that they are not known here) are passed over; ones made meanwhile come in the next round.

        Args:
            graph: the scope.
            ops: the operators wanted; all when empty.
        """
        index = self._index.get(id(graph))
        if index is None:
            index = self._index[id(graph)] = _index(graph)
        wanted = index.get("", []) if not ops else [n for op in ops for n in index.get(op, ())]
        if len(ops) > 1:
            wanted.sort(key=lambda node: node.order)
        for node in wanted:
            if not node.dead and node.uid not in self.vetoed:
                yield node

    def afford(self, made: int, freed: int = 0) -> bool:
        """Whether constants may grow by ``made`` bytes while ``freed`` bytes go; spends what it grants.

        A few bytes, such as those of a shape, are always granted: the node that they replace took more.
        """
        growth = made - freed
        if growth > max(self.budget, 0) and made > FREE_BYTES:
            return False
        self.budget -= growth
        return True

    def first_time(self, what: str, node: Node) -> bool:
        """Whether something dear was not yet tried at a node on the present facts; True once."""
        key = (what, node.uid)
        if key in self._tried:
            return False
        self._tried.add(key)
        return True

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What is true of the model that the running pass began with, computed at its first attempt only.

        A lossy pass is eased by running it again on the same model. What it measures does not depend on its
        strength.

        Args:
            key: what is asked, with all that the answer depends on beside that model.
            compute: finds it out.
        """
        if key not in self.memo:
            self.memo[key] = compute()
        return cast("T", self.memo[key])

    def analysis(self, name: str, graph: Scope, compute: Callable[[], T]) -> T:
        """What is known of a scope as a whole, computed when first asked for after a change.

        Args:
            name: of the analysis.
            graph: the scope.
            compute: makes it.
        """
        key = (name, id(graph))
        if key not in self._analyses:
            self._analyses[key] = compute()
        return cast("T", self._analyses[key])

    def refresh(self, facts: Facts | None = None) -> None:
        """Look at the graphs anew, after they changed."""
        self._scopes = None
        self._index.clear()
        self._analyses.clear()
        if facts is not None:
            self.facts = facts
            self.macs.clear()
            self._tried.clear()


def _index(graph: Scope) -> dict[str, list[Node]]:
    found: dict[str, list[Node]] = {"": []}
    for node in graph.nodes:
        if node.dead or not node.standard:
            continue
        if any(isinstance(value, gs.Node.AttributeRef) for value in node.attrs.values()):
            continue
        found.setdefault(node.op, []).append(node)
        found[""].append(node)
    return found


class Pass(abc.ABC):
    """A transformation of a model. Subclasses are frozen dataclasses.

    Attributes:
        name: the name for users, in kebab-case, equal to the module's file name.
        exact: whether the result must equal the original up to rounding.
        observes: whether it looks at weights and at what data makes of them. It then begins with a folded
            graph, and a part of the data is kept for it.
        needs: what the context must hold, for example ``{"data"}``.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True
    observes: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()

    @abc.abstractmethod
    def apply(self, graph: Scope, context: Context) -> Iterator[Remark]:
        """Change one scope: the main graph, a body of If, Loop or Scan, or a local function.

        Args:
            graph: the scope to change.
            context: what else may be looked at.

        Yields:
            An Edit after each change, a Skip for each change refused, a Finding for what else is told.
        """

    @classmethod
    def family(cls) -> str:
        """The folder that a built-in pass stands in; the package that another one comes from."""
        parts = cls.__module__.split(".")
        return parts[-2] if parts[0] == "graphopt" else parts[0]

    @classmethod
    def documentation(cls) -> str:
        """The docstring of the pass's module: what it does and when it refuses."""
        return (sys.modules[cls.__module__].__doc__ or "").strip()


def is_main(graph: Scope, context: Context) -> bool:
    """Whether a scope is the model's main graph."""
    return isinstance(graph, Graph) and graph is context.model.graph
