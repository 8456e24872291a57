"""What a case of the corpus is, and the table that the case modules fill.

A case is a function that makes a model in an empty folder. Its group says what graphopt must do with
it: *accept* (succeed, and the result behaves as the original), *refuse* (one readable line, nothing
written), *either* (end in time and in memory with a documented exit code).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, parser

DOCUMENTED = frozenset({0, 1, 2, 3, 5, 6, 7})
"""Exit codes that a run may end with, whatever it was given; 70 is an internal error."""

SECRET = b"TOP-SECRET-BYTES-THAT-MUST-NOT-LEAVE"

Made = onnx.ModelProto | bytes | Path | None


@dataclass(frozen=True)
class Case:
    """One input and what must come of it.

    Attributes:
        name: for people and for the test's id.
        group: ``accept``, ``refuse`` or ``either``.
        make: puts the input into a folder; returns it, or its path, or None for ``model.onnx``.
        codes: the exit codes that are right.
        says: words that the error or the report must contain.
        arguments: further arguments of the command line; ``{}`` stands for the folder.
        keeps: operators that must still be there.
        gone: operators that must not.
        feeds: inputs to compare with; drawn where it is empty.
        runs: whether the original can be run here, so that numbers are compared.
        seconds: the wall limit.
        mebibytes: the limit on resident memory, children included.
        slow: left out of the default run.
    """

    name: str
    group: str
    make: Callable[[Path], Made]
    codes: frozenset[int] = frozenset({0})
    says: str = ""
    arguments: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    feeds: dict[str, Any] = field(default_factory=dict)
    runs: bool = True
    seconds: float = 30.0
    mebibytes: int = 2048
    slow: bool = False


CASES: list[Case] = []

Maker = Callable[..., Made]


def _register(group: str, codes: frozenset[int], params: Iterable[Any] | None, **more: Any) -> Any:
    def add(make: Maker) -> Maker:
        name = make.__name__.strip("_")
        if params is None:
            CASES.append(Case(name, group, make, codes, **more))
        else:
            for value in params:
                label, rest = (
                    (value[0], value[1:]) if isinstance(value, tuple) else (value, (value,))
                )
                bound = partial(_call, make, rest)
                CASES.append(Case(f"{name}[{label}]", group, bound, codes, **more))
        return make

    return add


def _call(make: Maker, rest: tuple[Any, ...], folder: Path) -> Made:
    return make(folder, *rest)


def accept(params: Iterable[Any] | None = None, **more: Any) -> Any:
    """A case that must succeed with unchanged behaviour."""
    return _register("accept", frozenset({0}), params, **more)


def refuse(*codes: int, params: Iterable[Any] | None = None, **more: Any) -> Any:
    """A case that must end with one of these codes (2 by default) and write nothing."""
    return _register("refuse", frozenset(codes or (2,)), params, **more)


def either(params: Iterable[Any] | None = None, **more: Any) -> Any:
    """A case that may end either way, but well."""
    return _register("either", DOCUMENTED, params, **more)


def place(case: Case, folder: Path) -> Path:
    """Make the input of a case; returns the path to give to the command line."""
    made = case.make(folder)
    path = folder / "model.onnx"
    if isinstance(made, onnx.ModelProto):
        path.write_bytes(made.SerializeToString())
    elif isinstance(made, bytes):
        path.write_bytes(made)
    elif isinstance(made, Path):
        return made
    return path


def text(body: str, opset: int = 21, ir: int = 10, imports: str = "") -> onnx.ModelProto:
    """A model from the text format."""
    return parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}{imports}]>\n{body}')


def value(name: str, kind: int, shape: Any = None) -> onnx.ValueInfoProto:
    """A declaration of a tensor."""
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: Iterable[onnx.TensorProto] = (),
    opset: int = 21,
    ir: int = 10,
    **more: Any,
) -> onnx.ModelProto:
    """A model from its parts; nothing is checked."""
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    imports = more.pop("opset_imports", [helper.make_opsetid("", opset)])
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=imports, **more)
    made.ir_version = ir
    return made


def floats(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    """A stored tensor of random floats."""
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return onnx.numpy_helper.from_array(values, name)


def simple() -> onnx.ModelProto:
    """A small ordinary model: two matrix products with a bias, 400 bytes of weights."""
    made = text(
        "g (float[N,4] x) => (float[N,3] y) { h = MatMul(x, w) r = Relu(h) m = MatMul(r, v) y = Add(m, b) }"
    )
    made.graph.initializer.extend([floats("w", 4, 8), floats("v", 8, 3), floats("b", 3)])
    # The imports last, so that the file is useless wherever it is cut.
    return made
