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
            _ratio(kind.stored_bytes, kind.packed_bytes),
        )
    whole = (found.stored_bytes, found.packed_bytes, found.bound_bytes)
    table.add_row("all", "", *map(size, whole), f"{found.ratio:.2f}x", style="bold")
    notes = [Text(f"note: {printable(line, 500)}", style="yellow") for line in found.notes]
    return Group(table, *notes, *_end(found.archive, found.stored_bytes, found.seconds))


def render_unpack(found: UnpackSummary) -> RenderableType:
    """What unpacking came to."""
    line = f"{size(found.packed_bytes)} to {size(found.stored_bytes)}, {found.ratio:.2f}x"
    beside = [Text(f"wrote {printable(path)}") for path in found.files[1:]]
    return Group(Text(line), *beside, *_end(found.model, found.stored_bytes, found.seconds))


def _ratio(stored: int, packed: int) -> str:
    return f"{stored / packed:.2f}x" if packed else ""


def _end(path: str, stored: int, seconds: float) -> list[Text]:
    rate = stored / seconds / 1e6 if seconds else 0.0
    return [Text(f"{duration(seconds)}, {rate:.1f} MB/s"), Text(f"wrote {printable(path)}")]
