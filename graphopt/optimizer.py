"""The one public verb: take a model, run passes over it, judge the result, write it, report."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from onnx import helper

from graphopt._version import __version__
from graphopt.errors import ModelError, NativeError, UsageError
from graphopt.ir.costs import count_macs, count_nodes, count_parameters
from graphopt.ir.graph import Variable
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.ir.storage import EMBED_LIMIT
from graphopt.numerics.dims import Expr
from graphopt.numerics.dims import symbols as symbols_of
from graphopt.pass_base import Limits, Pass
from graphopt.pass_manager import Listener, Outcome, PassManager, Progress
from graphopt.quality.data import load_feeds
from graphopt.quality.equivalence import Equivalence, Verdict
from graphopt.quality.inputs import Feeds
from graphopt.recipe import Recipe
from graphopt.report import SCHEMA, ModelInfo, Report, TensorInfo, VerdictInfo
from graphopt.runtime.environment import environment
from graphopt.runtime.evaluation import Evaluator
from graphopt.runtime.native import Native

Source = str | os.PathLike[str] | bytes | Model
Data = str | os.PathLike[str] | Sequence[Feeds]

NATIVE_BYTES = 3 << 30
"""Address space that native code may use beside six times the model's weights."""


@dataclass(frozen=True)
class Result:
    """What ``optimize`` gives back.

    Attributes:
        model: the optimized model; ``model.save(path)`` writes it.
        report: what was done, refused and measured.
    """

    model: Model
    report: Report


def optimize(
    source: Source,
    output: str | os.PathLike[str] | None = None,
    *,
    passes: Iterable[str | Pass] | None = None,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    skip: Sequence[str] = (),
    data: Data | None = None,
    limits: Limits | None = None,
    listener: Listener = lambda progress: None,
    command: Sequence[str] = (),
) -> Result:
    """Optimize a model and prove that it still computes the same.

    Args:
        source: a path, the bytes of a model, or a model that is already loaded.
        output: where to write the result; nothing is written where this is None.
        passes: the passes to run, as objects or as ``NAME[:field=value,...]``; all exact ones by default.
        recipe: a recipe or the path of one, instead of ``passes``.
        skip: names of passes to leave out.
        data: real inputs to judge with: a ``.npz`` file with one array per input whose first axis counts
            the samples, or feeds. Inputs are drawn at random where this is None.
        limits: what the run may spend.
        listener: told where the run stands.
        command: the command line, for the report.

    Returns:
        The optimized model and the report.

    Raises:
        ModelError: the model cannot be read or is invalid.
        UsageError: a pass, option, recipe or the data is wrong.
        ResourceError: a limit was reached.
        OutputError: the result cannot be written; what stood there is untouched.
    """
    started = time.perf_counter()
    chosen = choose(passes, recipe, skip)
    model = source if isinstance(source, Model) else Model.load(source)
    feeds = load_feeds(data, model) if data is not None else []
    limits = limits or Limits()
    memory = limits.memory_bytes or NATIVE_BYTES + 6 * model.weight_bytes()
    with Native(memory, limits.request_seconds) as native:
        judge = Equivalence(model, native, feeds, min(limits.request_seconds, 20.0))
        listener(Progress("running the original"))
        warnings = _admit(model, judge, native)
        manager = PassManager(judge, Evaluator(native, limits.fold_seconds), limits, listener)
        outcome = manager.run(model, chosen.passes)
        warnings += _check(model, outcome, native, judge.seconds)
        bindings = judge.bindings()
    verdict = outcome.verdict or Verdict(None, "nothing was run")
    if verdict.passed is None:
        warnings.append(f"the result is not proven equal on numbers: {verdict.why}")
    written = None
    if output is not None:
        listener(Progress("writing"))
        written = outcome.model.save(output)
    report = Report(
        schema=SCHEMA,
        tool={"name": "graphopt", "version": __version__},
        command=list(command),
        input=describe(model, bindings),
        output=describe(outcome.model, bindings, output, written),
        steps=outcome.steps,
        verdict=verdict_info(verdict),
        seconds=round(time.perf_counter() - started, 3),
        environment=environment(),
        warnings=warnings,
    )
    return Result(outcome.model, report)


def choose(
    passes: Iterable[str | Pass] | None,
    recipe: Recipe | str | os.PathLike[str] | None,
    skip: Sequence[str],
) -> Recipe:
    """The recipe that a request stands for; passes that are named one by one begin with a folded graph.

    Raises:
        UsageError: both passes and a recipe are given, or one of them is wrong.
    """
    if passes is not None and recipe is not None:
        raise UsageError("passes and a recipe were both given", "Give one of them")
    if passes is not None:
        chosen = Recipe.parse(passes).folded()
    elif isinstance(recipe, Recipe):
        chosen = recipe
    else:
        chosen = Recipe.default() if recipe is None else Recipe.load(Path(recipe))
    return chosen.without(skip)


def _admit(model: Model, judge: Equivalence, native: Native) -> list[str]:
    """Refuse a model that neither runs nor passes the checker.

    A model that ONNX Runtime runs is good enough, whatever the checker says of it. The reference evaluator
    runs nearly anything, so that it runs a model says little.
    """
    judge.prepare()
    if (judge.references and judge.backend == "ort") or model.weight_bytes() > EMBED_LIMIT:
        return []
    try:
        native.call("check", model.to_bytes(), full=True, seconds=judge.seconds)
    except NativeError as error:
        if judge.opened:
            return [f"the checker objects to the model: {error.what}"]
        raise ModelError(
            f"the model is invalid: {error.what}", "No runtime loads it either"
        ) from None
    return []


def _check(original: Model, outcome: Outcome, native: Native, seconds: float) -> list[str]:
    """The result must pass the checker wherever the original does."""
    if outcome.model is original or outcome.model.weight_bytes() > EMBED_LIMIT:
        return []
    try:
        native.call("check", outcome.model.to_bytes(), seconds=seconds)
    except NativeError as error:
        try:
            native.call("check", original.to_bytes(), seconds=seconds)
        except NativeError:
            return [f"the checker objects to the original and the result: {error.what}"]
        outcome.model = original
        outcome.steps = []
        return [f"all passes were taken back: the checker objects to the result: {error.what}"]
    return []


def describe(
    model: Model,
    bindings: dict[tuple[str, int], int] | None = None,
    path: str | os.PathLike[str] | None = None,
    sha256: str | None = None,
) -> ModelInfo:
    """A model in figures.

    Args:
        model: the model.
        bindings: sizes of dynamic dimensions, by input and axis; 1 where one is missing.
        path: where it stands, if not where it was read from.
        sha256: of its file, if known.
    """
    facts = infer(model.graph, model.functions)
    symbols: dict[str, int] = {}
    for tensor in model.graph.inputs:
        for axis, dim in enumerate(facts.shape(tensor) or ()):
            if isinstance(dim, Expr) and bindings:
                size = bindings.get((tensor.name, axis), 1)
                symbols.update(dict.fromkeys(symbols_of(dim), size))
    file = Path(path) if path is not None else model.path
    data = file.read_bytes() if file is not None and file.is_file() else b""
    return ModelInfo(
        path=str(file) if file is not None else "",
        sha256=sha256 or (hashlib.sha256(data).hexdigest() if data else ""),
        file_bytes=len(data) or len(model.to_bytes()),
        ir_version=model.header.ir_version,
        opset=model.opset,
        nodes=count_nodes(model.scopes()),
        parameters=count_parameters(model),
        weight_bytes=model.weight_bytes(),
        macs=count_macs(model, facts, symbols),
        inputs=[tensor_info(t) for t in model.graph.inputs],
        outputs=[tensor_info(t) for t in model.graph.outputs],
    )


def tensor_info(tensor: Variable) -> TensorInfo:
    """An input or output as the file declares it."""
    if tensor.info is None or tensor.info.type.WhichOneof("value") != "tensor_type":
        kind = tensor.info.type.WhichOneof("value") if tensor.info is not None else None
        return TensorInfo(tensor.name, (kind or "unknown").removesuffix("_type"), None)
    declared = tensor.info.type.tensor_type
    dtype = helper.tensor_dtype_to_string(declared.elem_type).removeprefix("TensorProto.").lower()
    if not declared.HasField("shape"):
        return TensorInfo(tensor.name, dtype, None)
    dims = [
        d.dim_value if d.HasField("dim_value") else (d.dim_param or "?") for d in declared.shape.dim
    ]
    return TensorInfo(tensor.name, dtype, dims)


def verdict_info(verdict: Verdict) -> VerdictInfo:
    words: dict[bool | None, Literal["equal", "different", "unproven"]]
    words = {True: "equal", False: "different", None: "unproven"}
    return VerdictInfo(
        words[verdict.passed],
        verdict.why,
        verdict.largest,
        verdict.relative,
        verdict.outputs,
        verdict.samples,
        verdict.backend,
    )


__all__ = ["Result", "choose", "describe", "optimize"]
