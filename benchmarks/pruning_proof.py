"""Child process: prune one model without data, and prove what came of it; prints lines of JSON.

    python -m benchmarks.pruning_proof MODEL.onnx

By magnitude alone, and then with statistics of drawn inputs and refit. What was sliced by magnitude is
compared with the model of full size in which the same units are masked. A line holds the cells of a row of
``benchmarks.pruning models``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from benchmarks import feeds
from graphopt.ir.channel_masking import mask_groups
from graphopt.ir.channels import find_groups
from graphopt.ir.costs import count_macs, count_parameters
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.optimizer import Result, optimize
from graphopt.passes.pruning.prune_channels import Cut, PruneChannels
from graphopt.quality.equivalence import Equivalence, Verdict
from graphopt.quality.inputs import Feeds
from graphopt.report import StepReport
from graphopt.runtime.native import Native
from graphopt.stage import Stage

WAYS: dict[str, dict[str, str]] = {
    "magnitude": {"importance": "l2", "refit": "none"},
    "drawn": {},
}
"""Options by name; by default, without data, statistics come from drawn inputs."""


def prune(model: Model, options: dict[str, Any], **more: Any) -> Result:
    """Run the pass, options as in a recipe."""
    given = ",".join(f"{name}={value}" for name, value in options.items())
    return optimize(model, passes=[f"prune-channels:{given}"], **more)


def pruning_step(result: Result) -> StepReport:
    """What the pass itself reports."""
    return next(step for step in result.report.steps if step.name == "prune-channels")


def removed(before: Model, after: Model, feeds: Feeds) -> tuple[float | None, float]:
    """The shares of multiply-accumulates and of parameters that are gone.

    Args:
        before: the original.
        after: the result.
        feeds: what the multiply-accumulates are counted for; their share is None where it is not proven.
    """
    parameters = [count_parameters(model) for model in (before, after)]
    macs = [macs_for(model, feeds) for model in (before, after)]
    first, last = macs
    share = None if not first or last is None else 1 - last / first
    return share, 1 - parameters[1] / max(parameters[0], 1)


def macs_for(model: Model, feeds: Feeds) -> int | None:
    """Multiply-accumulates of one run; None where a shape is not proven even for inputs of fixed sizes."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.to_proto())
    for given in proto.graph.input:
        if isinstance(feeds.get(given.name), np.ndarray):
            kind = given.type.tensor_type
            del kind.shape.dim[:]
            for size in feeds[given.name].shape:
                kind.shape.dim.add().dim_value = size
    del proto.graph.value_info[:]
    for made in proto.graph.output:
        made.type.tensor_type.ClearField("shape")
    fixed = optimize(Model.load(proto)).model
    return count_macs(fixed, infer(fixed.graph, fixed.functions))


def moved(before: Model, after: Model, feeds: Sequence[Feeds]) -> float:
    """How far the output that differs most is off, as a share of its norm."""
    found = [0.0]
    sessions = [session(model.to_proto()) for model in (before, after)]
    for each in feeds:
        for wanted, got in zip(*(opened.run(None, each) for opened in sessions), strict=True):
            if wanted.dtype.kind == "f" and wanted.size:
                norm = float(np.linalg.norm(wanted)) or 1.0
                found.append(float(np.linalg.norm(got - wanted)) / norm)
    return max(found)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a table shows it."""
    return "not proven" if value is None else f"{100 * value:.{digits}f} %"


def session(proto: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Open a model as a user of ONNX Runtime does, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def faults(before: onnx.ModelProto, after: onnx.ModelProto) -> list[str]:
    """What is wrong with a result and was not with the original."""
    found = []
    if _refused(after) and not _refused(before):
        found.append(f"checker: {_refused(after)}")
    try:
        session(after)
    except Exception as error:
        found.append(f"does not load: {' '.join(str(error).split())[:120]}")
    sides = [(list(proto.graph.input), list(proto.graph.output)) for proto in (before, after)]
    if sides[0] != sides[1]:
        found.append("inputs or outputs changed")
    return found


def _refused(proto: onnx.ModelProto) -> str:
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        return " ".join(str(error).split())[:120]
    return ""


def masked_twin(folded: Model, judge: Equivalence, options: dict[str, Any]) -> Model:
    """The model of full size with those units masked that the pass would cut."""
    step = PruneChannels(**options)
    stage = Stage([step], bindings=judge.bindings())
    proposed = step.propose(stage.context(folded.copy()))
    cuts = [choice for choice in proposed if isinstance(choice, Cut)]
    groups = {group.name: group for group in find_groups(folded)}
    masked = folded.copy()
    mask_groups(masked, [(groups[cut.where], cut.keep) for cut in cuts])
    return masked


def equality(verdict: Verdict) -> str:
    """What a comparison found, in a cell."""
    if verdict.passed is None:
        return f"unproven: {verdict.why}"
    told = f"{verdict.relative:.1e}"
    return f"yes, {told}" if verdict.passed else f"**no**, {told}: {verdict.why}"


def prove(
    folded: Model, way: str, amount: float, drawn: Equivalence, known: list[Feeds]
) -> list[str]:
    """The cells of a row.

    Args:
        folded: the model.
        way: one of ``WAYS``.
        amount: the share of its multiply-accumulates that is to go.
        drawn: its judge on the inputs that the pass's run draws.
        known: inputs to compare on.
    """
    options = {"amount": amount, **WAYS[way]}
    result = prune(folded, options)
    step = pruning_step(result)
    if not step.edits:
        why = step.error or "; ".join(dict.fromkeys(s.why for s in step.skips[-3:]))
        return ["", "", "", "", "", f"nothing was cut: {why or '**NO REASON**'}", ""]
    wrong = faults(folded.to_proto(), result.model.to_proto())
    equal = ""
    if way == "magnitude":
        twin = masked_twin(folded, drawn, options)
        equal = equality(Equivalence(twin, drawn.native, known).judge(result.model))
    macs, parameters = removed(folded, result.model, known[0])
    told = "; ".join(skip.why for skip in step.skips if skip.node == "the model")
    valid = "; ".join(wrong) or "yes"
    off = f"{moved(folded, result.model, known):.3f}"
    return [percent(macs), percent(parameters), valid, equal, off, told, f"{step.seconds:.1f}"]


def known_feeds(path: Path, drawn: Equivalence) -> list[Feeds]:
    """Inputs that the model was made for, as far as they are known; else those that were drawn."""
    if path.stem in feeds.KNOWN:
        return list(feeds.make(path.stem, onnx.load(path)))
    return drawn.feeds


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--amount", type=float, default=0.3)
    parser.add_argument("--by", nargs="+", choices=WAYS, default=list(WAYS))
    given = parser.parse_args()
    folded = optimize(given.model).model
    groups = find_groups(folded)
    locked = sum(bool(group.locked) for group in groups)
    with Native() as native:
        drawn = Equivalence(folded, native)
        drawn.prepare()
        known = known_feeds(given.model, drawn)
        for way in given.by:
            cells = prove(folded, way, given.amount, drawn, known)
            print(json.dumps([way, f"{len(groups) - locked} / {locked}", *cells]), flush=True)


if __name__ == "__main__":
    main()
