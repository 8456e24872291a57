"""The HTML report as text: what is in it, what is not, and that nothing in a name becomes markup."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import math
import re
from html.parser import HTMLParser

import poison
import pytest
import samples

from graphopt.report import GraphInfo, Report
from graphopt.report.html import render_html, render_sensitivity_html

REPORTS = {
    "full": samples.full,
    "minimal": samples.minimal,
    "failing": samples.failing,
    "large": samples.large,
    "hostile": poison.hostile,
}
VOID = {"meta", "br"}
TAGS = {
    "html", "head", "meta", "title", "style", "body", "a", "header", "p", "h1", "h2", "h3",
    "div", "span", "strong", "br", "ul", "li", "nav", "main", "section", "footer", "table",
    "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "details", "summary", "figure",
    "figcaption", "pre", "code", "svg", "g", "path", "rect", "line", "circle", "text",
}  # fmt: skip
SECTIONS = [
    "before-after", "budget", "tradeoff", "passes", "quantized", "layers", "sensitivity", "latency", "graph",
    "equality", "reproduce",
]  # fmt: skip


class Page(HTMLParser):
    """Reads a page and holds its tags to account."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.style = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.texts.append(data)

    def values(self, key: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == key]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    found = {name: render_html(make()) for name, make in REPORTS.items()}
    return {**found, "sensitivity": render_sensitivity_html(samples.sensitivity_report())}


NAMES = [*REPORTS, "sensitivity"]


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_whole_small_and_inert(pages: dict[str, str], name: str) -> None:
    html = pages[name]
    assert html.startswith("<!DOCTYPE html>")
    assert len(html.encode("utf-8")) < 2_000_000
    page = Page(html)
    assert page.tags <= TAGS
    assert page.open == []
    kinds = {key for _, key, _ in page.attributes}
    assert not {key for key in kinds if key.startswith("on")} | (kinds & {"style", "src", "srcset"})
    assert all(value.startswith("#") for value in page.values("href"))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in page.values("href")} <= set(ids)
    assert not re.search(r"url\(|@import|https?:", page.style)


@pytest.mark.parametrize("name", NAMES)
def test_the_policy_allows_its_own_style_and_nothing_else(pages: dict[str, str], name: str) -> None:
    page = Page(pages[name])
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    policies = [value for value in page.values("content") if "default-src" in value]
    assert policies == [
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src 'none'; base-uri 'none'; "
        "form-action 'none'"
    ]
    assert "\r" not in page.style
    assert pages[name].index("Content-Security-Policy") < pages[name].index("<style>")


@pytest.mark.parametrize("name", ["full", "minimal", "hostile"])
def test_the_same_report_gives_the_same_page(pages: dict[str, str], name: str) -> None:
    assert render_html(REPORTS[name]()) == pages[name]


def test_the_page_is_drawn_from_the_json_alone(pages: dict[str, str]) -> None:
    report = Report.from_json(samples.full().to_json())
    assert render_html(report) == pages["full"]


def test_every_section_is_there_when_its_data_is(pages: dict[str, str]) -> None:
    ids = set(Page(pages["full"]).values("id"))
    assert set(SECTIONS) <= ids
    minimal = set(Page(pages["minimal"]).values("id"))
    assert {"before-after", "passes", "equality", "reproduce"} <= minimal
    assert not minimal & {"budget", "tradeoff", "layers", "sensitivity", "latency", "graph"}


def test_what_a_reader_looks_for_is_said_in_words(pages: dict[str, str]) -> None:
    text = Page(pages["full"]).text
    for said in (
        "Within the budget", "my model.onnx", "lose at most 1.00 %", "97.80 %", "0.24 % to 0.96 %",
        "simplified size / original size", "1,200 more samples would tell", "3 of 17 places left out",
        "over the budget at every strength", "its output is an output of the model",
        "IndexError: list index out of range", "graphopt optimize 'models/my model.onnx' --data d.npz",
        "ab" * 32, "faster", "the last 12 samples do not fill a batch", "Draw both graphs",
        "22 passes changed nothing", "its scale is not constant",
    ):  # fmt: skip
        assert said in text, said
    assert "Over the budget" in Page(pages["failing"]).text
    assert "exit code 3" in Page(pages["failing"]).text
    assert "Outputs equal" in Page(pages["minimal"]).text


def test_the_verdict_at_the_top_is_the_strongest_that_holds() -> None:
    report = samples.minimal()
    passed, lost = (samples.gate("", "", drop, 0.001) for drop in (0.0, 0.1))
    for gate, verdict, said in (
        (None, "equal", "Outputs equal"),
        (passed, "equal", "Outputs equal"),
        (passed, "different", "Within the budget"),
        (lost, "equal", "Over the budget"),
        (samples.gate("", "", 0.01, 0.005), "different", "Too few samples to tell"),
        (None, "different", "Outputs differ"),
        (None, "unproven", "Equality not proven"),
    ):
        judged = dataclasses.replace(report.verdict, verdict=verdict, why="odd")  # type: ignore[arg-type]
        html = render_html(dataclasses.replace(report, gate=gate, verdict=judged))
        assert re.findall(r"<p><strong>(.*?)</strong>", html)[0] == said


def test_what_a_lossy_pass_moved_is_never_called_equal() -> None:
    report = samples.full()
    judged = dataclasses.replace(report.verdict, verdict="equal", why="")
    close = dataclasses.replace(report, verdict=judged)
    text = Page(render_html(close)).text
    assert "Within the budget" in text
    assert "outputs within tolerances" in text
    assert "Outputs equal" not in text
    alone = Page(render_html(dataclasses.replace(close, gate=None))).text
    assert "a lossy pass moved the outputs by up to 3.1" in alone
    same = dataclasses.replace(judged, largest_difference=0.0)
    assert (
        "Outputs equal"
        in Page(render_html(dataclasses.replace(close, gate=None, verdict=same))).text
    )
    undone = [
        dataclasses.replace(step, status="rolled back") for step in report.steps if not step.exact
    ]
    exact = dataclasses.replace(close, steps=undone, gate=None)
    assert exact.equality == "equal"


def test_every_name_of_a_hostile_model_stays_text(pages: dict[str, str]) -> None:
    html = pages["hostile"]
    page = Page(html)
    assert "<img" not in html
    assert "<script" not in html
    assert "</script><img src=x onerror=alert(1)>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html
    )
    assert max(map(len, page.texts)) <= 4000  # the command, which is meant to be copied
    assert (
        max(len(value) for _, key, value in page.attributes if key not in ("d", "content")) < 1000
    )


@pytest.mark.parametrize("number", [0, -1, 1e308, 10**400, -(10**400), math.nan, math.inf, 1e-320])
def test_odd_figures_neither_fail_nor_reach_the_drawings(number: float) -> None:
    for report in (samples.full(), samples.failing()):
        page = Page(render_html(poison.with_numbers(report, number)))
        drawn = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "d", "viewbox"}
        wrong = [
            value
            for _, key, value in page.attributes
            if key in drawn and re.search("nan|inf", value)
        ]
        assert not wrong
    render_sensitivity_html(poison.with_numbers(samples.sensitivity_report(), number))


def test_what_is_too_much_is_counted(pages: dict[str, str]) -> None:
    text = Page(pages["large"]).text
    assert "left out here; the JSON has them" in text
    assert "1,234 nodes are not in the report" in text
    assert re.search(r"The first \d+ boxes are drawn", text)


def test_a_page_shrinks_until_it_fits() -> None:
    evil = [f"{i} " + "\u202e<&\"'" * 200 for i in range(600)]
    report = samples.minimal()
    edits = [dataclasses.replace(report.steps[0].edits[0], node=text, what=text) for text in evil]
    step = dataclasses.replace(report.steps[1], edits=edits, made=evil, removed=evil, error=evil[0])
    steps = [dataclasses.replace(step, name=f"pass {i}") for i in range(40)]
    html = render_html(dataclasses.replace(report, steps=steps, warnings=evil, command=evil))
    assert 100_000 < len(html.encode()) < 2_000_000
    assert "left out" in html


def test_an_empty_graph_and_layers_without_weights_are_no_reason_to_fail() -> None:
    report = dataclasses.replace(
        samples.minimal(),
        graph_before=GraphInfo([]),
        graph_after=GraphInfo([]),
        steps=[],
        command=[],
    )
    text = Page(render_html(report)).text
    assert "0 nodes removed" in text


def contrast(first: str, second: str) -> float:
    """The contrast ratio of WCAG 2.2."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(first), light(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_text_stands_out_in_both_themes(pages: dict[str, str], theme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", Page(pages["full"]).style, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", blocks[0]))
    if theme:
        colours.update(re.findall(r"--([\w-]+): (#\w{6});", blocks[1]))
    pairs = [(text, ground) for text in ("ink", "muted") for ground in ("page", "panel")]
    pairs += [("accent", "page"), ("page", "good"), ("page", "bad"), ("page", "warn")]
    pairs += [
        (tone, ground) for tone in ("good", "bad", "warn") for ground in ("page", f"{tone}-tint")
    ]
    pairs += [("ink", f"{tone}-tint") for tone in ("good", "bad", "warn")]
    pairs += [("muted", f"{tone}-tint") for tone in ("good", "bad", "warn")]
    pairs += [("heat-low", f"heat-{i}") for i in range(5)]
    pairs += [("heat-high", f"heat-{i}") for i in (5, 6)]
    weak = {pair: contrast(*(colours[name] for name in pair)) for pair in pairs}
    assert not {pair: ratio for pair, ratio in weak.items() if ratio < 4.5}
    drawn = {
        name: contrast(colours[name], colours["page"])
        for name in ("before", "accent", "green", "amber")
    }
    assert min(drawn.values()) >= 3


def test_the_heat_map_prints_drops_and_rings_those_over_the_limit(pages: dict[str, str]) -> None:
    cells = re.findall(
        r'<td class="heat h(\d)( ring)?"><span[^>]*>([^<]*)</span></td>', pages["full"]
    )
    shown = [
        (int(shade), bool(ring), float(text.replace("&lt;", ""))) for shade, ring, text in cells
    ]
    assert len(shown) == 12 * 13
    assert all(ring == (drop > 1) for _, ring, drop in shown if abs(drop - 1) > 0.01)
    by_drop = [shade for shade, _, _ in sorted(shown, key=lambda cell: cell[2])]
    assert by_drop == sorted(by_drop)
    assert {0, 6} <= set(by_drop)


def test_the_waterfall_ends_where_the_result_is(pages: dict[str, str]) -> None:
    rows = re.findall(r"<tr.*?</tr>", pages["full"], re.DOTALL)
    result = next(row for row in rows if ">Result<" in row and "81" in row)
    assert "167.0\u00a0KiB" in result
    assert "97.80\u00a0%" in result
    moved = next(row for row in rows if "cluster-weights" in row and "+28" in row)
    assert "-361.3\u00a0KiB" in moved
