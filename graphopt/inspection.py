"""What a model consists of, and what about it deserves a look."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import numpy as np

from graphopt.description import describe
from graphopt.ir.graph import STANDARD_DOMAINS, Constant
from graphopt.ir.model import Model
from graphopt.ir.surgery import is_used
from graphopt.report import ModelInfo


@dataclass(frozen=True)
class Inspection:
    """A model in figures.

    Attributes:
        model: sizes and interface.
        operators: how many nodes of each operator, with its domain where that is not the standard.
        dtypes: bytes of constants by element type.
        imports: versions of the operator sets by domain.
        producer: what wrote the file.
        functions: names of local functions.
        metadata: the model's metadata.
        findings: what deserves a look.
    """

    model: ModelInfo
    operators: dict[str, int]
    dtypes: dict[str, int]
    imports: dict[str, int]
    producer: str
    functions: list[str]
    metadata: dict[str, str]
    findings: list[str]


def inspect_model(source: str | os.PathLike[str] | Model) -> Inspection:
    """Look into a model.

    Args:
        source: a path, or a model that is loaded.

    Raises:
        ModelError: the file cannot be read.
    """
    model = source if isinstance(source, Model) else Model.load(source)
    header = model.header
    operators = Counter(
        node.op if node.domain in STANDARD_DOMAINS else f"{node.domain}.{node.op}"
        for node in model.nodes()
    )
    constants = model.constants()
    dtypes: Counter[str] = Counter()
    for constant in constants:
        dtypes[constant.dtype.name] += constant.nbytes
    return Inspection(
        describe(model),
        dict(sorted(operators.items())),
        dict(dtypes.most_common()),
        {entry.domain or "ai.onnx": entry.version for entry in header.opset_import},
        f"{header.producer_name} {header.producer_version}".strip(),
        [function.name for function in model.functions],
        {entry.key: entry.value for entry in header.metadata_props},
        _findings(model, constants),
    )


def _findings(model: Model, constants: list[Constant]) -> list[str]:
    found = []
    dead = [
        n for n in model.nodes() if n.outputs and not any(t.name and is_used(t) for t in n.outputs)
    ]
    if dead:
        found.append(f"{len(dead)} nodes whose results nothing reads, such as {dead[0].label}")
    unused = [t for t in model.graph.initializers if not is_used(t)]
    if unused:
        found.append(f"{len(unused)} initializers that nothing reads, such as {unused[0].name}")
    bad = [c.name for c in constants if c.dtype.kind == "f" and not np.isfinite(c.values).all()]
    if bad:
        found.append(f"{len(bad)} constants hold NaN or infinity, such as {bad[0]}")
    defaults = [t.name for t in model.graph.inputs if getattr(t, "default", None) is not None]
    if defaults:
        found.append(
            f"{len(defaults)} inputs have default values and cannot be folded: {defaults[0]}"
        )
    custom = sorted({n.domain for n in model.nodes() if n.domain not in STANDARD_DOMAINS})
    if custom:
        found.append(f"operators of other domains are left alone: {', '.join(custom)}")
    return found
