"""Pruning of whole models of the kinds that people have: what leaves, what stays, what is made up for."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from model_kinds import KINDS, Arrays, samples
from model_net import Net
from onnx import TensorProto

from graphopt.ir.channel_masking import mask_groups
from graphopt.ir.channels import find_groups
from graphopt.ir.graph import Constant
from graphopt.ir.model import Model
from graphopt.optimizer import Result, optimize
from graphopt.passes.pruning.prune_channels import Cut, PruneChannels
from graphopt.quality.data import DataOptions
from graphopt.quality.equivalence import Equivalence, Verdict
from graphopt.quality.gate import Budget
from graphopt.recipe import Recipe
from graphopt.report import StepReport
from graphopt.runtime.native import Native
from graphopt.stage import Stage

SLICED = "importance=l2,refit=none"

BLIND = [(kind, "macs", "N") for kind in KINDS] + [("lstm", "params", "N"), ("vit", "macs", 2)]
"""Kinds, objectives and batches that are pruned without data."""


@functools.cache
def built(kind: str, batch: int | str = "N") -> onnx.ModelProto:
    return KINDS[kind](batch)


@functools.cache
def sliced(kind: str, objective: str = "macs", batch: int | str = "N") -> Result:
    """A model with 30 % of it sliced away by magnitude."""
    model = Model.load(built(kind, batch).SerializeToString())
    return optimize(model, passes=[f"prune-channels:objective={objective},amount=0.3,{SLICED}"])


def outputs(model: onnx.ModelProto | Model, feeds: Arrays) -> list[np.ndarray]:
    proto = model if isinstance(model, onnx.ModelProto) else model.to_proto()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


def share_removed(result: Result, objective: str = "macs") -> float:
    before, after = result.report.input, result.report.output
    if objective == "params":
        return 1 - after.parameters / before.parameters
    assert before.macs is not None
    assert after.macs is not None
    return 1 - after.macs / before.macs


def interface(proto: onnx.ModelProto) -> tuple[list[onnx.ValueInfoProto], ...]:
    return list(proto.graph.input), list(proto.graph.output)


def pruning_step(result: Result) -> StepReport:
    return next(step for step in result.report.steps if step.name == "prune-channels")


@pytest.mark.parametrize(("kind", "objective", "batch"), BLIND)
def test_what_is_asked_for_leaves_a_valid_model(
    kind: str, objective: str, batch: int | str
) -> None:
    result = sliced(kind, objective, batch)
    proto = result.model.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    assert interface(proto) == interface(built(kind, batch))
    assert pruning_step(result).status == "applied"
    assert 0.3 <= share_removed(result, objective) < 0.4
    for size in [batch] if isinstance(batch, int) else [1, 3]:
        feeds = samples(kind, size, seed=9)
        wanted, found = outputs(built(kind, batch), feeds), outputs(proto, feeds)
        assert [array.shape for array in found] == [array.shape for array in wanted]
        assert all(np.isfinite(array).all() for array in found)


@pytest.mark.parametrize(("kind", "objective", "batch"), BLIND)
def test_it_equals_the_model_with_the_same_units_masked(
    kind: str, objective: str, batch: int | str, native: Native
) -> None:
    model = optimize(Model.load(built(kind, batch).SerializeToString())).model
    (step,) = Recipe.parse([f"prune-channels:objective={objective},amount=0.3,{SLICED}"]).passes
    assert isinstance(step, PruneChannels)
    stage = Stage([step])
    cuts = [c for c in step.propose(stage.context(model)) if isinstance(c, Cut)]
    groups = {group.name: group for group in find_groups(model)}
    masked, cut = model.copy(), model.copy()
    mask_groups(masked, [(groups[c.where], c.keep) for c in cuts])
    assert len(list(step.commit(cuts, stage.context(cut)))) == len(cuts) > 0
    verdict = same(masked, cut, native, kind, batch)
    assert verdict.passed, verdict.why
    assert not same(model, cut, native, kind, batch).passed


def same(first: Model, second: Model, native: Native, kind: str, batch: int | str) -> Verdict:
    """The verdict on drawn inputs where the batch is free, on some of the kind's own where it is not."""
    data = [samples(kind, batch, seed=3)] if isinstance(batch, int) else []
    return Equivalence(first, native, data).judge(second)


@pytest.mark.parametrize("kind", KINDS)
def test_least_squares_on_a_few_samples_brings_it_nearer_to_the_original(kind: str) -> None:
    data = DataOptions(calibration=samples(kind, 64, seed=1), evaluation=samples(kind, 16, seed=2))
    result = optimize(
        Model.load(built(kind).SerializeToString()),
        passes=["prune-channels:objective=macs,amount=0.3"],
        data=data,
        budget=Budget(None),
    )
    proto = result.model.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    assert interface(proto) == interface(built(kind))
    assert 0.3 <= share_removed(result) < 0.4
    assert any("refitted" in edit.what for edit in pruning_step(result).edits)
    held_out = samples(kind, 256, seed=7)
    wanted = outputs(built(kind), held_out)
    blind = errors(wanted, outputs(sliced(kind).model, held_out))
    fitted = errors(wanted, outputs(proto, held_out))
    assert all(new < old for new, old in zip(fitted, blind, strict=True)), (fitted, blind)


def errors(wanted: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> list[float]:
    """Of each output how far it is off, relative to how much it varies from sample to sample."""
    return [
        float(np.linalg.norm(other - one) / np.linalg.norm(one - one.mean(axis=0)))
        for one, other in zip(wanted, found, strict=True)
    ]


def test_widths_of_a_detector_are_multiples_of_8() -> None:
    model = Model.load(built("yolo").SerializeToString())
    result = optimize(model, passes=[f"prune-channels:amount=0.3,multiple=8,{SLICED}"])
    assert share_removed(result) >= 0.3
    before = {node.label: node for node in model.graph.nodes}
    changed = 0
    for node in result.model.graph.nodes:
        if node.op != "Conv":
            continue
        weight, old = node.inputs[1], before[node.label].inputs[1]
        assert isinstance(weight, Constant)
        for width, former in zip(weight.shape[:2], old.shape[:2], strict=True):
            assert width % 8 == 0 or width == former, node.label
            changed += width != former
    assert changed > 10


def locked_model() -> Model:
    """Products that are normalized, and then the model's output."""
    net = Net(0)
    made = net.linear(net.layer_norm(net.linear("x", 6, 8), 8), 8, 4)
    proto = net.model("locked", [("x", TensorProto.FLOAT, ["N", 6])], {"y": (made, ["N", 4])})
    return Model.load(proto.SerializeToString())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("amount=0", "an amount of 0 asks for nothing to be cut"),
        ("amount=0.3,floor=1", "the floor keeps all of its 24 hidden units"),
        ("amount=0.3,multiple=512", "from 2 to below its 24 hidden units is a multiple of 512"),
        ("amount=0.3,multiple=16,floor=0.75", "from 18 to below its 24 hidden units is a multiple"),
    ],
)
def test_a_request_that_removes_nothing_says_why(options: str, said: str) -> None:
    model = Model.load(built("lstm").SerializeToString())
    step = pruning_step(optimize(model, passes=[f"prune-channels:{options},{SLICED}"]))
    assert step.status == "unchanged"
    assert not step.edits
    assert any(said in skip.why for skip in step.skips), step.skips


def test_the_least_amount_removes_a_unit() -> None:
    model = Model.load(built("lstm").SerializeToString())
    step = pruning_step(optimize(model, passes=[f"prune-channels:amount=1e-9,multiple=1,{SLICED}"]))
    assert [edit.what.split(" hidden")[0] for edit in step.edits] == ["1 of 32"]


def test_a_model_whose_groups_are_all_locked_says_so() -> None:
    step = pruning_step(optimize(locked_model(), passes=["prune-channels:amount=0.5"]))
    assert step.status == "unchanged"
    told = {skip.node: skip.why for skip in step.skips}
    assert told["the model"] == "no group of channels may be cut"
    assert any("graph output 'y' keeps its shape" in why for why in told.values())
    assert any("computes statistics over it" in why for why in told.values())
