"""What a model consists of, and what about it deserves a look."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import numpy as np

from graphopt.description import describe
from graphopt.ir.channels import ChannelGroup, find_groups
from graphopt.ir.costs import count_macs
from graphopt.ir.graph import STANDARD_DOMAINS, Constant
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.ir.surgery import is_used
from graphopt.packing.unpacker import ArchiveInfo, look
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
        packed: what its archive says, where it came out of one.
    """

    model: ModelInfo
    operators: dict[str, int]
    dtypes: dict[str, int]
    imports: dict[str, int]
    producer: str
    functions: list[str]
    metadata: dict[str, str]
    findings: list[str]
    packed: ArchiveInfo | None = None


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
        None if model.path is None else look(model.path),
    )


@dataclass(frozen=True)
class ChannelInfo:
    """A channel group in figures.

    Attributes:
        name: of the group.
        unit: what it consists of: ``channel``, ``neuron``, ``head`` or ``hidden unit``.
        size: how many units there are.
        members: how many axes of tensors they lie along.
        producers: nodes whose weights make them.
        consumers: nodes that sum over them.
        parameters: that leave with one unit.
        macs: that leave with one unit, dynamic dimensions taken as 1; as far as proven.
        macs_share: what leaves of the model's MACs with the whole group; None where they are not known.
        locked: why nothing of it may be cut; empty where it may.
    """

    name: str
    unit: str
    size: int
    members: int
    producers: list[str]
    consumers: list[str]
    parameters: int
    macs: int
    macs_share: float | None
    locked: str


def inspect_channels(source: str | os.PathLike[str] | Model) -> list[ChannelInfo]:
    """Find the channel groups of a model; see ``graphopt.ir.channels``.

    Args:
        source: a path, or a model that is loaded.

    Raises:
        ModelError: the file cannot be read.
    """
    model = source if isinstance(source, Model) else Model.load(source)
    facts = infer(model.graph, model.functions)
    total = count_macs(model, facts)
    return [_channel_info(group, total) for group in find_groups(model, facts)]


def _channel_info(group: ChannelGroup, total: int | None) -> ChannelInfo:
    return ChannelInfo(
        name=group.name,
        unit=group.unit,
        size=group.size,
        members=len(group.members),
        producers=list(group.producers),
        consumers=list(group.consumers),
        parameters=group.parameters,
        macs=group.macs,
        macs_share=group.macs_of_all / total if total else None,
        locked=group.locked,
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
