"""Tables and colours that all renderings share."""

from __future__ import annotations

from rich.table import Table

STYLES = {
    "pass": "green",
    "fail": "red",
    "unsure": "yellow",
    "made": "green",
    "changed": "",
    "chosen": "",
    "removed": "yellow",
    "refused": "dim",
    "taken back": "yellow",
    "faster": "green",
    "slower": "red",
    "no difference beyond noise": "",
    "applied": "green",
    "unchanged": "dim",
    "eased": "yellow",
    "rolled back": "yellow",
    "failed": "red",
    "equal": "green",
    "within tolerances": "",
    "different": "red",
    "unproven": "yellow",
}

LISTED = 20
"""Names that a list shows before it says how many more there are."""


def table_of(*columns: str) -> Table:
    """A table without lines; the first column to the left, numbers to the right."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        first = index == 0
        table.add_column(
            column, justify="left" if first else "right", overflow="fold", no_wrap=first
        )
    return table
