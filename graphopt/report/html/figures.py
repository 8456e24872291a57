"""Figures of metrics as people read them.

A drop is a fraction and is shown in per cent, as the budget is written. A metric whose drop is the
difference of its values is a share, so its values are shown in per cent too; others are plain numbers with
the metric's unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphopt.report.judgement import BudgetInfo, GateInfo, MeasureInfo

UNKNOWN = "not known"


def plain(value: float | None, digits: int = 4) -> str:
    """A number with a few significant digits."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "infinite"
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        text = f"{value:.{digits}g}"
        return f"{value:.0f}" if "e" in text else text
    return f"{value:.{max(0, digits - 2)}e}"


def points(value: float | None, sign: bool = False) -> str:
    """A drop, which is a fraction, in per cent."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "infinite"
    scaled = 100 * value
    places = 2 if abs(scaled) < 100 else 0
    if scaled and abs(scaled) < 0.01:
        return f"{scaled:{'+' if sign else ''}.1g} %"
    return f"{scaled:{'+' if sign else ''}.{places}f} %"


def counted(count: int, thing: str, things: str = "") -> str:
    """A number of things, as in ``1 node`` or ``2,000 nodes``."""
    return f"{count:,} {thing if count == 1 else things or thing + 's'}"


def interval(low: float | None, high: float | None) -> str:
    """An interval of drops."""
    return f"{points(low)} to {points(high)}"


@dataclass(frozen=True)
class MetricScale:
    """How the values of the judged metric are written and turned into drops.

    Attributes:
        name: of the metric.
        shares: whether its values are shares.
        higher: whether larger is better.
        unit: of its values, where they are no shares.
    """

    name: str
    shares: bool
    higher: bool
    unit: str = ""

    def value(self, value: float | None) -> str:
        """A value of the metric."""
        if value is None or not math.isfinite(value):
            return UNKNOWN
        if self.shares:
            return f"{100 * value:.2f} %"
        return f"{plain(value)} {self.unit}".rstrip()

    def after(self, before: float, drop: float) -> float:
        """The value that a drop leaves, where the metric is a share."""
        return before - drop if self.higher else before + drop


def metric_scale(
    budget: BudgetInfo | None, gates: list[GateInfo], measures: list[MeasureInfo]
) -> MetricScale:
    """How the judged metric reads, from what is known of it."""
    name = budget.metric if budget else gates[0].metric if gates else ""
    higher = budget.higher_is_better if budget else True
    units = [measure.unit for measure in measures if measure.metric == name]
    unit = units[0][:12] if units else ""
    shares = not unit and bool(gates) and all(_is_share(gate, higher) for gate in gates)
    return MetricScale(name, shares, higher, unit)


def _is_share(gate: GateInfo, higher: bool) -> bool:
    """Whether a drop is the difference of two values between 0 and 1; unknown ones are no objection."""
    if gate.before is None or gate.after is None or gate.drop is None:
        return True
    if not (0 <= gate.before <= 1 and 0 <= gate.after <= 1):
        return False
    difference = gate.before - gate.after if higher else gate.after - gate.before
    return math.isclose(difference, gate.drop, rel_tol=1e-6, abs_tol=1e-9)
