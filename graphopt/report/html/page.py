"""The page: sections into one file with its style inside, that never grows beyond a limit.

The policy allows one thing, the style element, by the hash of its text (Content Security Policy Level 3,
section 8.3). No script, no image, no font, no request: what a name in a model could smuggle in would not run.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from graphopt.report.html.blocks import Block, Limits, Section, cut
from graphopt.report.html.summary import Banner
from graphopt.report.html.text import shown

MAX_BYTES = 1_990_000
"""Bytes of UTF-8 that a page stays within."""


_SEEN = 3
"""Warnings that are seen at once."""


@dataclass(frozen=True)
class Warnings:
    """What else to know.

    Attributes:
        first: shown at once.
        others: folded away.
        left_out: how many more there are.
    """

    first: list[str]
    others: list[str]
    left_out: int


def warnings(texts: list[str], limits: Limits) -> Warnings:
    """Some warnings of a list, each cut to a length."""
    kept, left_out = cut([text[: limits.letters] for text in texts], limits.groups)
    return Warnings(kept[:_SEEN], kept[_SEEN:], left_out)


@dataclass(frozen=True)
class Page:
    """What a page shows.

    Attributes:
        title: of the document.
        heading: the name of the model.
        banner: the verdict; None where nothing was judged.
        top: the summary.
        lead: a sentence for a reader who is new to it.
        warnings: what else to know.
        sections: in order.
        tool: name and version of what made it.
    """

    title: str
    heading: Markup
    banner: Banner | None
    top: list[Block]
    lead: str
    warnings: Warnings
    sections: list[Section]
    tool: str


def fitting(build: Callable[[Limits], Page]) -> str:
    """The fullest page that keeps to the limit of bytes.

    Args:
        build: makes the page with so much in it.
    """
    limits = Limits()
    while True:
        html = write(build(limits))
        if len(html.encode("utf-8")) <= MAX_BYTES or limits == limits.tighter():
            return html
        limits = limits.tighter()


def write(page: Page) -> str:
    """A page as one HTML file."""
    style = _style()
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_hash(style)}'",
            "img-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    template = _environment().get_template("page.html.j2")
    return template.render(page=page, style=Markup(style), policy=policy)


def _hash(style: str) -> str:
    digest = hashlib.sha256(style.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


@functools.cache
def _style() -> str:
    text = resources.files("graphopt.report.html").joinpath("style.css").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if line.strip()) + "\n"


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("graphopt.report.html", "templates"),
        autoescape=True,
        finalize=_safe,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _safe(value: Any) -> Any:
    """Every value that a template writes: markup made here as it is; all else as text, which is escaped."""
    return value if isinstance(value, Markup) else shown(str(value))
