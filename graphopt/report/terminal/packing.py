"""Packing and unpacking on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from graphopt.errors import printable
from graphopt.report.format import duration, size
from graphopt.report.terminal.tables import table_of

if TYPE_CHECKING:
    from graphopt.packing.summary import PackSummary, UnpackSummary


def render_pack(found: PackSummary) -> RenderableType:
    """What packing came to, by kind of element and for the whole."""
    table = table_of("", "tensors", "stored", "packed", "entropy", "ratio")
    for kind in found.kinds:
        table.add_row(
            kind.kind,
            str(kind.tensors) if kind.tensors else "",
            size(kind.stored_bytes),
            size(kind.packed_bytes),
            size(kind.bound_bytes),
            "" if kind.ratio is None else f"{kind.ratio:.2f}x",
        )
    whole = (found.stored_bytes, found.packed_bytes, found.bound_bytes)
    table.add_row("all", "", *map(size, whole), f"{found.ratio:.2f}x", style="bold")
    notes = [Text(f"note: {printable(line, 500)}", style="yellow") for line in found.notes]
    return Group(table, *notes, *_end(found, found.archive))


def render_unpack(found: UnpackSummary) -> RenderableType:
    """What unpacking came to."""
    line = f"{size(found.packed_bytes)} to {size(found.stored_bytes)}, {found.ratio:.2f}x"
    beside = [Text(f"wrote {printable(path)}") for path in found.files[1:]]
    return Group(Text(line), *beside, *_end(found, found.model))


def _end(found: PackSummary | UnpackSummary, path: str) -> list[Text]:
    took = f"{duration(found.seconds)}, {found.megabytes_per_second:.1f} MB/s"
    return [Text(took), Text(f"wrote {printable(path)}")]
