"""Run the ONNX backend tests on graphopt or on another optimizer.

    python -m benchmarks.backend --jobs 2
    python -m benchmarks.backend --tool onnxslim --sample 200 --seed 1

The tool must be importable in the interpreter that runs this; for a tool in another environment
use that environment's interpreter. For tests: `collect` gives the cases, `run_case` runs one.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.backend_cases import Case, collect
from benchmarks.backend_pool import Pool, check_platform
from benchmarks.backend_run import Outcome, run_case
from benchmarks.tools import TOOLS

__all__ = ["Case", "Outcome", "collect", "run_case", "sample"]

STATUSES = ("ok", "wrong", "invalid", "crash", "refused", "timeout")


def sample(cases: Sequence[Case], size: int, seed: int) -> list[Case]:
    """Return ``size`` of the cases, the same ones for the same seed, in their order."""
    if size >= len(cases):
        return list(cases)
    chosen = random.Random(seed).sample(range(len(cases)), size)
    return [cases[index] for index in sorted(chosen)]


def markdown(tool: str, outcomes: Sequence[Outcome]) -> str:
    """Return the table of one tool: cases usable, then one column per status."""
    counts: Counter[str] = Counter(outcome.status for outcome in outcomes)
    usable = len(outcomes) - counts["unusable"]
    engines = Counter(outcome.engine for outcome in outcomes if outcome.status != "unusable")
    head = ["tool", "usable cases", *STATUSES, "judged in ORT", "in the reference"]
    cells = [tool, usable, *(counts[status] for status in STATUSES)]
    cells += [engines["onnxruntime"], engines["reference"]]
    lines = (head, ["---"] * len(head), [str(value) for value in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def arguments() -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description="Run the ONNX backend tests on an optimizer.")
    add = parser.add_argument
    add("--tool", action="append", choices=list(TOOLS), help="default: graphopt; may be repeated")
    add("--sample", type=int, metavar="N", help="run only N cases")
    add("--seed", type=int, default=0, help="which N cases; default: 0")
    add("--filter", type=re.compile, metavar="REGEX", help="only cases whose name matches")
    add("--jobs", type=int, default=2, help="worker processes; default: 2")
    add("--timeout", type=float, default=60, help="seconds per case; default: 60")
    add("--json", type=Path, metavar="FILE", help="write all outcomes here")
    return parser.parse_args()


def run(tool: str, cases: Sequence[Case], options: argparse.Namespace) -> list[Outcome]:
    """Run all cases on a tool with a progress line on the standard error."""
    outcomes = []
    start = time.monotonic()
    for outcome in Pool(cases, tool, options.jobs, options.timeout).run():
        outcomes.append(outcome)
        if len(outcomes) % 200 == 0:
            spent = time.monotonic() - start
            print(f"{tool}: {len(outcomes)} of {len(cases)}, {spent:.0f} s", file=sys.stderr)
    return sorted(outcomes, key=lambda outcome: outcome.name)


def main() -> int:
    """Run the cases, print a table and every case that is not ok per tool."""
    options = arguments()
    check_platform()
    tools = options.tool or ["graphopt"]
    cases = [c for c in collect() if not options.filter or options.filter.search(c.name)]
    if options.sample is not None:
        cases = sample(cases, options.sample, options.seed)
    found: dict[str, list[Outcome]] = {}
    for name in tools:
        if fault := TOOLS[name].fault():
            print(f"{name}: missing ({fault})\n")
            continue
        found[name] = run(name, cases, options)
        print(markdown(name, found[name]))
        for outcome in found[name]:
            if outcome.status not in ("ok", "unusable"):
                why = " ".join(outcome.why.split())
                print(f"- {outcome.name}: {outcome.status} ({outcome.engine}): {why}"[:240])
        print()
    if options.json:
        data = {name: [asdict(each) for each in results] for name, results in found.items()}
        options.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
