"""What quantization does to six real models: right answers, bytes, and time.

    python -m benchmarks.fetch
    python -m benchmarks.quantization prepare FOLDER --lab LAB
    python -m benchmarks.quantization run FOLDER --pass quantize-qdq [-- --metric cosine]
    python -m benchmarks.quantization run FOLDER --recipe small      # or another
    python -m benchmarks.quantization measure FOLDER/rec CANDIDATE.onnx ...

``prepare`` makes a folder for each task: the model, ``calib.npz`` and ``eval.npz``
(``benchmarks.quantization_tasks``). ``run`` calls ``graphopt optimize`` on each as a user does, with
nothing but the calibration data, and measures what came out. ``measure`` compares any models with a task's
float model. What the figures mean: ``benchmarks.quantization_measure``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import ROOT, child
from benchmarks.pruning import head, row
from benchmarks.quantization_measure import Measured, measure
from benchmarks.quantization_tasks import TASKS, MissingError, Target, prepare


@dataclass(frozen=True)
class Cost:
    """What a run of the tool took.

    Attributes:
        status: its exit status, negative for a signal.
        seconds: wall time.
        mebibytes: the largest resident set of one of its processes.
        last: the last line that it wrote.
    """

    status: int
    seconds: float
    mebibytes: float
    last: str


def optimized(folder: Path, options: Sequence[str], limit: float) -> Cost:
    """Run the command on a task and write ``out.onnx`` and ``out.log``; nothing is cached before.

    Args:
        folder: the task's.
        options: after the model, the target and the data.
        limit: seconds; then it is killed.
    """
    target = folder / "out.onnx"
    for stale in (target, target.with_suffix(".gopt")):
        stale.unlink(missing_ok=True)
    command = [sys.executable, "-m", "graphopt", "optimize", str(folder / "model.onnx")]
    command += ["-o", str(target), "--data", str(folder / "calib.npz"), *options]
    log = folder / "out.log"
    with tempfile.TemporaryDirectory() as cache, log.open("w") as file:
        place = {**os.environ, "XDG_CACHE_HOME": cache}
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=place, stdout=file, stderr=file, start_new_session=True
        )
        killer = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
        killer.start()
        _, status, usage = os.wait4(process.pid, 0)
        killer.cancel()
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    lines = log.read_text(errors="replace").splitlines()
    said = next((line for line in reversed(lines) if line.strip()), "it said nothing")
    if seconds >= limit:
        said = f"longer than {limit:g} s"
    return Cost(process.returncode, seconds, usage.ru_maxrss / 1024, said)


def misses(float_metric: float, found: Measured, target: Target) -> str:
    """Which of the targets of a task are not reached."""
    wrong = []
    if found.metric < float_metric - target.drop - 1e-9:
        wrong.append(f"metric < {_percent(float_metric - target.drop, 2)}")
    if found.agreement < target.agreement:
        wrong.append(f"agreement < {_percent(target.agreement, 0)}")
    if found.cpu[0] < target.speed:
        wrong.append(f"speed-up < {target.speed:g}")
    if found.size > target.size:
        wrong.append(f"size > {_percent(target.size, 0)}")
    return ", ".join(wrong) or "none"


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _ratio(found: Sequence[float]) -> str:
    return f"{found[0]:.2f} ({found[1]:.2f}-{found[2]:.2f})"


def run_command(given: argparse.Namespace) -> None:
    """The tool on every task: a table."""
    options = ["--max-drop", given.max_drop, *given.more]
    if given.recipe:
        options += ["--recipe", given.recipe, "--pack"]
    for each in given.passes or ([] if given.recipe else ["quantize-qdq"]):
        options += ["--pass", each]
    scores = ("task", "float metric", "metric", "agreement", "SQNR dB")
    head(*scores, "speed-up (quartiles)", "in wall time", "size", "packed", "s", "MiB", "misses")
    speeds = []
    for name in given.tasks:
        folder = Path(given.folder, name).resolve()
        cost = optimized(folder, options, given.seconds)
        found = f"exit status {cost.status}: {cost.last}" if cost.status else _both(folder, given)
        tool = [_packed(folder), f"{cost.seconds:.1f}", f"{cost.mebibytes:.0f}"]
        if isinstance(found, str):
            row([name, *[""] * 7, *tool, f"**{found[:200]}**"])
            continue
        before, after = found
        wrong = misses(before.metric, after, TASKS[name].target)
        row([name, _percent(before.metric, 2), *_cells(after), *tool, wrong])
        speeds.append(after.cpu[0])
    mean = f"{np.exp(np.log(speeds).mean()):.2f}" if speeds else ""
    row([f"geometric mean of {len(speeds)}", *[""] * 4, mean, *[""] * 6])


def _packed(folder: Path) -> str:
    """How many times smaller than the original's file the archive is; nothing where none was written."""
    archive = folder / "out.gopt"
    if not archive.is_file():
        return ""
    return f"{(folder / 'model.onnx').stat().st_size / archive.stat().st_size:.1f}x"


def _both(folder: Path, given: argparse.Namespace) -> tuple[Measured, Measured] | str:
    """The float model and what the tool wrote, measured in a child; or why that failed."""
    arguments = ["measure", str(folder), str(folder / "out.onnx"), "--json"]
    arguments += ["--rounds", str(given.rounds)]
    answer = child(sys.executable, "benchmarks.quantization", arguments, given.seconds)
    if "status" in answer:
        return f"cannot be measured: {answer['why'][-160:]}"
    before, after = (Measured(**each) for each in answer.values())
    return before, after


def _cells(found: Measured) -> list[str]:
    """Metric, agreement, SQNR, both speed-ups, size."""
    return [
        _percent(found.metric, 2),
        _percent(found.agreement),
        f"{found.sqnr:.1f}",
        _ratio(found.cpu),
        _ratio(found.wall),
        _percent(found.size, 0),
    ]


def measure_command(given: argparse.Namespace) -> None:
    """Candidates beside the float model: a table, or one line of JSON."""
    candidates, folder = [Path(path) for path in given.models], Path(given.task)
    needed = [folder / "model.onnx", folder / "eval.npz", *candidates]
    gone = [str(path) for path in needed if not path.is_file()]
    if gone or folder.resolve().name not in TASKS:
        why = f"there is no {', '.join(gone)}" if gone else f"the tasks are {', '.join(TASKS)}"
        sys.exit(f"error: {folder} cannot be measured: {why}")
    found = measure(folder, candidates, given.rounds)
    if given.json:
        print(json.dumps({name: asdict(each) for name, each in found.items()}))
        return
    head(
        "model",
        "metric",
        "agreement",
        "SQNR dB",
        "speed-up (quartiles)",
        "in wall time",
        "size",
        "ms",
    )
    for name, each in found.items():
        row([name, *_cells(each), f"{each.milliseconds:.3f}"])


def prepare_command(given: argparse.Namespace) -> None:
    """The folders of the tasks."""
    for name in given.tasks:
        try:
            print(prepare(TASKS[name], Path(given.folder), given.lab), flush=True)
        except MissingError as error:
            sys.exit(f"error: {error}")


def main() -> None:
    """Prepare, measure or run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("prepare", help=prepare_command.__doc__)
    make.add_argument("--lab", type=Path, help="a folder with the model and the data of mnist")
    make.set_defaults(run=prepare_command)
    whole = commands.add_parser(
        "run", help=run_command.__doc__, epilog="Behind -- stand further options of the tool."
    )
    whole.add_argument("--pass", dest="passes", action="append", metavar="SPEC")
    whole.add_argument("--recipe", help="a recipe instead of passes")
    whole.add_argument("--max-drop", default="1%")
    whole.add_argument("--seconds", type=float, default=1800.0, help="for each model")
    whole.set_defaults(run=run_command)
    for command in (make, whole):
        command.add_argument("folder")
        command.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    one = commands.add_parser("measure", help=measure_command.__doc__)
    one.add_argument("task", help="the folder of a task")
    one.add_argument("models", nargs="+")
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=measure_command)
    for command in (whole, one):
        command.add_argument("--rounds", type=int, default=101)
    own, more = sys.argv[1:], []
    if "--" in own:
        own, more = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_args(own, argparse.Namespace(more=more))
    given.run(given)


if __name__ == "__main__":
    main()
