"""A report that is read back is the one that was written; one of another form is refused in a line."""

from __future__ import annotations

import json
from typing import Any

import pytest
import samples

from graphopt.errors import UsageError
from graphopt.report import Report


@pytest.mark.parametrize("make", [samples.full, samples.minimal, samples.failing])
def test_a_report_survives_its_json(make: Any) -> None:
    assert Report.from_json(make().to_json()) == make()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["steps"], None, "steps: expected list"),
        (["steps"], [1], "steps: expected dict"),
        (["input", "nodes"], "x", "input: nodes: expected int"),
        (["input", "nodes"], True, "found bool"),
        (["gates"], {}, "gates: expected list"),
        (["verdict", "verdict"], "<b>", "none of 'equal'"),
        (["gate", "drop"], 10**400, "gate: drop: the number is too large"),
        (["latency", "before", "p50"], "1", "latency: before: p50: expected float"),
        (["environment"], [], "environment: expected dict"),
        (["schema"], "graphopt.report/9", "not a report"),
    ],
)
def test_a_report_of_another_form_is_refused(path: list[str], value: Any, said: str) -> None:
    tree = samples.full().to_dict()
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(UsageError, match="report") as caught:
        Report.from_json(json.dumps(tree))
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{}", '{"schema": "graphopt.report/1"}'])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Report.from_json(text)


def test_fields_of_a_later_version_are_passed_over() -> None:
    tree = samples.minimal().to_dict()
    tree["novelty"] = {"a": 1}
    assert Report.from_json(json.dumps(tree)) == samples.minimal()
