"""How many threads numpy multiplies matrices with.

OpenBLAS starts one thread for each core and lets them wait for each other without rest, so beside other work
two threads are several times slower than one. numpy has no word for their number; OpenBLAS, with which
numpy's wheels come, has. Any other library keeps the number that it has.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib

MODULES = ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath")
"""Where numpy multiplies matrices, in this and earlier versions of it."""

NAMES = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)
"""The function of OpenBLAS, as its builds call it."""


def use_threads(count: int) -> bool:
    """Multiply matrices with so many threads, in this process, from now on.

    Args:
        count: threads, at least 1.

    Returns:
        Whether numpy's library could be told.
    """
    for module in MODULES:
        with contextlib.suppress(ImportError, OSError, AttributeError, TypeError):
            library = ctypes.CDLL(importlib.import_module(module).__file__)
            for name in NAMES:
                if hasattr(library, name):
                    getattr(library, name)(ctypes.c_int(max(1, count)))
                    return True
    return False
