"""A pass of another package: installed, found by its entry point, run by name from every door."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import graphopt
from graphopt.errors import UsageError
from graphopt.registry import all_passes, builtin_passes
from graphopt.testing import parse

PLUGIN = Path(__file__).parent / "plugin"
ROOT = Path(__file__).parent.parent

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3] x) => (float[N,3] y)
<float[3] c = {1, 2, 3}>
{
  p = Mul (x, c)
  y = Neg (p)
}
"""


def dist_info(folder: Path, entry: str, name: str = "graphopt-negate") -> None:
    """What an installer leaves behind: enough for importlib.metadata to find the entry point."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[graphopt.passes]\n{entry}\n")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    entry = "merge-negations = graphopt_negate:MergeNegations"
    assert entry.split(" = ")[1] in (PLUGIN / "pyproject.toml").read_text()
    dist_info(tmp_path, entry)
    monkeypatch.syspath_prepend(str(PLUGIN / "src"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("graphopt_negate", None)


def test_the_pass_is_found_and_runs_by_name(installed) -> None:
    assert "merge-negations" in all_passes()
    assert "merge-negations" not in builtin_passes()
    result = graphopt.optimize(parse(MODEL), passes=["merge-negations", "folding"])
    assert [n.op for n in result.model.nodes()] == ["Mul"]
    assert result.report.verdict.verdict == "equal"


def test_its_options_come_from_its_fields(installed) -> None:
    result = graphopt.optimize(parse(MODEL), passes=["merge-negations:largest=2"])
    (step,) = result.report.steps
    assert step.options == {"largest": 2}
    assert [(s.node, s.why) for s in step.skips] == [
        ("Neg→y", "the constant has more than 2 elements")
    ]


def test_from_the_command_line(installed, tmp_path) -> None:
    model = tmp_path / "m.onnx"
    parse(MODEL).save(model)
    paths = f"{installed}:{PLUGIN / 'src'}:{ROOT}"
    done = subprocess.run(
        [sys.executable, "-m", "graphopt", "passes", "show", "merge-negations", "--json", "-"],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": paths, "PATH": ""},
        check=True,
    )
    shown = json.loads(done.stdout)
    assert shown["options"] == [
        {
            "name": "largest",
            "kind": "int",
            "default": 1 << 20,
            "help": "elements of the largest constant to change",
        }
    ]
    assert shown["description"].startswith("Merge a product with a negation.")


def test_two_passes_of_one_name_are_an_error_that_names_both(installed) -> None:
    dist_info(installed, "fold-constants = graphopt_negate:MergeNegations", "another")
    with pytest.raises(
        UsageError, match=r"graphopt itself and graphopt_negate:MergeNegations of another"
    ):
        all_passes()


def test_an_entry_point_that_does_not_load(tmp_path, monkeypatch) -> None:
    dist_info(tmp_path, "lost = nowhere_to_be_found:Pass", "lost")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match="nowhere_to_be_found:Pass of lost"):
        all_passes()
