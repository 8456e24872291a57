"""The objective latency: widths from measured tables, and a promise of speed that timing must bear out."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from graphopt.errors import NativeError
from graphopt.ir.channels import ChannelGroup, find_groups
from graphopt.ir.frames import Frame
from graphopt.ir.graph import Constant, Node
from graphopt.ir.model import Model
from graphopt.lossy_pass import Choice
from graphopt.numerics.statistics import Ratio, Spread
from graphopt.optimizer import optimize
from graphopt.pass_manager import PassManager
from graphopt.passes.pruning._channels.attribution import Work, attribute
from graphopt.passes.pruning._channels.latency import LatencyCosts
from graphopt.passes.pruning._channels.objectives import multiples_of
from graphopt.passes.pruning.prune_channels import Cut, PruneChannels
from graphopt.report import LatencyInfo, SpeedInfo, StepReport
from graphopt.report.html import render_html
from graphopt.report.terminal import render_report
from graphopt.runtime.profiling import NodeSeconds
from graphopt.speed import slower
from graphopt.stage import Stage
from graphopt.testing import parse

CNN = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1,3,8,8] x, float[32,3,3,3] w0, float[32,32,3,3] w1, float[48,32,3,3] w2, float[10,48,1,1] w3,
   float[32,1,3,3] d) => (float[1,10,8,8] y) {
  a = Conv<pads = [1,1,1,1]>(x, w0)
  b = Relu(a)
  c = Conv<pads = [1,1,1,1]>(b, w1)
  e = Conv<pads = [1,1,1,1], group = 32>(c, d)
  s = Add(b, e)
  f = Conv<pads = [1,1,1,1]>(s, w2)
  r = Relu(f)
  y = Conv(r, w3)
}"""

HEADS = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1,5,24] x, float[24,24] q, float[24,24] k, float[24,24] v, float[24,24] o, float[24,40] u,
   float[40,24] w, int64[4] split, int64[3] joined) => (float[1,5,24] y) {
  xq = MatMul(x, q)
  xk = MatMul(x, k)
  xv = MatMul(x, v)
  rq = Reshape(xq, split)
  rk = Reshape(xk, split)
  rv = Reshape(xv, split)
  tq = Transpose<perm = [0,2,1,3]>(rq)
  tk = Transpose<perm = [0,2,3,1]>(rk)
  tv = Transpose<perm = [0,2,1,3]>(rv)
  scores = MatMul(tq, tk)
  p = Softmax<axis = -1>(scores)
  c = MatMul(p, tv)
  tc = Transpose<perm = [0,2,1,3]>(c)
  rc = Reshape(tc, joined)
  z = MatMul(rc, o)
  h = MatMul(z, u)
  hr = Relu(h)
  y = MatMul(hr, w)
}"""


def cnn() -> Model:
    return parse(CNN, ("w0", "w1", "w2", "w3", "d"))


def transformer() -> Model:
    model = parse(HEADS, ("q", "k", "v", "o", "u", "w", "split", "joined"))
    for constant in model.constants():
        if constant.name == "split":
            constant.values = np.array([1, 5, 3, 8])
        if constant.name == "joined":
            constant.values = np.array([1, 5, 24])
    return model


def weight_of(node: Node) -> tuple[int, ...]:
    """The shape of a node's weight, stored or made by ConstantOfShape."""
    weight = node.inputs[1]
    if isinstance(weight, Constant):
        return weight.shape
    (made,) = weight.inputs
    if made.op != "ConstantOfShape":  # a product of activations
        return (8, 8)
    return tuple(int(size) for size in made.inputs[0].values)


@dataclass
class Kernels:
    """A machine whose kernels take time in proportion to whole blocks, and four times that off them."""

    block: int = 8
    asked: list[Model] = field(default_factory=list)

    def __call__(self, models: Sequence[Model]) -> list[list[NodeSeconds]]:
        self.asked += models
        return [list(self.nodes(model)) for model in models]

    def nodes(self, model: Model) -> Iterator[NodeSeconds]:
        for node in model.graph.nodes:
            if node.op in ("Conv", "MatMul"):
                yield NodeSeconds(node.name, node.op, self.seconds(weight_of(node)))
            elif node.op not in ("ConstantOfShape", "Constant"):
                yield NodeSeconds(node.name, node.op, 1e-6)

    def seconds(self, shape: tuple[int, ...]) -> float:
        widths = [-(-size // self.block) * self.block for size in shape[:2]]
        aligned = all(size % self.block == 0 for size in shape[:2] if size > self.block)
        return float(np.prod(widths) * np.prod(shape[2:]) * 1e-8 * (1 if aligned else 4))


def told(claim: Any, ratio: float = 0.5) -> SpeedInfo:
    return SpeedInfo(Ratio(ratio, ratio - 0.01, ratio + 0.01), Ratio(1.0, 0.97, 1.03), claim)


def groups_of(model: Model) -> list[ChannelGroup]:
    return [group for group in find_groups(model) if not group.locked]


def costs(model: Model, measure: Any = None) -> LatencyCosts:
    context = Stage([]).context(model)
    frame = Frame.of(model, context.facts)
    return LatencyCosts(model, frame, groups_of(model), measure or Kernels())


def cuts(step: PruneChannels, model: Model, measure: Any) -> list[Cut]:
    found = step.propose(Stage([step], measure=measure).context(model))
    return [choice for choice in found if isinstance(choice, Cut)]


def run(model: Model, race: Any, objective: Any = "latency", measure: Any = None) -> Any:
    step = PruneChannels(objective=objective, amount=0.4, importance="l2")
    manager = PassManager(None, measure=measure or Kernels(), race=race)
    return manager.run(model, [step])


@pytest.mark.parametrize("multiple", [None, 1, 8])
def test_widths_that_are_slow_are_not_chosen(multiple: int | None) -> None:
    model = cnn()
    step = PruneChannels(objective="latency", amount=0.5, importance="l2", multiple=multiple)
    found = cuts(step, model, Kernels())
    assert found
    assert all(len(cut.keep) % 8 == 0 for cut in found)


def test_the_amount_is_the_share_of_the_time() -> None:
    model, measure = cnn(), Kernels()
    for amount in (0.2, 0.4, 0.6):
        step = PruneChannels(objective="latency", amount=amount, importance="l2", floor=0.01)
        assert sum(cut.saving for cut in cuts(step, model, measure)) >= amount - 1e-9
    outcome = run(model, lambda before, after: told("faster"), measure=measure)
    before, after = (
        sum(node.seconds for node in measure.nodes(entry)) for entry in (model, outcome.model)
    )
    predicted = outcome.steps[0].speed.predicted
    assert predicted <= 0.6
    assert predicted == pytest.approx(after / before, abs=0.02)


def test_the_cost_depends_on_the_widths_alone() -> None:
    found = costs(cnn())
    rng = np.random.default_rng(0)
    for _ in range(20):
        widths = rng.integers(1, found.full + 1)
        together = found.in_turn(widths).sum()
        now, backwards = found.full.copy(), 0.0
        for group in reversed(range(len(widths))):
            then = now.copy()
            then[group] = widths[group]
            backwards += found.savings(now, then)[group]
            now = then
        assert together == pytest.approx(backwards, rel=1e-9)
        assert 0 <= together < found.total


def test_equal_layers_are_measured_once_and_as_often_as_there_are_levels() -> None:
    measure = Kernels()
    costs(cnn(), measure)
    *excerpts, whole = measure.asked
    assert len({model.to_bytes() for model in excerpts}) == len(excerpts)
    assert len(whole.graph.nodes) == 8
    # w0, d: 4 widths each; w2: 4 x 6, among which all of w1 are; w3: 6
    assert len(excerpts) == 4 + 4 + 24 + 6


def test_tables_are_scaled_to_what_the_nodes_take_in_the_model() -> None:
    class Slower(Kernels):
        def nodes(self, model: Model) -> Iterator[NodeSeconds]:
            factor = 3.0 if len(model.graph.nodes) == 8 else 1.0
            for node in super().nodes(model):
                yield NodeSeconds(node.name, node.op, node.seconds * factor)

    once, thrice = costs(cnn()), costs(cnn(), Slower())
    assert thrice.total == pytest.approx(3 * once.total)
    widths = once.full // 2
    assert thrice.in_turn(widths) == pytest.approx(3 * once.in_turn(widths))


def test_a_layer_that_leaves_the_blocked_layout_pays_for_its_neighbours() -> None:
    class Blocked(Kernels):
        def nodes(self, model: Model) -> Iterator[NodeSeconds]:
            yield from super().nodes(model)
            node = model.graph.nodes[-1]
            if len(model.graph.nodes) < 8 and weight_of(node)[1] >= 16:
                yield NodeSeconds("in", "ReorderInput", 1e-4)

    plain, charged = costs(cnn()), costs(cnn(), Blocked())
    narrow = plain.full.copy()
    narrow[:] = 8
    assert charged.in_turn(narrow).sum() < plain.in_turn(narrow).sum()
    wide = plain.full - 8
    assert charged.in_turn(wide) == pytest.approx(plain.in_turn(wide))


def test_heads_are_counted_in_channels() -> None:
    model = transformer()
    groups = groups_of(model)
    heads = [group.unit == "head" for group in groups]
    assert any(heads)
    assert not all(heads)
    found = multiples_of(model, groups, None)
    assert {m for m, head in zip(found, heads, strict=True) if head} == {1}
    assert 8 in found
    assert set(multiples_of(model, groups, 1)) == {1}
    assert 16 in multiples_of(model, groups, 16)


def test_a_transformer_is_measured_with_its_products_of_activations() -> None:
    found = costs(transformer())
    gains = found.savings(found.full, np.maximum(found.full // 2, 1))
    assert (gains > 0).all()
    assert gains.sum() < found.total


def test_what_is_not_faster_is_rolled_back_with_the_figures() -> None:
    model = cnn()
    outcome = run(model, lambda before, after: told("no difference beyond noise", 1.01))
    (step,) = outcome.steps
    assert step.status == "rolled back"
    assert outcome.model is model
    assert not outcome.lossy
    assert "not faster on this machine: 1.010 of the time before (1.000 to 1.020" in step.eased
    assert "0.970 to 1.030" in step.eased
    assert step.taken_back
    assert not step.edits
    assert step.speed.claim == "no difference beyond noise"


def test_what_is_faster_is_kept_with_what_was_predicted_and_measured() -> None:
    model = cnn()
    seen: list[tuple[Model, Model]] = []

    def race(before: Model, after: Model) -> SpeedInfo:
        seen.append((before, after))
        return told("faster", 0.61)

    outcome = run(model, race)
    (step,) = outcome.steps
    assert step.status == "applied"
    assert step.speed.ratio.median == 0.61
    assert 0 < step.speed.predicted <= 0.6
    assert seen == [(model, outcome.model)]


def test_what_cannot_be_timed_is_rolled_back() -> None:
    (step,) = run(cnn(), None).steps
    assert step.status == "rolled back"
    assert step.eased == "not known to be faster: nothing here times models"
    (step,) = run(cnn(), lambda before, after: SpeedInfo(why="no inputs")).steps
    assert step.eased == "not known to be faster: no inputs"


@pytest.mark.parametrize("objective", ["macs", "params", "size"])
def test_nothing_is_timed_where_nothing_is_promised(objective: str) -> None:
    def never(*models: Any) -> Any:
        raise AssertionError("something was timed")

    (step,) = run(cnn(), never, objective, never).steps
    assert step.status == "applied"
    assert step.speed is None


def test_without_measurements_nothing_is_cut_and_it_is_said() -> None:
    step = PruneChannels(objective="latency", importance="l2")
    (only,) = [s for s in step.propose(Stage([step]).context(cnn())) if "measure" in s.why]
    assert only.node == "the model"

    def broken(models: Sequence[Model]) -> Any:
        raise NativeError("the kernel is missing")

    found = list(step.propose(Stage([step], measure=broken).context(cnn())))
    assert not [entry for entry in found if isinstance(entry, Choice)]
    assert any("the kernel is missing" in entry.why for entry in found)


def test_shapes_that_are_not_proven_are_no_reason_to_guess() -> None:
    text = CNN.replace("float[1,3,8,8] x", "float[1,3,H,W] x0, int64[4] sizes").replace(
        "  a = Conv", "  x = Resize(x0, , , sizes)\n  a = Conv"
    )
    model = parse(
        text.replace("float[1,10,8,8] y", "float[1,10,P,Q] y"), ("w0", "w1", "w2", "w3", "d")
    )
    step = PruneChannels(objective="latency", importance="l2")
    found = list(step.propose(Stage([step], measure=Kernels()).context(model)))
    assert [entry.why for entry in found if entry.label == "the model"] == [
        "no layer that a group narrows has proven shapes"
    ]


def test_the_time_of_a_profile_goes_to_the_nodes_that_it_stands_for() -> None:
    profile = [
        NodeSeconds("fused", "FusedConv", 6.0),
        NodeSeconds("softmax", "Softmax", 2.0),
        NodeSeconds("reorder", "ReorderInput", 1.0),
        NodeSeconds("gone", "Gelu", 0.5),
    ]
    works = [
        Work("Conv", 100, 10, 1.0),
        Work("Conv", 200, 10),
        Work("Softmax", 0, 30),
        Work("Softmax", 0, 10),
        Work("Relu", 0, 10),
        Work("Add", 0, 20),
    ]
    found = attribute(profile, works)
    assert found.seconds == pytest.approx((2.0, 4.0, 1.5, 0.5, 0.5, 1.0))
    assert found.rest == 0
    assert found.total == pytest.approx(9.5)
    assert attribute(profile, []).rest == pytest.approx(9.5)
    assert attribute([], works).total == 0


def latency(claim: Any) -> LatencyInfo:
    spread, ratio = Spread(1.0, 1.0, 1.0), Ratio(1.163, 1.15, 1.18)
    return LatencyInfo("cpu", 1, 9, spread, spread, ratio, Ratio(1.0, 0.99, 1.01), claim)


def test_fewer_macs_that_take_longer_are_warned_of() -> None:
    (step,) = run(cnn(), None, "macs").steps
    passes = [PruneChannels(amount=0.4, multiple=1)]
    (line,) = slower(latency("slower"), passes, [step])
    assert line == (
        "fewer multiply-accumulates, but slower on this machine: 1.163 of the original's time; "
        "widths in multiples of 8 (prune-channels:multiple=8) usually mend that"
    )
    assert slower(latency("faster"), passes, [step]) == []
    assert slower(latency("slower"), passes, [StepReport("fold", "applied", True, {})]) == []
    (plain,) = slower(latency("slower"), [PruneChannels(multiple=16)], [step])
    assert "multiples" not in plain


def test_the_report_shows_both_ratios() -> None:
    (step,) = run(cnn(), lambda before, after: told("faster", 0.61)).steps
    found = replace(optimize(cnn(), passes=["eliminate-identity"]).report, steps=[step])
    console = Console(width=200, file=io.StringIO())
    console.print(render_report(found))
    assert isinstance(console.file, io.StringIO)
    assert "prune-channels is faster: 0.610 of the time before" in console.file.getvalue()
    assert "predicted 0." in render_html(found)
    assert type(found).from_json(found.to_json()).steps[0].speed == step.speed
