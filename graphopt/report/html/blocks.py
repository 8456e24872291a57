"""What a page is made of: a tree of blocks. Sections build it, one template writes it as HTML.

Every ``str`` in it is plain text, made printable and escaped when it is written. ``Markup`` is HTML that was
made here, out of parts escaped in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias, TypeVar

from markupsafe import Markup

Cell: TypeAlias = "str | Markup"
Tone = Literal["", "good", "bad", "warn", "quiet", "strong", "legends"]

T = TypeVar("T")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its heading.
        kind: how its cells are set: as text, as text that wants room, as a name, as figures, as a chart
            or as heat.
    """

    title: Cell
    kind: Literal["text", "wide", "name", "number", "chart", "heat"] = "text"


@dataclass(frozen=True)
class Row:
    """A row of a table; the first cell is its heading.

    Attributes:
        cells: one for each column.
        tone: colours the row; never the only sign of what it says.
        classes: of each cell, by its position.
    """

    cells: tuple[Cell, ...]
    tone: Tone = ""
    classes: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table in a box of its own, in which it scrolls where it is too wide.

    Attributes:
        label: what it shows, for those who cannot see it.
        columns: from left to right.
        rows: from top to bottom.
        left_out: rows that are not shown.
        caption: a line under it.
    """

    kind: ClassVar = "table"
    label: str
    columns: tuple[Column, ...]
    rows: list[Row]
    left_out: int = 0
    caption: Cell = ""


@dataclass(frozen=True)
class Facts:
    """Terms with what they are."""

    kind: ClassVar = "facts"
    entries: list[tuple[str, Cell]]


@dataclass(frozen=True)
class Figure:
    """A chart with a title and a line that says how to read it.

    Attributes:
        title: above it.
        label: the title as plain text.
        chart: the drawing.
        caption: under the title.
        text: what the chart shows, for those who cannot see it.
    """

    kind: ClassVar = "figure"
    title: Cell
    label: str
    chart: Markup
    caption: Cell = ""
    text: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away until asked for."""

    kind: ClassVar = "details"
    summary: Cell
    blocks: list[Block]


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    kind: ClassVar = "note"
    text: Cell
    tone: Tone = ""


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar = "heading"
    text: Cell


@dataclass(frozen=True)
class Grid:
    """Blocks side by side, as many as fit.

    Attributes:
        blocks: in order.
        cell: how wide each wants to be.
    """

    kind: ClassVar = "grid"
    blocks: list[Block]
    cell: Literal["small", "large"] = "large"


@dataclass(frozen=True)
class Code:
    """Text to copy."""

    kind: ClassVar = "code"
    label: str
    text: Cell


@dataclass(frozen=True)
class Card:
    """One figure of the summary.

    Attributes:
        title: what it is of.
        value: of the result.
        before: of the original, in words.
        change: between both, in words.
        chart: both as bars.
        tone: whether the change is welcome.
        note: what else it means.
    """

    title: str
    value: str
    before: str
    change: str = ""
    chart: Markup = field(default_factory=Markup)
    tone: Tone = ""
    note: str = ""


@dataclass(frozen=True)
class Cards:
    """The summary."""

    kind: ClassVar = "cards"
    cards: list[Card]


Block: TypeAlias = "Table | Facts | Figure | Details | Note | Heading | Grid | Code | Cards"


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Attributes:
        anchor: its name in links.
        title: its heading.
        lead: what it shows, in a sentence or two for a reader who is new to it.
        blocks: what it consists of.
    """

    anchor: str
    title: str
    lead: Cell
    blocks: list[Block]


@dataclass(frozen=True)
class Limits:
    """How much a page shows; what is more is counted, and the JSON has it.

    Attributes:
        rows: of a table.
        members: names in one cell.
        groups: of edits or of refusals of one pass.
        layers: rows of the table of layers.
        histograms: drawn at once; three times as many may be folded away.
        heat: layers of a heat map.
        points: of a scatter plot.
        boxes: of a drawn graph.
        letters: of a text such as a warning.
    """

    rows: int = 120
    members: int = 8
    groups: int = 40
    layers: int = 160
    histograms: int = 12
    heat: int = 60
    points: int = 80
    boxes: int = 160
    letters: int = 500

    def tighter(self) -> Limits:
        """Half as much of everything."""
        return Limits(
            **{name: max(1, value // 2) for name, value in vars(self).items() if name != "letters"},
            letters=max(60, self.letters // 2),
        )


def cut(entries: list[T], most: int) -> tuple[list[T], int]:
    """The first entries, and how many are left out."""
    return entries[:most], max(0, len(entries) - most)
