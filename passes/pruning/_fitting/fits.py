"""How one layer is fitted: what is asked of the data, and what its weights become.

A fit asks in turns, each with the weights that the turn before gave.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.numerics.least_squares import (
    STRENGTH,
    Refit,
    cross_validated,
    match_moments,
    ridge,
    ridge_in_blocks,
    with_ridge,
)
from graphopt.numerics.streaming import Cross, Gram, RestoredSpec

from .places import Place

AGAIN = 3
"""Times that a layer before a Relu is fitted anew; further ones change little."""

DECOMPOSED = 1024
"""Features up to which the strength of the ridge is found by cross-validation."""

FEW = 0.1
"""Beyond, it is at least this share of features per row: with few rows the fit keeps close to the weights."""

WIDE = 8192
"""Features beyond which only blocks of their moments are held."""

BLOCK = 2048
"""Features of such a block."""

STEPS = 6
"""Steps that are taken where only blocks are known."""


@dataclass(frozen=True)
class Question:
    """What is asked of the data for a layer.

    Attributes:
        place: of the layer.
        spec: the statistic, of all rows.
        features: of the layer, by which rows are sampled.
        tensors: of the changed model that it takes: its first one, and those behind the original's.
    """

    place: Place
    spec: RestoredSpec
    features: int
    tensors: tuple[gs.Tensor, ...]


class Fit(abc.ABC):
    """The fit of one layer.

    Attributes:
        WHAT: in words.
        place: where it is compared with the original.
        fitted: how often its weights were set.
    """

    WHAT: ClassVar[str]
    place: Place
    fitted: int = 0

    @abc.abstractmethod
    def question(self) -> Question | None:
        """What the next turn needs; None when it is done."""

    @abc.abstractmethod
    def take(self, found: Cross | str) -> str:
        """Take in the answer, or why there is none; the reason why nothing can be fitted, or nothing."""


class Best(NamedTuple):
    """The best weights of a layer, and what others cost.

    Attributes:
        fit: they and their bias.
        gram: H with its ridge, of shape ``(groups, features, features)``: weights that differ by D have an
            error that is larger by ``D^T H D``, with the bias that is the best for them.
        mean: of each feature, of shape ``(groups, features)``.
    """

    fit: Refit
    gram: np.ndarray
    mean: np.ndarray


class LeastSquares(Fit):
    """Ridge regression of a layer to its place in the original, towards the weights that it has."""

    WHAT: ClassVar[str] = "its weights were refitted to the original's outputs"
    again: ClassVar[int] = AGAIN

    def __init__(self, place: Place) -> None:
        self.place = place
        self.wide = place.layer.features > WIDE
        self._old: np.ndarray | None = None
        self.gram: Gram | None = None
        self.strength: float | None = None
        self.turn = 0

    @property
    def old(self) -> np.ndarray:
        """The weights that it had, as ``Layer.matrices`` gives them; held while it is being fitted."""
        if self._old is None:
            self._old = self.place.layer.matrices()
        return self._old

    def question(self) -> Question | None:
        """Moments of its input, and of these with what it shall give."""
        place, turn, source = self.place, self.turn, self.place.layer.node.inputs[0]
        if turn >= self._turns():
            self._old = self.gram = None
            return None
        bounds = place.bounds if turn else None
        present = () if bounds is None else (place.output,)
        beside = (
            place.output if self.wide else place.skip
        )  # wide: what is fitted is what is still missing
        behind = () if beside is None else (beside,)
        blocks = BLOCK if self.wide else 1 if turn else None
        layer = place.layer
        spec = RestoredSpec(layer.rows, layer.outputs, blocks, bounds=bounds, skip=bool(behind))
        return Question(place, spec, layer.features, (source, *present, *behind))

    def _turns(self) -> int:
        """How often data is asked for."""
        return STEPS if self.wide else 1 + self.again * (self.place.bounds is not None)

    def take(self, found: Cross | str) -> str:
        """Set the weights."""
        if isinstance(found, str):
            if self.turn or self.place.skip is None:
                return found
            self.place = self.place.alone()
            return ""
        self.turn += 1
        if not found.gram.rows:
            return "no row of its input and output is finite"
        try:
            matrices, bias = self._in_blocks(found) if self.wide else self._whole(found)
        except (ValueError, np.linalg.LinAlgError) as error:
            return str(error)
        self.place.assign(matrices, bias if self.place.biased else None)
        self.fitted += 1
        return ""

    def _whole(self, found: Cross) -> tuple[np.ndarray, np.ndarray]:
        """All groups of a layer at once; matrices and the bias."""
        fit = self._best(found).fit
        return fit.weights, fit.bias.reshape(-1)

    def _best(self, found: Cross) -> Best:
        """The best weights that there are."""
        self.gram = self.gram or found.gram
        groups, count = len(self.old), found.gram.rows
        if self.place.biased:
            grams = [self.gram.covariance(g) for g in range(groups)]
            crosses = [found.covariance(g) for g in range(groups)]
        else:  # without a bias the mean has to come from the weights too
            grams = [self.gram.product(g) / count for g in range(groups)]
            crosses = [found.product(g) / count for g in range(groups)]
        means = self.gram.mean.reshape(groups, -1)
        wanted = found.mean.reshape(groups, -1)
        gram, cross = np.stack(grams), np.stack(crosses)
        if self.strength is None:
            second = found.variance + (0.0 if self.place.biased else np.square(found.mean))
            self.strength = self._strength(gram, cross, second.reshape(groups, -1), count)
        fit = ridge(gram, cross, means, wanted, self.old, self.strength)
        return Best(fit, with_ridge(gram, self.strength), means)

    def _strength(
        self, gram: np.ndarray, cross: np.ndarray, variance: np.ndarray, rows: int
    ) -> float:
        """How strongly the fit is pulled towards the weights."""
        features = gram.shape[-1]
        if features <= DECOMPOSED:
            return cross_validated(gram, cross, variance, self.old, rows)
        return float(max(STRENGTH, FEW * features / rows))

    def _in_blocks(self, found: Cross) -> tuple[np.ndarray, np.ndarray]:
        """One step of a layer of which only blocks of moments are known."""
        if len(self.old) > 1:
            raise ValueError(f"it has several groups of more than {WIDE} features")
        now, gram, count = self.place.layer.matrices()[0], found.gram, found.gram.rows
        width = len(now)
        starts = range(0, width, BLOCK)
        features = [np.arange(start, min(start + BLOCK, width)) for start in starts]
        if self.place.biased:
            known = [gram.covariance(b) for b in range(len(features))]
            cross = found.covariance()
        else:
            known = [gram.product(b) / count for b in range(len(features))]
            cross = found.product() / count
        mean = gram.mean @ now + self.place.offset() + found.mean
        blocks = list(zip(features, known, strict=True))
        fit = ridge_in_blocks(blocks, cross, gram.mean, mean, now)
        return fit.weights[None], fit.bias


class MomentMatch(Fit):
    """Each output of a layer gets back the mean and the variance that it had."""

    WHAT: ClassVar[str] = "the means and variances of its outputs were restored"

    def __init__(self, place: Place) -> None:
        self.place = place
        self.asked = False

    def question(self) -> Question | None:
        """Moments of what it gives and of what it shall give."""
        if self.asked:
            return None
        self.asked = True
        outputs, skip = self.place.layer.outputs, self.place.skip
        spec = RestoredSpec(outputs, outputs, 1, skip=skip is not None)
        return Question(self.place, spec, 1, (self.place.value, *((skip,) * (skip is not None))))

    def take(self, found: Cross | str) -> str:
        """Set the weights."""
        if isinstance(found, str):
            return found
        if not self.place.biased:
            return "it has no bias"
        gram = found.gram
        now = np.maximum(gram.second - np.square(gram.mean), 0.0)
        scale, shift = match_moments(found.mean, found.variance, gram.mean, now)
        matrices = self.place.layer.matrices()
        groups = len(matrices)
        scaled = matrices * scale.reshape(groups, 1, -1)
        self.place.assign(scaled, self.place.offset() * scale + shift)
        self.fitted += 1
        return ""
