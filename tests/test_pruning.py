"""Structured pruning on real data: shapes shrink, least squares gives back what slicing took."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from graphopt.errors import UsageError
from graphopt.ir.channel_masking import mask_groups
from graphopt.ir.channels import find_groups
from graphopt.optimizer import Result, optimize
from graphopt.passes.pruning.prune_channels import Cut, PruneChannels
from graphopt.quality.data import DataOptions
from graphopt.quality.equivalence import Equivalence
from graphopt.quality.gate import Budget
from graphopt.recipe import Recipe
from graphopt.stage import Stage
from graphopt.testing import parse

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "digits_cnn" / "digits_cnn.onnx"
NPZ = ROOT / "models" / "digits_cnn" / "digits_test.npz"
LABELLED = DataOptions(source=str(NPZ), labels="y")


def prune(options: str, drop: float | None = None) -> Result:
    return optimize(MODEL, passes=[f"prune-channels:{options}"], data=LABELLED, budget=Budget(drop))


def accuracy(result: Result) -> float:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        result.model.to_bytes(), options, providers=["CPUExecutionProvider"]
    )
    with np.load(NPZ) as data:
        scores = session.run(None, {session.get_inputs()[0].name: data["x"]})[0]
        return float((scores.argmax(axis=1) == data["y"]).mean())


def removed(result: Result) -> float:
    before, after = result.report.input.macs, result.report.output.macs
    assert before is not None
    assert after is not None
    return 1 - after / before


def test_what_is_asked_for_really_leaves_and_the_accuracy_stays_near() -> None:
    found = prune("amount=0.3")
    onnx.checker.check_model(found.model.to_proto(), full_check=True)
    assert 0.3 <= removed(found) < 0.36
    assert found.report.output.parameters < found.report.input.parameters
    assert accuracy(found) > 0.95
    kept = [(t.name, t.shape) for t in found.report.output.outputs]
    assert kept == [(t.name, t.shape) for t in found.report.input.outputs]


def test_least_squares_gives_back_what_slicing_took() -> None:
    fitted, sliced = prune("amount=0.6"), prune("amount=0.6,refit=none")
    assert removed(fitted) == pytest.approx(removed(sliced))
    assert accuracy(fitted) > accuracy(sliced) + 0.05


def test_without_refit_the_result_equals_the_model_with_the_same_units_masked(native) -> None:
    model = optimize(MODEL).model
    stage = Stage([PruneChannels(amount=0.5, importance="l2", refit="none")])
    step = stage.passes[0]
    assert isinstance(step, PruneChannels)
    cuts = [c for c in step.propose(stage.context(model)) if isinstance(c, Cut)]
    assert cuts
    sliced, masked = model.copy(), model.copy()
    groups = {group.name: group for group in find_groups(model)}
    mask_groups(masked, [(groups[cut.where], cut.keep) for cut in cuts])
    assert len(list(step.commit(cuts, stage.context(sliced)))) == len(cuts)
    verdict = Equivalence(masked, native).judge(sliced)
    assert verdict.passed, verdict.why
    assert not Equivalence(model, native).judge(sliced).passed


def test_the_same_data_give_the_same_bytes() -> None:
    assert prune("amount=0.4").model.to_bytes() == prune("amount=0.4").model.to_bytes()


def test_the_gate_eases_the_amount() -> None:
    found = prune("amount=0.9", 0.02)
    step = found.report.steps[-1]
    assert step.status == "eased"
    assert step.eased.endswith("of its strength")
    assert 0 < removed(found) < 0.9
    assert found.report.gate is not None
    assert found.report.gate.drop is not None
    assert found.report.gate.drop <= 0.02


def test_widths_are_multiples() -> None:
    found = prune("amount=0.3,multiple=8")
    widths = [
        t.dims[0]
        for t in found.model.to_proto().graph.initializer
        if len(t.dims) == 4 and t.dims[1] > 1
    ]
    assert all(width % 8 == 0 for width in widths)


def test_without_data_as_much_leaves_and_nothing_judges() -> None:
    found = optimize(MODEL, passes=["prune-channels:amount=0.3"])
    assert removed(found) >= 0.3
    assert any("nothing judged" in warning for warning in found.report.warnings)


def test_it_composes_with_weights_in_few_bits() -> None:
    found = optimize(
        MODEL,
        passes=["prune-channels:amount=0.3", "quantize-weights"],
        data=LABELLED,
        budget=Budget(0.05),
    )
    assert [s.status for s in found.report.steps if not s.exact] == ["applied", "applied"]
    assert found.report.simplification is not None
    assert found.report.simplification < 0.25


@pytest.mark.parametrize("wrong", ["amount=1", "amount=-1", "floor=0", "multiple=0", "objective=x"])
def test_options_that_make_no_sense(wrong: str) -> None:
    with pytest.raises(UsageError):
        Recipe.parse([f"prune-channels:{wrong}"])


IN_A_BODY = """<ir_version: 8, opset_import: ["" : 17]>
g (float[4,6] x, bool c, float[6,24] w, float[24,5] v) => (float[4,5] y) {
    y = If(c) <
        then_branch = one () => (float[4,5] t) { a = MatMul(x, w) b = Relu(a) t = MatMul(b, v) },
        else_branch = two () => (float[4,5] u) { d = MatMul(x, w) e = Tanh(d) u = MatMul(e, v) }
    >
}"""


def test_what_lies_in_a_body_counts_and_is_cut() -> None:
    found = optimize(parse(IN_A_BODY, ("w", "v")), passes=["prune-channels:amount=0.4,multiple=1"])
    onnx.checker.check_model(found.model.to_proto(), full_check=True)
    cut = [int(edit.what.split()[0]) for edit in found.report.steps[-1].edits]
    assert len(cut) == 2  # all branches count, though a run takes one
    assert 0.4 * 48 <= sum(cut) <= 0.5 * 48


def test_multiply_accumulates_that_are_not_known_are_told() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,6] x, float[6,24] w, float[24,5] v, float[5,4] u) => (float[M,4] y) {
        a = MatMul(x, w) b = Relu(a) d = MatMul(b, v)
        n = NonZero(d) p = Constant<value_ints = [1, 0]>() t = Transpose<perm = [1, 0]>(n)
        e = GatherND(d, t) s = Constant<value_ints = [-1, 1]>() f = Reshape(e, s)
        o = Constant<value = float[1,5] {1, 1, 1, 1, 1}>() h = MatMul(f, o) y = MatMul(h, u)
    }"""
    model = parse(text, ("w", "v", "u"))
    step = optimize(model, passes=["prune-channels:amount=0.3"]).report.steps[-1]
    assert any("do not follow from the sizes of the inputs" in skip.why for skip in step.skips)
    assert step.edits
