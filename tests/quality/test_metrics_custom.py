"""Metrics that are functions of the user's own: what they are given, what they may return, how they fail."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.quality.metrics import KINDS, Metric, Observed, parse_metric
from graphopt.testing import parse

MODEL = parse(
    '<ir_version: 8, opset_import: ["" : 17]>\ng (float[N,1] x) => (float[N,1] y) { y = Sigmoid(x) }'
)


def said(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_metric(text, MODEL)
    assert "\n" not in str(caught.value)
    return str(caught.value)


FUNCTIONS = """
import numpy as np
import neighbour

def score(outputs, labels):
    return (outputs["y"][:, 0] > 0.5) == labels

def size(outputs):
    return neighbour.mean(np.abs(outputs["y"]))

def gap(outputs, labels, reference):
    assert labels is None
    return np.abs(outputs["y"] - reference["y"]).mean(axis=1)

def anything(*given):
    return float(len(given))

def with_option(outputs, labels, scale=2.0):
    return np.full(len(labels), scale)

class Scorer:
    def __call__(self, outputs, labels):
        return np.ones(len(labels), np.float16)

scorer = Scorer()

def wrong(outputs, labels):
    return outputs["nothing"]

def leaves(outputs, labels):
    raise SystemExit(3)

def multi(outputs, labels):
    raise ValueError("two\\nlines")

def nan(outputs, labels):
    return np.log(outputs["y"][:, 0] * 0 - 1) if False else np.full(len(labels), np.nan)

def text(outputs, labels): return "good"
def nothing(outputs, labels): return None
def ragged(outputs, labels): return [[1], [1, 2]]
def table(outputs, labels): return np.ones((len(labels), 2))
def short(outputs, labels): return np.ones(1)
def none(): return 1
def four(a, b, c, d): return 1
number = 3
"""


@pytest.fixture
def functions(tmp_path):
    (tmp_path / "neighbour.py").write_text("def mean(x):\n    return x.mean()\n")
    file = tmp_path / "own.py"
    file.write_text(FUNCTIONS)
    return file


def batch(labels=None, y=((0.9,), (0.2,), (0.6,))) -> Observed:
    outputs = {"y": np.array(y, np.float32)}
    labels = None if labels is None else np.array(labels)
    return Observed(outputs, {"y": outputs["y"] - 0.125}, labels, len(outputs["y"]))


def own(file, name: str, rest: str = "") -> Metric:
    return parse_metric(f"{file}:{name}{rest}", MODEL)


def test_functions_of_the_users(functions) -> None:
    metric = own(functions, "score")
    rows = metric.rows(batch([1, 1, 1]))
    assert (metric.needs_labels, metric.higher_is_better, metric.binary) == (True, True, False)
    assert metric.values(rows, np.array([[1, 1, 1], [2, 1, 0]])).tolist() == pytest.approx(
        [2 / 3] * 2
    )
    assert metric.name.endswith("own.py:score") and metric.output == ""
    for rest, higher in ((",better=lower", False), (",better=higher", True), ("", True)):
        assert own(functions, "gap", rest).higher_is_better is higher
        assert own(functions, "score", rest).higher_is_better is higher
    gap = own(functions, "gap", ",better=lower")
    assert not gap.needs_labels
    assert gap.value(gap.rows(batch())) == pytest.approx(0.125)
    assert gap.drop(np.array([0.1]), np.array([0.3]))[0] == pytest.approx(0.2)


def test_the_number_of_arguments_and_of_results(functions) -> None:
    size = own(functions, "size")
    assert not size.needs_labels
    assert size.rows(batch())[:, 0].tolist() == pytest.approx([1.7 / 3])
    assert own(functions, "anything").value(own(functions, "anything").rows(batch())) == 3
    assert own(functions, "with_option").rows(batch([1, 1, 1]))[:, 0].tolist() == [2, 2, 2]
    assert own(functions, "scorer").rows(batch([1, 1, 1]))[:, 0].tolist() == [1, 1, 1]
    assert "takes 0 positional arguments" in said(f"{functions}:none")
    assert "(outputs, labels, reference)" in said(f"{functions}:four")
    assert "no function 'number'" in said(f"{functions}:number")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wrong", "own.py:wrong failed with KeyError: 'nothing' (line 28 of own.py)"),
        ("leaves", "failed with SystemExit: 3 (line"),
        ("multi", "failed with ValueError: two\\u000alines (line"),
        ("nan", "returned nan for outputs that are finite"),
        ("text", "returned a str that is not an array of numbers"),
        ("nothing", "returned a NoneType"),
        ("ragged", "returned a list"),
        ("table", "returned an array of shape (3, 2) for 3 samples"),
        ("short", "returned an array of shape (1,) for 3 samples"),
    ],
)
def test_functions_that_fail(functions, name: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        own(functions, name).rows(batch([1, 1, 1]))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_the_documentation(tmp_path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|.* \| (?:higher|lower) \|", text, re.M)) == set(
        KINDS
    )
    file = tmp_path / "quality.py"
    file.write_text(re.findall(r"```python\n(.*?)```", text, re.S)[0])
    half = own(file, "within_half")
    assert half.rows(batch([1, 1, 1]))[:, 0].tolist() == [1, 0, 1]
    distance = own(file, "distance", ",better=lower")
    assert distance.rows(batch())[:, 0].tolist() == pytest.approx([0.125] * 3)


def test_labels_that_are_missing(functions) -> None:
    with pytest.raises(UsageError, match="the data has none"):
        own(functions, "score").rows(batch())


def test_outputs_that_are_not_finite_have_the_worst_value(functions) -> None:
    for rest, worst in (("", -np.inf), (",better=lower", np.inf)):
        metric = own(functions, "gap", rest)
        rows = metric.rows(batch(y=((np.nan,), (0.2,))))
        assert metric.values(rows, np.array([[1, 1], [0, 1]])).tolist() == [
            worst,
            pytest.approx(0.125),
        ]
        with np.errstate(invalid="raise"):
            assert np.isnan(metric.drop(np.array([worst]), np.array([worst])))[0]


def test_files_that_cannot_be_loaded(tmp_path, monkeypatch) -> None:
    file = tmp_path / "bad.py"
    for text, expected in (
        ("def f(:\n", "failed with SyntaxError"),
        ("x = 1 / 0\n", "ZeroDivisionError: division by zero (line 1 of bad.py)"),
        ("import nothing_at_all\n", "ModuleNotFoundError: No module named 'nothing_at_all'"),
        ("import sys\nsys.exit()\n", "failed with SystemExit (line 2 of bad.py)"),
    ):
        file.write_text(text)
        assert expected in said(f"{file}:f")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics_here.py").write_text("def f(outputs):\n    return 2.0\n")
    metric = parse_metric("metrics_here:f", MODEL)
    assert metric.value(metric.rows(batch())) == 2
