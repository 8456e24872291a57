"""Lossy passes on real data, from the command line: kept, eased, left out, and told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from graphopt import cli
from graphopt.recipe import FOLDING
from graphopt.report import Report

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "digits_cnn" / "digits_cnn.onnx"
DATA = ROOT / "models" / "digits_cnn" / "digits_test.npz"


LOSSY = ("--data", DATA, "--pass", "quantize-weights", "--metric", "sqnr")


def run(tmp_path: Path, *arguments: object) -> tuple[int, Report]:
    """Optimize the digits model; the exit code and the report."""
    told = tmp_path / "report.json"
    given = ["optimize", MODEL, "-o", tmp_path / "out.onnx", "--json", told, "-q", "--no-cache"]
    code = cli.run([str(entry) for entry in (*given, *arguments)])
    return code, Report.from_json(told.read_text())


def outputs(path: Path, samples: np.ndarray, optimized: bool = True) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: samples})[0]


def test_weights_in_few_bits_pass_and_the_report_tells_what_a_user_can_check(tmp_path) -> None:
    code, report = run(tmp_path, "--data", DATA, "--labels", "y", "--pass", "quantize-weights")
    assert code == 0
    step = report.steps[-1]
    assert (step.name, step.status) == ("quantize-weights", "applied")
    assert report.gate is not None
    assert report.gate.verdict == "pass"
    assert report.budget is not None
    assert report.budget.metric == "top1@logits"
    assert "labels" in report.budget.chosen
    assert report.simplification is not None
    assert report.simplification < 0.4
    assert (tmp_path / "out.onnx").stat().st_size == report.output.file_bytes
    assert report.data is not None
    assert report.data.calibration + report.data.evaluation == report.data.samples == 1285
    with np.load(DATA) as data:
        samples, labels = data["x"], data["y"]
    right = (outputs(tmp_path / "out.onnx", samples).argmax(axis=1) == labels).mean()
    assert right == pytest.approx(report.gate.after, abs=0.01)  # the gate saw a half of them


def fold(folder: Path) -> onnx.ModelProto:
    """What ONNX Runtime makes of out.onnx by its basic optimizations; kept as folded.onnx."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "folded.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(folder / "out.onnx", options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "folded.onnx")


def test_runtimes_fold_the_stored_weights_and_run_floats_as_before(tmp_path) -> None:
    run(tmp_path, "--data", DATA, "--pass", "quantize-weights")
    stored = onnx.load(tmp_path / "out.onnx")
    assert sum(node.op_type == "Cast" for node in stored.graph.node) >= 8
    folded = fold(tmp_path)
    with np.load(DATA) as data:
        samples = data["x"][:64]
    as_stored = outputs(tmp_path / "out.onnx", samples, optimized=False)
    as_folded = outputs(tmp_path / "folded.onnx", samples, optimized=False)
    assert np.array_equal(as_stored, as_folded)
    cli.run(["optimize", str(MODEL), "-o", str(tmp_path / "out.onnx"), "-q"])
    floats = fold(tmp_path)
    kinds = [sorted(node.op_type for node in m.graph.node) for m in (folded, floats)]
    assert kinds[0] == kinds[1]


def test_what_loses_too_much_is_eased_by_leaving_out_the_worst_places(tmp_path) -> None:
    _, unlimited = run(tmp_path, *LOSSY, "--max-drop", "50%")
    assert unlimited.gate is not None
    assert unlimited.gate.drop is not None
    limit = unlimited.gate.drop / 2
    code, report = run(tmp_path, *LOSSY, "--max-drop", f"{limit:.12f}")
    step = report.steps[-1]
    assert code == 0
    assert step.status == "eased", step.eased
    assert step.eased.startswith("without ")
    assert step.taken_back
    assert step.edits
    assert report.gate is not None
    assert report.gate.verdict in ("pass", "unsure")
    assert report.gate.drop is not None
    assert report.gate.drop <= limit
    assert report.gates[0].accepted is False
    assert any(entry.accepted for entry in report.gates)


def test_when_nothing_fits_the_pass_is_left_out_and_strict_says_so(tmp_path) -> None:
    given = ("--data", DATA, "--pass", "quantize-weights", "--metric", "sqnr", "--max-drop", "0")
    code, report = run(tmp_path, *given)
    assert code == 0
    assert report.steps[-1].status == "rolled back"
    assert not report.steps[-1].edits
    assert report.verdict.verdict == "equal"
    code, report = run(tmp_path, *given, "--strict")
    assert code == 4
    assert report.exit_code == 4
    assert (tmp_path / "out.onnx").stat().st_size == report.output.file_bytes


def test_too_few_samples_are_kept_with_a_warning_and_refused_under_strict(tmp_path) -> None:
    with np.load(DATA) as data:
        np.savez(tmp_path / "few.npz", x=data["x"][:40], y=data["y"][:40])
    given = ("--data", tmp_path / "few.npz", "--labels", "y", "--pass", "quantize-weights")
    code, report = run(tmp_path, *given)
    assert code == 0
    assert report.gate is not None
    assert report.gate.verdict == "unsure"
    assert report.gate.more is not None
    assert any("more would" in warning for warning in report.warnings)
    code, report = run(tmp_path, *given, "--strict")
    assert code == 4
    assert report.steps[-1].status == "rolled back"


def test_no_gate_with_max_drop_none_but_the_report_still_says_the_loss(tmp_path) -> None:
    code, report = run(
        tmp_path,
        *("--data", DATA, "--labels", "y", "--max-drop", "none", "--pass", "quantize-weights"),
    )
    assert code == 0
    assert report.gates == []
    assert report.gate is not None
    assert report.gate.limit is None
    assert report.gate.drop is not None
    assert report.data is not None
    assert 1000 <= report.data.calibration <= 1024  # more does not help a pass


def test_without_data_lossy_passes_run_and_the_report_says_that_nothing_judged_them(
    tmp_path,
) -> None:
    code, report = run(tmp_path, "--pass", "quantize-weights")
    assert code == 0
    assert report.gate is None
    assert report.steps[-1].status == "applied"
    assert any("nothing judged" in warning for warning in report.warnings)


def test_without_data_strict_writes_nothing(tmp_path, capsys) -> None:
    given = ["optimize", MODEL, "-o", tmp_path / "o.onnx", "--pass", "quantize-weights", "--strict"]
    assert cli.run([str(entry) for entry in given]) == 3
    assert "no data to judge with" in capsys.readouterr().err
    assert not (tmp_path / "o.onnx").exists()


def test_a_lossy_pass_begins_with_a_folded_graph_and_folding_does_not_undo_it(tmp_path) -> None:
    _, report = run(tmp_path, "--pass", "quantize-weights")
    assert [step.name for step in report.steps].index("quantize-weights") == len(FOLDING)
    again = tmp_path / "again.onnx"
    assert cli.run(["optimize", str(tmp_path / "out.onnx"), "-o", str(again), "-q"]) == 0
    assert again.read_bytes() == (tmp_path / "out.onnx").read_bytes()


def test_the_same_data_and_seed_give_the_same_bytes(tmp_path) -> None:
    given = (
        "--data",
        DATA,
        "--pass",
        "quantize-weights",
        "--metric",
        "sqnr",
        "--max-drop",
        "0.005%",
    )
    run(tmp_path, *given)
    first = (tmp_path / "out.onnx").read_bytes()
    run(tmp_path, *given)
    assert (tmp_path / "out.onnx").read_bytes() == first


def test_the_html_report_with_everything_in_it(tmp_path) -> None:
    page = tmp_path / "r.html"
    code, report = run(
        tmp_path,
        *("--data", DATA, "--labels", "y", "--pass", "quantize-weights", "--report", page),
    )
    assert code == 0
    assert report.latency is not None
    assert report.graph_before is not None
    assert len(report.layers) == 11
    layer = max(report.layers, key=lambda entry: entry.parameters)
    assert layer.after is not None
    assert layer.weight_bytes_after is not None
    assert layer.weight_bytes_after < layer.weight_bytes
    assert sum(layer.after.counts) == sum(layer.before.counts) == layer.parameters
    ratios = [entry.sqnr_db for entry in report.layers if entry.sqnr_db is not None]
    assert len(ratios) >= 10  # the first layer is too small to be stored in fewer bytes
    assert min(ratios) > 30
    assert "quantize-weights" in page.read_text()
    again = tmp_path / "again.html"
    assert cli.run(["report", str(tmp_path / "report.json"), "-o", str(again), "-q"]) == 0
    assert again.read_text() == page.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--labels", "y"], "--labels needs data"),
        (["--metric", "top1"], "a metric needs data"),
        (["--data", DATA, "--metric", "top1"], "needs labels"),
        (["--data", DATA, "--labels", "nope"], "nope"),
        (["--data", DATA, "--max-drop", "5"], "Write 5%"),
        (["--data", DATA, "--confidence", "10%"], "makes no sense"),
        (["--data", DATA, "--metric", "bleu"], "bleu"),
        (["--data", DATA, "--split", "150%"], "the split 1.5"),
        (["--provider", "tpu"], "tpu"),
    ],
)
def test_wrong_requests_are_one_line(arguments, said, tmp_path, capsys) -> None:
    given = ["optimize", MODEL, "-o", tmp_path / "o.onnx", "--pass", "quantize-weights", *arguments]
    assert cli.run([str(entry) for entry in given]) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "o.onnx").exists()


def test_compare_judges_by_a_budget(tmp_path, capsys) -> None:
    run(tmp_path, "--data", DATA, "--pass", "quantize-weights")
    given = ["compare", MODEL, tmp_path / "out.onnx", "--no-latency", "--json", "-"]
    assert cli.run([str(entry) for entry in given]) == 3  # not equal
    assert json.loads(capsys.readouterr().out)["gate"] is None
    budget = ["--data", DATA, "--labels", "y", "--max-drop", "1%"]
    assert cli.run([str(entry) for entry in (*given, *budget)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["same"] is True
    assert found["gate"]["verdict"] == "pass"
    assert found["gate"]["samples"] == 1285
    assert {m["metric"].split("@")[0] for m in found["measures"]} >= {"top1", "cosine", "sqnr"}


def test_a_pass_that_needs_data_says_so_before_any_work(monkeypatch) -> None:
    from graphopt.errors import UsageError
    from graphopt.optimizer import optimize
    from graphopt.passes.quantization.quantize_weights import QuantizeWeights

    monkeypatch.setattr(QuantizeWeights, "needs", frozenset({"data"}))
    with pytest.raises(UsageError, match="'quantize-weights' needs data"):
        optimize(MODEL, passes=["quantize-weights"])


def test_weights_in_a_file_beside_the_model_count_as_bytes_on_disk(tmp_path) -> None:
    proto = onnx.load(MODEL)
    model = tmp_path / "m.onnx"
    onnx.save_model(proto, model, save_as_external_data=True, location="m.data", size_threshold=64)
    told = tmp_path / "r.json"
    given = ["optimize", model, "-o", tmp_path / "o.onnx", "--json", told, "-q"]
    assert cli.run([str(entry) for entry in given]) == 0
    report = Report.from_json(told.read_text())
    beside = sum(path.stat().st_size for path in tmp_path.glob("o.onnx*.data"))
    assert report.input.data_bytes == (tmp_path / "m.data").stat().st_size
    assert report.output.data_bytes == beside > 0
    assert report.simplification == pytest.approx(
        ((tmp_path / "o.onnx").stat().st_size + beside)
        / (model.stat().st_size + (tmp_path / "m.data").stat().st_size)
    )
