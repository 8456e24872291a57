"""Symbolic inference of types, shapes and small contents (ONNX operator spec, opsets 7 to 26).

`infer` walks a graph once and returns its `Facts`. Rules are grouped by family, one module each,
and register themselves with the decorator `rule`.
"""

from graphopt.ir.inference import (
    arithmetic,
    control,
    elementwise,
    generators,
    indexing,
    joining,
    layout,
    linear,
    recurrent,
    reduction,
    resizing,
    sequence,
    windows,
)
from graphopt.ir.inference.engine import infer
from graphopt.ir.inference.facts import Fact, Facts, Shape, Value

FAMILIES = (
    arithmetic,
    control,
    elementwise,
    generators,
    indexing,
    joining,
    layout,
    linear,
    recurrent,
    reduction,
    resizing,
    sequence,
    windows,
)
"""The modules that hold the rules."""

__all__ = ["FAMILIES", "Fact", "Facts", "Shape", "Value", "infer"]
