"""Which passes there are: the built-in ones by walking ``graphopt.passes``, others by entry point.

A package offers a pass by an entry point in the group ``graphopt.passes`` whose name is the pass's name
and whose value is the class. Two passes with one name are an error that names both owners.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from importlib.metadata import EntryPoint, entry_points

import graphopt.passes
from graphopt.errors import UsageError, printable
from graphopt.pass_base import Pass

GROUP = "graphopt.passes"


@functools.cache
def builtin_passes() -> dict[str, type[Pass]]:
    """The passes that graphopt ships, by name, in alphabetical order."""
    found: dict[str, type[Pass]] = {}
    for info in pkgutil.walk_packages(graphopt.passes.__path__, f"{graphopt.passes.__name__}."):
        if info.ispkg:
            continue
        module = importlib.import_module(info.name)
        for _, value in inspect.getmembers(module, inspect.isclass):
            if issubclass(value, Pass) and value.__module__ == info.name and hasattr(value, "name"):
                found[value.name] = value
    return dict(sorted(found.items()))


def all_passes() -> dict[str, type[Pass]]:
    """Every pass that can be named: built-in ones and those of installed packages.

    Raises:
        UsageError: an entry point cannot be loaded, is no pass, or takes a name that is taken.
    """
    found = dict(builtin_passes())
    owners = dict.fromkeys(found, "graphopt itself")
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        owner = f"{entry.value} of {entry.dist.name if entry.dist else 'an unknown package'}"
        if entry.name in found:
            raise UsageError(
                f"two passes are called {entry.name!r}: {owners[entry.name]} and {owner}",
                "Uninstall or rename one of them",
            )
        found[entry.name] = _load(entry, owner)
        owners[entry.name] = owner
    return found


def _load(entry: EntryPoint, owner: str) -> type[Pass]:
    try:
        loaded = entry.load()
    except Exception as error:
        raise UsageError(f"the pass {entry.name!r} ({owner}) cannot be loaded: {error}") from error
    if not (inspect.isclass(loaded) and issubclass(loaded, Pass)):
        raise UsageError(f"the entry point {entry.name!r} ({owner}) is not a graphopt Pass")
    if getattr(loaded, "name", None) != entry.name:
        raise UsageError(
            f"the entry point {entry.name!r} ({owner}) holds a pass named "
            f"{getattr(loaded, 'name', None)!r}",
            "They must be equal",
        )
    return loaded


def get_pass(name: str) -> type[Pass]:
    """The pass of a name.

    Raises:
        UsageError: there is none; the message suggests the nearest.
    """
    passes = all_passes()
    if name not in passes:
        import difflib

        near = difflib.get_close_matches(name, passes, 3, 0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else "See: graphopt passes list"
        raise UsageError(f"there is no pass {printable(name)!r}", hint)
    return passes[name]
