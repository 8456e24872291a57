"""Multiply on 8-bit integers whose range is found anew in every run.

    q, s, z = DynamicQuantizeLinear(x)          uint8, the range of this x
    y = s s_w MatMulInteger(q, Q, z) + b        Q = clip(round(W / s_w)), int8, s_w per output channel

No range has to hold for data that was never seen, so activations whose magnitude changes from run to run,
as those of transformers, lose little. To find the range and to round cost time in every run, so it pays for
large products only. Those that read the same activation share its integers, and are one place. What each
place takes on floats and on integers is measured on this machine, in the model; what is not faster stays on
floats. ONNX Runtime fuses the nodes to ``DynamicQuantizeMatMul`` or ``MatMulIntegerToFloat``.

With data, weights go to the integers with which the output of their layer changes least; see
``quantize-weights``. The operator set is raised to 11 where it is older.

Source: DynamicQuantizeLinear and MatMulInteger of the ONNX operator specification.

Refuses: convolutions (ONNX Runtime's ConvInteger is several times slower than its float kernels); products
of two activations; weights that are no matrix, are computed, are not float32, or hold NaN or infinity;
products in the bodies of control flow; what is quantized already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from graphopt.errors import NativeError, OutputError
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.ir.opset_raising import raise_opset
from graphopt.ir.surgery import (
    discard,
    insert,
    new_constant,
    new_tensor,
    producer,
    replace,
    tidy,
)
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.pass_base import Context, Edit, Skip

from ._opsets import ensure_opset, opset_objection
from ._qdq.targets import Target
from ._qdq.timing import Profile, marked, read_profile
from ._qdq.units import Unit, find_units
from ._qdq.weights import Rounded, fitted, rounded

OPSET = 11
"""The first with DynamicQuantizeLinear."""

PRODUCTS = Target(
    "ort-cpu", linear=("MatMul", "Gemm"), arithmetic=(), movement=(), quantizes_output=False
)
"""What is multiplied, and the types of its integers."""


class _Plan(NamedTuple):
    """What is known of a model: what can be done, and the weights as integers by the number of the node."""

    entries: list[Choice | Skip]
    integers: dict[int, Rounded]


@dataclass(frozen=True)
class QuantizeDynamic(LossyPass):
    """Products run on 8-bit integers whose range is found in every run, where that is faster."""

    name = "quantize-dynamic"

    objective: Literal["latency", "size"] = field(
        default="latency", metadata={"help": "what is to be gained"}
    )
    smallest: int = field(default=1024, metadata={"help": "elements of the smallest weight"})

    @property
    def promises_speed(self) -> bool:
        """Whether the result shall be faster."""
        return self.objective == "latency"

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        yield from self._plan(context).entries

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        integers = self._plan(context).integers
        ensure_opset(context, OPSET)
        places, _ = _places(context.model, self.smallest)
        for choice in chosen:
            units = places[choice.where]
            labels = [unit.node.label for unit in units]
            _multiply_on_integers(context.model, units, integers)
            for unit, label in zip(units, labels, strict=True):
                yield Edit(unit.node, f"{label} multiplies {choice.what}")

    def _plan(self, context: Context) -> _Plan:
        return context.once((self.name, self.smallest, self.objective), lambda: self._made(context))

    def _made(self, context: Context) -> _Plan:
        why = opset_objection(context, OPSET)
        if why:
            return _Plan([Skip("the model", why)], {})
        places, refused = _places(context.model, self.smallest)
        plan = _Plan([Skip(label, why) for label, why in refused.items()], {})
        units = [unit for group in places.values() for unit in group]
        if context.observe is not None and context.data is not None and units:
            plan.integers.update(fitted(context.model, units, PRODUCTS.weights, context.observe))
        times = self._times(context, places, plan)
        what = "on 8-bit integers of a range found in each run"
        for name, group in places.items():
            if times is None:
                saving = float(sum(3 * unit.node.inputs[1].values.size for unit in group))
                plan.entries.append(Choice(name, 8.0, what, 0.0, saving))
                continue
            before, after, total = times[name]
            said = f"{1e6 * before:.3g} µs on floats, {1e6 * after:.3g} µs on integers"
            if after < before:
                saving = (before - after) / total
                plan.entries.append(Choice(name, 8.0, f"{what}: {said}", 0.0, saving))
            else:
                plan.entries.append(Skip(group[0].node.label, f"it is not faster: {said}"))
        return plan

    def _times(
        self, context: Context, places: Mapping[str, Sequence[Unit]], plan: _Plan
    ) -> dict[str, tuple[float, float, float]] | None:
        """Seconds of each place on floats and on integers, and of a run; None where nothing is timed."""
        if self.objective == "size" or context.measure is None or not places:
            return None
        changed = context.model.copy()
        if changed.opset < OPSET:
            raise_opset(changed, OPSET)
        ensured, _ = _places(changed, self.smallest)
        roles = {
            name: _multiply_on_integers(changed, ensured[name], plan.integers) for name in places
        }
        tidy(changed.graph)
        try:
            floats, integers = context.measure([marked(context.model), marked(changed)])
        except (NativeError, OutputError) as error:
            plan.entries.append(Skip("the model", f"its nodes cannot be timed: {error.what}"))
            return None
        before, after = read_profile(floats), read_profile(integers)
        return {
            name: (
                _seconds(before, [node.uid for unit in group for node in unit.nodes]),
                _seconds(after, roles[name]),
                before.total,
            )
            for name, group in places.items()
        }


def _seconds(profile: Profile, uids: Sequence[int]) -> float:
    return sum(profile.seconds.get(uid, 0.0) for uid in uids)


def _places(model: Model, smallest: int) -> tuple[dict[str, list[Unit]], dict[str, str]]:
    """The products by the name of the activation that they read, and why others are none."""
    units, refused = find_units(model, infer(model.graph, model.functions), PRODUCTS)
    found: dict[str, list[Unit]] = {}
    for unit in units:
        weight = unit.node.inputs[1]
        if unit.weight != 1:
            refused[unit.node.label] = "it multiplies two activations, or by weights from the left"
        elif len(weight.shape) != 2:
            refused[unit.node.label] = "its weights are no matrix"
        elif weight.values.size < smallest:
            refused[unit.node.label] = f"its weights have fewer than {smallest} elements"
        else:
            found.setdefault(unit.inputs[0].name, []).append(unit)
    return found, refused


def _multiply_on_integers(
    model: Model, units: Sequence[Unit], integers: Mapping[int, Rounded]
) -> list[int]:
    """Let products of one activation run on integers; the numbers of the nodes that do it."""
    source, graph = units[0].inputs[0], model.graph
    made = producer(source)
    near = made or units[0].node
    names = ("quantized", "scale", "zero_point")
    step, scale, zero = (new_tensor(graph, f"{source.name}_{part}") for part in names)
    root = insert(near, "DynamicQuantizeLinear", [source], [step, scale, zero])
    root.order += 0.5 if made is not None else -0.5
    found = [root.uid]
    for unit in units:
        found += _product(model, unit, (step, scale, zero), integers.get(unit.uid))
    return found


def _product(
    model: Model, unit: Unit, source: Sequence[gs.Tensor], known: Rounded | None
) -> list[int]:
    """One product in the place of a node; the numbers of the nodes that compute it."""
    node, graph = unit.node, model.graph
    weight = node.inputs[1]
    given = known or rounded(weight.values, unit.channel_axis(), PRODUCTS.weights)
    turned = node.op == "Gemm" and node.attrs.get("transB", 0)
    steps = np.ascontiguousarray(given.steps.T if turned else given.steps)
    step, scale, zero = source
    total = new_tensor(graph, f"{weight.name}_sum")
    floats, factor = (new_tensor(graph, f"{weight.name}_{part}") for part in ("floats", "factor"))
    matrix = new_constant(graph, f"{weight.name}_quantized", steps)
    scales = new_constant(graph, f"{weight.name}_scale", given.scale.astype(np.float32))
    bias = None if unit.bias is None else node.inputs[unit.bias]
    made = [
        insert(node, "MatMulInteger", [step, matrix, zero], [total]),
        insert(node, "Cast", [total], [floats], {"to": int(TensorProto.FLOAT)}),
        insert(node, "Mul", [scale, scales], [factor]),
    ]
    if bias is None:
        replace(node, "Mul", [floats, factor], {})
    else:
        product = new_tensor(graph, f"{weight.name}_product")
        made.append(insert(node, "Mul", [floats, factor], [product]))
        values = bias.values if given.bias is None else given.bias
        shift = np.asarray(values, np.float32).reshape(-1)
        replace(node, "Add", [product, new_constant(graph, bias.name, shift)], {})
    for old in (weight, bias):
        if old is not None:
            for scope in model.scopes():
                discard(scope, old)
    return [*(entry.uid for entry in made), node.uid]
