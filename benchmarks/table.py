"""Turn results into Markdown tables: pure functions, one table per measured quantity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from benchmarks.measure import Result

OWN = "graphopt"
Number = float | None
Quantity = Callable[[Result], Number]
Spread = Callable[[Result], str]


def _nodes(result: Result) -> Number:
    return result.nodes


def _init_kib(result: Result) -> Number:
    return None if result.init_bytes is None else result.init_bytes / 1024


def _file_kib(result: Result) -> Number:
    return None if result.file_bytes is None else result.file_bytes / 1024


def _cpu(result: Result) -> Number:
    return result.cpu_s


def _rss(result: Result) -> Number:
    return result.rss_mib


def _ratio(key: str) -> Quantity:
    def read(result: Result) -> Number:
        value = result.latency.get(key)
        return value[0] if isinstance(value, list) else value

    return read


def _quartiles(key: str) -> Spread:
    def read(result: Result) -> str:
        value = result.latency.get(key)
        return f" ({value[1]:.2f}-{value[2]:.2f})" if isinstance(value, list) else ""

    return read


def _none(result: Result) -> str:
    return ""


def _text(value: Number, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def cell(result: Result | None, quantity: Quantity, digits: int, best: bool, spread: Spread) -> str:
    """Return a table cell: the value, bold when best, struck out when the output is not good."""
    if result is None:
        return ""
    if result.status != "ok":
        return result.status
    text = _text(quantity(result), digits) + spread(result)
    if not result.good:
        kind = "wrong" if not result.correct else "interface" if not result.interface else "foreign"
        return f"~~{text}~~ {kind}" if text else kind
    return f"**{text}**" if best and text else text


def _best(row: dict[str, Result], quantity: Quantity) -> Number:
    values = [
        quantity(result)
        for tool, result in row.items()
        if tool not in ("original", OWN) and result.good
    ]
    return min((value for value in values if value is not None), default=None)


def _is_best(result: Result | None, quantity: Quantity, best: Number, digits: int) -> bool:
    value = quantity(result) if result is not None and result.good else None
    return value is not None and best is not None and round(value, digits) <= round(best, digits)


def _row(text: Sequence[str]) -> str:
    return "| " + " | ".join(text) + " |"


def _medians(
    rows: dict[str, dict[str, Result]], tools: Sequence[str], quantity: Quantity, relative: bool
) -> list[str]:
    cells = []
    for tool in tools:
        shares = []
        for row in rows.values():
            value = quantity(row[tool]) if tool in row and row[tool].good else None
            base = quantity(row["original"]) if relative else 1.0
            if value is not None and base:
                shares.append(value / base)
        shown = "" if not shares else f"{median(shares):.2f}"
        cells.append(f"{shown} ({len(shares)})" if shares else "")
    return cells


def table(
    results: Sequence[Result],
    title: str,
    quantity: Quantity,
    digits: int,
    before: bool = True,
    relative: bool = True,
    spread: Spread = _none,
) -> str:
    """Return one Markdown table, models down and tools across.

    Args:
        results: all results of one set of models.
        title: heading of the first column.
        quantity: what a cell shows; smaller is better.
        digits: decimal places of a cell.
        before: whether to show the original in a column of its own.
        relative: whether the last line gives medians of the ratio to the original instead of
            medians of the value. Behind each median, how many good results it is made of.
        spread: what to write behind a value; nothing is then marked as best, as a spread that
            needs telling is often wider than the lead of the best.
    """
    rows: dict[str, dict[str, Result]] = {}
    for result in results:
        rows.setdefault(result.model, {})[result.tool] = result
    tools = list(dict.fromkeys(r.tool for r in results if r.tool != "original"))
    head = [title, *(["before"] if before else []), *tools]
    lines = [_row(head), _row(["---"] * len(head))]
    for model, row in rows.items():
        best = _best(row, quantity) if spread is _none else None
        cells = [
            cell(row.get(t), quantity, digits, _is_best(row.get(t), quantity, best, digits), spread)
            for t in tools
        ]
        base = [_text(quantity(row["original"]), digits)] if before else []
        lines.append(_row([model, *base, *cells]))
    name = "median of the ratio to before" if relative else "median"
    lines.append(
        _row([name, *([""] if before else []), *_medians(rows, tools, quantity, relative)])
    )
    return "\n".join(lines)


def verdicts(results: Sequence[Result]) -> str:
    """Return the list of all outcomes that are not good, with their reasons."""
    lines = []
    for result in results:
        if result.tool == "original" and result.correct:
            continue
        if result.status == "missing" or (result.good and result.idempotent is not False):
            continue
        why = result.why
        if not why and result.interface is False:
            why = "names, order or types of the inputs or outputs changed"
        if not why and result.standard is False:
            why = "operators of a domain that the original does not use"
        if not why and result.idempotent is False:
            why = "optimizing its output again changes it"
        lines.append(f"- {result.model}, {result.tool}: {' '.join(why.split())[:220]}")
    return "\n".join(lines) or "All results are correct and keep the interface."


def report(results: Sequence[Result], title: str) -> str:
    """Return the section of one set of models: all tables, then the outcomes that are not good."""
    parts = [
        f"## {title}",
        table(results, "nodes", _nodes, 0),
        table(results, "initializers, KiB", _init_kib, 0),
        table(results, "file, KiB", _file_kib, 0),
        table(results, "CPU seconds", _cpu, 2, before=False, relative=False),
        table(results, "peak MiB", _rss, 0, before=False, relative=False),
    ]
    if any(result.latency for result in results):
        for key in ("on", "off"):
            name = f"latency ratio, runtime's optimizations {key} (before: ms)"
            lines = table(results, name, _ratio(key), 2, relative=False, spread=_quartiles(key))
            parts.append(lines)
    return "\n\n".join([*parts, "Not good:", verdicts(results)]) + "\n"
