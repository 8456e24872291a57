"""The report of a run: one tree, its JSON, and what people read."""

from graphopt.report.tree import (
    SCHEMA,
    EditInfo,
    ModelInfo,
    Report,
    SkipInfo,
    StepReport,
    TensorInfo,
    VerdictInfo,
    json_schema,
)

__all__ = [
    "SCHEMA",
    "EditInfo",
    "ModelInfo",
    "Report",
    "SkipInfo",
    "StepReport",
    "TensorInfo",
    "VerdictInfo",
    "json_schema",
]
