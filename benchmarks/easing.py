"""In which order places are best eased: what is left of a model at equal bytes, on data that no run has seen.

    python -m benchmarks.quantization prepare FOLDER --lab LAB
    python -m benchmarks.easing FOLDER/cls --sizes 25%,29%,34%

``cluster-weights`` runs on a task up to where it has measured what each place loses alone. Then candidates of
given sizes are taken from the rows of relaxations in three orders: by what was measured, by what the pass
predicts, and by the geometric mean of both, which is what ``graphopt.easing`` does. The smallest that is not
predicted to be below a size is measured as by ``benchmarks.quantization measure``.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import graphopt
from benchmarks.quantization_measure import measure
from graphopt.easing import relaxations
from graphopt.lossy_pass import Choice, strongest
from graphopt.lossy_plans import Plan
from graphopt.lossy_stage import LossyTrial
from graphopt.quality.gate import Budget

ORDERS = {"measured": 1.0, "mean": 0.5, "predicted": 0.0}
"""Exponents of what was measured; that of what is predicted makes them up to 1."""


class Found(NamedTuple):
    """What a run found out before it eased places."""

    plan: Plan
    losses: dict[str, float]


class Reached(Exception):  # noqa: N818 - no error
    """A run has come to where it would ease places, and been used."""


def with_found(folder: Path, step: str, use: Callable[[Found], None]) -> None:
    """Run a pass on a task up to where it would ease places, and use what it has found out.

    Raises:
        SystemExit: it keeps to its budget at full strength.
    """
    measured = LossyTrial._losses

    def losses(trial: LossyTrial, gate: Any, plan: Plan) -> dict[str, float]:
        use(Found(plan, measured(trial, gate, plan)))
        raise Reached

    source, data = str(folder / "model.onnx"), str(folder / "calib.npz")
    with mock.patch.object(LossyTrial, "_losses", losses), contextlib.suppress(Reached):
        graphopt.optimize(source, data=data, passes=[step], budget=Budget(max_drop=0.01))
        raise SystemExit(f"{step} keeps to its budget on {folder.name}: nothing is eased")


def ordered(found: Found, exponent: float) -> list[list[Choice]]:
    """The row of relaxations where losses are ``m^a p^(1 - a)``, those of milder levels in proportion."""
    predicted = {choice.where: choice.loss for choice in strongest(found.plan.choices)}
    blended = {
        where: found.losses[where] ** exponent * loss ** (1 - exponent)
        for where, loss in predicted.items()
    }
    scaled = [
        replace(choice, loss=choice.loss * blended[choice.where] / (predicted[choice.where] or 1.0))
        for choice in found.plan.choices
    ]
    known = {(choice.where, choice.level): choice for choice in found.plan.choices}
    return [
        [known[choice.where, choice.level] for choice in chosen]
        for chosen in relaxations(scaled, blended)
    ]


def rows(folder: Path, found: Found, sizes: Sequence[float], target: Path) -> Mapping[Path, str]:
    """Candidates of all orders and sizes, written; by path what each is."""
    whole = (folder / "model.onnx").stat().st_size
    full = strongest(found.plan.choices)
    unchanged = len(found.plan.build(full).model.to_bytes()) + sum(each.saving for each in full)
    made: dict[Path, str] = {}
    for order, exponent in ORDERS.items():
        path = [full, *ordered(found, exponent)]
        for size in sizes:
            chosen = next(
                each
                for each in path
                if unchanged - sum(choice.saving for choice in each) >= min(size * whole, unchanged)
            )
            place = target / f"{order}-{size:g}.onnx"
            found.plan.build(chosen).model.save(place)
            made[place] = order
    return made


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of a task")
    parser.add_argument("--sizes", default="20%,25%,30%", help="of the file, as shares")
    parser.add_argument("--pass", dest="step", default="cluster-weights", help="the pass")
    given = parser.parse_args()
    sizes = [float(size.rstrip("%")) / 100 for size in given.sizes.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        made: dict[Path, str] = {}
        with_found(
            given.folder,
            given.step,
            lambda found: made.update(rows(given.folder, found, sizes, Path(folder))),
        )
        measured = measure(given.folder, list(made), 1)
    print("| order | size | SQNR dB | agreement |\n| --- | --- | --- | --- |")
    for path, order in made.items():
        each = measured[str(path)]
        print(f"| {order} | {each.size:.1%} | {each.sqnr:.1f} | {each.agreement:.1%} |")


if __name__ == "__main__":
    main()
