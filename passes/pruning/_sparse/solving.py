"""Which weights of a tensor become zero, how the others make up for it, and what is lost.

The tensor falls apart into parts that do not know of each other: the groups of a convolution, and blocks of
the features of a very wide layer. Of each part the second moments H of its inputs are known, or taken to be
I where nothing was observed; with a bias to take up the mean, H is centred. The loss is

    tr(dW H dW^T) / tr(W H W^T)

the share of the energy of the layer's output that is lost, and so comparable between layers.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from graphopt.numerics.sparsity import Sparsity, inverse_factor, kept, swept

Method = Literal["sparsegpt", "wanda", "magnitude"]

SAMPLED = (32, 256)
"""Groups, and outputs of all of them, that the loss of a level is estimated on."""


@dataclass(frozen=True)
class Part:
    """Features of one group, and what is known of their inputs.

    Attributes:
        group: of the tensor.
        features: their numbers in the group, in the order of a pattern.
        moments: H, float64 of shape ``(features, features)``; None for I.
    """

    group: int
    features: np.ndarray
    moments: np.ndarray | None

    @functools.cached_property
    def upper(self) -> np.ndarray:
        """U of ``H^-1 = U^T U``, the same for every share of zeros."""
        assert self.moments is not None
        return inverse_factor(self.moments)

    def second(self) -> np.ndarray:
        """The diagonal of H."""
        return np.ones(len(self.features)) if self.moments is None else np.diagonal(self.moments)


@dataclass(frozen=True)
class Problem:
    """A tensor as matrices, of shape ``(groups, outputs, features)``, and its parts."""

    matrices: np.ndarray
    parts: Sequence[Part]

    def sample(self) -> Problem:
        """A smaller one that loses about the same share: some groups, and some outputs of each."""
        groups = _spread(len(self.matrices), SAMPLED[0])
        outputs = _spread(self.matrices.shape[1], max(SAMPLED[1] // len(groups), 1))
        number = {int(group): n for n, group in enumerate(groups)}
        parts = [replace(p, group=number[p.group]) for p in self.parts if p.group in number]
        return Problem(self.matrices[np.ix_(groups, outputs)], parts)

    def has(self, n: int, m: int) -> bool:
        """Whether at most n of every m consecutive features of each part are not zero."""
        for part in self.parts:
            weights = self.matrices[part.group][:, part.features] != 0
            if weights.shape[1] % m or (weights.reshape(-1, m).sum(axis=1) > n).any():
                return False
        return True

    def solve(self, method: Method, sparsity: Sparsity) -> np.ndarray:
        """The matrices with as many zeros as asked for; those that are there stay.

        Args:
            method: how weights are chosen.
            sparsity: the share of the whole tensor, or a pattern.
        """
        found = self.matrices.copy()
        keep = None if isinstance(sparsity, tuple) else self._kept(method, sparsity)
        for part in self.parts:
            weights = self.matrices[part.group][:, part.features]
            if method == "sparsegpt" and part.moments is not None:
                asked = sparsity
                if keep is not None:
                    asked = 1 - float(keep[part.group][:, part.features].mean())
                new = swept(weights, part.upper, asked)
            else:
                if keep is not None:
                    chosen = keep[part.group][:, part.features]
                else:
                    chosen = kept(_scores(weights, part, method), sparsity)
                new = np.where(chosen, weights, 0.0)
            found[part.group][:, part.features] = new
        return found

    def _kept(self, method: Method, share: float) -> np.ndarray:
        """Which weights stay when those that matter least go, wherever they are."""
        scores = np.empty(self.matrices.shape)
        for part in self.parts:
            weights = self.matrices[part.group][:, part.features]
            scores[part.group][:, part.features] = _scores(weights, part, method)
        return np.asarray(kept(scores.reshape(1, -1), share).reshape(scores.shape))

    def loss(self, new: np.ndarray) -> float:
        """The share of the energy of the layer's output that other weights lose."""
        lost = energy = 0.0
        for part in self.parts:
            old = self.matrices[part.group][:, part.features]
            lost += _energy(old - new[part.group][:, part.features], part)
            energy += _energy(old, part)
        return lost / energy if energy > 0 else 0.0


def _scores(weights: np.ndarray, part: Part, method: Method) -> np.ndarray:
    """What weights matter; those that are zero already come first."""
    scores = np.asarray(np.abs(weights))
    if method != "magnitude":
        scores *= np.sqrt(np.maximum(part.second(), 0.0))
    scores[weights == 0] = -1.0
    return scores


def _energy(weights: np.ndarray, part: Part) -> float:
    mixed = weights if part.moments is None else weights @ part.moments
    return max(float((mixed * weights).sum()), 0.0)


def _spread(count: int, most: int) -> np.ndarray:
    """At most so many numbers below ``count``, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
