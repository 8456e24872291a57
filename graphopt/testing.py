"""For the authors of passes: everything that a test of a pass needs.

A fixture is a text file of cases. Each case gives a model before and the graph after::

    === case: a batch normalization is folded into the convolution before it
    random: w, b
    --- before
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,3,8,8] x, float[4,3,3,3] w, ...) => (float[N,4,6,6] y) { ... }
    --- after
    y = Conv<...>(x, float32[4,3,3,3], float32[4])
    --- edits: 1
    --- skips: a part of a reason that must be given

``before`` is the ONNX text format (``onnx.parser``). Inputs named after ``random:`` become constants with
random contents (``positive:`` ones lie in [0.5, 1.5]); ``options: field=value,...`` sets the pass's
options. ``after`` is what ``graphopt.ir.text.canonical`` prints. ``check`` runs the pass and asserts what
every pass owes: the graph after, the number of edits, the reasons of refusals, a valid model, equal numbers
on several inputs, that a second run finds nothing, that the input stays as it was, and that edits survive a
replay one by one. The numbers of a lossy pass need not be equal; each of its cases says by ``within: 0.01``
how far outputs may lie from the original's, relative to their size, and that the outputs keep types and
shapes is asserted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

from graphopt.ir.costs import bytes_in_use
from graphopt.ir.model import Model
from graphopt.ir.text import canonical
from graphopt.lossy_pass import LossyPass
from graphopt.options import build, parse_choice
from graphopt.pass_base import Limits, Pass
from graphopt.quality.equivalence import Equivalence
from graphopt.runtime.evaluation import Evaluator
from graphopt.runtime.native import Native
from graphopt.stage import Stage

_CASE = re.compile(r"^=== case: *(.+)$", re.MULTILINE)
_PART = re.compile(r"^--- *(\w+)(?::[ \t]*(.*))?$", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """One case of a fixture."""

    name: str
    before: str
    after: str | None = None
    edits: int | None = None
    skips: tuple[str, ...] = ()
    random: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    within: float | None = None

    def __str__(self) -> str:
        return self.name


def read_cases(path: str | Path) -> list[Case]:
    """Read a fixture file.

    Raises:
        ValueError: the file has no case, or a case without ``before``.
    """
    pieces = _CASE.split(Path(path).read_text(encoding="utf-8"))[1:]
    cases = [
        _case(name.strip(), text) for name, text in zip(pieces[::2], pieces[1::2], strict=True)
    ]
    if not cases:
        raise ValueError(f"{path}: no case; start one with a line '=== case: its name'")
    return cases


def _case(name: str, text: str) -> Case:
    pieces = _PART.split(text)
    head = dict(re.findall(r"^(\w+): *(.*)$", pieces[0], re.MULTILINE))
    parts = [
        (pieces[i], pieces[i + 1] or "", pieces[i + 2].strip("\n"))
        for i in range(1, len(pieces), 3)
    ]
    bodies = {key: body for key, _, body in parts}
    if "before" not in bodies:
        raise ValueError(f"case {name!r} has no part '--- before'")
    edits = [int(value) for key, value, _ in parts if key == "edits"]
    return Case(
        name,
        bodies["before"],
        bodies.get("after"),
        edits[0] if edits else None,
        tuple(value for key, value, _ in parts if key == "skips"),
        _names(head.get("random", "")),
        _names(head.get("positive", "")),
        parse_choice(f"pass:{head.get('options', '')}")[1],
        float(head["within"]) if "within" in head else None,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def parse(text: str, random: tuple[str, ...] = (), positive: tuple[str, ...] = ()) -> Model:
    """A model from the ONNX text format.

    Args:
        text: what ``onnx.parser.parse_model`` reads.
        random: graph inputs to turn into constants with normally distributed values.
        positive: graph inputs to turn into constants with values in [0.5, 1.5].
    """
    proto = parser.parse_model(text)
    rng = np.random.default_rng(7)
    kept = []
    for info in proto.graph.input:
        if info.name not in (*random, *positive):
            kept.append(info)
            continue
        kind = info.type.tensor_type
        shape = [dim.dim_value for dim in kind.shape.dim]
        values = rng.random(shape) + 0.5 if info.name in positive else rng.standard_normal(shape)
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        proto.graph.initializer.append(
            numpy_helper.from_array(np.asarray(values).astype(dtype), info.name)
        )
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    return Model.load(proto)


def check(step: Pass, case: Case, native: Native, limits: Limits | None = None) -> None:
    """Run a pass on a case and assert all that every pass owes.

    Args:
        step: the pass, with its options.
        case: the case.
        native: a process to run models in; share one between cases.
        limits: what the pass may spend; more room for constants than in a real run by default.

    Raises:
        AssertionError: the pass does not do what the case says, or what every pass must.
    """
    if case.options:
        step = build(type(step), case.options)
    model = parse(case.before, case.random, case.positive)
    original = model.to_bytes()
    limits = limits or Limits(growth_bytes=1 << 20)
    stage = Stage([step], limits, Evaluator(native, 20.0))
    run = stage.run(model)
    assert model.to_bytes() == original, "the pass changed the model that it was given"
    printed = canonical(run.model)
    if case.after is not None:
        assert printed == case.after.strip("\n"), f"the graph after is\n{printed}"
    if case.edits is not None:
        shown = [f"{edit.node}: {edit.what}" for edit in run.edits]
        assert len(run.edits) == case.edits, f"{len(run.edits)} edits: {shown}"
    reasons = [why for whys in run.skips.values() for why in whys.values()]
    for wanted in case.skips:
        assert any(wanted in why for why in reasons), f"no refusal says {wanted!r}: {reasons}"
    onnx.checker.check_model(run.model.to_proto(), full_check=True)
    _check_numbers(step, case, Equivalence(model, native), run.model)
    if not (
        isinstance(step, LossyPass) and step.milder(0.5)
    ):  # one that takes a share goes on and on
        again = replace(stage, memo={}).run(run.model)
        assert not again.edits, f"a second run still finds {again.edits[0]}"
        assert again.model.to_bytes() == run.model.to_bytes(), "a second run gives other bytes"
    if step.exact:
        _check_replay(stage, model, len(run.edits), native)


def _check_numbers(step: Pass, case: Case, judge: Equivalence, result: Model) -> None:
    unread = result.weight_bytes() - bytes_in_use(result.scopes())
    assert step.exact or unread <= 0, f"{unread} bytes of constants are left that nothing reads"
    verdict = judge.judge(result)
    if step.exact or verdict.passed:
        assert verdict.passed, f"not proven equal: {verdict.why}"
        return
    assert case.within is not None, (
        "a case of a lossy pass must say how far off it may be (within:)"
    )
    assert "off by up to" in verdict.why, verdict.why  # the same types and shapes, finite numbers
    assert verdict.relative <= case.within, f"{verdict.relative:g} relative: {verdict.why}"


def _check_replay(stage: Stage, model: Model, edits: int, native: Native) -> None:
    """Each prefix of the edits must be a correct model too: that is what bisection relies on."""
    judge = Equivalence(model, native)
    for limit in range(1, edits + 1):
        partial = stage.run(model, limit=limit).model
        verdict = judge.judge(partial)
        assert verdict.passed, f"after edit {limit} of {edits}: {verdict.why}"
