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

``recurrent`` lets LSTM layers run on integers, too, by an operator that only ONNX Runtime has; see
``_dynamic_lstm``. GRU and RNN have no integer kernel. Products and layers in the bodies of If, Loop and Scan
are treated like others.

Refuses: convolutions (ONNX Runtime's ConvInteger is several times slower than its float kernels); products
of two activations; weights that are no matrix, are computed, are not float32, or hold NaN or infinity;
what is quantized already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from graphopt.errors import NativeError, OutputError
from graphopt.ir.model import Model
from graphopt.ir.opset_raising import raise_opset
from graphopt.ir.surgery import (
    tidy,
)
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.pass_base import Context, Edit, Skip

from ._dynamic_places import PRODUCTS, Places
from ._opsets import ensure_opset, opset_objection
from ._qdq.timing import Profile, marked, read_profile
from ._qdq.weights import Rounded, fitted

OPSET = 11
"""The first with DynamicQuantizeLinear."""


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
    recurrent: bool = field(
        default=False,
        metadata={"help": "LSTM on integers, by an operator that only ONNX Runtime has"},
    )

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
        places = self._places(context.model)
        for choice in chosen:
            nodes = places.nodes(choice.where)
            labels = [node.label for node in nodes]
            places.run_on_integers(choice.where, integers)
            for node, label in zip(nodes, labels, strict=True):
                yield Edit(node, f"{label} multiplies {choice.what}")

    def _plan(self, context: Context) -> _Plan:
        key = (self.name, self.smallest, self.objective, self.recurrent)
        return context.once(key, lambda: self._made(context))

    def _places(self, model: Model) -> Places:
        return Places.of(model, self.smallest, self.recurrent)

    def _made(self, context: Context) -> _Plan:
        why = opset_objection(context, OPSET)
        if why:
            return _Plan([Skip("the model", why)], {})
        places = self._places(context.model)
        plan = _Plan([Skip(label, why) for label, why in places.refused.items()], {})
        units = [unit for group in places.products.values() for unit in group]
        if context.observe is not None and context.data is not None and units:
            plan.integers.update(fitted(context.model, units, PRODUCTS.weights, context.observe))
        times = self._times(context, places, plan)
        what = "on 8-bit integers of a range found in each run"
        for name in places.names:
            if times is None:
                saving = float(3 * places.elements(name))
                plan.entries.append(Choice(name, 8.0, what, 0.0, saving))
                continue
            before, after, total = times[name]
            said = f"{1e6 * before:.3g} µs on floats, {1e6 * after:.3g} µs on integers"
            if after < before:
                saving = (before - after) / total
                plan.entries.append(Choice(name, 8.0, f"{what}: {said}", 0.0, saving))
            else:
                plan.entries.append(Skip(places.nodes(name)[0].label, f"it is not faster: {said}"))
        return plan

    def _times(
        self, context: Context, places: Places, plan: _Plan
    ) -> dict[str, tuple[float, float, float]] | None:
        """Seconds of each place on floats and on integers, and of a run; None where nothing is timed."""
        if self.objective == "size" or context.measure is None or not places.names:
            return None
        changed = context.model.copy()
        if changed.opset < OPSET:
            raise_opset(changed, OPSET)
        ensured = self._places(changed)
        roles = {name: ensured.run_on_integers(name, plan.integers) for name in places.names}
        for scope in changed.scopes():
            tidy(scope)
        try:
            floats, integers = context.measure([marked(context.model), marked(changed)])
        except (NativeError, OutputError) as error:
            plan.entries.append(Skip("the model", f"its nodes cannot be timed: {error.what}"))
            return None
        before, after = read_profile(floats), read_profile(integers)
        return {
            name: (
                _seconds(before, [node.uid for node in places.nodes(name)]),
                _seconds(after, roles[name]),
                before.total,
            )
            for name in places.names
        }


def _seconds(profile: Profile, uids: Sequence[int]) -> float:
    return sum(profile.seconds.get(uid, 0.0) for uid in uids)
