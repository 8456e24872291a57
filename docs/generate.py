"""Write docs/passes.md from the docstrings and fields of the passes themselves."""

from __future__ import annotations

import sys
from pathlib import Path

from graphopt.catalog import Entry, catalog
from graphopt.registry import builtin_passes

TARGET = Path(__file__).parent / "passes.md"


def page() -> str:
    """The text of the page."""
    entries = [entry for entry in catalog() if entry.name in builtin_passes()]
    lines = ["# Passes", "", "Written by `python docs/generate.py`; edit the passes instead.", ""]
    lines += ["| pass | family | | what it does |", "| --- | --- | --- | --- |"]
    for entry in entries:
        kind = "exact" if entry.exact else "lossy"
        lines.append(
            f"| [`{entry.name}`](#{entry.name}) | {entry.family} | {kind} | {entry.summary} |"
        )
    for entry in entries:
        lines += ["", *_section(entry)]
    return "\n".join(lines) + "\n"


def _section(entry: Entry) -> list[str]:
    lines = [f"## {entry.name}", "", entry.description.replace("``", "`")]
    if entry.options:
        lines += ["", "| option | type | default | |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{o.name}` | `{o.kind}` | `{o.default!r}` | {o.help} |" for o in entry.options
        ]
    return lines


def main() -> int:
    """Write the page; with ``--check``, only say whether it is up to date."""
    text = page()
    if "--check" in sys.argv:
        return int(not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
