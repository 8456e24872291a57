"""The parts of the HTML report: text, scales, the graph's contraction and layout."""

from __future__ import annotations

import dataclasses
import random
import shutil
import subprocess
from collections import Counter
from itertools import pairwise

import poison
import pytest
import samples

from graphopt.report import GraphInfo, NodeInfo
from graphopt.report.format import change, duration, number, quotient, size
from graphopt.report.html import collapse, layout
from graphopt.report.html.figures import counted, metric_scale, plain, points
from graphopt.report.html.histogram import distance
from graphopt.report.html.scatter import Axis, Estimate, Point, scatter
from graphopt.report.html.svg import ticks
from graphopt.report.html.text import columns, command_line, middle, name


@pytest.mark.parametrize("text", poison.EVIL)
@pytest.mark.parametrize("width", [5, 20, 44])
def test_a_name_keeps_to_its_width_and_its_ends(text: str, width: int) -> None:
    short = middle(text, width)
    assert columns(short) <= width
    if "…" in short and "…" not in text:
        head, tail = short.split("…", 1)
        assert head
        assert tail


def test_a_cut_name_has_the_whole_of_it_as_a_tooltip() -> None:
    made = name("/model/" + "layer/" * 20 + "Conv<1>", 20)
    assert 'title="/model/layer/' in made
    assert "Conv&lt;1&gt;" in made
    assert "title" not in name("short", 20)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_the_command_can_be_pasted_into_a_shell() -> None:
    words = [
        "graphopt",
        "a b",
        "it's",
        "x\ny",
        "\u202e",
        "$HOME",
        "`id`",
        "",
        "名前",
        "\\n",
        "\x01'",
        "é",
    ]
    line, whole = command_line(words, 10_000)
    assert whole
    assert "\n" not in line
    script = f"printf '%s\\0' {line.striptags()}"
    got = subprocess.run(
        ["bash", "-c", script], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    ).stdout
    assert got.decode().split("\0")[:-1] == words


def test_a_long_command_is_cut_and_says_so() -> None:
    line, whole = command_line(["x" * 20] * 100, 50)
    assert len(line.striptags()) == 50
    assert not whole


def test_figures_are_short_and_never_fail() -> None:
    assert size(1024 * 1024 - 1) == "1.0 MiB"
    assert number(999_999) == "1.00 M"
    assert number(None) == "not known"
    assert len(number(10**400)) < 12
    assert len(size(10**400)) < 310
    assert change(10**400, 1) == "-100.0 %"
    assert quotient(0, 5) == ""
    assert quotient(8, 2) == "0.250"
    assert duration(0.0031) == "3.10 ms"
    assert points(0.0025, sign=True) == "+0.25 %"
    assert points(0.00004) == "0.004 %"
    assert points(None) == plain(None) == "not known"
    assert plain(21.70000001) == "21.7"
    assert counted(1, "node") == "1 node"
    assert counted(2000, "pass", "passes") == "2,000 passes"


def test_a_share_is_told_from_another_metric_by_its_drop() -> None:
    report = samples.full()
    assert report.budget is not None
    scale = metric_scale(report.budget, report.gates, [])
    assert scale.value(0.984) == "98.40 %"
    relative = [samples.gate("p", "", 0.01, 0.001)]
    other = metric_scale(None, [dataclasses.replace(relative[0], before=3.1)], [])
    assert other.value(3.1) == "3.1"


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3.2, 17), (0, 7e8), (1e-9, 2e-9), (94.3, 98.7)]
)
def test_ticks_are_round_few_and_within(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 6
    assert all(low - 1e-9 * abs(low) <= value <= high + 1e-9 * abs(high) for value in found)
    steps = {round((b - a) / (high - low), 9) for a, b in pairwise(found)}
    assert len(steps) == 1


def test_points_in_one_place_are_drawn_with_only_the_labels_that_fit() -> None:
    place = Estimate(1.0, 1.0, 1.0)
    crowd = [Point("accepted", str(i), place, place) for i in range(30)]
    made = scatter("a crowd", crowd, Axis("x", 1.0), Axis("y", 1.0), None, True)
    assert made.count('class="mark accepted"') == 30
    assert 1 <= made.count('class="label"') <= 6


def test_the_distance_of_histograms() -> None:
    layer = samples.layers(4, random.Random(0))
    assert distance(layer[3]) == 0.0
    assert 0 < distance(layer[2]) < distance(layer[0]) <= 1


def _random_graph(seed: int, count: int) -> GraphInfo:
    rng = random.Random(seed)
    nodes = []
    for index in range(count):
        reads = sorted(
            {max(0, index - 1 - int(rng.expovariate(0.3))) for _ in range(rng.randint(0, 3))}
        )
        status = rng.choices(("kept", "changed", "removed"), (8, 1, 1))[0]
        op = rng.choice(("Conv", "Relu", "Add"))
        nodes.append(NodeInfo(f"n{index}", op, status, 0, [r for r in reads if r < index]))
    return GraphInfo(nodes)


@pytest.mark.parametrize("seed", range(12))
def test_contraction_keeps_every_node_and_makes_no_circle(seed: int) -> None:
    graph = _random_graph(seed, 150)
    found, left_out = collapse.boxes(graph, 10_000)
    assert left_out == 0
    assert Counter(node.name for box in found for node in box.nodes) == Counter(
        node.name for node in graph.nodes
    )
    home = {node.name: index for index, box in enumerate(found) for node in box.nodes}
    for index, box in enumerate(found):
        assert len({node.status for node in box.nodes}) == 1
        assert all(found[source].level < box.level and source < index for source in box.inputs)
    for node in graph.nodes:
        reads = {home[graph.nodes[source].name] for source in node.inputs} - {home[node.name]}
        assert reads <= set(found[home[node.name]].inputs)
    assert max(Counter(box.level for box in found).values()) <= max(4 * collapse.WIDE, 1)


def test_an_unchanged_run_is_one_box_and_a_change_stays_alone() -> None:
    nodes = [NodeInfo(f"n{i}", "Relu", "kept", i, [i - 1] if i else []) for i in range(40)]
    nodes[20] = NodeInfo("odd", "Conv", "changed", 20, [19])
    found, _ = collapse.boxes(GraphInfo(nodes), 100)
    assert [len(box.nodes) for box in found] == [20, 1, 19]


def test_inputs_that_point_nowhere_are_ignored() -> None:
    nodes = [
        NodeInfo("a", "Relu", "changed", 0, [5, -1, 0, 1]),
        NodeInfo("b", "Relu", "changed", 1, [0, 99]),
    ]
    found, _ = collapse.boxes(GraphInfo(nodes), 100)
    assert [box.inputs for box in found] == [(), (0,)]


@pytest.mark.parametrize("seed", range(6))
def test_boxes_of_a_row_keep_apart_and_inside(seed: int) -> None:
    found, _ = collapse.boxes(_random_graph(seed, 200), 160)
    made = layout.arrange(found)
    rows: dict[float, list[float]] = {}
    for x, y in made.places:
        rows.setdefault(y, []).append(x)
        assert layout.BOX_WIDTH / 2 <= x <= made.width - layout.BOX_WIDTH / 2
        assert 0 <= y <= made.height - layout.BOX_HEIGHT
    for xs in rows.values():
        xs.sort()
        assert all(b - a >= layout.BOX_WIDTH for a, b in pairwise(xs))
    for (_, top), (_, bottom) in made.lines:
        assert top < bottom
