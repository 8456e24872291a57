"""The operator set that a pass needs, asked for before and brought about when it is needed."""

from __future__ import annotations

from graphopt.ir.opset_raising import objection, raise_opset
from graphopt.pass_base import Context


def opset_objection(context: Context, opset: int) -> str:
    """Why a model cannot be written in an operator set, if it is not yet; empty where it can."""
    if not _is_older(context, opset):
        return ""
    return context.once(("objection to opset", opset), lambda: objection(context.model, opset))


def ensure_opset(context: Context, opset: int) -> None:
    """Raise a model to an operator set where it is written in an older one.

    Raises:
        OpsetError: it cannot be raised; nothing was changed.
    """
    if _is_older(context, opset):
        raise_opset(context.model, opset)
        context.refresh()


def _is_older(context: Context, opset: int) -> bool:
    return any(int(scope.opset) < opset for scope in context.scopes())
