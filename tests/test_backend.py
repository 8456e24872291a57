"""The ONNX backend tests: every case still gives the reference outputs after optimization."""

from __future__ import annotations

from pathlib import Path

import pytest

import graphopt
from benchmarks.backend import Outcome, collect, run_case, sample

SAMPLED = 160
"""Cases in the gate; all of them run with ``-m slow``, or faster with ``python -m benchmarks.backend``."""


def optimize(source: Path, target: Path) -> None:
    graphopt.optimize(source, target)


def check(outcomes: list[Outcome]) -> None:
    wrong = [outcome for outcome in outcomes if outcome.status not in ("ok", "unusable")]
    assert not wrong
    assert sum(outcome.status == "ok" for outcome in outcomes) > 0.9 * len(outcomes)


def test_a_sample_of_the_cases() -> None:
    check([run_case(case, optimize) for case in sample(collect(), SAMPLED, seed=0)])


@pytest.mark.slow
def test_all_cases() -> None:
    check([run_case(case, optimize) for case in collect()])
