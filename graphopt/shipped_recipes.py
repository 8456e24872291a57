"""The recipes that come with graphopt, by name, and how a request names a recipe.

They are the files ``recipes/NAME.toml`` of the package, recipes as any others: to be shown, copied, changed.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from graphopt.errors import UsageError, printable
from graphopt.recipe import Recipe


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe that comes with graphopt.

    Attributes:
        name: what it is called by.
        text: the file, in TOML.
    """

    name: str
    text: str

    def recipe(self) -> Recipe:
        """Its passes.

        Raises:
            UsageError: it names a pass that is not installed.
        """
        return Recipe.from_toml(self.text, self.name, self.name)


def shipped_recipes() -> dict[str, ShippedRecipe]:
    """All of them, by name, in alphabetical order."""
    folder = files("graphopt") / "recipes"
    found = {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }
    return {name: ShippedRecipe(name, found[name]) for name in sorted(found)}


def shipped_recipe(name: str) -> ShippedRecipe:
    """The one of a name.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    known = shipped_recipes()
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else "See: graphopt recipes list"
        raise UsageError(f"there is no recipe {printable(name)!r}", hint)
    return known[name]


def find_recipe(asked: str | os.PathLike[str]) -> Recipe:
    """The recipe that a text names: a shipped one, or a file.

    Args:
        asked: the name of a shipped recipe, which comes before a file of that name (write ``./NAME`` for the
            file); or a path. What has no folder and no ending is taken for a name, unless it is a file.

    Raises:
        UsageError: there is no such recipe, or the file is none; see ``Recipe.load``.
    """
    if isinstance(asked, str):
        known = shipped_recipes()
        if asked in known:
            return known[asked].recipe()
        path = Path(asked)
        if asked and asked == path.name and not path.suffix and not path.exists():
            return shipped_recipe(asked).recipe()
    return Recipe.load(asked)
