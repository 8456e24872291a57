"""Which pass made, changed, removed or refused a node, and why; from a report or a model's metadata.

``optimize(provenance=True)`` writes what the passes did into the model's metadata, under
``graphopt.steps``, so that the question can be asked of a file that has lost its report.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import difflib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphopt.errors import UsageError, printable
from graphopt.ir.model import Model
from graphopt.report import (
    EditInfo,
    QuantizedInfo,
    RangeInfo,
    Report,
    SkipInfo,
    StepReport,
)
from graphopt.report.schema import read

METADATA_KEY = "graphopt.steps"
"""Where a model's metadata holds what the passes did: deflated JSON in base64."""

MOST_BYTES = 64 << 20
"""Bytes that the steps in a model's metadata may unpack to."""

NEAREST = 5
"""Names that are suggested where none fits."""


@dataclass(frozen=True)
class Event:
    """One thing that happened to a node.

    Attributes:
        step: the pass.
        what: made, changed, chosen, removed, refused, or taken back.
        detail: in words.
    """

    step: str
    what: str
    detail: str


@dataclass(frozen=True)
class Explanation:
    """What happened to one node.

    Attributes:
        node: its name.
        events: in the order of the passes; nothing where no pass touched it.
    """

    node: str
    events: list[Event]


def pack(steps: Sequence[StepReport]) -> str:
    """What passes did, as the value of a metadata entry; the same for the same steps."""
    told = [
        {
            "name": step.name,
            "status": step.status,
            "eased": step.eased,
            "edits": [[edit.node, edit.what] for edit in step.edits],
            "skips": [[skip.node, skip.why] for skip in step.skips],
            "taken_back": [[edit.node, edit.what] for edit in step.taken_back],
            "made": step.made,
            "removed": step.removed,
            "quantized": [dataclasses.asdict(_untold(row)) for row in step.quantized],
        }
        for step in steps
        if step.edits or step.skips or step.taken_back or step.quantized
    ]
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _untold(row: QuantizedInfo) -> QuantizedInfo:
    """A row without what only a drawing needs."""
    output = row.output and dataclasses.replace(row.output, histogram=None)
    inputs = [dataclasses.replace(each, histogram=None) for each in row.inputs]
    return dataclasses.replace(row, output=output, inputs=inputs)


def unpack(text: str) -> list[StepReport]:
    """The steps that a metadata entry holds.

    Raises:
        UsageError: it is damaged.
    """
    try:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(base64.b64decode(text, validate=True), MOST_BYTES)
        if inflate.unconsumed_tail:
            raise ValueError("it is too large")
        return [_step(entry) for entry in json.loads(raw)]
    except (ValueError, KeyError, TypeError, zlib.error, binascii.Error, RecursionError) as error:
        raise UsageError(
            f"the metadata entry {METADATA_KEY!r} is damaged: {error}",
            "Give the report of the run instead",
        ) from None


def _step(entry: dict[str, Any]) -> StepReport:
    step = StepReport(
        name=str(entry["name"]),
        status="applied",
        exact=True,
        options={},
        edits=[EditInfo(str(node), str(what)) for node, what in entry["edits"]],
        skips=[SkipInfo(str(node), str(why)) for node, why in entry["skips"]],
        taken_back=[EditInfo(str(node), str(what)) for node, what in entry["taken_back"]],
        made=[str(name) for name in entry["made"]],
        removed=[str(name) for name in entry["removed"]],
        quantized=[read(QuantizedInfo, row) for row in entry.get("quantized", [])],
    )
    return dataclasses.replace(step, eased=str(entry["eased"]))


def load_steps(source: str | os.PathLike[str]) -> list[StepReport]:
    """What the passes did, from a report in JSON or from a model's metadata.

    Raises:
        UsageError: it is neither a report nor a model that tells.
        ModelError: the model cannot be read.
    """
    path = Path(source)
    if path.suffix.lower() == ".json":
        try:
            return Report.from_json(path.read_text(encoding="utf-8")).steps
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {printable(str(path))}: {error}") from None
    model = Model.load(path)
    for entry in model.header.metadata_props:
        if entry.key == METADATA_KEY:
            return unpack(entry.value)
    raise UsageError(
        f"{printable(str(path))} does not tell what made it",
        "Give the report (--json), or write the model with --provenance",
    )


def explain(steps: Sequence[StepReport], node: str) -> Explanation:
    """What happened to a node.

    Args:
        steps: what the passes did.
        node: its name, as the original or the result has it.

    Raises:
        UsageError: no pass speaks of it; the message suggests the nearest names.
    """
    events = [event for step in steps for event in _events(step, node)]
    if not events:
        near = difflib.get_close_matches(node, sorted(_names(steps)), NEAREST, 0.5)
        hint = f"The nearest names are: {', '.join(near)}" if near else ""
        raise UsageError(
            f"no pass made, changed or refused anything at {printable(node)!r}",
            hint or "It is as it was in the original, or there is no such node",
        )
    return Explanation(node, events)


def _events(step: StepReport, node: str) -> list[Event]:
    found = [Event(step.name, "changed", edit.what) for edit in step.edits if edit.node == node]
    if node in step.made:
        found.insert(0, Event(step.name, "made", "it is there since this pass"))
    found += [
        Event(step.name, "chosen", _chosen(row)) for row in step.quantized if row.node == node
    ]
    if node in step.removed:
        found.append(Event(step.name, "removed", "it is gone since this pass"))
    found += [Event(step.name, "refused", skip.why) for skip in step.skips if skip.node == node]
    found += [
        Event(step.name, "taken back", edit.what) for edit in step.taken_back if edit.node == node
    ]
    return found


def _chosen(row: QuantizedInfo) -> str:
    """In which numbers a node computes, why, on which grids, and what that costs and gains."""
    said = [f"{row.precision}: {row.why}"]
    said += [f"gives {_grid(row.output)}"] if row.output is not None else []
    said += [f"reads {_grid(found)}" for found in row.inputs]
    said += [f"{w.tensor} {w.what}{_decibels(w.sqnr_db)}" for w in row.weights]
    said += [f"what it gives{_decibels(row.sqnr_db)}"] if row.sqnr_db is not None else []
    if row.seconds_before is not None:
        said.append(f"{1e6 * row.seconds_before:.3g} µs on floats")
    if row.seconds_after is not None:
        said.append(f"{1e6 * row.seconds_after:.3g} µs on integers")
    said += [f"loss {row.loss:.2g} of the outputs' variance"] if row.loss is not None else []
    return "; ".join(said)


def _grid(found: RangeInfo) -> str:
    return (
        f"{found.tensor} from {found.low:.4g} to {found.high:.4g} (scale {found.scale:.4g}, zero point "
        f"{found.zero_point}, {100 * found.kept:.0f} % of what was seen by {found.method}, "
        f"{100 * found.clipped:.2g} % clipped)"
    )


def _decibels(ratio: float | None) -> str:
    return "" if ratio is None else f" at {ratio:.1f} dB"


def _names(steps: Sequence[StepReport]) -> set[str]:
    names: set[str] = set()
    for step in steps:
        names.update(step.made, step.removed, (row.node for row in step.quantized))
        for entries in (step.edits, step.skips, step.taken_back):
            names.update(entry.node for entry in entries)
    return names
