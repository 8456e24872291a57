"""What people and programs are told of channel groups."""

from __future__ import annotations

import json

import pytest
from test_channels import CASES

from graphopt import cli
from graphopt.inspection import inspect_channels

MODEL = next(case for case in CASES if case.name == "squeeze and excitation").model()


@pytest.fixture
def path(tmp_path) -> str:
    file = tmp_path / "model.onnx"
    MODEL.save(file)
    return str(file)


def run(*arguments: str) -> int:
    return cli.run(list(arguments))


def test_figures() -> None:
    wide, narrow, out = inspect_channels(MODEL)
    assert (wide.name, wide.unit, wide.size, wide.locked) == ("c:1", "channel", 6, "")
    assert (wide.producers, wide.consumers) == (["Conv→c", "Conv→s"], ["Conv→q", "Conv→y"])
    # rows of v, a and f with h, columns of d, a place of w
    assert wide.parameters == 27 + 1 + 2 + 1 + 2 + 5 * 9
    assert (narrow.name, narrow.size, narrow.parameters, narrow.macs) == ("q:1", 2, 6 + 1 + 6, 12)
    assert out.locked == "graph output 'y' keeps its shape"
    assert wide.macs_share == 1.0
    assert narrow.macs_share == pytest.approx(24 / (36 * 6 * 27 + 24 + 16 * 5 * 54))


def test_json_holds_them_where_they_are_asked_for(path, capsys) -> None:
    assert run("inspect", path, "--json", "-") == 0
    assert "channels" not in json.loads(capsys.readouterr().out)
    assert run("inspect", "--channels", path, "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)["channels"]
    assert [group["name"] for group in found] == ["c:1", "q:1", "y:1"]
    assert found[2]["locked"] == "graph output 'y' keeps its shape"


def test_the_table_says_what_can_be_cut_and_why_not(path, capsys) -> None:
    assert run("inspect", path, "--channels") == 0
    shown = capsys.readouterr().out
    assert "2 groups of channels can be cut (8 units), 1 are locked" in shown
    assert "graph output 'y' keeps its shape" in shown
