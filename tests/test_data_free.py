"""Without data, lossy passes observe drawn inputs: better than none, and the user is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from graphopt.errors import NativeError
from graphopt.optimizer import Result, optimize
from graphopt.testing import parse

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "models" / "digits_cnn"
MODEL = DIGITS / "digits_cnn.onnx"


def accuracy(result: Result) -> float:
    session = onnxruntime.InferenceSession(
        result.model.to_bytes(), providers=["CPUExecutionProvider"]
    )
    with np.load(DIGITS / "digits_test.npz") as data:
        scores = session.run(None, {session.get_inputs()[0].name: data["x"]})[0]
        return float((scores.argmax(axis=1) == data["y"]).mean())


@pytest.fixture(scope="module")
def pruned() -> Result:
    return optimize(MODEL, passes=["prune-channels:amount=0.5"])


def test_drawn_inputs_are_far_better_than_none(pruned: Result) -> None:
    blind = optimize(MODEL, passes=["prune-channels:amount=0.5,importance=l2,refit=none"])
    assert accuracy(pruned) > 0.8
    assert accuracy(pruned) > accuracy(blind) + 0.3


def test_one_line_tells_that_there_is_no_data_and_what_was_used_instead(pruned: Result) -> None:
    told = [line for line in pruned.report.warnings if "--data" in line]
    assert len(told) == 1
    assert "drawn inputs" in told[0]
    assert "nothing judged" in told[0]
    assert pruned.report.data is None
    assert pruned.report.gate is None


def test_the_same_seed_gives_the_same_bytes(pruned: Result) -> None:
    again = optimize(MODEL, passes=["prune-channels:amount=0.5"])
    assert again.model.to_bytes() == pruned.model.to_bytes()


def test_another_seed_draws_other_inputs(pruned: Result) -> None:
    other = optimize(MODEL, passes=["prune-channels:amount=0.5"], seed=1)
    assert other.model.to_bytes() != pruned.model.to_bytes()


def test_nothing_is_drawn_where_nobody_observes(monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("inputs were drawn")

    monkeypatch.setattr("graphopt.execution.synthetic", refuse)
    assert optimize(MODEL).report.steps
    found = optimize(MODEL, passes=["quantize-weights"])
    assert any("nothing judged" in line for line in found.report.warnings)
    assert not any("drawn" in line for line in found.report.warnings)
    with np.load(DIGITS / "digits_calib.npz") as data:
        optimize(MODEL, passes=["prune-channels:refit=none"], data={"x": data["x"][:64]})


@pytest.mark.slow
def test_weights_go_by_drawn_inputs_too() -> None:
    found = optimize(MODEL, passes=["sparsify-weights:amount=0.8"])
    plain = optimize(MODEL, passes=["sparsify-weights:amount=0.8,method=magnitude,refit=false"])
    assert accuracy(found) > accuracy(plain) + 0.05


def test_where_observing_fails_weights_alone_decide(monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NativeError("no")

    monkeypatch.setattr("graphopt.runtime.observer.observe", fail)
    found = optimize(MODEL, passes=["prune-channels:amount=0.3"])
    step = found.report.steps[-1]
    assert step.status == "applied"
    assert any("no" in skip.why for skip in step.skips)


@pytest.mark.parametrize(
    "model",
    [
        "g (int64[N,6] ids) => (float[N,6,20] y) {"
        " e = Gather(table, ids) h = MatMul(e, w) r = Relu(h) y = MatMul(r, w) }",
        "g (float[0,20] x) => (float[0,20] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, w) }",
        "g (float[20] x, string[N] s) => (float[20] y, string[N] t) {"
        " h = MatMul(x, w) r = Relu(h) y = MatMul(r, w) t = Identity(s) }",
    ],
)
def test_models_of_other_inputs_are_pruned_too(model: str) -> None:
    rng = np.random.default_rng(0)
    constants = {"table": (10, 20), "w": (20, 20)}
    texts = [
        f"float[{rows},{columns}] {name} = {{"
        + ",".join(f"{v:.3f}" for v in rng.standard_normal(rows * columns))
        + "}"
        for name, (rows, columns) in constants.items()
    ]
    head, body = model.split(" {", 1)
    text = f'<ir_version: 8, opset_import: ["" : 17]>\n{head} <{", ".join(texts)}> {{{body}'
    found = optimize(parse(text), passes=["prune-channels:amount=0.3"])
    assert found.report.steps[-1].status in ("applied", "unchanged")
