"""What the report stands on: the command, the seed, hashes, versions and the interface."""

from __future__ import annotations

from markupsafe import Markup

from graphopt.report.format import duration
from graphopt.report.html.blocks import (
    Block,
    Code,
    Column,
    Details,
    Facts,
    Limits,
    Note,
    Row,
    Section,
    Table,
    cut,
)
from graphopt.report.html.figures import counted
from graphopt.report.html.text import command_line, compose, name
from graphopt.report.judgement import DataInfo
from graphopt.report.models import ModelInfo, TensorInfo
from graphopt.report.tree import Report

Fact = tuple[str, Markup | str]


def section(report: Report, limits: Limits) -> Section:
    """Everything that is needed to have the same result again."""
    facts = [
        *_model("Original", report.input),
        *_model("Result", report.output),
        *data_digest(report.data),
        ("Seed", str(report.seed)),
        ("Took", duration(report.seconds)),
        ("Exit code", str(report.exit_code)),
    ]
    blocks = reproduction(report.command, report.tool, report.environment, facts, limits)
    blocks.append(_interface(report, limits))
    return Section("reproduce", "Reproduce it", "", blocks)


def reproduction(
    command: list[str],
    tool: dict[str, str],
    environment: dict[str, str],
    facts: list[Fact],
    limits: Limits,
) -> list[Block]:
    """The command to run again, then hashes and versions.

    Args:
        command: its words.
        tool: name and version.
        environment: versions and hardware.
        facts: of the run.
        limits: how much fits.
    """
    blocks: list[Block] = []
    if command:
        line, whole = command_line(command, 8 * limits.letters)
        blocks.append(Code("The command that made this report", line))
        if not whole:
            blocks.append(Note("The command is cut here; the JSON has all of it.", "quiet"))
    rows = [*facts, ("Made by", " ".join(tool.values()))]
    shown, left_out = cut(list(environment.items()), limits.groups)
    rows += [(key, value[:200]) for key, value in shown]
    blocks.append(Facts(rows))
    if left_out:
        blocks.append(Note(f"{left_out:,} more versions are in the JSON.", "quiet"))
    return blocks


def digest(sha256: str) -> Markup:
    """A hash, which may break anywhere."""
    return compose('<span class="hash">{}</span>', name(sha256, 64))


def data_digest(data: DataInfo | None) -> list[Fact]:
    """The hash of the data and the seed of its split."""
    if data is None:
        return []
    return [
        ("Data, SHA-256 of all samples", digest(data.digest)),
        ("Seed of the split", str(data.seed)),
    ]


def _model(title: str, model: ModelInfo) -> list[Fact]:
    path = name(model.path, 72) if model.path else "in memory"
    facts: list[Fact] = [(f"{title} file", path)]
    if model.sha256:
        facts.append((f"{title}, SHA-256", digest(model.sha256)))
    facts.append((f"{title}, format", f"IR version {model.ir_version}, opset {model.opset}"))
    return facts


def _interface(report: Report, limits: Limits) -> Details:
    model = report.input
    tensors = [("input", entry) for entry in model.inputs]
    tensors += [("output", entry) for entry in model.outputs]
    shown, left_out = cut(tensors, limits.rows)
    rows = [
        Row((name(entry.name), kind, name(entry.dtype, 20), _shape(entry))) for kind, entry in shown
    ]
    columns = (Column("Name", "name"), Column("Kind"), Column("Type"), Column("Shape", "name"))
    table = Table("Inputs and outputs of the model", columns, rows, left_out)
    same = (model.inputs, model.outputs) == (report.output.inputs, report.output.outputs)
    counts = f"{counted(len(model.inputs), 'input')} and {counted(len(model.outputs), 'output')}"
    return Details(f"{counts}, {'the same in both models' if same else 'of the original'}", [table])


def _shape(entry: TensorInfo) -> Markup:
    if entry.shape is None:
        return Markup("unknown rank")
    dims = Markup(", ").join(name(str(dim), 20) for dim in entry.shape[:12])
    return compose("[{}]", dims)
