"""Every pass against its fixture: one file of cases per pass, no code."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphopt.registry import builtin_passes
from graphopt.testing import Case, check, read_cases

FOLDER = Path(__file__).parent
FIXTURES = sorted(FOLDER.glob("*/*.onnxtxt"))
CASES = [
    pytest.param(path.stem, case, id=f"{path.stem}: {case.name}")
    for path in FIXTURES
    for case in read_cases(path)
]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_case(name: str, case: Case, native) -> None:
    check(builtin_passes()[name](), case, native)


def test_every_pass_has_a_fixture() -> None:
    assert {path.stem for path in FIXTURES} == set(builtin_passes())
