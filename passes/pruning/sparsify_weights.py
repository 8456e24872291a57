"""Set single weights to zero, anywhere or n of every m, and let the others make up for them.

This makes a model smaller where it is stored sparse or entropy-coded (zipped, for one). The tensors keep
their shapes: the file itself and its latency stay as they are, for ONNX Runtime's CPU kernels are dense.

Which weights go, of a layer with weights W, whose inputs have the second moments H on the calibration data:

magnitude   the smallest ``|w|``.
wanda       the smallest ``|w_i| sqrt(H_ii)`` (Sun et al., 2024), over the whole tensor.
sparsegpt   column by column, what is lost with one made up for in the later ones (Frantar and Alistarh,
            2023); how many go in each group of a convolution is what Wanda finds.

Then the weights that stay are fitted to what the layer gave before, on what it gets from the sparse layers
before it, and its bias takes up the mean (``refit``). Without that each layer is sparse for itself.

An amount is not spread evenly. The error ``tr(dW H dW^T) / tr(W H W^T)`` of each layer is measured at
several shares of zeros, and each gets as many as add up to the amount at the least sum of errors. A pattern
``n:m`` keeps at most n of every m consecutive input channels, at each position of a kernel, everywhere.

Weights that are zero already stay so and count. Recurrent layers, transposed convolutions, tables that are
looked up, weights in bodies and those that several nodes read go by magnitude and are not refitted, as all do
where there is no data. Layers so wide that H would take more than 512 MiB have it in blocks, and no refit.

Refuses: tensors that are not floats or hold NaN or infinity; those that a graph returns; for a pattern
those whose input channels are no multiple of m, and tables that are looked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from graphopt.ir.graph import Node
from graphopt.ir.model import Model
from graphopt.lossy_pass import Choice, LossyPass
from graphopt.numerics.sparsity import Sparsity
from graphopt.pass_base import Context, Edit, Skip

from ._fitting import places as fitting
from ._fitting.refit import refit
from ._sparse.moments import Known, block_of, known, unobserved
from ._sparse.places import Place, places_of, refusal
from ._sparse.refit import SparseLeastSquares
from ._sparse.sharing import Curve, zeros_of


@dataclass(frozen=True)
class SparsifyWeights(LossyPass):
    """Single weights become zero, to be stored small; kernels do not get faster."""

    name = "sparsify-weights"

    amount: float = field(
        default=0.5, metadata={"help": "the share of the weights that shall be zero"}
    )
    pattern: str = field(
        default="",
        metadata={"help": "n:m, as 2:4, to keep n of every m inputs; the amount is not used then"},
    )
    method: Literal["sparsegpt", "wanda", "magnitude"] = field(
        default="sparsegpt",
        metadata={"help": "how weights are chosen; all but magnitude need data"},
    )
    refit: bool = field(
        default=True, metadata={"help": "whether the weights that stay are refitted on the data"}
    )
    smallest: int = field(
        default=256, metadata={"help": "elements of the smallest tensor to look at"}
    )

    def __post_init__(self) -> None:
        """Refuse options that make no sense.

        Raises:
            ValueError: so it is.
        """
        if not (0 <= self.amount < 1 and self.smallest >= 1):
            raise ValueError("amount is a share below 1, smallest a whole number from 1")
        if self.pattern and self._counts is None:
            raise ValueError(
                f"pattern is n:m with 0 < n < m, both of at most 4 digits, as 2:4; "
                f"not {self.pattern!r}"
            )

    @property
    def _counts(self) -> tuple[int, int] | None:
        """The n and m of the pattern."""
        found = re.fullmatch(r"([0-9]{1,4}):([0-9]{1,4})", self.pattern)
        n, m = map(int, found.groups()) if found else (0, 0)
        return (n, m) if 0 < n < m else None

    def milder(self, strength: float) -> SparsifyWeights | None:
        """The same with a part of the amount; None for a pattern, which is eased place by place."""
        return None if self.pattern else replace(self, amount=self.amount * strength)

    def propose(self, context: Context) -> Iterator[Choice | Skip]:
        """See the module's docstring."""
        places = []
        for place in places_of(context, self.smallest):
            why = refusal(place, context, self._counts)
            if why:
                yield Skip(place.name, why)
            else:
                places.append(place)
        if not places:
            yield Skip("the model", f"no tensor of {self.smallest} weights or more can be sparse")
            return
        if context.observe is None and (self.method != "magnitude" or self.refit):
            yield Skip("the model", "without data the smallest weights go, and nothing is refitted")
        found = known(places, context.model, context, self._step)
        choices = list(self._patterned(found) if self._counts else self._shared(places, found))
        yield from choices
        if not choices:
            what = f"have the pattern {self.pattern}" if self.pattern else "hold so many zeros"
            yield Skip("the model", f"its weights {what} already")

    def commit(self, chosen: Sequence[Choice], context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        places = {place.name: place for place in places_of(context, self.smallest)}
        levels = {places[choice.where].name: choice.level for choice in chosen}
        dense = context.model.copy()
        fitted, why = self._fitted(places, levels, dense, context)
        alone = [places[name] for name in levels if name not in fitted]
        for entry in known(alone, dense, context, self._step):
            if entry.place.name in why:  # what it reads by now is not what it read in the original
                entry = Known(entry.place, unobserved(entry.place), None, why[entry.place.name])
            self._sparsify(entry, self._counts or levels[entry.place.name])
            why[entry.place.name] = "" if entry.mean is not None else entry.why
        for name in levels:
            place = places[name]
            share = float(np.mean(place.weight.values == 0))
            what = f"{_percent(share)} of the weights of {name} are zero"
            if why.get(name) and self.method != "magnitude":
                what += f", by magnitude: {why[name]}"
            elif self.refit and name not in fitted and not why.get(name):
                what += ", not refitted"
            yield Edit(place.reader, what)

    def _fitted(
        self,
        places: Mapping[str, Place],
        levels: Mapping[str, float],
        dense: Model,
        context: Context,
    ) -> tuple[set[str], dict[str, str]]:
        """Refit what can be refitted while it becomes sparse; which that was, and why others were not."""
        if not self.refit:
            return set(), {}
        names = {
            places[name].reader.uid: name
            for name in levels
            if places[name].layer is not None and block_of(places[name], self._step) is None
        }

        def method(place: fitting.Place) -> SparseLeastSquares | None:
            name = names.get(place.layer.node.uid)
            if name is None or place.layer.weight is not places[name].weight:
                return None
            sparsity = self._counts or levels[name]
            return SparseLeastSquares(place, places[name], self.method, sparsity)

        fitted, why = set(), {}
        for entry in refit(context.model, dense, {}, context, method):
            assert isinstance(entry.node, Node)
            if isinstance(entry, Edit):
                fitted.add(names[entry.node.uid])
            else:
                why[names[entry.node.uid]] = entry.why
        return fitted, why

    @property
    def _step(self) -> int:
        """A number of input channels that must not be split."""
        return self._counts[1] if self._counts else 1

    def _sparsify(self, entry: Known, sparsity: Sparsity) -> None:
        """Make one tensor sparse for itself; its bias takes up the mean of what is lost."""
        place, problem, mean, _ = entry
        new = problem.solve(self.method, sparsity)
        bias = place.bias()
        if bias is not None and mean is not None:
            bias = bias + np.einsum("gi,goi->go", mean, problem.matrices - new).ravel()
            place.assign(new, bias)
        else:
            place.assign(new)

    def _shared(self, places: Sequence[Place], found: Iterator[Known]) -> Iterator[Choice]:
        """The amount, spread over the places."""
        curves = [Curve.of(entry.problem, self.method) for entry in found]
        counts = zeros_of(curves, self.amount)
        for place, curve, count in zip(places, curves, counts, strict=True):
            if count > curve.zeros:
                share = count / curve.size
                loss = float(curve.loss(np.array(count)))
                yield _choice(place, share, f"{_percent(share)} zeros", loss, count - curve.zeros)

    def _patterned(self, found: Iterator[Known]) -> Iterator[Choice]:
        """A pattern at every place that does not have it yet."""
        assert self._counts is not None
        n, m = self._counts
        for place, problem, _, _ in found:
            if not problem.has(n, m):
                sample = problem.sample()
                loss = sample.loss(sample.solve(self.method, (n, m)))
                gone = place.size * (m - n) // m
                yield _choice(place, 1 - n / m, f"{n} of every {m} inputs kept", loss, gone)


def _choice(place: Place, level: float, what: str, loss: float, gone: int) -> Choice:
    return Choice(place.name, level, what, loss, gone)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
