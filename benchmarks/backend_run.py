"""Run one backend test on an optimizer: which engine can judge it, and what came out.

A case is judged in ONNX Runtime (CPU, graph optimizations off) when the *original* reproduces
the expected outputs there, else in onnx's reference evaluator when it does there, else it is
unusable: a difference then says nothing about the optimizer.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from benchmarks.backend_cases import Case, Value
from benchmarks.tools import OptimizeFn

Engine = Literal["onnxruntime", "reference"]
Status = Literal["ok", "wrong", "invalid", "crash", "refused", "timeout", "unusable"]
ENGINES: tuple[Engine, ...] = ("onnxruntime", "reference")
BFLOAT16_RTOL = 2.0**-6
"""Two units in the last place of bfloat16, the tolerance that onnx's own test runner uses."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        name: the case's name.
        status: ``ok``; ``wrong`` (it runs, other outputs), ``invalid`` (the optimized model is
            not valid, does not load or does not run), ``crash`` (the process died), ``refused``
            (the optimizer raised an error), ``timeout``, or ``unusable`` (no engine reproduces
            the expected outputs with the original).
        engine: where it was judged, or None.
        why: what is wrong, when anything is.
    """

    name: str
    status: Status
    engine: Engine | None = None
    why: str = ""


def _in_onnxruntime(model: onnx.ModelProto, data: Sequence[list[Value]]) -> list[list[Value]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    return [session.run(None, dict(zip(names, inputs, strict=True))) for inputs in data]


def _in_reference(model: onnx.ModelProto, data: Sequence[list[Value]]) -> list[list[Value]]:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in weights]
    return [list(evaluator.run(None, dict(zip(names, inputs, strict=True)))) for inputs in data]


def execute(
    engine: Engine, model: onnx.ModelProto, data: Sequence[list[Value]]
) -> list[list[Value]]:
    """Run a model on each list of inputs and return the lists of outputs.

    Raises:
        Exception: the engine refuses the model or fails on an input.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        run = _in_onnxruntime if engine == "onnxruntime" else _in_reference
        return run(model, data)


def difference(expected: Value, got: Value, rtol: float, atol: float) -> str:
    """Return how ``got`` differs from ``expected``, or an empty string.

    Floats within the tolerances, NaN equal to NaN; integers, booleans and strings exactly;
    sequences element by element; an empty optional only like an empty optional.
    """
    if expected is None or got is None:
        return "" if expected is got else f"{_kind(got)} instead of {_kind(expected)}"
    if isinstance(expected, list) or isinstance(got, (list, tuple)):
        if not isinstance(expected, list) or not isinstance(got, (list, tuple)):
            return f"{_kind(got)} instead of {_kind(expected)}"
        if len(expected) != len(got):
            return f"{len(got)} values instead of {len(expected)}"
        found = (difference(e, g, rtol, atol) for e, g in zip(expected, got, strict=True))
        return next((text for text in found if text), "")
    return _array_difference(np.asarray(expected), np.asarray(got), rtol, atol)


def _kind(value: Value) -> str:
    if value is None:
        return "an empty optional"
    return "a sequence" if isinstance(value, (list, tuple)) else "a tensor"


def _array_difference(a: Any, b: Any, rtol: float, atol: float) -> str:
    if a.shape != b.shape:
        return f"shape {b.shape} instead of {a.shape}"
    if a.dtype.kind in "OUS" or b.dtype.kind in "OUS":
        same = [str(x) for x in a.ravel()] == [str(x) for x in b.ravel()]
        return "" if same else "other strings"
    if a.dtype != b.dtype:
        return f"type {b.dtype} instead of {a.dtype}"
    if a.dtype.kind in "iub":
        return "" if np.array_equal(a, b) else "other integers"
    if "int" in a.dtype.name:  # int4 and the like of ml_dtypes
        return "" if np.array_equal(a.astype(np.int8), b.astype(np.int8)) else "other integers"
    if a.dtype.name == "bfloat16":
        rtol = max(rtol, BFLOAT16_RTOL)
    if a.dtype.kind == "V" or a.dtype.name.startswith(("bfloat", "float8", "float4")):
        a, b = a.astype(np.float32), b.astype(np.float32)
    with np.errstate(all="ignore"):
        close = np.isclose(b, a, rtol=rtol, atol=atol, equal_nan=True)
        if close.all():
            return ""
        worst = np.nanmax(np.abs(b - a), initial=0)
        return f"off by {worst:.3g}, {np.sum(~close)} of {close.size} values"


def judge(engine: Engine, model: onnx.ModelProto, case: Case) -> str:
    """Return how the model's outputs differ from the expected ones, or an empty string.

    Raises:
        Exception: the engine cannot run it.
    """
    results = execute(engine, model, [inputs for inputs, _ in case.data])
    for (_, expected), got in zip(case.data, results, strict=True):
        text = difference(expected, list(got), case.rtol, case.atol)
        if text:
            return text
    return ""


def find_engine(case: Case) -> Engine | None:
    """Return the first engine in which the original reproduces the expected outputs."""
    return next((engine for engine in ENGINES if _reproduces(engine, case)), None)


def _reproduces(engine: Engine, case: Case) -> bool:
    try:
        return not judge(engine, case.model, case)
    except TimeoutError:
        raise
    except Exception:
        return False


def _is_valid(model: onnx.ModelProto) -> str:
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        return str(error)
    return ""


def _interface(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in weights]
    return inputs, [value.name for value in model.graph.output]


def run_case(case: Case, optimize_fn: OptimizeFn, engine: Engine | None = None) -> Outcome:
    """Optimize a case's model and compare what it then computes with the expected outputs.

    Args:
        case: the case; its model is not changed.
        optimize_fn: called with the path of the model and the path to write.
        engine: where to judge, when the caller knows it from `find_engine`.

    Returns:
        The outcome. A crash of the process and a hang are not caught here; the benchmark's pool
        of workers does that.
    """
    engine = engine or find_engine(case)
    if engine is None:
        return Outcome(case.name, "unusable")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "model.onnx"), Path(folder, "optimized.onnx")
        source.write_bytes(case.model.SerializeToString())
        try:
            optimize_fn(source, target)
            optimized = onnx.load(target)
        except TimeoutError:
            raise
        except Exception as error:
            return Outcome(case.name, "refused", engine, f"{type(error).__name__}: {error}"[:300])
    fault = "" if _is_valid(case.model) else _is_valid(optimized)
    if not fault and _interface(case.model) != _interface(optimized):
        fault = "names or order of the inputs or outputs changed"
    if fault:
        return Outcome(case.name, "invalid", engine, fault[:300])
    try:
        text = judge(engine, optimized, case)
    except TimeoutError:
        raise
    except Exception as error:
        return Outcome(case.name, "invalid", engine, f"{type(error).__name__}: {error}"[:300])
    return Outcome(case.name, "wrong" if text else "ok", engine, text)
