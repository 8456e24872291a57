"""Compare graphopt's folding with other optimizers on real models.

    python -m benchmarks.fetch
    python -m benchmarks.folding --peers-python other-env/bin/python --markdown folding.md

Every tool runs on every model in a process of its own; see README.md for what is measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from benchmarks import fetch, measure, table
from benchmarks.measure import ROOT, Result
from benchmarks.packages import PACKAGES
from benchmarks.tools import DEFAULT, TOOLS

FETCHED = "Models of public packages"
OWN = "Models of this repository"
Sets = dict[str, list[Path]]


def models(pattern: str | None) -> Sets:
    """Return the models to measure by the title of their set.

    Args:
        pattern: a glob of files instead of the fetched models and those in ``models/``.
    """
    if pattern:
        path = Path(pattern)
        base = Path(path.anchor) if path.is_absolute() else Path()
        relative = path.relative_to(path.anchor) if path.is_absolute() else path
        return {"Models": sorted(base.glob(str(relative)))}
    fetched = [fetch.target(package, model) for package in PACKAGES for model in package.models]
    return {
        FETCHED: [path for path in fetched if path.exists()],
        OWN: sorted((ROOT / "models").glob("*/*.onnx")),
    }


def measured(path: Path, tools: list[str], options: argparse.Namespace) -> Iterator[Result]:
    """Yield the results of all tools on one model, the original first."""
    with tempfile.TemporaryDirectory() as folder:
        results = [measure.original(path.stem, path, options.timeout)]
        for tool in tools:
            target = Path(folder, f"{tool}.onnx")
            own = TOOLS[tool].own or not options.peers_python
            python = measure.OWN_PYTHON if own else options.peers_python
            print(f"{path.stem}: {tool}", file=sys.stderr)
            results.append(
                measure.optimized(path.stem, tool, path, target, python, options.timeout)
            )
        if not options.no_latency:
            time_all(path, Path(folder), results, options)
        yield from results


def time_all(path: Path, folder: Path, results: list[Result], options: argparse.Namespace) -> None:
    """Time all correct outputs against the original and put the ratios into the results."""
    pairs = [
        f"{result.tool}={folder / result.tool}.onnx"
        for result in results
        if result.tool != "original" and result.status == "ok" and result.correct
    ]
    arguments = [path.stem, str(options.rounds), str(path), *pairs]
    times = measure.child(
        measure.OWN_PYTHON, "benchmarks.latency", arguments, options.timeout + 300
    )
    for result in results:
        key = "" if result.tool == "original" else result.tool
        for mode in ("on", "off"):
            if key in times.get(mode, {}):
                result.latency[mode] = times[mode][key]


def environment(results: list[Result]) -> str:
    """Return one line with the versions of Python, the judges and the tools."""
    found = {f"Python {platform.python_version()}"}
    found |= {f"{name} {metadata.version(name)}" for name in ("onnx", "onnxruntime", "numpy")}
    for result in results:
        if result.version:
            found.add(f"{TOOLS[result.tool].package} {result.version}")
    return f"{', '.join(sorted(found))}; {platform.machine()}, {platform.system()}."


def arguments() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description="Compare graphopt with other optimizers.")
    add = parser.add_argument
    add("--models", metavar="GLOB", help="models to measure instead of the usual ones")
    add("--tools", default=",".join(DEFAULT), help="comma-separated; default: %(default)s")
    add("--peers-python", metavar="PATH", help="interpreter that has the other tools")
    add("--no-latency", action="store_true", help="skip timing the optimized models")
    add("--rounds", type=int, default=21, help="interleaved rounds of timing; default: 21")
    add("--timeout", type=float, default=300, help="seconds per tool and model; default: 300")
    add("--markdown", type=Path, metavar="FILE", help="write the tables here, too")
    add("--json", type=Path, metavar="FILE", help="write the raw results here")
    options = parser.parse_args()
    unknown = [name for name in options.tools.split(",") if name not in TOOLS]
    if unknown:
        parser.error(f"unknown tools: {', '.join(unknown)}; known: {', '.join(TOOLS)}")
    return options


def main() -> int:
    """Measure, print the tables and write the files asked for."""
    options = arguments()
    sets = {title: paths for title, paths in models(options.models).items() if paths}
    if not sets:
        print("error: no models; run 'python -m benchmarks.fetch' first", file=sys.stderr)
        return 1
    everything: list[Result] = []
    sections = []
    for title, paths in sets.items():
        results = [r for p in paths for r in measured(p, options.tools.split(","), options)]
        everything += results
        sections.append(table.report(results, title))
    text = "\n".join([*sections, environment(everything), ""])
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    if options.json:
        data = json.dumps([asdict(result) for result in everything], indent=1)
        options.json.write_text(data + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
