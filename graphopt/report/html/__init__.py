"""The report as one HTML file: no script, no request, readable by itself."""

from __future__ import annotations

from graphopt.report.html import run, sensitivity
from graphopt.report.html.page import fitting
from graphopt.report.judgement import SensitivityReport
from graphopt.report.tree import Report

__all__ = ["render_html", "render_sensitivity_html"]


def render_html(report: Report) -> str:
    """The report of a run as one self-contained HTML file of less than 2 MB.

    Args:
        report: the report; nothing else is looked at. What is too much for a page is left out with a line
            that says so.

    Returns:
        The text of the file, the same for the same report; to be written as UTF-8.
    """
    return fitting(lambda limits: run.page(report, limits))


def render_sensitivity_html(report: SensitivityReport) -> str:
    """What ``graphopt sensitivity`` found, as one self-contained HTML file of less than 2 MB.

    Args:
        report: the report; nothing else is looked at.

    Returns:
        The text of the file, the same for the same report; to be written as UTF-8.
    """
    return fitting(lambda limits: sensitivity.page(report, limits))
