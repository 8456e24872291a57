"""The HTML report in a real browser: it says nothing, asks for nothing, and nothing sticks out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import browser
import poison
import pytest
import samples

from graphopt.report.html import render_html, render_sensitivity_html

pytestmark = pytest.mark.skipif(browser.find() is None, reason="no Chromium on this machine")

FOREIGN = "document.querySelectorAll('script,img,iframe,object,embed,link,base,form').length"
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
UNFOLD = "document.querySelectorAll('details').forEach(entry => entry.open = true)"
STICKING_OUT = """
[...document.querySelectorAll('svg.chart text')].filter(text => {
  const own = text.getBoundingClientRect(), all = text.closest('svg').getBoundingClientRect();
  return own.width && (own.left < all.left - 1 || own.right > all.right + 1
    || own.top < all.top - 2 || own.bottom > all.bottom + 2);
}).map(text => text.textContent)
"""
OVERLAPPING = """
[...document.querySelectorAll('svg.scatter, svg.histogram')].flatMap(svg => {
  const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  return boxes.flatMap(([a, p], i) => boxes.slice(i + 1)
    .filter(([b, q]) => p.left < q.right - 1 && q.left < p.right - 1
      && p.top < q.bottom - 3 && q.top < p.bottom - 3)
    .map(([b]) => a + ' on ' + b));
})
"""
CROWDED = """
[...document.querySelectorAll('.node')].filter(node => {
  const all = node.querySelector('rect').getBoundingClientRect();
  return [...node.querySelectorAll('text')].some(text => text.getBoundingClientRect().width > all.width);
}).map(node => node.textContent)
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    made = browser.Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pages")
    pages = {
        "full": render_html(samples.full()),
        "minimal": render_html(samples.minimal()),
        "hostile": render_html(poison.hostile()),
        "sensitivity": render_sensitivity_html(samples.sensitivity_report()),
    }
    for name, html in pages.items():
        (place / f"{name}.html").write_text(html, encoding="utf-8")
    return place


@pytest.mark.parametrize("name", ["full", "minimal", "hostile", "sensitivity"])
def test_a_page_is_silent_and_asks_for_nothing(
    chromium: browser.Browser, folder: Path, name: str
) -> None:
    path = folder / f"{name}.html"
    chromium.open(path)
    chromium.evaluate(UNFOLD)
    assert chromium.complaints() == []
    assert chromium.requests() == [path.as_uri()]
    assert chromium.evaluate(FOREIGN) == 0
    assert chromium.evaluate("document.styleSheets.length") == 1


@pytest.mark.parametrize("width", [1280, 768, 390, 320])
@pytest.mark.parametrize("name", ["full", "hostile", "sensitivity"])
def test_no_page_scrolls_sideways(
    chromium: browser.Browser, folder: Path, name: str, width: int
) -> None:
    chromium.open(folder / f"{name}.html", width)
    chromium.evaluate(UNFOLD)
    assert chromium.evaluate("innerWidth") == width
    assert chromium.evaluate(WIDER) <= 0


@pytest.mark.parametrize("width", [1280, 390])
def test_text_in_charts_neither_clips_nor_overlaps(
    chromium: browser.Browser, folder: Path, width: int
) -> None:
    chromium.open(folder / "full.html", width)
    chromium.evaluate(UNFOLD)
    assert chromium.evaluate("document.querySelectorAll('svg.scatter').length") == 3
    assert chromium.evaluate(STICKING_OUT) == []
    assert chromium.evaluate(OVERLAPPING) == []
    assert chromium.evaluate(CROWDED) == []


def test_both_themes_follow_the_reader(chromium: browser.Browser, folder: Path) -> None:
    grounds = []
    for dark in (False, True):
        chromium.open(folder / "full.html", dark=dark)
        grounds.append(chromium.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 23, 28)"]


def test_a_script_that_got_in_would_not_run(chromium: browser.Browser, tmp_path: Path) -> None:
    html = render_html(samples.minimal())
    hole = "<script>document.title = 'run'</script><img src='x' onerror=\"document.title = 'run'\">"
    path = tmp_path / "hole.html"
    path.write_text(html.replace("</main>", f"{hole}</main>"), encoding="utf-8")
    chromium.open(path)
    assert chromium.evaluate("document.title") == "graphopt: my model.onnx"
    assert chromium.blocked() == ["csp"]
