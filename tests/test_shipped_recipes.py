"""Recipes that come with graphopt: each is one, is found by its name, and does what it is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graphopt.cli import run
from graphopt.errors import UsageError
from graphopt.optimizer import choose, optimize
from graphopt.recipe import Recipe
from graphopt.registry import get_pass
from graphopt.shipped_recipes import find_recipe, shipped_recipe, shipped_recipes

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "models" / "digits_cnn" / "digits_cnn.onnx"
LOSSY = {
    "deep-compression": [
        "prune-channels",
        "sparsify-weights",
        "cluster-weights",
        "quantize-weights",
    ],
    "default": ["prune-channels", "quantize-qdq", "cluster-weights", "quantize-weights"],
    "fast-cpu": ["prune-channels", "quantize-qdq"],
    "lossless": [],
    "small": ["cluster-weights", "quantize-weights"],
}


def test_each_has_a_name_a_summary_and_passes() -> None:
    assert list(shipped_recipes()) == sorted(LOSSY)
    for name, shipped in shipped_recipes().items():
        recipe = shipped.recipe()
        assert recipe.name == name
        assert recipe.summary.endswith(".")
        assert recipe.passes[: len(Recipe.default().passes)] == Recipe.default().passes
        lossy = [step.name for step in recipe.passes if not get_pass(step.name).exact]
        assert lossy == LOSSY[name]


def test_a_name_is_found_before_a_file_and_a_path_is_a_file(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("small").write_text('summary = "mine"\n[[pass]]\nname = "eliminate-identity"\n')
    assert find_recipe("small") == shipped_recipe("small").recipe()
    for own in ("./small", Path("small")):
        assert find_recipe(own).summary == "mine"
        assert [step.name for step in find_recipe(own).passes] == ["eliminate-identity"]
    Path("own").write_text('name = "small"\n')
    assert find_recipe("own").passes == Recipe.default().passes


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("smal", "there is no recipe 'smal'. Did you mean small"),
        ("zzz", "there is no recipe 'zzz'. See: graphopt recipes list"),
        ("zzz.toml", "cannot read the recipe zzz.toml"),
        ("folder/zzz", "cannot read the recipe"),
        ("", "cannot read the recipe"),
    ],
)
def test_what_is_not_there_is_one_line(asked, says, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=says.replace(".", r"\.")):
        find_recipe(asked)


def test_one_that_is_copied_is_the_same(tmp_path) -> None:
    for name, shipped in shipped_recipes().items():
        path = tmp_path / f"{name}.toml"
        path.write_text(shipped.text)
        assert Recipe.load(path) == shipped.recipe()
        path.write_text(shipped.recipe().to_toml())
        assert Recipe.load(path) == shipped.recipe()


def test_a_pass_can_be_left_out_of_one() -> None:
    chosen = choose(None, "fast-cpu", ["prune-channels"])
    assert [step.name for step in chosen.passes if not step.exact] == ["quantize-qdq"]
    assert chosen.summary == shipped_recipe("fast-cpu").recipe().summary


def test_the_command_line_lists_and_shows_them(capsys) -> None:
    assert run(["recipes", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(LOSSY)
    assert run(["recipes", "list", "--json", "-"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in entries] == sorted(LOSSY)
    assert entries[0]["passes"][-4:] == LOSSY["deep-compression"]
    assert run(["recipes", "show", "small"]) == 0
    assert capsys.readouterr().out == shipped_recipe("small").text
    assert run(["recipes", "show", "smal"]) == 1
    assert "Did you mean small" in capsys.readouterr().err
    assert run(["optimize", "none.onnx", "--recipe", "fast-cpu", "--plan"]) == 0
    assert "recipe fast-cpu" in capsys.readouterr().out


def test_lossless_is_what_runs_where_nothing_is_asked_for() -> None:
    named = optimize(DIGITS, recipe="lossless")
    assert named.report.verdict.verdict == "equal"
    assert named.model.to_bytes() == optimize(DIGITS).model.to_bytes()
