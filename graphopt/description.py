"""Models, tensors and verdicts as the report describes them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

from onnx import helper

from graphopt.ir.costs import count_macs, count_nodes, count_parameters
from graphopt.ir.frames import symbol_sizes
from graphopt.ir.graph import Variable
from graphopt.ir.inference import infer
from graphopt.ir.liveness import runtime_bytes
from graphopt.ir.model import Model
from graphopt.ir.rates import shared_rate, sparse_rate
from graphopt.ir.storage import EMBED_LIMIT, stale_data
from graphopt.quality.equivalence import Verdict
from graphopt.report import ModelInfo, TensorInfo, VerdictInfo


def describe(
    model: Model,
    bindings: dict[tuple[str, int], int] | None = None,
    path: str | os.PathLike[str] | None = None,
    sha256: str | None = None,
    rates: bool = True,
    stored: bool = True,
) -> ModelInfo:
    """A model in figures.

    Args:
        model: the model.
        bindings: sizes of dynamic dimensions, by input and axis; 1 where one is missing.
        path: where it stands, if not where it was read from.
        sha256: of its file, if known.
        rates: whether to look at every weight for the sparse and the shared rate.
        stored: whether its file is there; otherwise it is described as it would be written.
    """
    facts = infer(model.graph, model.functions)
    symbols = symbol_sizes(model, facts, bindings or {})
    if symbols:
        facts = infer(model.graph, model.functions, sizes=symbols)
    file = Path(path) if path is not None else model.path
    size, digest = _read(file) if stored and file is not None and file.is_file() else (0, "")
    if not size and model.weight_bytes() <= EMBED_LIMIT:
        data = model.to_bytes()
        size, digest = len(data), hashlib.sha256(data).hexdigest()
    return ModelInfo(
        path=str(file) if stored and file is not None else "",
        sha256=sha256 or digest,
        file_bytes=size or model.weight_bytes(),
        ir_version=model.header.ir_version,
        opset=model.opset,
        nodes=count_nodes(model.scopes()),
        parameters=count_parameters(model),
        weight_bytes=model.weight_bytes(),
        macs=count_macs(model, facts),
        inputs=[tensor_info(t) for t in model.graph.inputs],
        outputs=[tensor_info(t) for t in model.graph.outputs],
        runtime_bytes=runtime_bytes(model, facts),
        sparse_rate=sparse_rate(model) if rates else None,
        shared_rate=shared_rate(model) if rates else None,
        data_bytes=sum(file.stat().st_size for file in _beside(model, path)) if stored else 0,
    )


def _read(file: Path) -> tuple[int, str]:
    """Bytes and sha256 of a file."""
    found = hashlib.sha256()
    with file.open("rb") as opened:
        while part := opened.read(1 << 20):
            found.update(part)
        return opened.tell(), found.hexdigest()


def _beside(model: Model, path: str | os.PathLike[str] | None) -> set[Path]:
    """The data files of a model: those that it was read from, or those written beside a path.

    Those that came out of an archive are none: the archive is its one file.
    """
    if path is not None:
        return set(stale_data(Path(path), None))
    regions = (c.stored.region for c in model.constants() if c.stored is not None)
    return {region.path for region in regions if region is not None and region.folder is None}


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
    """A verdict on equality as the report holds it."""
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
