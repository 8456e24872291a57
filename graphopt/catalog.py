"""What there is to say of each pass, read off its own docstring and fields."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from graphopt.options import Option, options_of
from graphopt.pass_base import Pass
from graphopt.recipe import FOLDING
from graphopt.registry import all_passes, get_pass


@dataclass(frozen=True)
class Entry:
    """A pass as its documentation shows it.

    Attributes:
        name: what it is called by.
        family: the folder that it stands in.
        exact: whether it promises equal results.
        summary: one line.
        description: the algebra, its source, and when it refuses.
        options: its fields.
    """

    name: str
    family: str
    exact: bool
    summary: str
    description: str
    options: list[Option]

    def brief(self) -> dict[str, Any]:
        """The entry of a list."""
        return {
            "name": self.name,
            "family": self.family,
            "exact": self.exact,
            "summary": self.summary,
        }

    def full(self) -> dict[str, Any]:
        """All of it as plain values."""
        options = [vars(option) for option in self.options]
        return {**self.brief(), "description": self.description, "options": options}

    def text(self) -> str:
        """All of it for people."""
        kind = "exact" if self.exact else "lossy"
        lines = [f"{self.name}  ({self.family}, {kind})", "", self.description, ""]
        if not self.options:
            lines.append("Options: none")
        lines += [f"  {o.name}: {o.kind} = {o.default!r}  {o.help}".rstrip() for o in self.options]
        return "\n".join(lines)


def describe_pass(name: str) -> Entry:
    """The entry of one pass.

    Raises:
        UsageError: there is no such pass.
    """
    return _entry(get_pass(name))


def catalog() -> list[Entry]:
    """All passes: the folding ones in the order in which they run, then the others by name."""
    place = {name: index for index, name in enumerate(FOLDING)}
    found = sorted(all_passes().values(), key=lambda p: (place.get(p.name, len(place)), p.name))
    return [_entry(step) for step in found]


def _entry(step: type[Pass]) -> Entry:
    summary = (inspect.getdoc(step) or "").strip().split("\n")[0]
    return Entry(
        step.name, step.family(), step.exact, summary, step.documentation(), options_of(step)
    )
