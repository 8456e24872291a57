"""What a person reads on a terminal: pure functions from results to rich renderables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphopt.errors import printable

if TYPE_CHECKING:
    from graphopt.bench import Bench
    from graphopt.compare import Comparison
    from graphopt.numerics.statistics import Spread
    from graphopt.report.models import ModelInfo
    from graphopt.report.tree import Report, StepReport

_STYLES = {
    "applied": "green",
    "unchanged": "dim",
    "eased": "yellow",
    "rolled back": "yellow",
    "failed": "red",
    "equal": "green",
    "different": "red",
    "unproven": "yellow",
}

_LISTED = 20
"""Names that a list shows before it says how many more there are."""


def size(count: float) -> str:
    """Bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def number(count: float | None) -> str:
    """A large number for people; a word for what is not known."""
    if count is None:
        return "not known"
    for unit in ("", " k", " M", " G"):
        if abs(count) < 1000:
            return f"{count:.0f}" if not unit else f"{count:.2f}{unit}"
        count /= 1000
    return f"{count:.2f} T"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return ""
    if before == after:
        return "="
    return f"{100 * (after - before) / before:+.1f} %" if before else "new"


def _signed(count: int, show: str) -> str:
    return "" if count == 0 else (f"-{show}" if count < 0 else f"+{show}")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        first = index == 0
        table.add_column(
            column, justify="left" if first else "right", overflow="fold", no_wrap=first
        )
    return table


WIDE = 100
"""Columns from which on a table shows all that it has."""


def render_report(report: Report, verbose: bool = False, width: int = WIDE) -> RenderableType:
    """The summary of a run: what each pass did, before and after, the verdict.

    Args:
        report: the report.
        verbose: whether to show idle passes and the reasons of refusals too.
        width: columns of the terminal.
    """
    parts: list[RenderableType] = [_steps(report.steps, verbose, width >= WIDE)]
    idle = sum(step.status == "unchanged" for step in report.steps)
    if idle and not verbose:
        parts.append(Text(f"{idle} passes found nothing to do", style="dim"))
    for step in report.steps:
        parts += [
            Text(f"{step.name} took back {entry.node}: {entry.what}", style="yellow")
            for entry in step.taken_back
        ]
        if step.error:
            parts.append(
                Text(f"{step.name} failed and was left out: {printable(step.error)}", style="red")
            )
        if verbose:
            parts += [
                Text(f"  {step.name} skipped {s.node}: {s.why}", style="dim") for s in step.skips
            ]
    parts += [Text(""), _before_after(report.input, report.output), _verdict_line(report)]
    parts += [Text(f"warning: {printable(line, 500)}", style="yellow") for line in report.warnings]
    return Group(*parts)


def _steps(steps: list[StepReport], verbose: bool, wide: bool) -> Table:
    """One row a pass; on a narrow terminal without what the JSON tells as well."""
    extra = ("MACs", "largest diff") if wide else ()
    table = _table("pass", "edits", "skips", "nodes", "bytes", *extra, "time", "status")
    for step in steps:
        if step.status == "unchanged" and not verbose:
            continue
        largest = step.largest_difference
        more = (
            _signed(step.macs, number(abs(step.macs))),
            "" if largest is None else f"{largest:.1e}",
        )
        table.add_row(
            step.name,
            str(len(step.edits)),
            str(len(step.skips)) if step.skips else "",
            _signed(step.nodes, str(abs(step.nodes))),
            _signed(step.weight_bytes, size(abs(step.weight_bytes))),
            *(more if wide else ()),
            duration(step.seconds),
            Text(step.status, style=_STYLES[step.status]),
        )
    return table


def _before_after(before: ModelInfo, after: ModelInfo) -> Table:
    table = _table("", "before", "after", "change")
    table.add_row("nodes", str(before.nodes), str(after.nodes), _change(before.nodes, after.nodes))
    for name, a, b in (
        ("file", before.file_bytes, after.file_bytes),
        ("weights", before.weight_bytes, after.weight_bytes),
    ):
        table.add_row(name, size(a), size(b), _change(a, b))
    macs = before.macs, after.macs
    table.add_row("MACs", *map(number, macs), _change(*macs))
    return table


def _verdict_line(report: Report) -> Text:
    verdict = report.verdict
    line = Text("outputs ")
    line.append(verdict.verdict, style=_STYLES[verdict.verdict])
    if verdict.verdict == "unproven":
        return line.append(f": {printable(verdict.why, 300)}")
    line.append(
        f" on {verdict.samples} sets of inputs, largest difference "
        f"{verdict.largest_difference:.1e} ({verdict.relative_difference:.0e} relative)"
    )
    if verdict.verdict == "different":
        line.append(f": {printable(verdict.why, 300)}")
    return line


def render_model(info: ModelInfo, operators: dict[str, int], findings: list[str]) -> RenderableType:
    """A model in figures."""
    table = _table("", "")
    rows = [
        ("IR version, opset", f"{info.ir_version}, {info.opset}"),
        ("nodes", str(info.nodes)),
        ("parameters", number(info.parameters)),
        ("weights", size(info.weight_bytes)),
        ("file", size(info.file_bytes)),
        ("MACs (dynamic dims as 1)", number(info.macs)),
        ("sha256", info.sha256[:16]),
    ]
    rows += [(f"input {printable(t.name)}", f"{t.dtype} {_dims(t.shape)}") for t in info.inputs]
    rows += [(f"output {printable(t.name)}", f"{t.dtype} {_dims(t.shape)}") for t in info.outputs]
    for row in rows:
        table.add_row(*row)
    ops = _table("operator", "nodes")
    for op, count in sorted(operators.items(), key=lambda entry: (-entry[1], entry[0])):
        ops.add_row(printable(op), str(count))
    notes = [Text(f"note: {printable(line, 500)}", style="yellow") for line in findings]
    return Group(Text(printable(info.path), style="bold"), table, Text(""), ops, *notes)


def _dims(shape: list[int | str] | None) -> str:
    return (
        "of unknown rank" if shape is None else f"[{', '.join(printable(str(d)) for d in shape)}]"
    )


def render_comparison(found: Comparison, timed: Bench | None) -> RenderableType:
    """How two models differ."""
    table = _table("", "first", "second", "change")
    table.add_row("nodes", *map(str, found.nodes), _change(*found.nodes))
    table.add_row("weights", *map(size, found.weight_bytes), _change(*found.weight_bytes))
    for op, counts in found.operators.items():
        table.add_row(f"  {printable(op)}", *map(str, counts), f"{counts[1] - counts[0]:+d}")
    parts: list[RenderableType] = [table]
    parts += [
        Text(f"interface differs: {printable(line, 500)}", style="red") for line in found.interface
    ]
    for title, names in (
        ("nodes only in the first", found.removed),
        ("nodes only in the second", found.added),
        ("weights only in the first", found.weights_removed),
        ("weights only in the second", found.weights_added),
        ("weights changed", list(found.weights_changed)),
    ):
        if names:
            parts.append(Text(f"{title}: {len(names)} ({_names(names)})", style="dim"))
    parts.append(Text(f"weights equal: {found.weights_equal}", style="dim"))
    numbers = found.numbers
    line = Text("outputs ").append(numbers.verdict, style=_STYLES[numbers.verdict])
    if numbers.verdict == "equal":
        line.append(
            f" on {numbers.samples} sets of inputs, largest difference {numbers.largest_difference:.2e}"
        )
    else:
        line.append(f": {printable(numbers.why, 500)}")
    parts.append(line)
    if timed is not None:
        parts += [Text(""), render_bench(timed)]
    return Group(*parts)


def _names(names: list[str]) -> str:
    shown = ", ".join(printable(name, 60) for name in names[: _LISTED // 4])
    return shown + (", …" if len(names) > _LISTED // 4 else "")


def render_bench(found: Bench) -> RenderableType:
    """Latencies with their spread, and what they allow to say."""
    table = _table("latency", "p50", "p10", "p90")
    table.add_row("first", *_spread(found.first))
    if found.second is not None:
        table.add_row("second", *_spread(found.second))
    shapes = ", ".join(f"{printable(k)} {v}" for k, v in found.shapes.items())
    how = "on" if found.optimizations else "off"
    parts: list[RenderableType] = [
        table,
        Text(
            f"{found.rounds} interleaved rounds, {found.threads} thread(s), "
            f"ONNX Runtime's optimizations {how}, {shapes}",
            style="dim",
        ),
    ]
    if found.ratio is not None and found.claim is not None:
        parts.append(
            Text(
                f"second / first: {found.ratio.median:.3f} "
                f"(95 % interval {found.ratio.low:.3f} to {found.ratio.high:.3f}; "
                f"first / first: {found.control.low:.3f} to {found.control.high:.3f})"
            )
        )
        parts.append(Text(f"the second is: {found.claim}", style="bold"))
    return Group(*parts)


def _spread(found: Spread) -> tuple[str, str, str]:
    return duration(found.p50), duration(found.p10), duration(found.p90)
