"""What a person reads on a terminal: pure functions from results to rich renderables."""

from graphopt.report.terminal.looks import (
    render_bench,
    render_comparison,
    render_model,
    render_profile,
)
from graphopt.report.terminal.measures import (
    render_explanation,
    render_sensitivity,
    render_story,
)
from graphopt.report.terminal.run import WIDE, render_report, render_written

__all__ = [
    "WIDE",
    "render_bench",
    "render_comparison",
    "render_explanation",
    "render_model",
    "render_profile",
    "render_report",
    "render_sensitivity",
    "render_story",
    "render_written",
]
