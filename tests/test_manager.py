"""The pass manager: what is wrong is found, taken back and reported; the rest is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

import graphopt
from graphopt.ir.model import Model
from graphopt.ir.surgery import Scope, constant, new_constant, replace
from graphopt.ir.text import canonical
from graphopt.pass_base import Context, Edit, Pass, Skip
from graphopt.pass_manager import PassManager
from graphopt.quality.equivalence import Equivalence
from graphopt.recipe import Recipe
from graphopt.runtime.evaluation import Evaluator
from graphopt.testing import parse

CHAIN = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3] x) => (float[N,3] y)
<float a = {2}, float b = {3}, float c = {5}, float d = {7}>
{
  p = Add (x, a)
  q = Mul (p, b)
  r = Add (q, c)
  y = Mul (r, d)
}
"""


@dataclass(frozen=True)
class SubtractInstead(Pass):
    """Writes x + c as x - (-c), and gets the sign wrong for one constant."""

    name = "subtract-instead"
    wrong_for: float = 5.0

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        for node in context.nodes(graph, "Add"):
            value = constant(node.inputs[1])
            assert value is not None
            sign = 1 if value == self.wrong_for else -1
            negated = new_constant(graph, "negated", np.asarray(sign * value, np.float32))
            replace(node, "Sub", [node.inputs[0], negated])
            yield Edit(node, f"subtracts {sign * value}")


@dataclass(frozen=True)
class Broken(Pass):
    """Raises an error after its first edit."""

    name = "broken"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        for node in context.nodes(graph, "Mul"):
            yield Edit(node, "did nothing")
            raise RuntimeError("out of ideas")


def run(text: str, passes: list[Pass], native):
    model = parse(text)
    manager = PassManager(Equivalence(model, native), Evaluator(native, 20.0))
    return model, manager.run(model, passes)


def test_a_wrong_edit_is_found_and_taken_back_alone(native) -> None:
    _, outcome = run(CHAIN, [SubtractInstead()], native)
    assert [n.op for n in outcome.model.nodes()] == ["Sub", "Mul", "Add", "Mul"]
    (step,) = outcome.steps
    assert step.status == "eased"
    assert [e.what for e in step.edits] == ["subtracts -2.0"]
    (culprit,) = step.taken_back
    assert culprit.node == "Add→r"
    assert "output 'y'" in culprit.what
    assert outcome.verdict is not None
    assert outcome.verdict.passed


def test_only_the_wrong_pass_of_a_stage_suffers(native) -> None:
    text = CHAIN.replace(
        "y = Mul (r, d)", "s = Mul (r, d)\n  t = Constant <value_float = 1.0> ()\n  y = Mul (s, t)"
    )
    _, outcome = run(text, [SubtractInstead(2.0), *Recipe.parse(["lift-constants"]).passes], native)
    by_name = {step.name: step for step in outcome.steps}
    assert by_name["lift-constants"].status == "applied"
    assert by_name["subtract-instead"].status == "eased"


def test_a_pass_that_is_always_wrong_is_rolled_back(native) -> None:
    text = CHAIN.replace("{2}", "{5}")
    _, outcome = run(text, [SubtractInstead()], native)
    (step,) = outcome.steps
    assert step.status == "rolled back"
    assert len(step.taken_back) == 2
    assert not step.edits


def test_a_pass_that_raises_is_left_out(native) -> None:
    _, outcome = run(CHAIN, [Broken(), SubtractInstead(0.0)], native)
    by_name = {step.name: step for step in outcome.steps}
    assert by_name["broken"].status == "failed"
    assert by_name["broken"].error == "RuntimeError: out of ideas"
    assert by_name["subtract-instead"].status == "applied"


def test_the_input_model_is_untouched_and_runs_repeat(native) -> None:
    model, outcome = run(CHAIN, [SubtractInstead()], native)
    assert model.to_bytes() == parse(CHAIN).to_bytes()
    _, again = run(CHAIN, [SubtractInstead()], native)
    assert again.model.to_bytes() == outcome.model.to_bytes()


def test_a_change_of_shape_or_type_is_a_difference(native) -> None:
    model = parse(CHAIN)
    other = parse(
        CHAIN.replace("y = Mul (r, d)", "y = MatMul (r, e)").replace(
            "float d = {7}", "float[3,3] e = {1,0,0,0,1,0,0,0,1}"
        )
    )
    verdict = Equivalence(model, native).judge(other)
    assert verdict.passed is False
    assert "output 'y'" in verdict.why


@pytest.mark.parametrize("nan", [True, False])
def test_judging_knows_nan(native, nan) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3] x) => (float[N,3] y) { z = Sub (x, x)
      y = Div (z, z) }"""
    model = parse(text)
    other = parse(text if nan else text.replace("Div (z, z)", "Exp (z)"))
    assert Equivalence(model, native).judge(other).passed is nan


def test_canonical_text_hides_inner_names() -> None:
    renamed = CHAIN.replace("p = ", "inner = ").replace("(p,", "(inner,")
    assert renamed != CHAIN
    assert canonical(parse(CHAIN)) == canonical(parse(renamed))


def test_models_are_loaded_from_bytes_and_messages() -> None:
    model = parse(CHAIN)
    assert Model.load(model.to_bytes()).to_bytes() == model.to_bytes()
    assert Model.load(model.to_proto()).to_bytes() == model.to_bytes()


SHARED = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,64] x) => (float[N,4,16] y, float[N,16,4] z, float[N,2,32] w)
<int64[1] first = {0}, int64[1] a = {4}, int64[1] b = {16}>
{
  s = Shape (x)
  n = Gather (s, first)
  p = Concat <axis = 0> (n, a, b)
  q = Concat <axis = 0> (n, b, a)
  c = Div (b, a)
  h = Div (c, c)
  d = Add (h, h)
  e = Mul (b, d)
  r = Concat <axis = 0> (n, d, e)
  y = Reshape (x, p)
  z = Reshape (x, q)
  w = Reshape (x, r)
}
"""


def test_constants_never_outgrow_the_original_and_a_second_run_agrees() -> None:
    model = parse(SHARED)
    result = graphopt.optimize(model)
    assert result.model.weight_bytes() <= model.weight_bytes()
    reasons = [skip.why for step in result.report.steps for skip in step.skips]
    assert any("outgrow the original's" in why for why in reasons)
    assert result.report.verdict.verdict == "equal"
    once = result.model.to_bytes()
    assert graphopt.optimize(once).model.to_bytes() == once
    grown = graphopt.optimize(model, limits=graphopt.Limits(growth_bytes=1000))
    assert [node.op for node in grown.model.nodes()] == ["Reshape"] * 3
