"""Calibrating a model of 100 MB on 512 samples: what time and memory it takes, beside ONNX Runtime's own.

    python -m benchmarks.calibration                 # all methods of both, each in a process of its own
    python -m benchmarks.calibration one graphopt entropy FOLDER

The model has twelve convolutions of 480 channels (100 MB of weights) on 8 x 8 pixels, the data is drawn. Both
look at every activation that a quantized convolution reads or gives. graphopt calibrates as ``quantize-qdq``
does, before it measures losses; ONNX Runtime as ``quantize_static`` does, with the calibrator of that method.
Seconds are those of the processor, of all processes; the peak is the largest resident set of one process.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS, CHANNELS, SIZE, SAMPLES = 12, 480, 8, 512
METHODS = ("minmax", "percentile", "entropy")


def made() -> onnx.ModelProto:
    """The model."""
    rng = np.random.default_rng(1)
    nodes, weights, read = [], [], "x"
    for number in range(LAYERS):
        inputs = CHANNELS if number else 3
        spread = np.sqrt(2.0 / (9 * inputs))
        values = rng.standard_normal((CHANNELS, inputs, 3, 3)).astype(np.float32) * np.float32(
            spread
        )
        weights.append(numpy_helper.from_array(values, f"w{number}"))
        weights.append(numpy_helper.from_array(np.zeros(CHANNELS, np.float32), f"b{number}"))
        names = [read, f"w{number}", f"b{number}"]
        nodes.append(helper.make_node("Conv", names, [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        read = f"r{number}"
    nodes.append(helper.make_node("GlobalAveragePool", [read], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CHANNELS, 1, 1])
    graph = helper.make_graph(nodes, "calibrated", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def batches() -> Iterator[dict[str, np.ndarray]]:
    """The samples, one at a time."""
    rng = np.random.default_rng(2)
    for _ in range(SAMPLES):
        yield {"x": rng.standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)}


def graphopt_calibrates(path: Path, method: str) -> None:
    """Distributions of all activations, and their ranges."""
    from graphopt.ir.inference import infer
    from graphopt.ir.model import Model
    from graphopt.passes.quantization._qdq.calibration import WHOLE, histograms, scales_of
    from graphopt.passes.quantization._qdq.targets import TARGETS
    from graphopt.passes.quantization._qdq.units import find_units
    from graphopt.runtime.native import Native
    from graphopt.runtime.observer import Observer
    from graphopt.runtime.observing import Stream

    model, target = Model.load(path), TARGETS["ort-cpu"]
    units, _ = find_units(model, infer(model.graph, model.functions), target)
    with Native(seconds=600.0) as native:
        known = histograms(model, units, Observer(native, Stream(batches)))
        way: Any = WHOLE if method == "minmax" else method
        scales, _ = scales_of(units, known, target, dict.fromkeys(known, way))
    assert len(scales) > LAYERS


def onnxruntime_calibrates(path: Path, method: str) -> None:
    """The same with ONNX Runtime's calibrator of the method."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = batches()

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.rest, None)

    kinds = dict(zip(METHODS, ("MinMax", "Percentile", "Entropy"), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            path,
            ["Conv", "Relu", "GlobalAveragePool"],
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=getattr(CalibrationMethod, kinds[method]),
        )
        calibrator.collect_data(Reader())
        assert calibrator.compute_data()


def one(tool: str, method: str, path: Path) -> None:
    """One tool with one method; prints seconds and the peak."""
    started = time.perf_counter()
    {"graphopt": graphopt_calibrates, "onnxruntime": onnxruntime_calibrates}[tool](path, method)
    wall = time.perf_counter() - started
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in both)
    peak = max(usage.ru_maxrss for usage in both) / 1024
    print(f"| {method} | {tool} | {cpu:.0f} | {wall:.0f} | {peak:.0f} |", flush=True)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="Calibrating a model of 100 MB on 512 samples.")
    parser.add_argument("one", nargs="*", help="one TOOL METHOD MODEL")
    given = parser.parse_args().one
    if given:
        one(given[1], given[2], Path(given[3]))
        return
    print(
        "| method | tool | CPU seconds | seconds | peak MiB |\n| --- | --- | --- | --- | --- |",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(made(), path)
        for method in METHODS:
            for tool in ("graphopt", "onnxruntime"):
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.calibration",
                    "one",
                    tool,
                    method,
                    str(path),
                ]
                if subprocess.run(command, check=False).returncode:
                    print(f"| {method} | {tool} | failed | | |", flush=True)


if __name__ == "__main__":
    main()
