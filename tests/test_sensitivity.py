"""Sensitivity: the loss of one layer at a time; a run that was killed goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphopt import cli
from graphopt.alterations import altered
from graphopt.errors import UsageError
from graphopt.ir.model import Model
from graphopt.numerics import ranges
from graphopt.numerics.grids import AffineGrid
from graphopt.quality.data import DataOptions
from graphopt.quality.session import Opened
from graphopt.report import SensitivityInfo
from graphopt.rounded_activations import Calibration
from graphopt.runtime.cache import Cache
from graphopt.runtime.native import Native
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Stream
from graphopt.sensitivity_study import sensitivity
from graphopt.testing import parse

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "digits_cnn" / "digits_cnn.onnx"
DATA = ROOT / "models" / "digits_cnn" / "digits_test.npz"
OPTIONS = DataOptions(source=str(DATA), labels="y")


def test_one_layer_at_a_time() -> None:
    model = Model.load(MODEL)
    before = model.to_bytes()
    found = sensitivity(
        model, OPTIONS, strengths={"sparsity": (0.0, 0.9), "bits": (8,)}, samples=128
    )
    assert model.to_bytes() == before
    assert found.samples == 128
    assert found.metric == "top1@logits"
    layers = list(dict.fromkeys(row.layer for row in found.rows))
    assert len(layers) == 11
    assert len(found.rows) == 33
    untouched = [row for row in found.rows if row.kind == "sparsity" and row.strength == 0.0]
    assert all(row.drop == 0.0 and row.sqnr_db is None for row in untouched)
    sparse = {row.layer: row for row in found.rows if row.strength == 0.9}
    fine = {row.layer: row for row in found.rows if row.kind == "bits"}
    assert max(row.drop for row in sparse.values()) > 0.1
    assert all(sparse[layer].sqnr_db < fine[layer].sqnr_db for layer in layers)
    assert all(row.low <= row.drop <= row.high for row in found.rows)


def test_layers_by_name_and_wrong_strengths() -> None:
    found = sensitivity(
        MODEL, OPTIONS, strengths={"clusters": (4,)}, layers=["MatMul_*"], samples=64
    )
    assert {row.op for row in found.rows} == {"Gemm"}
    with pytest.raises(UsageError, match="no layer with weights has such a name"):
        sensitivity(MODEL, OPTIONS, layers=["nothing"])
    for wrong in ({"bits": (1,)}, {"bits": (2.5,)}, {"sparsity": (1.5,)}, {"clusters": (1,)}):
        with pytest.raises(UsageError, match="is no strength"):
            sensitivity(MODEL, OPTIONS, strengths=wrong)


def test_what_is_done_to_a_weight() -> None:
    weight = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    assert np.count_nonzero(altered(weight, (0,), "sparsity", 0.3)) == 140
    assert len(np.unique(altered(weight, (0,), "clusters", 5))) == 5
    coarse = altered(weight, (0,), "bits", 3)
    assert all(len(np.unique(channel)) <= 7 for channel in coarse)
    assert {part.dtype for part in (coarse, altered(weight, (), "clusters", 5))} == {weight.dtype}


def test_what_nodes_read_is_rounded_alone_and_with_the_weights() -> None:
    bits = {"bits": (4,), "activations": (16, 8, 2), "both": ((4, 8), (16, 16))}
    found = sensitivity(MODEL, OPTIONS, strengths=bits, samples=128, method="mse")
    by_kind: dict[str, dict[str, dict[float, SensitivityInfo]]] = {}
    for row in found.rows:
        by_kind.setdefault(row.kind, {}).setdefault(row.layer, {})[row.strength] = row
    weights, reads, both = (by_kind[kind] for kind in ("bits", "activations", "both"))
    assert len(weights) == len(both) == 11
    added = reads.keys() - weights.keys()
    assert {reads[name][8].op for name in added} == {"Add"}
    assert all(reads[name][8].parameters == 0 for name in added)
    for rows in reads.values():
        assert rows[16].sqnr_db - 10 > rows[8].sqnr_db > rows[2].sqnr_db + 10
        assert {row.activations for row in rows.values()} == {None}
    assert max(rows[2].drop for rows in reads.values()) > 0.02
    for name, rows in both.items():
        assert (rows[4].activations, rows[16].activations) == (8, 16)
        alone = [10 ** (-row.sqnr_db / 10) for row in (weights[name][4], reads[name][8])]
        assert 10 ** (-rows[4].sqnr_db / 10) == pytest.approx(sum(alone), rel=0.25)
        assert rows[16].sqnr_db > 60
    assert {row.ranges for row in found.rows if row.kind == "bits"} == {""}
    assert {row.ranges for row in found.rows if row.kind != "bits"} == {"mse"}


@pytest.mark.parametrize(("method", "clips"), [("minmax", False), ("percentile", True)])
def test_rounding_is_that_of_quantize_linear(method: Any, clips: bool) -> None:
    text = '<ir_version: 8, opset_import: ["" : 13]>\ng (float[N, 4] x) => (float[N, 4] y) { y = Neg(x) }'
    model = parse(text)
    values = np.random.default_rng(0).normal(0.5, 1.0, (50_000, 4)).astype(np.float32)
    with Native() as native:
        observe = Observer(native, Stream(lambda: iter([{"x": values}])))
        seen = Calibration.of(model, ["x"], observe, method)
        changed = seen.rounded(model, model.graph.nodes[0].uid, ["x"], 8)
        with Opened(native, changed, ["y"]) as session:
            (result,) = session.run({"x": values})
    grid = AffineGrid.of(8, signed=False)
    low, high = ranges.chosen(seen.histograms["x"], method, grid, symmetric=False)
    assert (high < values.max()) == clips
    scale, zero = grid.parameters(low, high)
    expected = grid.dequantized(grid.quantized(values, scale, zero), scale, zero)
    np.testing.assert_array_equal(-result, expected)
    assert [node.op for node in model.graph.nodes] == ["Neg"]


def test_old_models_are_raised_and_what_is_not_known_is_told() -> None:
    text = """<ir_version: 4, opset_import: ["" : 9]>
    g (float[2, 4] x) => (float[2, 4] y) { a = Exp(x) b = MatMul(a, w) c = Log(x) y = Mul(b, c) }"""
    model = parse(text.replace("float[2, 4] x)", "float[2, 4] x, float[4, 4] w)"), ("w",))
    data = {"x": np.linspace(-1, 3, 64 * 4, dtype=np.float32).reshape(64, 4)}
    found = sensitivity(model, data, strengths={"activations": (8,)}, samples=8, metric="cosine")
    assert [row.op for row in found.rows] == ["MatMul"]
    assert any("is not rounded: the data makes it NaN" in said for said in found.warnings)


def test_bits_on_the_command_line(capsys: Any) -> None:
    given = ["sensitivity", str(MODEL), "--data", str(DATA), "--labels", "y", "--no-cache"]
    given += ["--samples", "32", "--layer", "Conv_23", "--bits", "w4,a8,w4a8", "--ranges", "mse"]
    assert cli.run(given) == 0
    printed = capsys.readouterr().out
    assert "bits of activations (mse)" in printed
    assert "w4a8" in printed
    assert cli.run([*given, "--bits", "8b"]) == 1
    assert "8,4,a8,w8a8" in capsys.readouterr().err
    assert cli.run([*given, "--bits", "w8a1"]) == 1
    assert "is no strength for both" in capsys.readouterr().err


def test_what_is_known_is_not_run_again(tmp_path) -> None:
    cache = Cache(tmp_path)
    first = sensitivity(MODEL, OPTIONS, strengths={"bits": (4,)}, samples=64, cache=cache)
    said: list[str] = []
    again = sensitivity(
        MODEL,
        OPTIONS,
        strengths={"bits": (4, 2)},
        samples=64,
        cache=cache,
        listener=lambda progress: said.append(progress.what),
    )
    assert [row for row in again.rows if row.strength == 4] == first.rows
    assert sum("sensitivity of layer" in what for what in said) == 11  # those with 2 bits


def _start(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "graphopt", "sensitivity", MODEL, "--data", DATA]
    command += ["--labels", "y", "--bits", "4,a4,w4a8", "--samples", "64", "--json", out]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [str(part) for part in command], env=environment, start_new_session=True
    )


@pytest.mark.skipif(sys.platform != "linux", reason="where the user's cache lies is set for Linux")
def test_killed_and_started_again_it_gives_the_same_table(tmp_path) -> None:
    whole = tmp_path / "whole.json"
    assert _start(tmp_path / "a", whole).wait(120) == 0
    kills = 0
    out = tmp_path / "resumed.json"
    for _ in range(40):
        process = _start(tmp_path / "b", out)
        lines = _lines(tmp_path / "b")
        until = time.monotonic() + 60
        while process.poll() is None and _lines(tmp_path / "b") < lines + 10:
            assert time.monotonic() < until
            time.sleep(0.01)
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 2
    first, second = (json.loads(path.read_text()) for path in (whole, out))
    assert first["rows"] == second["rows"]
    assert {row["kind"] for row in first["rows"]} == {"bits", "activations", "both"}
    assert len(first["rows"]) > 33


def _lines(folder: Path) -> int:
    """Records in the journals of a cache folder."""
    return sum(path.read_bytes().count(b"\n") for path in folder.rglob("*.jsonl"))


def test_the_command_draws_and_prints(tmp_path, capsys) -> None:
    page = tmp_path / "s.html"
    given = ["sensitivity", MODEL, "--data", DATA, "--labels", "y", "--bits", "4,2", "--no-cache"]
    given += ["--samples", "64", "--report", page]
    assert cli.run([str(entry) for entry in given]) == 0
    printed = capsys.readouterr().out
    assert "Conv_23" in printed
    assert "bits: layer" in printed
    assert "Conv_23" in page.read_text()


def test_the_command_wants_data(capsys) -> None:
    assert cli.run(["sensitivity", str(MODEL)]) == 1
    assert "needs data" in capsys.readouterr().err
