"""The report of a run: one tree, its JSON, and what people read."""

from typing import Any

from graphopt.report.judgement import (
    BudgetInfo,
    DataInfo,
    GateInfo,
    MeasureInfo,
    SensitivityInfo,
    SensitivityReport,
    VerdictInfo,
)
from graphopt.report.models import (
    GraphInfo,
    HistogramInfo,
    LatencyInfo,
    LayerInfo,
    ModelInfo,
    NodeInfo,
    NodeTime,
    PackedInfo,
    PackingInfo,
    SpeedInfo,
    TensorInfo,
)
from graphopt.report.quantized import QuantizedInfo, RangeInfo, StoredInfo
from graphopt.report.schema import json_schema as _json_schema
from graphopt.report.tree import SCHEMA, EditInfo, Report, SkipInfo, StepReport


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the report."""
    return _json_schema(Report, SCHEMA)


__all__ = [
    "SCHEMA",
    "BudgetInfo",
    "DataInfo",
    "EditInfo",
    "GateInfo",
    "GraphInfo",
    "HistogramInfo",
    "LatencyInfo",
    "LayerInfo",
    "MeasureInfo",
    "ModelInfo",
    "NodeInfo",
    "NodeTime",
    "PackedInfo",
    "PackingInfo",
    "QuantizedInfo",
    "RangeInfo",
    "Report",
    "SensitivityInfo",
    "SensitivityReport",
    "SkipInfo",
    "SpeedInfo",
    "StepReport",
    "StoredInfo",
    "TensorInfo",
    "VerdictInfo",
    "json_schema",
]
