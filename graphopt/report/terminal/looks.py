"""Models, comparisons and timings on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from graphopt.errors import printable
from graphopt.report.format import change, duration, number, size
from graphopt.report.judgement import MeasureInfo
from graphopt.report.terminal.run import gate_line
from graphopt.report.terminal.tables import LISTED, STYLES, table_of

if TYPE_CHECKING:
    from graphopt.bench import Bench
    from graphopt.compare import Comparison
    from graphopt.inspection import ChannelInfo
    from graphopt.numerics.statistics import Spread
    from graphopt.packing.unpacker import ArchiveInfo
    from graphopt.report.models import ModelInfo, NodeTime


def render_model(
    info: ModelInfo,
    operators: dict[str, int],
    findings: list[str],
    packed: ArchiveInfo | None = None,
) -> RenderableType:
    """A model in figures."""
    table = table_of("", "")
    rows = [
        ("IR version, opset", f"{info.ir_version}, {info.opset}"),
        ("nodes", str(info.nodes)),
        ("parameters", number(info.parameters)),
        ("weights", size(info.weight_bytes)),
        ("file", size(info.disk_bytes)),
        *_packed(packed),
        ("MACs (dynamic dims as 1)", number(info.macs)),
        ("sha256", info.sha256[:16]),
    ]
    rows += [(f"input {printable(t.name)}", f"{t.dtype} {_dims(t.shape)}") for t in info.inputs]
    rows += [(f"output {printable(t.name)}", f"{t.dtype} {_dims(t.shape)}") for t in info.outputs]
    for row in rows:
        table.add_row(*row)
    ops = table_of("operator", "nodes")
    for op, count in sorted(operators.items(), key=lambda entry: (-entry[1], entry[0])):
        ops.add_row(printable(op), str(count))
    notes = [Text(f"note: {printable(line, 500)}", style="yellow") for line in findings]
    return Group(Text(printable(info.path), style="bold"), table, Text(""), ops, *notes)


def _packed(info: ArchiveInfo | None) -> list[tuple[str, str]]:
    """How much an archive holds."""
    if info is None:
        return []
    files = "1 file" if info.files == 1 else f"{info.files} files"
    return [("packed, holds", f"{size(info.stored_bytes)} in {files}, {info.ratio:.2f}x")]


def render_channels(groups: list[ChannelInfo]) -> RenderableType:
    """Channel groups: those that can be cut, and why the others cannot."""
    free = [group for group in groups if not group.locked]
    locked = [group for group in groups if group.locked]
    units = sum(group.size for group in free)
    head = f"{len(free)} groups of channels can be cut ({units} units), {len(locked)} are locked"
    parts: list[RenderableType] = [Text(head, style="bold")]
    if free:
        table = table_of("group", "units", "of", "members", "MACs", "parameters")
        for group in free:
            table.add_row(*_group(group), _share(group), number(group.parameters * group.size))
        parts.append(table)
    if locked:
        table = table_of("locked group", "units", "of", "members")
        table.add_column("why", overflow="fold")
        for group in locked:
            table.add_row(*_group(group), printable(group.locked, 200))
        parts += [Text(""), table]
    return Group(*parts)


def _group(group: ChannelInfo) -> tuple[str, str, str, str]:
    return printable(group.name, 60), str(group.size), group.unit, str(group.members)


def _share(group: ChannelInfo) -> str:
    return "not known" if group.macs_share is None else f"{group.macs_share:.1%}"


def _dims(shape: list[int | str] | None) -> str:
    return (
        "of unknown rank" if shape is None else f"[{', '.join(printable(str(d)) for d in shape)}]"
    )


def render_comparison(found: Comparison, timed: Bench | None) -> RenderableType:
    """How two models differ."""
    table = table_of("", "first", "second", "change")
    table.add_row("nodes", *map(str, found.nodes), change(*found.nodes))
    table.add_row("weights", *map(size, found.weight_bytes), change(*found.weight_bytes))
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
    line = Text("outputs ").append(numbers.verdict, style=STYLES[numbers.verdict])
    if numbers.verdict == "equal":
        line.append(
            f" on {numbers.samples} sets of inputs, largest difference {numbers.largest_difference:.2e}"
        )
    else:
        line.append(f": {printable(numbers.why, 500)}")
    parts.append(line)
    if found.gate is not None:
        parts.append(gate_line(found.gate))
    parts += [Text(_measure(measure), style="dim") for measure in found.measures]
    if timed is not None:
        parts += [Text(""), render_bench(timed)]
    return Group(*parts)


def _measure(found: MeasureInfo) -> str:
    """One metric of one output, before and after."""
    values = ("not finite" if v is None else f"{v:.6g}" for v in (found.before, found.after))
    name = (
        found.metric
        if not found.output or "@" in found.metric
        else f"{found.metric}@{found.output}"
    )
    return f"  {printable(name)}: {' to '.join(values)} {found.unit}".rstrip()


def _names(names: list[str]) -> str:
    shown = ", ".join(printable(name, 60) for name in names[: LISTED // 4])
    return shown + (", …" if len(names) > LISTED // 4 else "")


def render_bench(found: Bench) -> RenderableType:
    """Latencies with their spread, and what they allow to say."""
    table = table_of("latency", "p50", "p10", "p90")
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


def render_profile(path: str, nodes: Sequence[NodeTime]) -> RenderableType:
    """Where the time of a model goes: its dearest nodes as the runtime runs them."""
    table = table_of(f"{printable(path)}: node", "operator", "time", "share")
    for node in nodes:
        name = printable(node.name, 60) or node.op
        table.add_row(name, printable(node.op), duration(node.seconds), f"{100 * node.share:.1f} %")
    return Group(Text(""), table)


def _spread(found: Spread) -> tuple[str, str, str]:
    return duration(found.p50), duration(found.p10), duration(found.p90)
