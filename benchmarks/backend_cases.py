"""The ONNX backend tests as plain cases: a model, its inputs and the outputs it must give.

Sources, all inside the ``onnx`` package: the node and model cases that its code generates
(``onnx.backend.test.case``), and the ``simple``, ``light``, ``pytorch-converted`` and
``pytorch-operator`` folders of ``onnx/backend/test/data``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Value = Any
"""An array, a list of values (a sequence) or None (an empty optional)."""
DataSet = tuple[list[Value], list[Value]]
FOLDERS = ("simple", "pytorch-converted", "pytorch-operator")
RTOL, ATOL = 1e-3, 1e-7


@dataclass(frozen=True)
class Case:
    """One backend test.

    Attributes:
        name: unique within the tests, e.g. ``test_abs``.
        kind: node, model, simple, light, pytorch-converted or pytorch-operator.
        model: the model; never changed by whoever runs the case.
        data: pairs of inputs and expected outputs, in the order of the graph's.
        rtol: relative tolerance that the test itself states.
        atol: absolute tolerance that the test itself states.
    """

    name: str
    kind: str
    model: onnx.ModelProto
    data: tuple[DataSet, ...]
    rtol: float = RTOL
    atol: float = ATOL


def _value(item: Any) -> Value:
    """Return a test's input or output as arrays, whatever proto it is written as."""
    if isinstance(item, onnx.TensorProto):
        return numpy_helper.to_array(item)
    if isinstance(item, onnx.SequenceProto):
        return numpy_helper.to_list(item)
    if isinstance(item, onnx.OptionalProto):
        return numpy_helper.to_optional(item)
    if isinstance(item, (list, tuple)):
        return [_value(each) for each in item]
    return item if item is None else np.asarray(item)


def _generated() -> Iterator[Case]:
    """Yield the cases that onnx's own code generates: 1,884 of nodes and some whole models."""
    from onnx.backend.test.case.model import collect_testcases as collect_models
    from onnx.backend.test.case.node import collect_testcases as collect_nodes

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = {"node": list(collect_nodes()), "model": list(collect_models())}
    for kind, cases in found.items():
        for case in cases:
            if case.model is None or case.data_sets is None:
                continue
            data = tuple((_value(list(i)), _value(list(o))) for i, o in case.data_sets)
            yield Case(case.name, kind, case.model, data, case.rtol, case.atol)


def _fed(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that have no initializer of their name."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _read(path: Path, declared: onnx.TypeProto) -> Value:
    """Read one ``.pb`` file of the type that the graph declares."""
    kinds: dict[str, type[onnx.TensorProto | onnx.SequenceProto | onnx.OptionalProto]] = {}
    kinds |= {"sequence_type": onnx.SequenceProto, "optional_type": onnx.OptionalProto}
    proto = kinds.get(declared.WhichOneof("value") or "", onnx.TensorProto)()
    proto.ParseFromString(path.read_bytes())
    return _value(proto)


def _files(folder: Path, kind: str, values: Sequence[onnx.ValueInfoProto]) -> list[Value]:
    paths = sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.split("_")[-1]))
    return [_read(path, value.type) for path, value in zip(paths, values, strict=False)]


def _stored(root: Path) -> Iterator[Case]:
    """Yield the cases of the folders that hold a model and its data as files."""
    for kind in FOLDERS:
        for folder in sorted((root / kind).glob("*/model.onnx")):
            model = onnx.load(folder)
            inputs, outputs = _fed(model), model.graph.output
            data = tuple(
                (_files(part, "input", inputs), _files(part, "output", outputs))
                for part in sorted(folder.parent.glob("test_data_set*"))
            )
            limits = folder.parent / "data.json"
            said = json.loads(limits.read_text(encoding="utf-8")) if limits.exists() else {}
            yield Case(
                folder.parent.name,
                kind,
                model,
                data,
                said.get("rtol", RTOL),
                said.get("atol", ATOL),
            )


def _ramp(value: onnx.ValueInfoProto) -> NDArray[np.float32]:
    """Return the input that the light models' expected outputs were made with: a ramp 0..1."""
    dims = value.type.tensor_type.shape.dim
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else 1 for dim in dims)
    size = int(np.prod(shape))
    return (np.arange(size).reshape(shape) / size).astype(np.float32)


def _light(root: Path) -> Iterator[Case]:
    """Yield the known image models with generated weights."""
    for path in sorted((root / "light").glob("*.onnx")):
        model = onnx.load(path)
        inputs: list[Value] = [_ramp(value) for value in _fed(model)]
        outputs = [
            _read(path.with_name(f"{path.stem}_output_{i}.pb"), value.type)
            for i, value in enumerate(model.graph.output)
        ]
        yield Case(path.stem, "light", model, ((inputs, outputs),))


def collect() -> list[Case]:
    """Return all backend tests that come with data, by name and each name once.

    Generating the node cases takes some seconds; the list is the same at every call.
    """
    from onnx.backend.test import loader

    root = Path(loader.DATA_DIR)
    cases: dict[str, Case] = {}
    for case in (*_generated(), *_stored(root), *_light(root)):
        if case.data:
            cases.setdefault(case.name, case)
    return [cases[name] for name in sorted(cases)]
