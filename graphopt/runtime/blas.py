"""How many threads numpy multiplies matrices with.

OpenBLAS starts one thread for each core and lets them wait for each other without rest, so beside other work
two threads are several times slower than one. numpy has no word for their number; OpenBLAS, with which
numpy's wheels come, has. Any other library keeps the number that it has.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Iterator
from typing import Any

MODULES = ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath")
"""Where numpy multiplies matrices, in this and earlier versions of it."""

NAMES = (
    "scipy_openblas_{}_num_threads64_",
    "scipy_openblas_{}_num_threads",
    "openblas_{}_num_threads64_",
    "openblas_{}_num_threads",
)
"""The functions of OpenBLAS that get and set the number, as its builds call them."""


def use_threads(count: int) -> bool:
    """Multiply matrices with so many threads, in this process, from now on.

    Args:
        count: threads, at least 1.

    Returns:
        Whether numpy's library could be told.
    """
    found = _library()
    if found is not None:
        getattr(found[0], found[1].format("set"))(ctypes.c_int(max(1, count)))
    return found is not None


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Multiply matrices with so many threads for a while; then with as many as before.

    Args:
        count: threads, at least 1.
    """
    found = _library()
    before = count if found is None else int(getattr(found[0], found[1].format("get"))())
    use_threads(count)
    try:
        yield
    finally:
        use_threads(before)


def _library() -> tuple[Any, str] | None:
    """The library that can be told, and what it calls the functions."""
    for module in MODULES:
        with contextlib.suppress(ImportError, OSError, AttributeError, TypeError):
            library = ctypes.CDLL(importlib.import_module(module).__file__)
            for name in NAMES:
                if all(hasattr(library, name.format(what)) for what in ("get", "set")):
                    return library, name
    return None
