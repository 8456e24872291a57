"""How sessions are opened: weights that are held once where that is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from graphopt.runtime.sessions import open_session
from graphopt.runtime.tasks import Tasks
from graphopt.testing import parse

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,64,8,8] x, float[64,64,3,3] a, float[64,64,3,3] b) => (float[N,64,8,8] y) {
  c = Conv<pads = [1,1,1,1]>(x, a)
  r = Relu(c)
  y = Conv<pads = [1,1,1,1]>(r, b)
}"""
FEEDS = {"x": np.random.default_rng(0).standard_normal((2, 64, 8, 8)).astype(np.float32)}


def operators(profile: str) -> set[str]:
    """Of the nodes that were run."""
    events = json.loads(Path(profile).read_text(encoding="utf-8"))
    return {event["args"]["op_name"] for event in events if event.get("cat") == "Node"}


@pytest.mark.parametrize("prepack", [True, False])
def test_convolutions_are_not_reordered_where_weights_are_held_once(
    prepack: bool, tmp_path: Path
) -> None:
    model = parse(MODEL, ("a", "b")).to_bytes()
    session = open_session(model, True, profile=str(tmp_path / "profile"), prepack=prepack)
    plain = open_session(model).run(None, FEEDS)[0]
    np.testing.assert_allclose(session.run(None, FEEDS)[0], plain, rtol=1e-3, atol=1e-3)
    found = operators(session.end_profiling())
    assert any("Conv" in name for name in found)
    if not prepack:
        assert "ReorderInput" not in found


@pytest.mark.parametrize(("given", "wanted"), [(None, False), (True, True), (False, False)])
def test_weights_of_a_model_that_comes_as_a_path_are_held_once_unless_asked_for(
    given: bool | None, wanted: bool, tmp_path: Path, monkeypatch
) -> None:
    path = tmp_path / "model.onnx"
    parse(MODEL, ("a", "b")).save(path)
    asked: list[bool] = []

    def opened(*args, prepack: bool, **options):
        asked.append(prepack)
        return open_session(*args, prepack=prepack, **options)

    monkeypatch.setattr("graphopt.runtime.tasks.open_session", opened)
    tasks = Tasks()
    assert tasks.open("key", str(path), optimize=True, prepack=given) == ["y"]
    assert tasks.open("bytes", path.read_bytes(), optimize=True) == ["y"]
    assert asked == [wanted, True]
