"""The one public verb: take a model, run passes over it, judge the result, write it, report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphopt.assessment import Data, Running
from graphopt.errors import UsageError
from graphopt.execution import execute
from graphopt.ir.model import Model
from graphopt.outcome import Listener
from graphopt.pass_base import Limits, Pass
from graphopt.quality.gate import Budget
from graphopt.quality.metrics import Metric
from graphopt.recipe import Recipe
from graphopt.report import Report
from graphopt.request import Request
from graphopt.runtime.cache import Cache
from graphopt.shipped_recipes import find_recipe

Source = str | os.PathLike[str] | bytes | Model

WITH_DATA, WITHOUT_DATA = "default", "lossless"
"""The recipes that run where nothing is named."""


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
    labels: str | None = None,
    metric: str | Metric | None = None,
    budget: Budget | None = None,
    strict: bool = False,
    running: Running | None = None,
    latency: bool = False,
    pack: bool | None = None,
    details: bool = False,
    provenance: bool = False,
    seed: int = 0,
    limits: Limits | None = None,
    cache: Cache | None = None,
    listener: Listener = lambda progress: None,
    command: Sequence[str] = (),
) -> Result:
    """Optimize a model and prove what it gained and what it cost.

    Args:
        source: a path, the bytes of a model, or a model that is already loaded.
        output: where to write the result; nothing is written where this is None.
        passes: the passes to run, as objects or as ``NAME[:field=value,...]``. By default the recipe
            ``default`` runs where there is data, and all exact ones where there is none. Where a lossy one
            comes first, folding runs before it.
        recipe: a recipe, the path of one or the name of one that comes with graphopt, instead of ``passes``.
        skip: names of passes to leave out.
        data: real inputs to judge with, in any form that ``graphopt.quality.data`` reads. Inputs are drawn
            at random where this is None, and then nothing judges what lossy passes lose.
        labels: the key of the labels in the data.
        metric: what lossy passes are judged by, as in ``top1``; chosen from the data by default.
        budget: what may be lost; one point at a confidence of 95 % by default.
        strict: whether a lossy pass must be proven to keep to the budget, not only be estimated to.
        running: provider, threads and time for running models.
        latency: whether to time the original and the result.
        pack: whether to pack the result, into an archive beside ``output``, and to report what it takes; as
            the recipe says where this is None.
        details: whether to describe layers and graphs in the report.
        provenance: whether to write what the passes did into the result's metadata; see
            ``graphopt.explain``.
        seed: of everything that is random.
        limits: what the run may spend.
        cache: where statistics of the data are kept between runs.
        listener: told where the run stands.
        command: the command line, for the report.

    Returns:
        The optimized model and the report.

    Raises:
        ModelError: the model cannot be read or is invalid, or does not run on the data.
        UsageError: a pass, option, recipe, metric or the data is wrong.
        ProviderError: the provider is missing.
        ResourceError: a limit was reached.
        OutputError: the result cannot be written; what stood there is untouched.
    """
    chosen = choose(passes, recipe, skip, data is not None)
    model = source if isinstance(source, Model) else Model.load(source)
    limits = limits or Limits()
    request = Request(
        model=model,
        recipe=chosen,
        data=data,
        labels=labels,
        metric=metric,
        budget=budget or Budget(),
        strict=strict,
        named=passes is not None or recipe is not None,
        running=running or Running(seconds=limits.request_seconds),
        latency=latency,
        pack=chosen.pack if pack is None else pack,
        details=details,
        provenance=provenance,
        seed=seed,
        limits=limits,
        cache=cache,
        listener=listener,
        command=tuple(command),
    )
    report, optimized = execute(request, output)
    return Result(optimized, report)


def choose(
    passes: Iterable[str | Pass] | None,
    recipe: Recipe | str | os.PathLike[str] | None,
    skip: Sequence[str],
    data: bool = False,
) -> Recipe:
    """The recipe that a request stands for; passes that are named one by one begin with a folded graph.

    Args:
        passes: named one by one.
        recipe: a recipe, or what names one.
        skip: names of passes to leave out.
        data: whether there is data: what runs where nothing is named depends on it.

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
        chosen = find_recipe(recipe or (WITH_DATA if data else WITHOUT_DATA))
    return chosen.without(skip)


__all__ = ["Result", "choose", "optimize"]
