"""Verdicts and statuses as words with a mark and a colour; the word says all, the colour repeats it."""

from __future__ import annotations

from markupsafe import Markup

from graphopt.report.html.blocks import Tone
from graphopt.report.html.text import compose, name

VERDICT_TONES: dict[str, Tone] = {"pass": "good", "fail": "bad", "unsure": "warn"}
CLAIM_TONES: dict[str, Tone] = {"faster": "good", "slower": "bad"}
_STATUS_TONES: dict[str, Tone] = {
    "applied": "good",
    "eased": "warn",
    "rolled back": "warn",
    "failed": "bad",
}
MARKS: dict[Tone, str] = {"good": "✓", "bad": "✗", "warn": "!"}


def _badge(tone: Tone, word: str) -> Markup:
    mark = compose('<span aria-hidden="true">{}</span> ', MARKS[tone]) if tone in MARKS else ""
    return compose('<span class="badge {}">{}{}</span>', tone, mark, name(word))


def verdict_badge(verdict: str) -> Markup:
    """The verdict of a gate."""
    return _badge(VERDICT_TONES.get(verdict, "warn"), verdict)


def claim_badge(claim: str) -> Markup:
    """What may be said of the latency."""
    return _badge(CLAIM_TONES.get(claim, "quiet"), claim)


def status_badge(status: str) -> Markup:
    """What became of a pass."""
    return _badge(_STATUS_TONES.get(status, "quiet"), status)
