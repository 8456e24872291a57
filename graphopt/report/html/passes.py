"""What each pass did: the waterfall, and every edit, refusal and change taken back."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from graphopt.report.format import duration
from graphopt.report.html.badges import status_badge
from graphopt.report.html.blocks import (
    Block,
    Column,
    Details,
    Facts,
    Heading,
    Limits,
    Note,
    Row,
    Section,
    Table,
    cut,
)
from graphopt.report.html.figures import MetricScale, counted, plain
from graphopt.report.html.text import compose, name, names
from graphopt.report.html.waterfall import waterfall
from graphopt.report.quantized import in_words
from graphopt.report.tree import Report, StepReport


def section(report: Report, scale: MetricScale, limits: Limits) -> Section | None:
    """The waterfall, then the passes one by one."""
    if not report.steps:
        return None
    busy = [step for step in report.steps if step.status != "unchanged"]
    idle = [step for step in report.steps if step.status == "unchanged"]
    blocks: list[Block] = []
    if busy:
        blocks += [waterfall(report, busy, scale, limits), Heading("Each pass in full")]
        shown, left_out = cut(busy, limits.rows // 2)
        blocks += [_step(step, limits) for step in shown]
        if left_out:
            blocks.append(
                Note(f"{left_out:,} more passes are left out here; the JSON has them.", "quiet")
            )
    else:
        blocks.append(Note("No pass found anything to change."))
    if idle:
        blocks.append(_idle(idle, limits))
    lead = (
        "A pass is one kind of rewrite. Exact ones keep the outputs up to rounding, lossy ones keep to the "
        "budget. They stand in the order in which they ran."
    )
    return Section("passes", "What each pass did", lead, blocks)


def _idle(idle: list[StepReport], limits: Limits) -> Details:
    """The passes that changed nothing; those that refused something say why."""
    blocks: list[Block] = []
    refusing, left_out = cut([step for step in idle if step.skips], limits.groups)
    for step in refusing:
        blocks.append(Heading(compose("{} refused", name(step.name))))
        blocks.append(_grouped("Refusals", "Why", ((s.why, s.node) for s in step.skips), limits))
    if left_out:
        blocks.append(Note(f"{left_out:,} more that refused are left out here.", "quiet"))
    quiet = [step.name for step in idle if not step.skips]
    if quiet:
        blocks.append(Note(names(quiet, limits.rows)))
    return Details(f"{counted(len(idle), 'pass', 'passes')} changed nothing", blocks)


def _step(step: StepReport, limits: Limits) -> Details:
    """Everything about one pass."""
    counts = [counted(len(step.edits), "edit")]
    counts += [f"{len(step.skips):,} refused"] if step.skips else []
    counts += [f"{len(step.taken_back):,} taken back"] if step.taken_back else []
    summary = compose(
        "<strong>{}</strong> {} <span class='muted'>{}</span>",
        name(step.name),
        status_badge(step.status),
        ", ".join(counts),
    )
    blocks: list[Block] = []
    if step.error:
        blocks.append(Note(f"It failed and was left out: {step.error}"[: limits.letters], "bad"))
    if step.eased:
        blocks.append(Note(f"Eased: {step.eased}"[: limits.letters], "warn"))
    if step.speed is not None and step.status != "rolled back":
        blocks.append(Note(f"Timed: {step.speed}"[: limits.letters], "good"))
    blocks.append(Facts(_facts(step, limits)))
    if step.taken_back:
        entries = ((entry.what, entry.node) for entry in step.taken_back)
        blocks.append(_grouped("Taken back", "What went wrong", entries, limits))
    if step.edits:
        entries = ((entry.what, entry.node) for entry in step.edits)
        blocks.append(_grouped("Edits", "What was done", entries, limits))
    if step.skips:
        entries = ((entry.why, entry.node) for entry in step.skips)
        blocks.append(_grouped("Refused", "Why", entries, limits))
    return Details(summary, blocks)


def _facts(step: StepReport, limits: Limits) -> list[tuple[str, Markup | str]]:
    promise = "exact: equal results up to rounding" if step.exact else "lossy: judged by the budget"
    facts: list[tuple[str, Markup | str]] = [("Promise", promise)]
    options = ", ".join(f"{key} = {value}" for key, value in step.options.items())
    if options:
        facts.append(("Options", options[: limits.letters]))
    if step.largest_difference is not None:
        facts.append(
            ("Largest difference", f"{plain(step.largest_difference, 3)} of any output so far")
        )
    if step.quantized:
        facts.append(("Computes", in_words(step.quantized)))
    facts.append(("Time", duration(step.seconds)))
    if step.made:
        facts.append(("Nodes made", names(step.made, limits.members)))
    if step.removed:
        facts.append(("Nodes removed", names(step.removed, limits.members)))
    return facts


def _grouped(label: str, heading: str, entries: Iterable[tuple[str, str]], limits: Limits) -> Table:
    """Entries that say the same, together, with the nodes that they are about."""
    groups: dict[str, list[str]] = {}
    for what, node in entries:
        groups.setdefault(what, []).append(node)
    shown, left_out = cut(list(groups.items()), limits.groups)
    texts = [(what[: limits.letters], nodes) for what, nodes in shown]
    columns: tuple[Column, ...]
    if all(len(nodes) == 1 for nodes in groups.values()):
        columns = (Column("Node", "name"), Column(f"{label}: {heading.lower()}", "wide"))
        rows = [Row((name(nodes[0]), what)) for what, nodes in texts]
        return Table(label, columns, rows, left_out)
    columns = (
        Column(f"{label}: {heading.lower()}", "wide"),
        Column("Count", "number"),
        Column("Nodes", "wide"),
    )
    rows = [Row((what, f"{len(nodes):,}", names(nodes, limits.members))) for what, nodes in texts]
    return Table(label, columns, rows, left_out)
