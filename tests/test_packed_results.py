"""What runs where nothing is named, results that are packed as well, and shares of a budget."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_easing import Gate, Halve, Shrink, model

import graphopt
from graphopt import cli
from graphopt.errors import UsageError
from graphopt.ir.model import Model
from graphopt.lossy_pass import LossyPass
from graphopt.numerics.statistics import Ratio
from graphopt.optimizer import choose
from graphopt.pass_base import Pass
from graphopt.pass_manager import PassManager
from graphopt.recipe import Recipe
from graphopt.registry import builtin_passes
from graphopt.report import Report, SpeedInfo
from graphopt.report.html import render_html

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "models" / "digits_cnn" / "digits_cnn.onnx"
DATA = ROOT / "models" / "digits_cnn" / "digits_test.npz"

LOSSY = ("--data", DATA, "--pass", "quantize-weights")


def optimized(*arguments: object) -> int:
    given = ["optimize", DIGITS, "-q", "--no-cache", *arguments]
    return cli.run([str(entry) for entry in given])


def test_what_runs_where_nothing_is_named_depends_on_the_data() -> None:
    assert choose(None, None, ()).name == "lossless"
    chosen = choose(None, None, (), data=True)
    assert chosen.name == "default"
    assert chosen.pack
    assert choose(["fold-constants"], None, (), data=True).name == "custom"
    assert choose(None, "small", (), data=True).name == "small"


def test_the_plan_says_that_the_result_is_packed(capsys) -> None:
    assert cli.run(["optimize", "none.onnx", "--data", "none.npz", "--plan"]) == 0
    said = capsys.readouterr().out
    assert "recipe default" in said
    assert "packed as well" in said
    assert cli.run(["optimize", "none.onnx", "--plan", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["pack"] is False


@pytest.mark.parametrize("strict", [False, True])
def test_the_archive_lies_beside_the_result_and_the_report_has_its_figures(
    tmp_path, strict
) -> None:
    out, told = tmp_path / "o.onnx", tmp_path / "r.json"
    more = ["--strict"] if strict else []
    assert optimized(*LOSSY, "-o", out, "--json", told, "--pack", *more) == 0
    packing = Report.from_json(told.read_text()).packing
    assert packing is not None
    assert packing.after.path == str(tmp_path / "o.gopt")
    graphopt.unpack(tmp_path / "o.gopt", tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == out.read_bytes()
    for info, source in ((packing.before, DIGITS), (packing.after, out)):
        own = graphopt.pack(source, tmp_path / "own.gopt")
        figures = (own.stored_bytes, own.packed_bytes, own.bound_bytes, own.archive_sha256)
        assert (info.stored_bytes, info.packed_bytes, info.bound_bytes, info.sha256) == figures
    assert packing.after.packed_bytes < packing.after.stored_bytes < packing.before.packed_bytes


def test_an_archive_that_is_asked_for_is_the_only_file(tmp_path) -> None:
    out, told = tmp_path / "o.gopt", tmp_path / "r.json"
    assert optimized("-o", out, "--json", told, "--pack") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.gopt", "r.json"]
    packing = Report.from_json(told.read_text()).packing
    assert packing is not None
    assert packing.after.path == str(out)
    assert packing.after.packed_bytes == out.stat().st_size


def test_what_is_not_packed_has_no_figures(tmp_path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('pack = true\n[[pass]]\nname = "eliminate-identity"\n')
    out, told = tmp_path / "o.onnx", tmp_path / "r.json"
    assert optimized("--recipe", recipe, "--no-pack", "-o", out, "--json", told) == 0
    assert Report.from_json(told.read_text()).packing is None
    assert not out.with_suffix(".gopt").exists()
    assert optimized("--recipe", recipe, "-o", out) == 0
    assert out.with_suffix(".gopt").exists()
    assert Recipe.load(recipe).pack
    recipe.write_text("pack = 1\n")
    with pytest.raises(UsageError, match="pack must be true or false"):
        Recipe.load(recipe)


def test_nothing_is_packed_where_nothing_is_proven(tmp_path) -> None:
    given = ("--pass", "quantize-weights", "-o", tmp_path / "o.onnx", "--pack", "--strict")
    assert optimized(*given) == 3
    assert not list(tmp_path.iterdir())


def test_an_archive_does_not_replace_the_model_that_it_is_made_of(tmp_path, capsys) -> None:
    source = tmp_path / "m.gopt"
    graphopt.pack(DIGITS, source)
    before = source.read_bytes()
    given = ["optimize", str(source), "-o", str(tmp_path / "m.onnx"), "-q", "--pack"]
    assert cli.run(given) == 1
    assert "would replace the model" in capsys.readouterr().err
    assert source.read_bytes() == before
    assert not (tmp_path / "m.onnx").exists()


def test_a_model_in_memory_is_packed_for_its_figures(tmp_path) -> None:
    found = graphopt.optimize(Model.load(DIGITS).to_bytes(), pack=True).report.packing
    assert found is not None
    assert found.after.path == ""
    assert 0 < found.after.packed_bytes < found.before.packed_bytes


def test_terminal_and_page_tell_what_is_packed(tmp_path, capsys) -> None:
    out, told = tmp_path / "o.onnx", tmp_path / "r.json"
    given = [*LOSSY, "--pass", "cluster-weights:clusters=256", "-o", out, "--json", told, "--pack"]
    assert cli.run(["optimize", str(DIGITS), *map(str, given)]) == 0
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert lines[1].startswith(f"{len(Recipe.default().passes)} exact passes")
    assert any(line.startswith("cluster-weights changed nothing: ") for line in lines)
    assert any(line.startswith("entropy bound ") for line in lines)
    assert lines[-2].startswith(f"wrote {out}: ")
    assert lines[-1].startswith(f"packed {tmp_path / 'o.gopt'}: ")
    assert "times smaller than the original" in lines[-1]
    page = render_html(Report.from_json(told.read_text()))
    assert "Packed" in page
    assert "Entropy bound" in page


def run(limit: float, *steps: Pass, race: SpeedInfo | None = None) -> list[tuple[str, str, str]]:
    """What comes of steps whose loss is known, timed as said."""
    original = model()
    manager = PassManager(None, gate=Gate(original, limit))
    if race is not None:
        manager.race = lambda before, after: race
    outcome = manager.run(original, steps)
    return [(step.name, step.status, step.eased) for step in outcome.steps]


def test_a_pass_uses_no_more_than_its_share_of_the_budget() -> None:
    whole = run(0.03, Shrink(1.0), Halve())
    assert whole[0][1] == "applied"  # it costs 0.025
    assert whole[1][1] != "applied"
    (first, second) = run(0.03, Shrink(1.0, share=0.5), Halve(share=1.0))
    assert first[1:] == ("eased", "at 65.6 % of its strength")
    assert second[1] == "eased"
    left_out = run(0.03, Shrink(1.0, share=0.0))
    assert left_out[0][1] == "rolled back"
    assert "no more than 0 % of that" in left_out[0][2]


def test_a_pass_can_be_left_out_at_once() -> None:
    assert run(0.01, Shrink(1.0))[0][1] == "eased"
    (found,) = run(0.01, Shrink(1.0, ease=False))
    assert found[1] == "rolled back"
    assert found[2].startswith("it loses too much at full strength")


def test_what_must_be_faster_is_left_out_where_it_is_not() -> None:
    even = Ratio(1.0, 0.99, 1.01)
    slow = SpeedInfo(even, even, "no difference beyond noise")
    assert run(1.0, Shrink(1.0), race=slow)[0][1] == "applied"
    (found,) = run(1.0, Shrink(1.0, faster=True), race=slow)
    assert found[1] == "rolled back"
    assert "not faster on this machine" in found[2]
    fast = SpeedInfo(Ratio(0.5, 0.49, 0.51), even, "faster")
    assert run(1.0, Shrink(1.0, faster=True), race=fast)[0][1] == "applied"


def test_a_share_lies_between_nothing_and_all() -> None:
    with pytest.raises(UsageError, match="does not lie between 0 and 1"):
        Recipe.parse(["quantize-weights:share=1.5"])
    (step,) = Recipe.parse(["quantize-weights:share=0.25,bits=4"]).passes
    assert isinstance(step, LossyPass)
    assert step.share == 0.25


def test_weights_with_floats_can_be_left_to_the_passes_behind() -> None:
    quantize = builtin_passes()["quantize-qdq"]
    with np.load(DATA) as data:
        samples = {"x": data["x"][:64]}
    kept = graphopt.optimize(
        DIGITS, passes=[quantize(strength=0.0, store_rest=False)], data=samples
    )
    assert not kept.report.steps[-1].edits
    stored = graphopt.optimize(DIGITS, passes=[quantize(strength=0.0)], data=samples)
    assert stored.report.steps[-1].edits
    assert quantize(store_rest=False).unhurried() is None
