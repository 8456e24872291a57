"""Scaling and splitting channels before a model is quantized: exact, and only where it helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from repair_models import (
    EVERYTHING,
    constants,
    decibels,
    encoder,
    images,
    optimized,
    outputs,
    separable,
    step,
    words,
)

import graphopt
from graphopt.errors import NativeError, UsageError
from graphopt.ir.model import Model
from graphopt.optimizer import optimize
from graphopt.pass_base import Pass
from graphopt.passes.quantization.equalize_channels import EqualizeChannels
from graphopt.passes.quantization.smooth_activations import SmoothActivations
from graphopt.passes.quantization.split_outliers import SplitOutliers
from graphopt.recipe import FOLDING, Recipe
from graphopt.runtime.native import Native
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Stream
from graphopt.stage import Stage
from graphopt.testing import parse

SEEDS = range(2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_equalizing_changes_no_bit(seed: int, level: str) -> None:
    model = separable(seed)
    found = optimized(model, images(1), "equalize-channels")
    assert len(step(found, "equalize-channels").edits) == 2
    x = images(2)
    np.testing.assert_array_equal(outputs(found.model, x, level), outputs(model, x, level))
    assert found.report.verdict.verdict == "equal"
    assert found.report.output.weight_bytes == found.report.input.weight_bytes


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("measured", ["true", "false"])
def test_equalizing_saves_a_separable_block(seed: int, measured: str) -> None:
    model, x = separable(seed), images(2)
    plain = optimized(model, images(1), EVERYTHING)
    passes = f"equalize-channels:measured={measured}", EVERYTHING
    equal = optimized(model, images(1), *passes)
    assert decibels(model, equal.model, x) > decibels(model, plain.model, x) + 10


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_smoothing_changes_no_bit(seed: int, level: str) -> None:
    model = encoder(seed)
    found = optimized(model, words(1), "smooth-activations")
    assert len(step(found, "smooth-activations").edits) == 2
    x = words(2)
    np.testing.assert_array_equal(outputs(found.model, x, level), outputs(model, x, level))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["smooth-activations", "smooth-activations:alpha=0.5"])
def test_smoothing_saves_an_encoder(seed: int, name: str) -> None:
    model, x = encoder(seed), words(2)
    plain = optimized(model, words(1), EVERYTHING)
    smooth = optimized(model, words(1), name, EVERYTHING)
    assert decibels(model, smooth.model, x) > decibels(model, plain.model, x) + 6


@pytest.mark.parametrize("seed", SEEDS)
def test_splitting_computes_the_same_and_saves_an_encoder(seed: int) -> None:
    model, x = encoder(seed), words(2)
    split = optimized(model, words(1), "split-outliers")
    edits = step(split, "split-outliers").edits
    assert len(edits) == 2
    assert decibels(model, split.model, x) > 100
    counted = [node.op_type for node in split.model.to_proto().graph.node]
    assert (counted.count("Where"), counted.count("Gather"), counted.count("MatMul")) == (2, 2, 12)
    plain = optimized(model, words(1), EVERYTHING)
    saved = optimized(model, words(1), "split-outliers", EVERYTHING)
    assert decibels(model, saved.model, x) > decibels(model, plain.model, x) + 2


def test_splitting_a_gemm_keeps_its_factors() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,64] x, float[16,64] w, float[16] b) => (float[N,16] y, float[N,64] z) {
      y = Gemm<transB = 1, alpha = 0.5, beta = 2.0>(x, w, b)
      z = Neg(x)
    }"""
    model = parse(text, ("w", "b"))
    x = words(0)[:, 0]
    x[:, [5, 40]] *= 100.0
    found = optimized(model, x, "split-outliers")
    (edit,) = step(found, "split-outliers").edits
    assert "2 of 64 channels are computed apart" in edit.what
    assert decibels(model, found.model, x) > 100
    again = optimized(found.model, x, "split-outliers")
    assert not step(again, "split-outliers").edits


def test_channels_that_are_alike_are_left_alone_with_both_losses() -> None:
    model = encoder(size=1.0)
    found = optimized(model, words(1), "smooth-activations", "split-outliers")
    for name in ("smooth-activations", "split-outliers"):
        assert step(found, name).status == "unchanged"
    whys = [skip.why for s in found.report.steps for skip in s.skips if s.name == "split-outliers"]
    assert any("rounding it loses" in why and "channels apart" in why for why in whys)


def test_bounds_of_relu6_are_not_crossed() -> None:
    model = separable(relu6=True)
    found = optimized(model, images(1), "equalize-channels")
    found_step = step(found, "equalize-channels")
    assert not found_step.edits
    assert sum("Clip is not proportional" in skip.why for skip in found_step.skips) == 2


def test_a_scaling_that_loses_more_is_refused_with_both_losses() -> None:
    """Channels that are alike, read by weights that spread: equal weights would spoil the activations."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,8,64] x, float[64] s, float[64,64] w) => (float[N,8,64] y) {
      t = Tanh(x)
      n = Mul(t, s)
      y = MatMul(n, w)
    }"""
    model = parse(text, ("s", "w"))
    held, rng = constants(model), np.random.default_rng(0)
    held["s"].values = np.ones(64, np.float32)
    held["w"].values = (held["w"].values * 10.0 ** rng.uniform(-1, 1, (64, 1))).astype(np.float32)
    found = step(optimized(model, words(1), "smooth-activations:alpha=0.0"), "smooth-activations")
    assert not found.edits


def test_factors_that_leave_the_range_are_refused() -> None:
    model = separable()
    held = constants(model)
    held["b1"].values = np.linspace(1.1e-38, 3e-38, 32).astype(np.float32)
    held["w1"].values = (
        held["w1"].values * np.geomspace(1e-6, 1e6, 32)[:, None, None, None]
    ).astype(np.float32)
    found = optimized(model, images(1), "equalize-channels:measured=false")
    whys = [skip.why for skip in step(found, "equalize-channels").skips]
    assert "a constant of Conv→c would leave the range of float32" in whys
    np.testing.assert_array_equal(outputs(found.model, images(2)), outputs(model, images(2)))


@dataclass(frozen=True)
class Blind:
    """Observes a model as it is, but none in which anything is rounded."""

    inner: Observer

    def __call__(self, model: Model, requests: Sequence[Any], **more: Any) -> Any:
        if any(node.op == "QuantizeLinear" for node in model.graph.nodes):
            raise NativeError("it cannot be run")
        return self.inner(model, requests, **more)

    def first(self, samples: int) -> Blind:
        return self


@pytest.mark.parametrize("made", [EqualizeChannels(), SplitOutliers(), SmoothActivations()])
def test_what_cannot_be_measured_is_not_done(made: Pass, native: Native) -> None:
    model, x = (
        (encoder(), words(1)) if made.name != "equalize-channels" else (separable(), images(1))
    )
    observe = Blind(Observer(native, Stream(lambda: [{"x": x}])))
    found = Stage([made], observe=observe).run(model)
    assert not found.edits
    assert "what rounding it loses cannot be measured" in found.skips[made.name].values()


def test_drawn_inputs_take_the_place_of_data() -> None:
    model = separable()
    found = graphopt.optimize(model, passes=["equalize-channels"], latency=False)
    assert step(found, "equalize-channels").edits
    assert found.report.verdict.verdict == "equal"


def test_a_pass_that_observes_begins_with_a_folded_graph() -> None:
    names = [p.name for p in Recipe.parse(["equalize-channels", "quantize-qdq"]).folded().passes]
    assert names == [*FOLDING, "equalize-channels", "quantize-qdq"]
    assert [p.name for p in Recipe.parse(["fold-batchnorm"]).folded().passes] == ["fold-batchnorm"]
    assert not {"equalize-channels", "smooth-activations"} & set(FOLDING)


def test_optimizing_twice_gives_the_same_bytes() -> None:
    passes = "equalize-channels", "smooth-activations"
    for model, x in ((separable(), images(1)), (encoder(), words(1))):
        once = optimized(model, x, *passes)
        twice = optimized(once.model, x, *passes)
        assert twice.model.to_bytes() == once.model.to_bytes()
        assert optimized(model, x, *passes).model.to_bytes() == once.model.to_bytes()


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="alpha is a share"):
        optimize(encoder(), passes=["smooth-activations:alpha=1.5"])
