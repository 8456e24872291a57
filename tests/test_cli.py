"""The command line as a stranger meets it: exit codes, streams, one line per error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest

from graphopt import cli
from graphopt.errors import NativeError
from graphopt.report import Report, json_schema
from graphopt.testing import parse

ROOT = Path(__file__).parent.parent

MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,3] x) => (float[N,3] y)
<float[3] a = {1, 2, 3}>
{
  i = Identity (x)
  p = Add (i, a)
  q = Identity (p)
  y = Relu (q)
}
"""
OTHER = MODEL.replace("Relu", "Sigmoid")


@pytest.fixture
def model(tmp_path) -> Path:
    path = tmp_path / "m.onnx"
    parse(MODEL).save(path)
    return path


def call(*arguments: object) -> int:
    return cli.run([str(argument) for argument in arguments])


def one_error(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip("\n").splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("graphopt: error: ")
    return lines[0]


def test_optimize_writes_beside_the_model_and_says_so(model, capsys) -> None:
    assert call("optimize", model) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "outputs equal" in captured.err
    written = model.with_name("m.opt.onnx")
    assert str(written) in captured.err.replace("\n", "")
    assert [n.op_type for n in onnx.load(written).graph.node] == ["Add", "Relu"]


def test_json_on_a_clean_standard_output(model, tmp_path, capsys) -> None:
    assert call("optimize", model, "-o", tmp_path / "o.onnx", "--json", "-", "-q") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    tree = json.loads(captured.out)
    jsonschema.validate(tree, json_schema())
    report = Report.from_json(captured.out)
    assert report.to_json() == captured.out
    assert report.input.nodes == 4
    assert report.output.nodes == 2
    assert report.verdict.verdict == "equal"
    assert report.output.file_bytes == (tmp_path / "o.onnx").stat().st_size


def test_the_schema_is_itself_valid(capsys) -> None:
    assert call("schema") == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema == json_schema()


def test_the_model_on_standard_output(model) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "graphopt", "optimize", str(model), "-o", "-"],
        capture_output=True,
        cwd=ROOT,
        check=True,
    )
    assert [n.op_type for n in onnx.load_from_string(done.stdout).graph.node] == ["Add", "Relu"]
    assert b"\x1b" not in done.stderr


def test_plan_writes_nothing(model, capsys) -> None:
    before = sorted(model.parent.iterdir())
    assert call("optimize", model, "--plan") == 0
    assert "fold-constants" in capsys.readouterr().out
    assert call("optimize", model, "--plan", "--json", "-") == 0
    plan = json.loads(capsys.readouterr().out)
    assert {step["name"] for step in plan["passes"]} >= {"fold-constants", "inline-if"}
    assert sorted(model.parent.iterdir()) == before


def test_passes_and_skip(model, tmp_path, capsys) -> None:
    out = tmp_path / "o.onnx"
    assert call("optimize", model, "-o", out, "-p", "merge-duplicate-initializers") == 0
    assert len(onnx.load(out).graph.node) == 4
    assert call("optimize", model, "-o", out, "-s", "eliminate-identity") == 0
    assert len(onnx.load(out).graph.node) == 4


def test_recipes_from_a_file_and_from_pyproject(model, tmp_path, capsys, monkeypatch) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = "mine"\n[[pass]]\nname = "eliminate-identity"\n')
    assert call("optimize", model, "--recipe", recipe, "--json", "-", "-q") == 0
    assert [s["name"] for s in json.loads(capsys.readouterr().out)["steps"]] == [
        "eliminate-identity"
    ]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.graphopt]\nskip = ["eliminate-identity"]\n')
    assert call("optimize", model, "--json", "-", "-q") == 0
    steps = {s["name"] for s in json.loads(capsys.readouterr().out)["steps"]}
    assert "eliminate-identity" not in steps
    assert "fold-constants" in steps


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["optimize", "{missing}"], 2, "missing.onnx"),
        (["optimize", "{model}", "-p", "fold-constant"], 1, "Did you mean fold-constants"),
        (["optimize", "{model}", "-p", "fold-constants:size=1"], 1, "no option 'size'"),
        (["optimize", "{model}", "-p", "fold-constants:size"], 1, "field=value"),
        (["optimize", "{model}", "-s", "nonsense"], 1, "no pass 'nonsense'"),
        (["optimize", "{model}", "--recipe", "{missing}"], 1, "cannot read the recipe"),
        (["optimize", "{model}", "--recipe", "{model}"], 1, "not TOML"),
        (["optimize", "{model}", "--data", "{model}"], 1, "cannot read the data"),
        (["optimize", "{model}", "--frobnicate"], 1, "--frobnicate"),
        (["optimize"], 1, "Missing argument"),
        (["nonsense"], 1, "nonsense"),
        (["optimize", "{model}", "-o", "{folder}/none/o.onnx"], 7, "cannot write"),
        (["optimize", "{model}", "-o", "{folder}"], 7, "folder"),
        (["optimize", "{text}"], 2, "not an ONNX model"),
        (["optimize", "{model}", "-o", "-", "--json", "-"], 1, "standard output"),
        (["compare", "{model}", "{missing}"], 2, "missing.onnx"),
        (["bench", "{model}", "{model}", "{model}"], 1, "one model or two"),
    ],
)
def test_errors_are_one_line_with_an_exit_code(
    arguments, code, says, model, tmp_path, capsys
) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    places = {
        "model": model,
        "missing": tmp_path / "missing.onnx",
        "folder": tmp_path,
        "text": tmp_path / "text.onnx",
    }
    before = sorted(tmp_path.iterdir())
    assert call(*(a.format(**places) for a in arguments)) == code
    assert says in one_error(capsys)
    assert sorted(tmp_path.iterdir()) == before


def test_an_internal_error_is_one_line_and_with_vv_a_traceback(model, capsys, monkeypatch) -> None:
    monkeypatch.setattr("graphopt.execution.describe", lambda *a, **k: 1 / 0)
    assert call("optimize", model) == 70
    assert "internal error: ZeroDivisionError" in one_error(capsys)
    with pytest.raises(ZeroDivisionError):
        call("optimize", model, "-vv")


def test_interrupted(model, capsys, monkeypatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("graphopt.execution.describe", interrupt)
    assert call("optimize", model) == 130
    assert "interrupted" in one_error(capsys)


def test_compare_says_whether_models_are_the_same(model, tmp_path, capsys) -> None:
    assert call("optimize", model, "-q") == 0
    assert call("compare", model, model.with_name("m.opt.onnx"), "--no-latency", "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["same"] is True
    assert found["nodes"] == [4, 2]
    other = tmp_path / "other.onnx"
    parse(OTHER).save(other)
    assert call("compare", model, other, "--no-latency") == 3
    assert "outputs different" in capsys.readouterr().out


def test_bench_of_a_model_with_itself_claims_nothing(model, capsys) -> None:
    assert call("bench", model, model, "--rounds", 20, "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rounds"] == 20
    assert found["ratio"]["low"] <= found["ratio"]["median"] <= found["ratio"]["high"]


def test_real_data_judges(model, tmp_path, capsys) -> None:
    data = tmp_path / "d.npz"
    np.savez(data, x=np.ones((10, 3), np.float32), y=np.arange(10))
    given = ("optimize", model, "--data", data, "--json", "-", "-q")
    assert call(*given, "--recipe", "lossless") == 0
    assert json.loads(capsys.readouterr().out)["verdict"]["samples"] == 3
    np.savez(data, x=np.ones((10, 4), np.float32))
    assert call("optimize", model, "--data", data) == 1
    assert "samples of shape (4,)" in one_error(capsys)
    np.savez(data, z=np.ones((10, 3), np.float32))
    assert call("optimize", model, "--data", data) == 1
    assert "no array for the input 'x'" in one_error(capsys)


def test_inspect(model, capsys) -> None:
    assert call("inspect", model, "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["operators"] == {"Add": 1, "Identity": 2, "Relu": 1}
    assert found["model"]["inputs"] == [{"name": "x", "dtype": "float", "shape": ["N", 3]}]
    assert call("inspect", model) == 0
    assert "Identity" in capsys.readouterr().out


def test_passes_list_and_show(capsys) -> None:
    assert call("passes", "list", "--json", "-") == 0
    names = [entry["name"] for entry in json.loads(capsys.readouterr().out)]
    assert "fold-constants" in names
    assert call("passes", "show", "fold-constants") == 0
    assert "Refuses:" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell, capsys) -> None:
    assert call("completion", shell) == 0
    assert "_GRAPHOPT_COMPLETE" in capsys.readouterr().out


def test_strict_writes_only_what_is_proven(tmp_path, capsys) -> None:
    path = tmp_path / "custom.onnx"
    text = MODEL.replace('["" : 17]', '["" : 17, "custom" : 1]').replace(
        "Relu (q)", "custom.Op (q)"
    )
    parse(text).save(path)
    assert call("optimize", path, "--strict") == 3
    assert "not proven" in one_error(capsys)
    assert not path.with_name("custom.opt.onnx").exists()
    assert call("optimize", path) == 0
    assert "unproven" in capsys.readouterr().err


def test_colours_only_where_wanted(model) -> None:
    def stderr(**env: str) -> str:
        keep = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
        arguments = [sys.executable, "-m", "graphopt", "optimize", str(model)]
        done = subprocess.run(
            arguments, capture_output=True, text=True, cwd=ROOT, env={**keep, **env}, check=True
        )
        return done.stderr

    assert "\x1b" not in stderr()
    assert "\x1b[32m" in stderr(FORCE_COLOR="1")
    assert "\x1b[32m" not in stderr(FORCE_COLOR="1", NO_COLOR="1")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from graphopt.cli import run; run(['--help']);"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'onnx_graphsurgeon', 'rich', 'networkx'};"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert b"optimize" in done.stdout


def test_bench_shows_where_the_time_goes(model, capsys) -> None:
    assert call("bench", model, "--rounds", "5", "--profile", "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert [node["op"] for node in found["nodes"][0]]
    assert sum(node["share"] for node in found["nodes"][0]) <= 1.001


def test_native_code_without_memory_is_a_resource_error(model, capsys, monkeypatch) -> None:
    def starve(*args: object, **kwargs: object) -> None:
        raise NativeError("RuntimeError: pthread_create failed: Cannot allocate memory")

    monkeypatch.setattr("graphopt.execution.describe", starve)
    assert call("optimize", model) == 5
    assert "--threads 1" in one_error(capsys)


@pytest.mark.parametrize("option", ["-o", "--report", "--json"])
def test_a_missing_folder_is_told_before_any_work(option, model, tmp_path, capsys) -> None:
    assert call("optimize", model, option, tmp_path / "nowhere" / "file.html") == 7
    assert "nothing was done" in one_error(capsys)
    assert [path.name for path in tmp_path.iterdir()] == [model.name]
