"""Reports as an attacker would have them: every name chosen by someone else, every number odd."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

from samples import full

from graphopt.report import HistogramInfo, LayerInfo, Report, json_schema

EVIL = [
    "</script><img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "]]></style><script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "\x00\x1b[31mred\x07\r\n\u202eevil\u2066\u200b\ud800",
    "𝓝𝓪𝓶𝓮 🚀🔥 名前 מודל نموذج",
    "javascript:alert(1)",
    "&amp;&lt;%3Cscript%3E",
    "x" * 10_000,
    "Z\u0351\u036b\u0343\u0340" * 400,
    "",
    " ",
]
"""What names could be, in a file from anywhere."""

_KEPT = {"verdict", "status", "kind", "claim", "schema", "computes"}
"""Fields with a fixed set of values."""

_FIELDS = {key for part in json_schema()["$defs"].values() for key in part["properties"]}


def hostile() -> Report:
    """The full report with every string of it replaced, and figures that are odd."""
    report = Report.from_json(json.dumps(_poisoned(full().to_dict(), itertools.cycle(EVIL))))
    nothing, wrong = HistogramInfo([], []), HistogramInfo([1.0, 1.0], [0])
    layer = LayerInfo(EVIL[0], EVIL[1], EVIL[2], 0, None, 0, None, nothing, wrong, [], float("inf"))
    return dataclasses.replace(
        report,
        input=dataclasses.replace(report.input, macs=10**400, nodes=0, weight_bytes=0),
        layers=[*report.layers, layer],
    )


def _poisoned(value: Any, evil: Iterator[str]) -> Any:
    if isinstance(value, dict):
        return {
            (key if key in _FIELDS else next(evil)): (
                inner if key in _KEPT and isinstance(inner, str) else _poisoned(inner, evil)
            )
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_poisoned(entry, evil) for entry in value]
    return next(evil) if isinstance(value, str) else value


def with_numbers(report: Report, number: float) -> Report:
    """The same report with every figure in it replaced by one."""
    return _numbered(report, number)


def _numbered(value: Any, number: float) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: _numbered(getattr(value, f.name), number) for f in dataclasses.fields(value)
        }
        return type(value)(**fields)
    if isinstance(value, list):
        return [_numbered(entry, number) for entry in value]
    if isinstance(value, dict):
        return {key: _numbered(entry, number) for key, entry in value.items()}
    if isinstance(value, int) and not isinstance(value, bool):
        return int(number) if abs(number) != math.inf and number == number else value
    return _as_float(number) if isinstance(value, float) else value


def _as_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
