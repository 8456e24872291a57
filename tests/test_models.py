"""The models of this repository: what the README's first command does with them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import graphopt
from graphopt.recipe import FOLDING, Recipe
from graphopt.registry import builtin_passes

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models"
CNN = MODELS / "digits_cnn" / "digits_cnn.onnx"
MLP = MODELS / "digits_mlp" / "digits_mlp.onnx"
TEST = MODELS / "digits_cnn" / "digits_test.npz"


def accuracy(model: bytes) -> float:
    with np.load(TEST) as data:
        x, y = data["x"], data["y"]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"x": x})
    return float((logits.argmax(1) == y).mean())


@pytest.mark.parametrize(("path", "before", "after"), [(CNN, 56, 26), (MLP, 11, 6)])
def test_smaller_and_still_right(path, before, after) -> None:
    result = graphopt.optimize(path, data=TEST, recipe="lossless")
    report = result.report
    assert (report.input.nodes, report.output.nodes <= after) == (before, True)
    assert report.output.weight_bytes <= report.input.weight_bytes
    assert report.verdict.verdict == "equal"
    assert not [step for step in report.steps if step.taken_back or step.error]
    assert accuracy(result.model.to_bytes()) == accuracy(path.read_bytes())


def test_no_batch_normalization_identity_or_shape_is_left() -> None:
    ops = {
        node.op_type
        for node in onnx.load_from_string(graphopt.optimize(CNN).model.to_bytes()).graph.node
    }
    assert not ops & {
        "BatchNormalization",
        "Identity",
        "Dropout",
        "Pad",
        "Shape",
        "Gather",
        "Constant",
    }


def test_optimizing_twice_gives_the_bytes_of_once() -> None:
    once = graphopt.optimize(CNN).model.to_bytes()
    assert graphopt.optimize(once).model.to_bytes() == once


def test_the_same_bytes_whatever_the_hash_seed(tmp_path) -> None:
    digests = set()
    for seed in ("1", "2"):
        out = tmp_path / f"{seed}.onnx"
        subprocess.run(
            [sys.executable, "-m", "graphopt", "optimize", str(CNN), "-q", "-o", str(out)],
            cwd=ROOT,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        digests.add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_checksums_hold() -> None:
    for sums in MODELS.glob("*/SHA256SUMS"):
        for line in sums.read_text().splitlines():
            digest, name = line.split()
            file = sums.parent / name.lstrip("*")
            assert hashlib.sha256(file.read_bytes()).hexdigest() == digest, file


def test_every_exact_pass_has_a_place_in_the_order() -> None:
    exact = {name for name, step in builtin_passes().items() if step.exact and not step.observes}
    assert set(FOLDING) == exact - {"merge-linear-siblings"}
    assert len(FOLDING) == len(set(FOLDING))
    assert tuple(step.name for step in Recipe.default().passes) == FOLDING


def test_a_recipe_survives_the_way_through_toml(tmp_path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(Recipe.default().to_toml())
    assert Recipe.load(path) == Recipe.default()


def test_the_page_of_passes_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, "run: python docs/generate.py"


def test_the_readme_shows_what_the_command_line_has() -> None:
    readme = (ROOT / "README.md").read_text()
    done = subprocess.run(
        [sys.executable, "-m", "graphopt", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("optimize", "inspect", "compare", "bench", "passes", "completion", "schema"):
        assert command in done.stdout
        assert f"graphopt {command}" in readme or f"`{command}" in readme
