"""Sensitivity: the loss of one layer at a time; a run that was killed goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from graphopt import cli
from graphopt.alterations import altered
from graphopt.errors import UsageError
from graphopt.ir.model import Model
from graphopt.quality.data import DataOptions
from graphopt.runtime.cache import Cache
from graphopt.sensitivity_study import sensitivity

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
    command += ["--labels", "y", "--bits", "8,4,2", "--samples", "64", "--json", out]
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
    assert len(first["rows"]) == 33


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
