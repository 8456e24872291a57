"""The pass as a whole: what it chooses, how it is eased, and what it says."""

from __future__ import annotations

import functools
import itertools
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from model_kinds import KINDS, samples
from onnx import TensorProto
from qdq_models import Arrays, build, feeds_of, initializers, run

from graphopt.errors import GraphoptError, NativeError, UsageError
from graphopt.ir.graph import Node
from graphopt.ir.model import Model
from graphopt.numerics.statistics import Ratio
from graphopt.optimizer import Result, optimize
from graphopt.outcome import Outcome
from graphopt.pass_manager import PassManager
from graphopt.passes.quantization._output_gaps import output_gap
from graphopt.passes.quantization._qdq import studying
from graphopt.passes.quantization._qdq.calibration import Method
from graphopt.passes.quantization._qdq.study import Study
from graphopt.passes.quantization._qdq.targets import TARGETS
from graphopt.passes.quantization.quantize_qdq import OnIntegers, QuantizeQdq
from graphopt.quality.data import DataOptions
from graphopt.quality.gate import Budget
from graphopt.recipe import Recipe
from graphopt.report import SpeedInfo, StepReport
from graphopt.runtime.cache import Cache
from graphopt.runtime.native import Native
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Stream
from graphopt.runtime.profiling import NodeSeconds
from graphopt.speed import Speed
from graphopt.stage import Stage

X86 = platform.machine() in ("x86_64", "AMD64")
"""Where ONNX Runtime takes activations with a sign for float ones: its kernels there want none."""

DIGITS = Path(__file__).parent.parent.parent / "models" / "digits_cnn"
MODEL = DIGITS / "digits_cnn.onnx"

US = 1e-6

FLOATS = {"Conv": 100, "MatMul": 80, "Gemm": 60}
"""Microseconds of operators on floats; others take 10."""


@dataclass
class Machine:
    """A machine whose integer kernels take a third of the time.

    Attributes:
        slow: operators whose integer kernels take thrice the time instead.
        missing: operators without an integer kernel.
        asked: how many models were asked for each time, and whether anew.
    """

    slow: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    asked: list[tuple[int, bool]] = field(default_factory=list)

    def __call__(self, models: Sequence[Model], anew: bool = False) -> list[list[NodeSeconds]]:
        self.asked.append((len(models), anew))
        return [list(self.rows(model)) for model in models]

    def rows(self, model: Model) -> Iterator[NodeSeconds]:
        for node in model.graph.nodes:
            op, seconds = self.kernel(node)
            if seconds:
                yield NodeSeconds(f"{node.name}_token", op, seconds * US)

    def kernel(self, node: Node) -> tuple[str, float]:
        before = node.inputs[0].inputs[0] if node.inputs and node.inputs[0].inputs else None
        if node.op == "DequantizeLinear":
            fused = all(self.integer(user) for user in node.outputs[0].outputs)
            constant = not node.inputs[0].inputs
            return node.op, 0 if constant or (fused and node.outputs[0].outputs) else 4
        if node.op == "QuantizeLinear":
            made = (
                before.inputs[0].inputs[0] if before and before.op in ("Relu", "Clip") else before
            )
            return node.op, 0 if made is not None and self.integer(made) else 4
        if node.op in ("Relu", "Clip") and before is not None and before.op in FLOATS:
            return node.op, 0
        floats = FLOATS.get(node.op, 10)
        if not self.integer(node):
            return node.op, floats
        return f"QLinear{node.op}", floats * 3 if node.op in self.slow else floats / 3

    def integer(self, node: Node) -> bool:
        known = (*TARGETS["ort-cpu"].linear, *TARGETS["ort-cpu"].arithmetic)
        if node.op not in known or node.op in self.missing:
            return False
        made = [
            tensor.inputs[0].op if tensor.inputs else "" for tensor in node.inputs if tensor.name
        ]
        return set(made) == {"DequantizeLinear"}


def told(claim: Any, ratio: float = 0.5) -> SpeedInfo:
    return SpeedInfo(Ratio(ratio, ratio - 0.01, ratio + 0.01), Ratio(1.0, 0.97, 1.03), claim)


def never(*models: Any, **more: Any) -> Any:
    raise AssertionError("something was timed")


BODY = """
  c = Conv<pads = [1,1,1,1]>(x, w, b)
  r = Relu(c)
  d = Conv<pads = [1,1,1,1]>(r, v)
  s = Add(d, r)
  p = GlobalAveragePool(s)
  f = Flatten(p)
  t = Tanh(f)
  y = Gemm(t, u, k)
"""
INPUTS = "float[1,4,6,6] x, float[16,4,3,3] w, float[16] b, float[16,16,3,3] v, float[16,30] u, float[30] k"
UNITS = {"c", "d", "s", "p", "y"}


def net(opset: int = 17, batch: str = "1") -> Model:
    inputs = INPUTS.replace("1,4,6,6", f"{batch},4,6,6")
    model = build(inputs, f"float[{batch},30] y", BODY, "w b v u k", opset=opset)
    for node in model.graph.nodes:
        node.name = node.outputs[0].name
    return model


def batches(model: Model, count: int = 6) -> list[Arrays]:
    return [feeds_of(model, seed) for seed in range(count)]


@functools.cache
def native_process() -> Native:
    return Native(seconds=30.0)


@pytest.fixture(scope="module", autouse=True)
def closing() -> Iterator[None]:
    yield
    native_process().close()


def observer(model: Model) -> Observer:
    given = batches(model)
    return Observer(native_process(), Stream(lambda: given))


def tried(
    model: Model,
    step: QuantizeQdq | None = None,
    *,
    measure: Any = None,
    race: Any = lambda before, after: told("faster"),
    observe: Any = None,
) -> Outcome:
    """The pass on a model, without a gate."""
    manager = PassManager(
        None, observe=observe or observer(model), measure=measure or Machine(), race=race
    )
    return manager.run(model, [step or QuantizeQdq()])


def on_integers(step: StepReport) -> dict[str, str]:
    """What the edits say of nodes on integers, by node."""
    return {edit.node: edit.what for edit in step.edits if "on 8-bit integers" in edit.what}


def stored(step: StepReport) -> set[str]:
    """The weights that are stored in 8 bits, by name."""
    told_of = (edit.what.split(" in 8 bits") for edit in step.edits if " in 8 bits" in edit.what)
    return {name for name, *_ in told_of}


def reasons(step: StepReport) -> dict[str, str]:
    return {skip.node: skip.why for skip in step.skips}


def off(before: Model, after: Model) -> float:
    """The largest relative error of the outputs over some inputs, as ONNX Runtime runs the models."""
    worst = 0.0
    for feeds in batches(before):
        wanted, _ = run(before.to_proto(), feeds)
        found, _ = run(after.to_proto(), feeds, optimized=True)
        for one, two in zip(wanted, found, strict=True):
            worst = max(worst, float(np.abs(two - one).max() / np.abs(one).max()))
    return worst


def test_what_is_faster_runs_on_integers() -> None:
    model = net()
    outcome = tried(model)
    (step,) = outcome.steps
    assert step.status == "applied"
    assert on_integers(step).keys() == UNITS
    proto = outcome.model.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    assert list(proto.graph.output) == list(model.to_proto().graph.output)
    assert off(model, outcome.model) < 0.05
    _, ops = run(proto, feeds_of(model), optimized=True)
    assert ops["QLinearConv"] == 2
    assert ops["QLinearAdd"] == ops["QLinearGlobalAveragePool"] == ops["QGemm"] == 1
    assert outcome.model.weight_bytes() < 0.35 * model.weight_bytes()


def test_the_report_has_a_row_for_every_unit() -> None:
    model = net()
    (step,) = tried(model).steps
    rows = {row.node: row for row in step.quantized}
    assert rows.keys() >= UNITS
    assert {rows[name].computes for name in UNITS} == {"integers"}
    assert rows["c"].precision == "u8s8 int8 per channel"
    assert rows["p"].precision == "u8 int8"
    seen = rows["c"].output
    assert seen is not None and seen.histogram is not None
    assert seen.low == 0.0  # a Relu is absorbed
    assert seen.high == pytest.approx((255 - seen.zero_point) * seen.scale)
    (weights,) = rows["c"].weights
    assert weights.bits == 8
    assert 35 < weights.sqnr_db < 60
    assert 0 < rows["c"].seconds_after < rows["c"].seconds_before
    (slow,) = tried(model, measure=Machine(slow=("Gemm",))).steps
    kept = {row.node: row for row in slow.quantized}["y"]
    assert kept.computes != "integers"
    assert "not faster" in kept.why


def test_edits_tell_the_times() -> None:
    (step,) = tried(net()).steps
    assert on_integers(step)["c"] == "Conv on 8-bit integers: 100 µs before, 33.3 µs after"
    assert step.speed is not None
    assert step.speed.ratio == told("faster").ratio
    # 100 + 100 + 60 + 10 + 10 + 10 on floats, of these all but Tanh on integers, but for a movement
    total = 100 + 100 + 10 + 10 + 10 + 10 + 60
    saved = (1 - 1 / 3) * (100 + 100 + 10 + 10 + 60)
    assert step.speed.predicted == pytest.approx(1 - saved / total, abs=0.02)


def test_what_is_slower_stays_on_floats_and_is_stored_in_8_bits() -> None:
    model = net()
    outcome = tried(model, measure=Machine(slow=("Conv", "Add")))
    (step,) = outcome.steps
    assert on_integers(step).keys() == {"y"}
    assert stored(step) == {"w", "v"}
    assert {name: reasons(step)[name] for name in "cd"} == dict.fromkeys(
        "cd", "on integers it is not faster here"
    )
    _, ops = run(outcome.model.to_proto(), feeds_of(model), optimized=True)
    assert ops["QLinearConv"] == 0
    assert ops["QGemm"] == 1
    assert off(model, outcome.model) < 0.05


def test_what_the_runtime_has_no_kernel_for_is_taken_back() -> None:
    (step,) = tried(net(), measure=Machine(missing=("Add",))).steps
    assert "s" not in on_integers(step)
    assert reasons(step)["s"] == "the runtime has no integer kernel for it here"


def test_nothing_is_done_where_all_of_it_would_be_slower() -> None:
    everything = ("Conv", "Gemm", "MatMul", *TARGETS["ort-cpu"].arithmetic)
    model = net()
    outcome = tried(model, measure=Machine(slow=everything))
    assert on_integers(outcome.steps[0]) == {}
    assert stored(outcome.steps[0]) == {"w", "v", "u"}
    assert off(model, outcome.model) < 0.05


def test_what_was_never_to_be_faster_is_not_timed() -> None:
    everything = ("Conv", "Gemm", "MatMul", *TARGETS["ort-cpu"].arithmetic)
    timed = []

    def race(before: Model, after: Model) -> SpeedInfo:
        timed.append(after)
        return told("no difference beyond noise", 1.0)

    (step,) = tried(net(), measure=Machine(slow=everything), race=race).steps
    assert (step.status, step.eased, timed) == ("applied", "", [])


@pytest.mark.parametrize(
    ("race", "said"),
    [
        (
            lambda before, after: told("slower", 1.2),
            "not faster on this machine: 1.200 of the time before",
        ),
        (
            lambda before, after: told("no difference beyond noise", 1.0),
            "not faster on this machine: 1.000 of the time before",
        ),
        (lambda before, after: SpeedInfo(why="no inputs"), "not known to be faster: no inputs"),
        (None, "not known to be faster: nothing here times models"),
    ],
)
def test_what_turns_out_not_to_be_faster_is_taken_back(race: Any, said: str) -> None:
    model = net()
    outcome = tried(model, race=race)
    (step,) = outcome.steps
    assert step.status == "eased"
    assert step.eased.startswith(f"without what was to be faster: {said}")
    assert on_integers(step) == {}
    assert stored(step) == {"w", "v", "u"}
    assert {edit.node for edit in step.taken_back} == UNITS
    assert all(said in edit.what for edit in step.taken_back)
    ops = {node.op for node in outcome.model.graph.nodes}
    assert not ops & {"QuantizeLinear", "DequantizeLinear"}
    assert outcome.model.weight_bytes() < 0.35 * model.weight_bytes()
    assert off(model, outcome.model) < 0.02


def test_times_that_cannot_be_had_are_told() -> None:
    def broken(models: Sequence[Model], anew: bool = False) -> Any:
        raise NativeError("the kernel is missing")

    asked = []

    def race(before: Model, after: Model) -> SpeedInfo:
        asked.append(after)
        return told("faster")

    (step,) = tried(net(), measure=broken, race=race).steps
    assert reasons(step)["the model"] == "its nodes cannot be timed: the kernel is missing"
    assert len(asked) == 1  # the result as a whole is timed


def test_a_strength_of_0_only_stores() -> None:
    model = net()
    outcome = tried(model, QuantizeQdq(strength=0.0), race=never)
    (step,) = outcome.steps
    assert (step.status, step.speed, on_integers(step)) == ("applied", None, {})
    assert stored(step) == {"w", "v", "u"}
    assert outcome.model.opset == model.opset
    assert off(model, outcome.model) < 0.02


def test_less_strength_puts_fewer_nodes_on_integers() -> None:
    model = net()
    memo: dict[Any, Any] = {}
    found = []
    for strength in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0):
        step = QuantizeQdq(strength=strength)
        stage = Stage([step], observe=observer(model), measure=Machine(), memo=memo)
        proposed = step.propose(stage.context(model))
        found.append({entry.where for entry in proposed if isinstance(entry, OnIntegers)})
    assert len(found[0]) == len(UNITS)
    assert found[-1] == set()
    assert all(less <= more for more, less in itertools.pairwise(found))
    assert len(set(map(frozenset, found))) >= 3


def test_what_is_known_of_a_model_is_found_out_once() -> None:
    model, machine = net(), Machine()
    step = QuantizeQdq()
    stage = Stage([step], observe=observer(model), measure=machine)
    for strength in (1.0, 0.5, 0.25):
        list(step.milder(strength).propose(stage.context(model)))
    first = len(machine.asked)
    list(step.unhurried().propose(stage.context(model)))
    assert len(machine.asked) == first
    assert machine.asked[0] == (3, False)


def studied(monkeypatch: pytest.MonkeyPatch, gap: Any) -> Study:
    """What is known of a model when the losses of whole choices are found in a way of one's own."""
    found: list[Study] = []
    original = studying.Studying.study
    monkeypatch.setattr(studying, "output_gap", gap)
    monkeypatch.setattr(
        studying.Studying, "study", lambda self: found.append(original(self)) or found[-1]
    )
    tried(net())
    return found[0]


def test_choices_are_weighed_as_wholes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, float]] = []

    def both(candidate: Model, original: Model, observe: Any) -> float:
        pairs = [
            [run(m.to_proto(), feeds, optimized=True)[0][0] for m in (candidate, original)]
            for feeds in batches(original)
        ]
        found, wanted = np.stack(pairs, axis=1).astype(np.float64)
        seen.append((output_gap(candidate, original, observe), ((found - wanted) ** 2).mean()))
        seen[-1] = (seen[-1][0], seen[-1][1] / wanted.var())
        return seen[-1][0]

    known = studied(monkeypatch, both)
    assert len(seen) >= 3
    for found, wanted in seen:
        assert 0 < found == pytest.approx(wanted, rel=0.05)
    wholes = known.evidence.wholes
    assert sorted(wholes.values()) == sorted([0.0, *(found for found, _ in seen)])
    assert [*map(wholes.get, known.path)] == sorted(map(wholes.get, known.path), reverse=True)


def test_a_choice_that_loses_less_than_a_slower_one_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The more is rounded, the less is lost: then only the fastest choice and none are left."""
    sizes: list[int] = []

    def fewer(candidate: Model, original: Model, observe: Any) -> float:
        sizes.append(sum(node.op == "QuantizeLinear" for node in candidate.graph.nodes))
        return 1.0 / sizes[-1]

    known = studied(monkeypatch, fewer)
    assert len(set(sizes)) >= 3
    assert [len(chosen) for chosen in known.path] == [max(map(len, known.evidence.wholes)), 0]


def test_losses_of_wholes_that_cannot_be_measured_are_foreseen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = studied(monkeypatch, lambda *_: np.inf)
    for chosen, loss in known.evidence.wholes.items():
        assert loss == pytest.approx(known.problem.loss(chosen))
    assert len(known.path) >= 3


def test_losses_are_measured_on_as_many_samples_as_the_model_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, asked, seen = net(), [], []
    first = Observer.first
    monkeypatch.setattr(studying, "samples_for", lambda macs, count: asked.append(macs) or 3)
    monkeypatch.setattr(Observer, "first", lambda self, n: seen.append(n) or first(self, n))
    tried(model)
    assert set(asked) == {16 * 4 * 9 * 36 + 16 * 16 * 9 * 36 + 16 * 30}
    assert seen.count(3) == len(asked) >= 3


def test_milder_ones_keep_what_they_are() -> None:
    step = QuantizeQdq(objective="latency", target="ort-cpu", ranges="mse", strength=0.8)
    assert step.milder(0.5) == QuantizeQdq(ranges="mse", strength=0.4)
    assert step.unhurried() == QuantizeQdq(ranges="mse", strength=0.0)


@pytest.mark.parametrize(
    ("step", "promises"),
    [
        (QuantizeQdq(), True),
        (QuantizeQdq(strength=0.0), False),
        (QuantizeQdq(objective="size"), False),
        (QuantizeQdq(target="tensorrt"), False),
    ],
)
def test_who_promises_speed(step: QuantizeQdq, promises: bool) -> None:
    assert step.promises_speed == promises


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "ort-cpu"])
def test_for_other_targets_nothing_is_timed(target: Any) -> None:
    model = net()
    outcome = tried(model, QuantizeQdq(target=target), measure=never, race=never)
    (step,) = outcome.steps
    assert step.status == "applied"
    assert {"c", "d", "y"} <= on_integers(step).keys()
    onnx.checker.check_model(outcome.model.to_proto(), full_check=True)
    assert off(model, outcome.model) < 0.05


def types(model: Model, op: str, place: int) -> set[int]:
    """The element types of the zero points of some nodes' constants."""
    proto = model.to_proto()
    known = {entry.name: entry for entry in proto.graph.initializer}
    made = {name: node for node in proto.graph.node for name in node.output}
    inputs = [node.input[place] for node in proto.graph.node if node.op_type == op]
    return {known[made[name].input[2]].data_type for name in inputs}


@pytest.mark.parametrize(
    ("step", "activations", "weights"),
    [
        (QuantizeQdq(activations="int8"), TensorProto.INT8, TensorProto.INT8),
        (QuantizeQdq(weights="uint8"), TensorProto.UINT8, TensorProto.UINT8),
        (QuantizeQdq(per_channel=False), TensorProto.UINT8, TensorProto.INT8),
        (QuantizeQdq(reduce_range=True), TensorProto.UINT8, TensorProto.INT8),
    ],
)
def test_types_that_are_asked_for(step: QuantizeQdq, activations: int, weights: int) -> None:
    model = net()
    result = tried(model, step).model
    assert (types(result, "Conv", 0), types(result, "Conv", 1)) == ({activations}, {weights})
    _, ops = run(result.to_proto(), feeds_of(model), optimized=True)
    assert ops["QLinearConv"] == (0 if step.activations == "int8" and X86 else 2)
    assert off(model, result) < 0.05
    values = initializers(result.to_proto())
    (steps,) = (array for name, array in values.items() if name.startswith("w_quantized"))
    far = np.abs(steps.astype(int) - (128 if step.weights == "uint8" else 0)).max()
    assert far == (63 if step.reduce_range else 127)
    (scale,) = (array for name, array in values.items() if name.startswith("w_scale"))
    assert scale.size == (16 if step.per_channel else 1)


@pytest.mark.parametrize("kind", ["int16", "uint16"])
def test_activations_of_16_bits(kind: Any) -> None:
    model = net()
    outcome = tried(model, QuantizeQdq(target="qnn", activations=kind), measure=never, race=never)
    assert outcome.model.opset == 21
    assert types(outcome.model, "Conv", 0) == {getattr(TensorProto, kind.upper())}
    onnx.checker.check_model(outcome.model.to_proto(), full_check=True)
    coarse = tried(model, QuantizeQdq(target="qnn"), measure=never, race=never)
    assert off(model, outcome.model) < 0.5 * off(model, coarse.model)


@pytest.mark.parametrize("ranges", sorted({*get_args(Method)} - {"auto"}))
def test_every_way_to_choose_ranges(ranges: Any) -> None:
    model = net()
    outcome = tried(model, QuantizeQdq(ranges=ranges))
    assert len(on_integers(outcome.steps[0])) == len(UNITS)
    assert off(model, outcome.model) < 0.15


@pytest.mark.parametrize("opset", [7, 12, 21])
def test_older_operator_sets_are_raised_where_something_is_quantized(opset: int) -> None:
    model = net(opset)
    outcome = tried(model)
    assert outcome.model.opset == max(opset, 13)
    assert len(on_integers(outcome.steps[0])) == len(UNITS)
    onnx.checker.check_model(outcome.model.to_proto(), full_check=True)
    assert off(model, outcome.model) < 0.05
    idle = tried(model, QuantizeQdq(strength=0.0))
    assert idle.model.opset == opset


def test_an_operator_set_that_cannot_be_raised_is_told() -> None:
    model = build(
        "float[1,4,6,6] x, float[4] s, float[16,4,3,3] w",
        "float[A,B,C,D] y",
        "h = Resize(x, s) y = Conv(h, w)",
        "w",
        opset=10,
    )
    given = [feeds | {"s": np.ones(4, np.float32)} for feeds in batches(model)]
    observe = Observer(native_process(), Stream(lambda: given))
    outcome = tried(model, observe=observe, measure=never)
    (step,) = outcome.steps
    assert "its scales are not known" in reasons(step)["the model"]
    assert (on_integers(step), stored(step), outcome.model.opset) == ({}, {"w"}, 10)


@pytest.mark.parametrize(
    "wrong", ["strength=2", "strength=-1", "target=abacus", "ranges=guess", "objective=fame"]
)
def test_options_that_make_no_sense(wrong: str) -> None:
    with pytest.raises(UsageError):
        Recipe.parse([f"quantize-qdq:{wrong}"])


def test_the_same_times_and_the_same_seed_give_the_same_bytes() -> None:
    first, second = (tried(net(), measure=Machine()).model.to_bytes() for _ in range(2))
    assert first == second


def test_without_anything_to_see_ranges_on_weights_are_stored() -> None:
    manager = PassManager(None, measure=Machine(), race=lambda before, after: told("faster"))
    (step,) = manager.run(net(), [QuantizeQdq()]).steps
    assert on_integers(step) == {}
    assert stored(step) == {"w", "v", "u"}
    assert reasons(step)["the model"] == "there is no data to see ranges on"


def test_a_model_with_nothing_to_quantize_says_so() -> None:
    (step,) = tried(build("float[4] x", "float[4] y", "y = Tanh(x)"), race=never).steps
    assert step.status == "unchanged"
    assert reasons(step)


def test_data_that_makes_nan_is_told() -> None:
    body = "l = Log(x) y = MatMul(l, w)"
    model = build("float[4,16] x, float[16,30] w", "float[4,30] y", body, "w")
    (step,) = tried(model).steps
    (why,) = reasons(step).values()
    assert why == "l: the data makes it NaN or infinite"
    assert (on_integers(step), stored(step)) == ({}, {"w"})


def test_what_the_data_never_moves_is_harmless() -> None:
    """Activations of zeros only, and layers of zeros."""
    body = "z = Mul(x, n) a = MatMul(z, w) r = Relu(a) y = MatMul(r, w)"
    model = build("float[4,16] x, float n, float[16,16] w", "float[4,16] y", body, "w", n=0)
    outcome = tried(model)
    assert outcome.steps[0].status in ("applied", "unchanged")
    found, _ = run(outcome.model.to_proto(), feeds_of(model), optimized=True)
    assert (found[0] == 0).all()


EDGES = {
    "minus infinity is added before a relu": (
        "float[4,16] x, float[16] c",
        "s = Add(x, c) y = Relu(s)",
        {"c": [-np.inf] + [0.0] * 15},
    ),
    "an infinite bias before a clip": (
        "float[1,4,6,6] x, float[16,4,3,3] w, float[16] b, float low, float high",
        "c = Conv(x, w, b) y = Clip(c, low, high)",
        {"w": 0.1, "b": [np.inf] + [0.0] * 15, "low": 0, "high": 6},
    ),
    "an activation that is held at an upper bound": (
        "float[4,16] x, float[16,16] w, float[16] b, float low, float high, float[16,16] v",
        "c = Gemm(x, w, b) h = Clip(c, low, high) y = MatMul(h, v)",
        {"w": 0.1, "b": 100, "low": 0, "high": 6, "v": np.eye(16)},
    ),
    "an activation that is held at a lower bound": (
        "float[4,16] x, float[16,16] w, float[16] b, float low, float high, float[16,16] v",
        "c = Gemm(x, w, b) h = Clip(c, low, high) y = MatMul(h, v)",
        {"w": 0.1, "b": -100, "low": -1, "high": 1, "v": np.eye(16)},
    ),
    "a channel of tiny weights": (
        "float[4,16] x, float[16,16] w",
        "y = MatMul(x, w)",
        {"w": np.where(np.arange(16) == 3, 1e-44 * (np.arange(16) % 2)[:, None], 0.5)},
    ),
}


@pytest.mark.parametrize("name", EDGES)
def test_numbers_at_the_edge_stop_nothing(name: str) -> None:
    inputs, body, given = EDGES[name]
    model = build(inputs, "float y", body, **given)
    outcome = tried(model)
    assert outcome.steps[0].status != "failed", outcome.steps[0].error


def test_a_pool_with_dilations_leaves_a_model_that_loads() -> None:
    body = "a = AveragePool<kernel_shape = [2,2], dilations = [1,1]>(x) y = Conv(a, w)"
    model = build("float[1,4,6,6] x, float[16,4,3,3] w", "float[1,16,3,3] y", body, "w", opset=19)
    assert off(model, tried(model).model) < 0.05


def test_a_column_of_biases_stays_one() -> None:
    inputs = "float[4,16] x, float[16,4] w, float[4,1] b"
    model = build(inputs, "float[4,4] y", "y = Gemm(x, w, b)", "w", b=[[9], [0], [0], [0]])
    assert off(model, tried(model).model) < 0.05


HOSTILE = {
    "no node": ("float[4] x", "float[4] x", "", {}),
    "an alias": ("float[4] x", "float[4] y", "y = Identity(x)", {}),
    "half floats": ("float16[4,16] x, float16[16,30] w", "float16[4,30] y", "y = MatMul(x, w)", {}),
    "doubles": ("double[4,16] x, double[16,30] w", "double[4,30] y", "y = MatMul(x, w)", {}),
    "short floats": (
        "bfloat16[4,16] z, bfloat16[16,30] w, float[4] x",
        "float[4] y",
        "y = Neg(x)",
        {},
    ),
    "integers": ("int32[4,16] x, int32[16,30] w", "int32[4,30] y", "y = MatMul(x, w)", {}),
    "quantized already": (
        "float[4,16] x, float[16,30] w, float s, uint8 k",
        "float[4,30] y",
        "q = QuantizeLinear(x, s, k) d = DequantizeLinear(q, s, k) y = MatMul(d, w)",
        {"s": 0.02, "k": 128},
    ),
    "bodies": (
        "float[4,16] x, float[16,16] w, float[16,16] v",
        "float[4,16] y",
        """
        h = MatMul(x, w)
        r = ReduceMax<keepdims = 0>(h)
        n = IsNaN(r)
        y = If(n) <
          then_branch = t () => (float[4,16] p) { p = Neg(h) },
          else_branch = e () => (float[4,16] q) { m = MatMul(h, v) q = Relu(m) }
        >
        """,
        {},
    ),
    "no elements": (
        "float[0,16] x, float[16,30] w",
        "float[0,30] y",
        "h = MatMul(x, w) y = Add(h, h)",
        {},
    ),
    "a free rank": (
        "float[4,16] x, int64[K] s, float[16,16] w",
        "float[A,B] y",
        "r = Reshape(x, s) y = MatMul(r, w)",
        {},
    ),
    "symbols": ("float[N,16] x, float[16,30] w", "float[N,30] y", "h = MatMul(x, w) y = Relu(h)", {}),
    "scalars": ("float x", "float y", "a = Add(x, x) y = Mul(a, x)", {}),
    "only constants": ("float[4] x, float[4] c, float[4] k", "float[4] y", "y = Add(c, k)", {}),
    "a weight that is returned": (
        "float[4,16] x, float[16,30] w",
        "float[4,30] y, float[16,30] z",
        "y = MatMul(x, w) z = Identity(w)",
        {},
    ),
    "a sequence": (
        "float[4,16] x, float[16,30] w",
        "float[8,30] y",
        "h = MatMul(x, w) q = SequenceConstruct(h, h) y = ConcatFromSequence<axis = 0>(q)",
        {},
    ),
    "text": ("float[4,16] x, float[16,30] w", "float[4,30] y, string[4] z",
             "y = MatMul(x, w) l = ReduceMax<axes = [1], keepdims = 0>(y) z = Cast<to = 8>(l)", {}),
}  # fmt: skip


WITHOUT_DATA = ("no elements", "a free rank", "scalars", "text")


@pytest.mark.parametrize("name", HOSTILE)
def test_strange_models_are_no_accident(name: str, fast: Machine) -> None:
    inputs, outputs, body, given = HOSTILE[name]
    random = " ".join(n for n in ("w", "v", "c", "k") if f"] {n}" in inputs and n not in given)
    model = build(inputs, outputs, body, random, **given)
    data = None
    if name not in WITHOUT_DATA:
        each = [feeds_of(model, seed) for seed in range(8)]
        data = {key: np.concatenate([feeds[key] for feeds in each]) for key in each[0]}
    try:
        result = optimize(model, passes=["quantize-qdq"], data=data)
    except (
        GraphoptError
    ) as error:  # one line that says that the data does not fit, and no traceback
        assert "\n" not in str(error)
        assert name == "short floats"
        return
    step = result.report.steps[-1]
    assert step.name == "quantize-qdq"
    assert step.status in ("applied", "unchanged", "eased", "rolled back"), step.error
    onnx.checker.check_model(result.model.to_proto(), full_check=True)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine on which integers pay, and races that bear it out."""
    machine = Machine()
    monkeypatch.setattr(Speed, "nodes", lambda self, native, cache: machine)
    monkeypatch.setattr(Speed, "race", lambda self, before, after: told("faster"))
    return machine


@functools.cache
def digits_data() -> DataOptions:
    """A few samples to calibrate with, and others to judge with."""
    with (
        np.load(DIGITS / "digits_calib.npz") as known,
        np.load(DIGITS / "digits_test.npz") as other,
    ):
        calibration = {"x": known["x"][:64]}
        return DataOptions(
            calibration=calibration, evaluation={"x": other["x"], "y": other["y"]}, labels="y"
        )


def digits(passes: str = "quantize-qdq", source: Any = MODEL) -> Result:
    return optimize(source, passes=[passes], data=digits_data(), budget=Budget(0.01))


def accuracy(model: Model) -> float:
    with np.load(DIGITS / "digits_test.npz") as data:
        (scores,), _ = run(model.to_proto(), {"x": data["x"]}, optimized=True)
        return float((scores.argmax(axis=1) == data["y"]).mean())


def test_digits_run_on_integers_and_are_read_as_well(fast: Machine) -> None:
    result = digits()
    step = result.report.steps[-1]
    assert step.status == "applied"
    assert sum("Conv on" in what for what in on_integers(step).values()) == 9
    proto = result.model.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    before = onnx.load(MODEL).graph
    assert (list(proto.graph.input), list(proto.graph.output)) == (
        list(before.input),
        list(before.output),
    )
    _, ops = run(proto, {"x": np.zeros((1, 1, 8, 8), np.float32)}, optimized=True)
    assert ops["QLinearConv"] == 9
    assert accuracy(result.model) > 0.985
    assert result.report.simplification is not None
    assert result.report.simplification < 0.4
    assert result.report.gate is not None
    assert result.report.gate.metric.startswith("top1")

    again = digits()
    assert again.model.to_bytes() == result.model.to_bytes()

    more = digits(source=result.model)
    step = more.report.steps[-1]
    assert on_integers(step) == {}
    assert "it reads what is quantized already" in reasons(step).values()
    assert accuracy(more.model) == accuracy(result.model)


def test_digits_on_the_machine_at_hand() -> None:
    """Whatever is measured, what is claimed was, and nothing stays on integers that is not faster."""
    result = digits()
    step = result.report.steps[-1]
    assert step.status in ("applied", "eased")
    assert accuracy(result.model) > 0.985
    if on_integers(step):
        assert step.speed is not None
        assert step.speed.faster
    else:
        ops = {node.op for node in result.model.graph.nodes}
        assert not ops & {"QuantizeLinear", "DequantizeLinear"}
    assert result.report.simplification is not None
    assert result.report.simplification < 0.4


def test_digits_whose_race_is_lost_stay_on_floats(
    fast: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Speed, "race", lambda self, before, after: told("slower", 1.1))
    result = digits()
    step = result.report.steps[-1]
    assert step.status == "eased"
    assert "not faster on this machine: 1.100 of the time before" in step.eased
    assert on_integers(step) == {}
    assert step.taken_back
    ops = {node.op for node in result.model.graph.nodes}
    assert not ops & {"QuantizeLinear", "DequantizeLinear"}
    assert accuracy(result.model) > 0.985


def test_digits_with_a_strength_of_0(monkeypatch: pytest.MonkeyPatch, fast: Machine) -> None:
    monkeypatch.setattr(Speed, "race", never)
    result = digits("quantize-qdq:strength=0")
    step = result.report.steps[-1]
    assert (step.status, on_integers(step)) == ("applied", {})
    assert len(stored(step)) == 10
    assert accuracy(result.model) > 0.985


def check_drawn(result: Result) -> None:
    """That the user is told what came in the place of data."""
    assert result.report.steps[-1].status == "applied"
    (told_of,) = [line for line in result.report.warnings if "--data" in line]
    assert "drawn inputs" in told_of
    assert "nothing judged" in told_of
    assert result.report.gate is None


def test_without_data_drawn_inputs_are_gone_by(fast: Machine) -> None:
    model = net(batch="N")
    result = optimize(model, passes=["quantize-qdq"])
    check_drawn(result)
    assert on_integers(result.report.steps[-1]).keys() >= {"c", "d", "y"}
    assert off(model, result.model) < 0.1


@pytest.mark.slow
def test_digits_without_data(fast: Machine) -> None:
    result = optimize(MODEL, passes=["quantize-qdq"])
    check_drawn(result)
    assert len(on_integers(result.report.steps[-1])) > 9
    assert accuracy(result.model) > 0.9


def fragile() -> tuple[Model, dict[str, np.ndarray]]:
    """A classifier whose input has some huge features without use: 8 bits of all lose the others."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((16, 32)) / 4
    weights[8:] = 0
    model = build(
        "float[N,16] x, float[16,32] w, float[32,32] v, float[32,8] u",
        "float[N,8] y",
        "a = MatMul(x, w) h = Relu(a) b = MatMul(h, v) g = Relu(b) y = MatMul(g, u)",
        "u",
        w=weights,
        v=rng.standard_normal((32, 32)) / 4,
    )
    for node in model.graph.nodes:
        node.name = node.outputs[0].name
    x = rng.standard_normal((600, 16)) * np.where(np.arange(16) < 8, 1.0, 1000.0)
    x = x.astype(np.float32)
    (scores,), _ = run(model.to_proto(), {"x": x})
    return model, {"x": x, "label": scores.argmax(axis=1)}


def test_a_layer_that_8_bits_ruin_stays_on_floats(fast: Machine) -> None:
    model, data = fragile()
    source = DataOptions(source=data, labels="label")
    result = optimize(model, passes=["quantize-qdq"], data=source, budget=Budget(0.05))
    step = result.report.steps[-1]
    assert step.status == "eased"
    assert on_integers(step).keys() == {"b", "y"}
    assert reasons(step)["a"] == "what rounding it loses is dear for the time that it saves"
    assert result.report.gate is not None
    assert result.report.gate.drop is not None
    assert result.report.gate.drop <= 0.05
    everything = optimize(model, passes=["quantize-qdq"], data=source, budget=Budget(None))
    assert on_integers(everything.report.steps[-1]).keys() == {"a", "b", "y"}
    (found,), _ = run(everything.model.to_proto(), {"x": data["x"]}, optimized=True)
    assert (found.argmax(axis=1) == data["label"]).mean() < 0.9


def test_the_cache_of_a_run_spares_nothing_that_matters(fast: Machine, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    model, data = fragile()
    first, second = (
        optimize(
            model, passes=["quantize-qdq"], data=data, budget=Budget(None), cache=cache, seed=3
        )
        for _ in range(2)
    )
    assert first.model.to_bytes() == second.model.to_bytes()


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]


@pytest.mark.parametrize("kind", ["vit", "bert", "lstm"])
def test_models_of_the_kinds_that_people_have(kind: str) -> None:
    """All that has a kernel on integers, whatever it loses."""
    model = Model.load(KINDS[kind](1).SerializeToString())
    given = [samples(kind, 1, seed) for seed in range(2)]
    observe = Observer(native_process(), Stream(lambda: given))
    outcome = tried(model, QuantizeQdq(objective="size", ranges="minmax"), observe=observe)
    (step,) = outcome.steps
    assert step.status == "applied", step.error
    assert on_integers(step)
    onnx.checker.check_model(outcome.model.to_proto(), full_check=True)
    assert outcome.model.weight_bytes() < 0.45 * model.weight_bytes()
    for feeds in given:
        wanted, _ = run(model.to_proto(), feeds)
        found, _ = run(outcome.model.to_proto(), feeds, optimized=True)
        for one, two in zip(wanted, found, strict=True):
            cosine = (one * two).sum() / np.linalg.norm(one) / np.linalg.norm(two)
            assert cosine > (0.5 if kind == "bert" else 0.9)  # a mask of -10000 ruins attention


@pytest.mark.parametrize("kind", SLOW)
def test_the_gate_holds_for_all_kinds(kind: str, fast: Machine) -> None:
    model = Model.load(KINDS[kind](1).SerializeToString())
    data = DataOptions(calibration=samples(kind, 32, 1), evaluation=samples(kind, 64, 2))
    result = optimize(model, passes=["quantize-qdq"], data=data, budget=Budget(0.02))
    step = result.report.steps[-1]
    assert step.status in ("applied", "eased")
    assert result.report.gate is not None
    assert result.report.gate.drop is not None
    assert result.report.gate.drop <= 0.02
    assert result.model.weight_bytes() < 0.6 * model.weight_bytes()
