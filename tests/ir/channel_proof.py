"""What every channel group owes: slicing it is exact. Used by the tests of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from graphopt.errors import NativeError
from graphopt.ir.channel_masking import mask_groups
from graphopt.ir.channel_slicing import slice_groups
from graphopt.ir.channels import ChannelGroup, find_groups
from graphopt.ir.costs import count_parameters
from graphopt.ir.model import Model
from graphopt.numerics.tolerance import compare
from graphopt.quality.search import find_feeds
from graphopt.quality.session import Opened
from graphopt.runtime.native import Native
from graphopt.testing import parse


@dataclass(frozen=True)
class Case:
    """A model, its free groups as (name, units), and reasons of locked ones by name."""

    name: str
    inputs: str
    outputs: str
    weights: str
    body: str
    free: tuple[tuple[str, int], ...] = ()
    locked: tuple[tuple[str, str], ...] = ()
    opset: int = 17
    positive: str = ""

    def model(self) -> Model:
        names = [w.split()[-1] for w in _listed(self.weights)]
        positive = tuple(self.positive.split())
        given = ", ".join(x for x in (self.inputs, self.weights) if x)
        text = (
            f'<ir_version: 8, opset_import: ["" : {self.opset}]>\n'
            f"g ({given}) => ({self.outputs}) {{ {self.body} }}"
        )
        return parse(text, tuple(n for n in names if n not in positive), positive)


def _listed(text: str) -> list[str]:
    """The parts of a list of declarations, commas in brackets apart."""
    parts, depth = [""], 0
    for letter in text:
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def keeps(group: ChannelGroup, rng: np.random.Generator) -> list[list[int]]:
    """Several sets of units to keep."""
    count = int(rng.integers(1, group.size))
    some = np.sort(rng.permutation(group.size)[:count])
    return [list(range(0, group.size, 2)), [group.size - 1], some.tolist()]


def prove(
    model: Model, choices: Sequence[tuple[ChannelGroup, Sequence[int]]], native: Native
) -> Model:
    """Slicing gives a valid model with the same interface that computes what the masked one computes."""
    masked, cut = model.copy(), model.copy()
    before = model.to_bytes()
    mask_groups(masked, choices)
    slice_groups(cut, choices)
    assert model.to_bytes() == before
    for made in (masked, cut):
        onnx.checker.check_model(made.to_proto(), full_check=True)
    assert count_parameters(cut) < count_parameters(model)
    old, new = model.to_proto().graph, cut.to_proto().graph
    assert list(old.input) == list(new.input)
    assert list(old.output) == list(new.output)
    try:
        compare_outputs(masked, cut, native, "ort")
    except NativeError:  # ONNX Runtime lacks a kernel
        compare_outputs(masked, cut, native, "reference")
    return cut


def compare_outputs(wanted: Model, found: Model, native: Native, backend: str) -> None:
    """The same outputs on several inputs."""
    names = [tensor.name for tensor in wanted.graph.outputs]
    with (
        Opened(native, wanted, names, backend=backend) as first,
        Opened(native, found, names, backend=backend) as second,
    ):
        samples, why = find_feeds(wanted, first.run)
        assert samples, why
        for sample in samples:
            for one, other in zip(sample.outputs, second.run(sample.feeds), strict=True):
                difference = compare(one, other)
                assert difference.equal, difference.why


def prove_all(model: Model, native: Native) -> list[ChannelGroup]:
    """Every free group, alone and together."""
    groups = find_groups(model)
    free = [group for group in groups if not group.locked]
    rng = np.random.default_rng(5)
    for group in free:
        for keep in keeps(group, rng):
            prove(model, [(group, keep)], native)
    if len(free) > 1:
        prove(model, [(group, keeps(group, rng)[2]) for group in free], native)
    return groups


def check(case: Case, native: Native) -> list[ChannelGroup]:
    """All that a case says."""
    groups = prove_all(case.model(), native)
    assert tuple((g.name, g.size) for g in groups if not g.locked) == case.free
    locked = {g.name: g.locked for g in groups}
    for name, reason in case.locked:
        assert reason in locked.get(name, ""), locked
    return groups
