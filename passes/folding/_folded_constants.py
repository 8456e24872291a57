"""Constants that come out of arithmetic on other constants: their rounding and their bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.graph import Constant
from graphopt.pass_base import Context

_EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
_VANISHING = {"float16": 0.0, "bfloat16": 1e-36, "float32": 1e-36, "float64": 1e-300}
"""Magnitudes that may be lost: nothing that follows brings them back to size one."""


def owned(tensor: gs.Tensor) -> bool:
    """Whether a tensor is a constant that one node alone reads."""
    return isinstance(tensor, Constant) and len(tensor.outputs) == 1 and not tensor.is_output


def rounded(
    exact: np.ndarray, dtype: np.dtype, slices: Sequence[tuple[int, ...]] = ()
) -> np.ndarray | str:
    """Values in another type, or why that loses more than rounding does.

    Args:
        exact: float64.
        dtype: the type wanted.
        slices: axes to look at together; the loss is held against the largest value there. All by
            default.
    """
    if not np.isfinite(exact).all():
        return "the folded constants are not finite"
    with np.errstate(over="ignore", under="ignore"):
        values: np.ndarray = exact.astype(dtype)
    error, size = np.abs(values.astype(np.float64) - exact), np.abs(exact)
    if not np.isfinite(error).all():
        return f"the folded constants leave the range of {dtype.name}"
    for axes in slices or (tuple(range(exact.ndim)),):
        limit = 4 * _EPSILON[dtype.name] * size.max(axes) + _VANISHING[dtype.name]
        if (error.max(axes) > limit).any():
            return f"the folded constants are too small for {dtype.name}"
    return values


def spend(context: Context, growth: int) -> str:
    """Take bytes from the budget of constants, or give them back; else why there are too few."""
    if growth > max(context.budget, 0):
        return f"the constants would grow by {growth} bytes, {max(context.budget, 0)} are left"
    context.budget -= growth
    return ""
