"""The optimizers that are measured: one adapter each, all of the form ``(in path, out path)``.

An adapter imports its tool when it is called, so that this module loads wherever any of the
tools is installed. Each runs with the defaults that its own command line or README shows.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

OptimizeFn = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Tool:
    """An optimizer.

    Attributes:
        name: what the tables and ``--tools`` call it.
        package: the distribution whose version is reported.
        modules: what to import before the clock starts.
        optimize: reads the model at the first path and writes the second.
        own: True for graphopt, which runs in the interpreter that runs the benchmark; the
            others may live in another one.
    """

    name: str
    package: str
    modules: tuple[str, ...]
    optimize: OptimizeFn
    own: bool = False

    def fault(self) -> str:
        """Return why the tool cannot be imported, or an empty string.

        It is tried in a process of its own, so that nothing stays imported in this one.
        """
        program = "".join(f"import {module}\n" for module in self.modules)
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""

    def prepare(self) -> None:
        """Import the tool.

        Raises:
            ImportError: it is not installed.
        """
        for module in self.modules:
            importlib.import_module(module)


def _graphopt(source: Path, target: Path) -> None:
    importlib.import_module("graphopt").optimize(source, target)


def _onnxsim(source: Path, target: Path, subgraphs: bool = False) -> None:
    onnxsim = importlib.import_module("onnxsim")
    model, _ = onnxsim.simplify(onnx.load(source), include_subgraph=subgraphs)
    onnx.save(model, target)


def _onnxsim_subgraphs(source: Path, target: Path) -> None:
    _onnxsim(source, target, subgraphs=True)


def _onnxslim(source: Path, target: Path) -> None:
    onnx.save(importlib.import_module("onnxslim").slim(onnx.load(source)), target)


def _onnxoptimizer(source: Path, target: Path) -> None:
    onnxoptimizer = importlib.import_module("onnxoptimizer")
    onnx.save(onnxoptimizer.optimize(onnx.load(source), fixed_point=True), target)


def _onnxscript(source: Path, target: Path) -> None:
    optimizer = importlib.import_module("onnxscript.optimizer")
    onnx.save(optimizer.optimize(onnx.load(source)), target)


def _ort_basic(source: Path, target: Path) -> None:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _identity(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("graphopt", "graphopt", ("graphopt",), _graphopt, own=True),
        Tool("onnxsim", "onnxsim", ("onnxsim",), _onnxsim),
        Tool("onnxsim-sub", "onnxsim", ("onnxsim",), _onnxsim_subgraphs),
        Tool("onnxslim", "onnxslim", ("onnxslim",), _onnxslim),
        Tool("onnxoptimizer", "onnxoptimizer", ("onnxoptimizer",), _onnxoptimizer),
        Tool("onnxscript", "onnxscript", ("onnxscript.optimizer",), _onnxscript),
        Tool("ort-basic", "onnxruntime", ("onnxruntime",), _ort_basic),
        Tool("identity", "onnx", (), _identity),
    )
}
DEFAULT = tuple(name for name in TOOLS if name != "identity")
