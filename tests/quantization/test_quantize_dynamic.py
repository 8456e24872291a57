"""Products on integers whose range is found in every run: what is chosen, how it computes, what is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from qdq_models import build, feeds_of, run

from graphopt.errors import NativeError
from graphopt.ir.model import Model
from graphopt.numerics.statistics import Ratio
from graphopt.outcome import Outcome
from graphopt.pass_manager import PassManager
from graphopt.passes.quantization.quantize_dynamic import QuantizeDynamic
from graphopt.report import SpeedInfo
from graphopt.runtime.profiling import NodeSeconds

BODY = """
  h = MatMul(x, w)
  r = Relu(h)
  y = Gemm<transB = 1>(r, v, b)
"""
INPUTS = "float[6,64] x, float[64,96] w, float[40,96] v, float[40] b"


@dataclass
class Machine:
    """A machine on which products take some microseconds on floats and on integers."""

    floats: float = 10.0
    integers: float = 2.0

    def __call__(self, models: Sequence[Model], anew: bool = False) -> list[list[NodeSeconds]]:
        taken = {"MatMul": self.floats, "Gemm": self.floats, "MatMulInteger": self.integers}
        return [
            [NodeSeconds(n.name, n.op, 1e-6 * taken.get(n.op, 0.1)) for n in model.graph.nodes]
            for model in models
        ]


class Broken:
    """A machine that times nothing."""

    def __call__(self, *_: Any) -> Any:
        raise NativeError("the profiler is missing")


def net(opset: int = 17) -> Model:
    return build(INPUTS, "float[6,40] y", BODY, "w v b", opset=opset)


def tried(model: Model, measure: Any = None, **options: Any) -> Outcome:
    """The pass on a model, without a gate."""
    ratio = Ratio(0.5, 0.49, 0.51)
    manager = PassManager(
        None,
        measure=measure or Machine(),
        race=lambda before, after: SpeedInfo(ratio, Ratio(1.0, 0.97, 1.03), "faster"),
    )
    return manager.run(model, [QuantizeDynamic(**options)])


@pytest.mark.parametrize("opset", [7, 11, 17, 21])
def test_products_become_integer_kernels(opset: int) -> None:
    model = net(opset)
    outcome = tried(model)
    assert outcome.model.opset == max(opset, 11)
    proto = outcome.model.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    for seed, size in ((7, 1.0), (8, 1e-3), (9, 1e3)):  # no range was fixed beforehand
        feeds = {
            name: (size * array).astype(np.float32) for name, array in feeds_of(model, seed).items()
        }
        (wanted,), _ = run(model.to_proto(), feeds)
        (found,), ops = run(proto, feeds, optimized=True)
        bias = np.abs(wanted).max()
        assert np.abs(found - wanted).max() < 0.03 * bias
        assert ops["MatMul"] == ops["Gemm"] == ops["MatMulInteger"] == 0
        assert ops["DynamicQuantizeMatMul"] + ops["MatMulIntegerToFloat"] == 2


def test_what_is_slower_on_integers_stays_on_floats() -> None:
    (step,) = tried(net(), measure=Machine(integers=20.0)).steps
    assert step.status == "unchanged"
    assert {skip.why.split(":")[0] for skip in step.skips} == {"it is not faster"}


def test_for_size_nothing_is_timed() -> None:
    (step,) = tried(net(), measure=Broken(), objective="size").steps
    assert step.status == "applied"
    assert len(step.edits) == 2


def test_times_that_cannot_be_had_are_told() -> None:
    (step,) = tried(net(), measure=Broken()).steps
    assert "the profiler is missing" in {s.node: s.why for s in step.skips}["the model"]


def test_the_same_model_gives_the_same_bytes() -> None:
    assert tried(net()).model.to_bytes() == tried(net()).model.to_bytes()
