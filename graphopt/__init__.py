"""graphopt: a framework-agnostic graph compiler for ONNX models.

    import graphopt

    model = graphopt.load("model.onnx")
    result = graphopt.optimize(model, passes=["quantize-weights"], data="data.npz")
    result.model.save("model.opt.onnx")
    print(result.report.to_json())

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphopt._version import __version__

if TYPE_CHECKING:
    from graphopt.assessment import Running
    from graphopt.errors import (
        BudgetError,
        GateError,
        GraphoptError,
        ModelError,
        NativeDeathError,
        NativeError,
        OutputError,
        ProviderError,
        ResourceError,
        UsageError,
    )
    from graphopt.ir.model import Model
    from graphopt.lossy_pass import Choice, LossyPass
    from graphopt.optimizer import Result, optimize
    from graphopt.packing import pack, unpack
    from graphopt.pass_base import Context, Edit, Limits, Pass, Skip
    from graphopt.quality.data import DataOptions, ImageOptions
    from graphopt.quality.gate import Budget
    from graphopt.recipe import Recipe
    from graphopt.report import Report
    from graphopt.sensitivity_study import sensitivity

_HOMES = {
    "Budget": "graphopt.quality.gate",
    "BudgetError": "graphopt.errors",
    "Choice": "graphopt.lossy_pass",
    "Context": "graphopt.pass_base",
    "DataOptions": "graphopt.quality.data",
    "Edit": "graphopt.pass_base",
    "GateError": "graphopt.errors",
    "GraphoptError": "graphopt.errors",
    "ImageOptions": "graphopt.quality.data",
    "Limits": "graphopt.pass_base",
    "LossyPass": "graphopt.lossy_pass",
    "Model": "graphopt.ir.model",
    "ModelError": "graphopt.errors",
    "NativeDeathError": "graphopt.errors",
    "NativeError": "graphopt.errors",
    "OutputError": "graphopt.errors",
    "Pass": "graphopt.pass_base",
    "ProviderError": "graphopt.errors",
    "Recipe": "graphopt.recipe",
    "Report": "graphopt.report",
    "ResourceError": "graphopt.errors",
    "Result": "graphopt.optimizer",
    "Running": "graphopt.assessment",
    "Skip": "graphopt.pass_base",
    "UsageError": "graphopt.errors",
    "optimize": "graphopt.optimizer",
    "pack": "graphopt.packing",
    "sensitivity": "graphopt.sensitivity_study",
    "unpack": "graphopt.packing",
}

__all__ = [
    "Budget",
    "BudgetError",
    "Choice",
    "Context",
    "DataOptions",
    "Edit",
    "GateError",
    "GraphoptError",
    "ImageOptions",
    "Limits",
    "LossyPass",
    "Model",
    "ModelError",
    "NativeDeathError",
    "NativeError",
    "OutputError",
    "Pass",
    "ProviderError",
    "Recipe",
    "Report",
    "ResourceError",
    "Result",
    "Running",
    "Skip",
    "UsageError",
    "__version__",
    "load",
    "optimize",
    "pack",
    "sensitivity",
    "unpack",
]


def load(source: Any) -> Model:
    """Read a model from a path, from bytes or from a message; see ``Model.load``."""
    from graphopt.ir.model import Model

    return Model.load(source)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'graphopt' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
