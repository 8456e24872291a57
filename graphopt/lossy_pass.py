"""What a lossy pass is: it proposes choices, and commits those that are chosen.

An exact pass is proven and applied. What a lossy pass does is a matter of how much: so it says what it
could do and what it expects of it, and the choice among that is made outside, by what the gate finds on the
user's data.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from graphopt.ir.surgery import Scope
from graphopt.pass_base import Context, Pass, Remark, Skip, is_main


@dataclass(frozen=True)
class Choice:
    """One thing that a lossy pass could do at one place, at one strength.

    Args:
        where: the place: a name that is the same in every copy of the model, and unique within the pass.
        level: the strength, in the pass's own terms: bits, values, the fraction removed.
        what: in words.
        loss: predicted; comparable between the choices of one pass.
        saving: predicted; in one unit throughout a pass, such as bytes or multiply-accumulates. Where the
            pass promises speed, the share of a run's time that goes.
    """

    where: str
    level: float
    what: str
    loss: float = 0.0
    saving: float = 0.0


@dataclass(frozen=True)
class LossyPass(Pass):
    """A pass whose result differs, and which the gate judges on the user's data.

    It works in two steps: it *proposes* choices, and then *commits* a chosen set of them. So the choice can
    be made anew when the whole loses too much: milder levels, or fewer places.

    Attributes:
        share: the part of the budget that the estimated loss of the result may come to, with all that earlier
            passes lost. Less than 1 leaves something to the passes behind.
        ease: whether milder forms are tried where the result loses too much. Each of them takes about as
            long as the first; without them the pass is left out at once.
        faster: whether the result is timed and only kept where it is faster, whatever else the pass promises.
    """

    exact: ClassVar[bool] = False
    observes: ClassVar[bool] = True

    share: float = field(
        default=1.0,
        kw_only=True,
        metadata={
            "help": "the part of the budget that may be used up when this pass is done",
            "within": (0.0, 1.0),
        },
    )
    ease: bool = field(
        default=True,
        kw_only=True,
        metadata={"help": "whether milder forms are tried where it loses too much"},
    )
    faster: bool = field(
        default=False,
        kw_only=True,
        metadata={"help": "whether the result is only kept where it is measured to be faster"},
    )

    @property
    def promises_speed(self) -> bool:
        """Whether the result shall be faster. It is then timed, and taken back where it is not."""
        return False

    def promises_of(self, chosen: Sequence[Choice]) -> bool:
        """Whether the result of a set of choices shall be faster."""
        return self.promises_speed

    def unhurried(self) -> LossyPass | None:
        """What is left to do where the result is not faster; None for nothing. It promises no speed."""
        return None

    @property
    def advice_if_slower(self) -> str:
        """What to try where the result of a run turns out slower than the original; empty for nothing."""
        return ""

    @abc.abstractmethod
    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """All that the pass could do to ``context.model``, which stays as it is.

        Yields:
            Choices; those of one place together, the strongest first. At most one of each place is
            committed. A Skip for each place that it refuses.
        """

    @abc.abstractmethod
    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Remark]:
        """Apply a chosen set of choices, at most one of each place, to ``context.model``.

        Yields:
            An Edit after each change, a Skip for each change refused, a Finding for what else is told.
        """

    def milder(self, strength: float) -> LossyPass | None:
        """The pass with a part of its strength; None where it has no such thing.

        A pass that spreads one amount over the whole model, such as a share of channels to remove, returns
        itself with ``strength`` times that amount. Others are eased place by place.

        Args:
            strength: between 0 and 1.
        """
        return None

    def apply(self, graph: Scope, context: Context) -> Iterator[Remark]:
        """Propose, and commit the strongest choice of every place; all at once, from the main graph."""
        if not is_main(graph, context):
            return
        proposed = list(self.propose(context))
        yield from (entry for entry in proposed if isinstance(entry, Skip))
        yield from self.commit(strongest(proposed), context)


def strongest(proposed: Iterable[Choice | Skip]) -> list[Choice]:
    """The first choice of every place."""
    found: dict[str, Choice] = {}
    for entry in proposed:
        if isinstance(entry, Choice):
            found.setdefault(entry.where, entry)
    return list(found.values())
