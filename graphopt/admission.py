"""Which models come in, and which go out: the checker's word, where no runtime has one."""

from __future__ import annotations

from typing import Any

from graphopt.errors import ModelError, NativeError
from graphopt.ir.model import Model
from graphopt.ir.storage import EMBED_LIMIT
from graphopt.outcome import Outcome
from graphopt.quality.equivalence import Equivalence
from graphopt.runtime.exposing import SEND_BYTES, Exposed
from graphopt.runtime.native import Native


def admit(model: Model, judge: Equivalence, native: Native) -> list[str]:
    """Refuse a model that neither runs nor passes the checker.

    A model that ONNX Runtime runs is good enough, whatever the checker says of it. The reference evaluator
    runs nearly anything, so that it runs a model says little.
    """
    judge.prepare()
    if (judge.references and judge.backend == "ort") or model.weight_bytes() > EMBED_LIMIT:
        return []
    try:
        _check(model, native, full=True, seconds=judge.seconds)
    except NativeError as error:
        if judge.opened:
            return [f"the checker objects to the model: {error.what}"]
        raise ModelError(
            f"the model is invalid: {error.what}", "No runtime loads it either"
        ) from None
    return []


def checked(original: Model, outcome: Outcome, native: Native, seconds: float) -> list[str]:
    """The result must pass the checker wherever the original does."""
    if outcome.model is original or outcome.model.weight_bytes() > EMBED_LIMIT:
        return []
    try:
        _check(outcome.model, native, seconds=seconds)
    except NativeError as error:
        try:
            _check(original, native, seconds=seconds)
        except NativeError:
            return [f"the checker objects to the original and the result: {error.what}"]
        outcome.model, outcome.steps = original, []
        outcome.lossy, outcome.gate = False, None
        return [f"all passes were taken back: the checker objects to the result: {error.what}"]
    return []


def _check(model: Model, native: Native, **how: Any) -> None:
    """Let the checker see a model; one with many weights from a file, with these beside it."""
    if model.weight_bytes() <= SEND_BYTES:
        native.call("check", model.to_bytes(), **how)
        return
    with Exposed(model) as exposed:
        native.call("check", exposed.whole(), **how)
