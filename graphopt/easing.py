"""The order in which a set of choices is relaxed, and what was relaxed in words.

The place that loses most for each unit that it saves is relaxed first: to its next milder level, or left
out. This is the greedy order of the knapsack problem (Dantzig, 1957).

Of each place two things are known: the loss m that was measured with it alone at its strongest level, and the
p that the pass predicts, in a unit of its own. The one is of the outputs, but of few samples, and a decision
that tips over among them counts for thousands that move a little; the other knows nothing of what the layers
behind make of an error. Both are off by factors, so the geometric mean is taken, ``sqrt(m p)``.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from graphopt.errors import printable
from graphopt.lossy_pass import Choice, strongest
from graphopt.quality.gate import percent
from graphopt.report import EditInfo

MILDER_LOSS = 0.25
"""The part of its loss that a place is taken to keep at its next level, where the pass predicts nothing."""

_NAMED = 3
"""Places that a summary names."""


def relaxations(choices: Sequence[Choice], losses: dict[str, float]) -> Iterator[list[Choice]]:
    """Sets of choices, each milder than the one before at one place; the last one is empty.

    Args:
        choices: those of one place together, the strongest first.
        losses: of each place alone at its strongest level, as they were measured.
    """
    levels: dict[str, list[Choice]] = {}
    for choice in choices:
        levels.setdefault(choice.where, []).append(choice)
    losses = _estimated({where: each[0].loss for where, each in levels.items()}, losses)
    present = dict.fromkeys(levels, 0)
    heap = [(-_worth(levels[w], 0, losses[w]), n, w) for n, w in enumerate(levels)]
    heapq.heapify(heap)
    while heap:
        _, number, where = heapq.heappop(heap)
        present[where] += 1
        if present[where] < len(levels[where]):
            worth = _worth(levels[where], present[where], losses[where])
            heapq.heappush(heap, (-worth, number, where))
        yield [levels[w][i] for w, i in present.items() if i < len(levels[w])]


def _estimated(predicted: Mapping[str, float], measured: Mapping[str, float]) -> dict[str, float]:
    """The geometric mean of what was predicted and measured; the unit of the first is that of the second.

    What was measured stays where nothing was predicted, and where it is nothing or knows no bounds.
    """
    both = {
        where: (loss, measured[where])
        for where, loss in predicted.items()
        if loss > 0 and 0 < measured[where] < math.inf
    }
    unit = statistics.median(found / loss for loss, found in both.values()) if both else 1.0
    means = {where: math.sqrt(unit * loss * found) for where, (loss, found) in both.items()}
    return {**measured, **means}


def _worth(levels: Sequence[Choice], index: int, loss: float) -> float:
    """The loss that going one level milder takes away, for each unit of saving that it costs."""
    now, after = (_loss(levels, i, loss) for i in (index, index + 1))
    saved = levels[index].saving - (levels[index + 1].saving if index + 1 < len(levels) else 0.0)
    won = now - after
    return math.inf if math.isinf(won) or math.isnan(won) else won / max(saved, 1e-12)


def _loss(levels: Sequence[Choice], index: int, loss: float) -> float:
    """The loss at a level: that of the strongest, scaled by what the pass predicts at others."""
    if index >= len(levels):
        return 0.0
    if levels[0].loss > 0:
        return loss * levels[index].loss / levels[0].loss
    return float(loss * MILDER_LOSS**index)


def summary_of(
    choices: Sequence[Choice], chosen: Sequence[Choice], losses: dict[str, float] | None = None
) -> tuple[str, list[EditInfo]]:
    """What was eased, as a sentence and place by place."""
    full = {choice.where: choice for choice in strongest(choices)}
    kept = {choice.where: choice for choice in chosen}
    left_out = [choice for where, choice in full.items() if where not in kept]
    milder = [choice for where, choice in kept.items() if choice != full[where]]
    parts = []
    if left_out:
        names = ", ".join(printable(_place(choice), 40) for choice in left_out[:_NAMED])
        more = ", …" if len(left_out) > _NAMED else ""
        parts.append(f"without {len(left_out)} of {len(full)} places ({names}{more})")
    if milder:
        parts.append(f"milder at {len(milder)} of {len(full)} places")
    back = []
    for choice in left_out:
        loss = (losses or {}).get(choice.where)
        alone = "" if loss is None else f"; alone it costs {percent(loss)} of the outputs' power"
        back.append(EditInfo(_place(choice), f"{choice.what}{alone}"))
    return " and ".join(parts) or "at full strength", back


def _place(choice: Choice) -> str:
    """The place's name for people; that of an edit stands before its colon."""
    return choice.what.partition(": ")[0] if choice.where.isdecimal() else choice.where
