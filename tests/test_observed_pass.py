"""A lossy pass that looks at the calibration data through its context, in a whole run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphopt.ir.graph import Constant
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.numerics.streaming import GramSpec, RangeSpec
from graphopt.optimizer import optimize
from graphopt.pass_base import Context, Edit, Skip
from graphopt.quality.data import DataOptions, open_dataset
from graphopt.runtime.cache import Cache
from graphopt.runtime.observing import Request
from graphopt.runtime.observing_layers import rows_of

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "digits_cnn" / "digits_cnn.onnx"
DATA = DataOptions(source=str(ROOT / "models" / "digits_cnn" / "digits_test.npz"), labels="y")


@dataclass(frozen=True)
class SilenceQuietInputs(LossyPass):
    """Weights of a Gemm go to zero where its input hardly ever has any power."""

    name = "silence-quiet-inputs"
    needs = frozenset({"data"})
    seen = []

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        gemms = [n for scope in context.scopes() for n in context.nodes(scope, "Gemm")]
        asked = {
            node.label: Request(node.inputs[0].name, GramSpec(rows_of(node))) for node in gemms
        }
        spread = Request(gemms[0].inputs[0].name, RangeSpec(axis=1))
        assert context.observe is not None
        answers = context.observe(context.model, [*asked.values(), spread])
        self.seen.append((answers.of(spread), {k: answers.of(r) for k, r in asked.items()}))
        for label, request in asked.items():
            power = answers.of(request).second
            quiet = int(np.count_nonzero(power <= np.quantile(power, 0.1)))
            yield Choice(label, 0.1, f"{quiet} inputs", loss=float(power.min()), saving=quiet)

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
        grams = self.seen[-1][1]
        for scope in context.scopes():
            for node in context.nodes(scope, "Gemm"):
                power = grams[node.label].second
                weight = node.inputs[1]
                assert isinstance(weight, Constant)
                values = weight.values.copy()
                axis = 1 if node.attrs.get("transB") else 0
                values[(slice(None),) * axis + (power <= np.quantile(power, 0.1),)] = 0
                weight.values = values
                yield Edit(node, "silenced")


def test_a_pass_sees_the_calibration_part_only_and_the_cache_spares_the_second_run(
    tmp_path,
) -> None:
    cache = Cache(tmp_path)
    step = SilenceQuietInputs()
    first = optimize(MODEL, passes=[step], data=DATA, cache=cache)
    assert first.report.steps[-1].status in ("applied", "eased")
    assert first.report.data is not None
    kept = cache.size()
    assert kept > 0
    spread, grams = step.seen[0]
    gemm = next(iter(grams.values()))
    assert gemm.rows == first.report.data.calibration
    assert spread.absolute.shape == gemm.second.shape
    assert (spread.absolute**2 >= gemm.second - 1e-6).all()
    again = optimize(MODEL, passes=[step], data=DATA, cache=cache)
    assert cache.size() == kept
    assert again.model.to_bytes() == first.model.to_bytes()
    evaluation = open_dataset(DATA, first.model).count("evaluation")
    assert first.report.gate is not None
    assert first.report.gate.samples == evaluation
