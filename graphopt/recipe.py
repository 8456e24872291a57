"""Recipes: which passes run, in which order, with which options.

A recipe is a TOML file::

    name = "mine"
    [[pass]]
    name = "fold-batchnorm"
    [[pass]]
    name = "another"
    some_option = 0.5

or the table ``[tool.graphopt]`` of a pyproject.toml with the same keys. A recipe only names passes; it
can not make graphopt load code that is not installed. It may also have a ``summary``, one line for people,
``skip``, names of passes to leave out, and ``pack = true``, which has the result packed as well
(``graphopt.packing``). Those that come with graphopt: ``graphopt.shipped_recipes``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphopt.errors import UsageError, printable
from graphopt.options import build, parse_choice, values_of
from graphopt.pass_base import Pass
from graphopt.registry import builtin_passes, get_pass

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDING: tuple[str, ...] = (
    "inline-functions",
    "lift-constants",
    "inline-if",
    "unroll-loop",
    "fold-shapes",
    "materialize-reshape",
    "fold-constants",
    "eliminate-identity",
    "eliminate-noop-movement",
    "eliminate-noop-arithmetic",
    "eliminate-noop-reduction",
    "eliminate-expand",
    "omit-zero-inputs",
    "resolve-sequences",
    "resolve-optionals",
    "remove-redundant-scatter",
    "simplify-where",
    "fuse-hard-sigmoid",
    "fuse-hard-swish",
    "fuse-silu",
    "fuse-gelu",
    "fuse-layer-norm",
    "fuse-rms-norm",
    "fuse-softplus",
    "fuse-mish",
    "fuse-leaky-relu",
    "fuse-depth-to-space",
    "log-softmax",
    "einsum-to-matmul",
    "eliminate-double-qdq",
    "fold-clip-into-quantize",
    "merge-casts",
    "merge-reshapes",
    "merge-transposes",
    "sink-transposes",
    "transpose-to-reshape",
    "eliminate-reshape-around-elementwise",
    "keep-reduced-axes",
    "gather-to-squeeze",
    "one-hot-to-gather",
    "fold-axes-into-gather",
    "sink-unsqueezes",
    "merge-pads",
    "merge-concats",
    "merge-slices",
    "slices-to-split",
    "merge-splits",
    "merge-reductions",
    "merge-clips",
    "fuse-idempotent",
    "eliminate-monotone-before-argmax",
    "fold-batchnorm",
    "fold-batchnorm-forward",
    "fold-conv-bias",
    "fold-conv-scale",
    "fold-pad",
    "fold-transpose-into-gemm",
    "fold-matmul-scale",
    "fold-matmul-bias",
    "fold-affine-forward",
    "fold-residual-gate",
    "merge-affine",
    "merge-convs",
    "merge-matmuls",
    "merge-common-subexpressions",
    "merge-duplicate-initializers",
    "eliminate-dead-code",
)
"""The order of the exact passes. They run round and round until none of them finds anything to do.

``merge-linear-siblings`` is not among them: runtimes that fuse attention look for three products.
"""


@dataclass(frozen=True)
class Recipe:
    """Passes with their options, in order.

    Attributes:
        passes: the passes.
        name: what to call the recipe in the report.
        summary: one line for people; may be empty.
        pack: whether the result is packed as well.
    """

    passes: tuple[Pass, ...]
    name: str = "custom"
    summary: str = ""
    pack: bool = False

    @classmethod
    def default(cls) -> Recipe:
        """What runs when nothing is asked for: all exact passes."""
        passes = builtin_passes()
        return cls(tuple(passes[name]() for name in FOLDING), "folding")

    @classmethod
    def parse(cls, choices: Iterable[str | Pass]) -> Recipe:
        """A recipe from passes, or from texts of the form ``NAME[:field=value,...]``.

        Raises:
            UsageError: a pass or option is unknown.
        """
        made = []
        for choice in choices:
            if isinstance(choice, Pass):
                made.append(choice)
            elif choice == "folding":
                made += cls.default().passes
            else:
                name, values = parse_choice(choice)
                made.append(build(get_pass(name), values))
        return cls(tuple(made))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe file, or the table ``[tool.graphopt]`` of a pyproject.toml.

        Raises:
            UsageError: the file cannot be read, is no recipe, or names an unknown pass or option.
        """
        source = Path(path)
        shown = printable(str(source))
        try:
            text = source.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot read the recipe {shown}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"the recipe {shown} is not TOML: {error}") from None
        if source.name != "pyproject.toml":
            return cls.from_toml(text, shown, source.stem)
        tools = _parsed(text, shown).get("tool")
        table = tools.get("graphopt") if isinstance(tools, dict) else None
        if not isinstance(table, dict):
            raise UsageError(f"{shown} has no table [tool.graphopt]")
        return cls._from_table(table, shown, source.stem)

    @classmethod
    def from_toml(cls, text: str, shown: str, name: str) -> Recipe:
        """The recipe that a text in TOML is.

        Args:
            text: of a recipe file.
            shown: what errors call it.
            name: the recipe's, where the text gives none.

        Raises:
            UsageError: it is no recipe, or names an unknown pass or option.
        """
        return cls._from_table(_parsed(text, shown), shown, name)

    @classmethod
    def _from_table(cls, table: Mapping[str, Any], shown: str, name: str) -> Recipe:
        unknown = sorted(set(table) - {"name", "summary", "pass", "skip", "pack"})
        if unknown:
            raise UsageError(
                f"the recipe {shown} has the unknown key {printable(unknown[0])!r}",
                "It may have: name, summary, skip, pack, and tables [[pass]]",
            )
        entries = table.get("pass", [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UsageError(f"in the recipe {shown}, passes must be written as tables [[pass]]")
        made: list[Pass] = []
        for entry in entries:
            values = dict(entry)
            chosen = values.pop("name", None)
            if not isinstance(chosen, str):
                raise UsageError(f"a [[pass]] of the recipe {shown} has no name")
            if chosen == "folding" and not values:
                made += cls.default().passes
            else:
                made.append(build(get_pass(chosen), values))
        passes = tuple(made) if entries else cls.default().passes
        pack = table.get("pack", False)
        if not isinstance(pack, bool):
            raise UsageError(f"in the recipe {shown}, pack must be true or false")
        recipe = cls(passes, str(table.get("name", name)), str(table.get("summary", "")), pack)
        skip = table.get("skip", [])
        if not isinstance(skip, list):
            raise UsageError(f"in the recipe {shown}, skip must be a list of names")
        return recipe.without(skip)

    def folded(self) -> Recipe:
        """The recipe with folding before a pass that observes and would otherwise come first.

        Such passes look for weights in initializers and for normalizations in the layers before them.
        """
        if not self.passes or not self.passes[0].observes:
            return self
        return replace(self, passes=(*Recipe.default().passes, *self.passes))

    def without(self, names: Sequence[str]) -> Recipe:
        """The recipe without some passes.

        Raises:
            UsageError: no pass has such a name.
        """
        for name in names:
            get_pass(str(name))
        return replace(self, passes=tuple(p for p in self.passes if p.name not in names))

    def to_toml(self) -> str:
        """The recipe as the text of a file that ``load`` reads."""
        lines = [f"name = {_toml(self.name)}"]
        lines += [f"summary = {_toml(self.summary)}"] if self.summary else []
        lines += ["pack = true"] if self.pack else []
        for step in self.passes:
            lines += ["", "[[pass]]", f"name = {_toml(step.name)}"]
            lines += [f"{k} = {_toml(v)}" for k, v in values_of(step).items() if v is not None]
        return "\n".join(lines) + "\n"


def _parsed(text: str, shown: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"the recipe {shown} is not TOML: {error}") from None


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
