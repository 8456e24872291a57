"""Statistics of streams of arrays, in memory that does not grow with the stream."""

from graphopt.numerics.streaming.accumulator import Accumulator, Spec
from graphopt.numerics.streaming.blocks import Blocks
from graphopt.numerics.streaming.cross import Cross, CrossSpec
from graphopt.numerics.streaming.extrema import Range, RangeSpec
from graphopt.numerics.streaming.gram import Gram, GramSpec
from graphopt.numerics.streaming.histogram import Histogram, HistogramSpec
from graphopt.numerics.streaming.moments import Moments, MomentsSpec
from graphopt.numerics.streaming.restored import Restored, RestoredSpec
from graphopt.numerics.streaming.rows import (
    ConvRows,
    ConvTransposeRows,
    ElementRows,
    FeatureRows,
    Rows,
)
from graphopt.numerics.streaming.sampling import Sampling

__all__ = [
    "Accumulator",
    "Blocks",
    "ConvRows",
    "ConvTransposeRows",
    "Cross",
    "CrossSpec",
    "ElementRows",
    "FeatureRows",
    "Gram",
    "GramSpec",
    "Histogram",
    "HistogramSpec",
    "Moments",
    "MomentsSpec",
    "Range",
    "RangeSpec",
    "Restored",
    "RestoredSpec",
    "Rows",
    "Sampling",
    "Spec",
]
