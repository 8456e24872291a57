"""Factors for the channels of a tensor with which products of it lose least to rounding.

    y = W x = (W diag(s)) (x / s)

holds for any positive s, but the grids do not know it: all of x shares one, and each output of W has one.
A channel of small numbers is lost beside one of large numbers unless it is brought up to it, at the price of
weights that spread more. What rounding both to b bits loses at y is foreseen, with rounding errors as
independent noise, as

    sum_c a_c s_c^2 P_c  +  sum_o d_o^2 / 12 sum_c T_oc m_c / s_c^2

    a_c = min(D^2 / 12, m_c / s_c^2)    D the step of the grid that covers all x_c / s_c, m_c = E[x_c^2]:
                                        what lies below half a step is rounded to 0 and loses its power
    P_c = sum W_c^2                     over outputs and the positions of a kernel, T_oc of them not 0
    d_o = max_c |W_oc| s_c / (2^(b-1) - 1)

The factors are ``s_c = r_c^a / w_c^(1 - a)`` with r_c the largest magnitude of a channel and w_c that of the
weights that read it (Xiao et al., "SmoothQuant", 2022). With a = 1/2 that is the equalization of Nagel et
al., "Data-free quantization through weight equalization and bias correction", 2019. The a of the least loss
is searched. Factors are powers of two: dividing by these and multiplying again changes no bit of a product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALPHAS = tuple(np.linspace(0.0, 1.0, 11))
"""Shares of the spread that go to the weights which are tried."""

EVEN = 0.5
"""The share with which activations and weights spread alike."""

ACTIVATION_STEPS = 255
WEIGHT_STEPS = 127

MOST = 24
"""Factors lie between 2^-24 and 2^24: beyond, numbers could leave the range of a float32."""

NEGLIGIBLE = 2.0**-MOST
"""Weights below this share of the largest one do not count as smaller than it."""


@dataclass(frozen=True)
class Channels:
    """What is known of the channels of a tensor; float64 of shape ``(channels,)`` each.

    Attributes:
        low: the smallest element of each channel.
        high: the largest one.
        second: E[x^2].
    """

    low: np.ndarray
    high: np.ndarray
    second: np.ndarray

    @property
    def reach(self) -> np.ndarray:
        """The largest magnitude of each channel."""
        return np.asarray(np.maximum(np.abs(self.low), np.abs(self.high)))

    def divided(self, exponents: np.ndarray) -> Channels:
        """The same of the tensor whose channels are divided by ``2^exponents``."""
        shrunk = np.ldexp(1.0, -exponents)
        return Channels(self.low * shrunk, self.high * shrunk, self.second * shrunk**2)

    def without(self, chosen: np.ndarray) -> Channels:
        """The same with some channels always 0.

        Args:
            chosen: their numbers.
        """
        kept = np.ones(self.second.shape)
        kept[chosen] = 0.0
        return Channels(self.low * kept, self.high * kept, self.second * kept)

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the range of the whole tensor, with 0 in it."""
        return min(float(self.low.min(initial=0.0)), 0.0), max(
            float(self.high.max(initial=0.0)), 0.0
        )


@dataclass(frozen=True)
class Product:
    """The weights that a tensor is multiplied with.

    Attributes:
        peaks: the largest magnitudes over the positions of a kernel, float64 of shape
            ``(groups, outputs, inputs)`` of one group each.
        powers: the sums of their squares over positions and outputs, of shape ``(groups * inputs,)``.
        counts: weights that are not 0 over the positions of a kernel, int64 of the shape of the peaks.
    """

    peaks: np.ndarray
    powers: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, weights: np.ndarray) -> Product:
        """The product with weights of shape ``(groups, outputs, inputs, positions)``."""
        powers = np.einsum("goit,goit->gi", weights, weights)
        return cls(
            np.abs(weights).max(axis=3), powers.reshape(-1), np.count_nonzero(weights, axis=3)
        )

    @property
    def largest(self) -> np.ndarray:
        """The largest magnitude of what each channel is multiplied with, of shape ``(channels,)``."""
        return np.asarray(self.peaks.max(axis=1)).reshape(-1)


def predicted_loss(
    channels: Channels, products: Sequence[Product], exponents: np.ndarray | None = None
) -> float:
    """What rounding loses of the squares of some products, foreseen as in the module's docstring.

    Args:
        channels: of the tensor that all of them read.
        products: its readers.
        exponents: of two, integers of shape ``(channels,)``, for the factors; None for no scaling.
    """
    exponents = np.zeros(channels.second.shape, np.int64) if exponents is None else exponents
    factors = np.ldexp(1.0, exponents)
    now = channels.divided(exponents)
    low, high = now.ends
    noise = np.minimum(((high - low) / ACTIVATION_STEPS) ** 2 / 12, now.second)
    loss = 0.0
    for product in products:
        groups, _, inputs = product.peaks.shape
        reach = (product.peaks * factors.reshape(groups, 1, inputs)).max(axis=2)
        heard = np.einsum("goi,gi->go", product.counts, now.second.reshape(groups, inputs))
        loss += float((noise * factors**2 * product.powers).sum())
        loss += float(((reach / WEIGHT_STEPS) ** 2 / 12 * heard).sum())
    return loss


def exponents_of(reach: np.ndarray, weights: np.ndarray, alpha: float) -> np.ndarray:
    """The exponents of two of the factors ``reach^alpha / weights^(1 - alpha)``, rounded.

    They are moved together so that no channel reaches further than the furthest one did. What multiplies a
    channel that is always 0 is brought to the median of the other weights, so that it decides on no grid.

    Args:
        reach: the largest magnitude of each channel, not negative, of shape ``(channels,)``.
        weights: the largest magnitude of what each is multiplied with, likewise.
        alpha: from 0 to 1: how much of the spread of the channels goes to the weights.

    Returns:
        int64 of shape ``(channels,)``. Asked again of what was scaled so, with the same alpha, they are 0.
    """
    found = np.zeros(reach.shape, np.int64)
    alive = reach > 0
    if not alive.any() or not weights.any():
        return found
    held = np.maximum(weights[alive], NEGLIGIBLE * weights.max())
    wanted = alpha * np.log2(reach[alive]) - (1.0 - alpha) * np.log2(held)
    steps = np.floor(wanted + 0.5) - np.floor(np.median(wanted))  # the same after any whole steps
    steps = np.clip(steps, -MOST // 2, MOST // 2).astype(np.int64)
    furthest = float(np.ldexp(reach[alive], -steps).max() / reach.max())
    found[alive] = steps + int(np.ceil(np.log2(furthest)))
    silent = ~alive & (weights > 0)
    usual = float(np.median(np.ldexp(weights[alive], found[alive])))
    if usual > 0:
        even = np.floor(np.log2(usual / weights[silent]) + 0.5)
        found[silent] = np.clip(even, -MOST // 2, MOST // 2).astype(np.int64)
    return found


def best_exponents(
    channels: Channels, products: Sequence[Product], alphas: Sequence[float] = ALPHAS
) -> np.ndarray:
    """The exponents of two of the factors that are foreseen to lose least; all 0 where none are better.

    Args:
        channels: of the tensor that all products read.
        products: its readers.
        alphas: to be tried.
    """
    weights = largest_weights(products)
    best = np.zeros(channels.second.shape, np.int64)
    least = predicted_loss(channels, products)
    for alpha in alphas:
        exponents = exponents_of(channels.reach, weights, float(alpha))
        loss = predicted_loss(channels, products, exponents)
        if loss < least:
            best, least = exponents, loss
    return best


def largest_weights(products: Sequence[Product]) -> np.ndarray:
    """The largest magnitude of what each channel is multiplied with by any of some products."""
    return np.asarray(np.max([product.largest for product in products], axis=0))


def outliers(
    channels: Channels, products: Sequence[Product], most: int, nearly: float = 2.0
) -> np.ndarray:
    """The channels that reach furthest, without which rounding the others is foreseen to lose least.

    Of the counts 1, 2, 4, ... up to ``most`` the smallest whose loss is at most ``nearly`` times that of the
    best.

    Args:
        channels: of the tensor that all products read.
        products: its readers.
        most: channels at most.
        nearly: see above.

    Returns:
        The numbers of the channels, int64, ascending; none where leaving out any does not help.
    """
    order = np.argsort(-channels.reach, kind="stable")
    counts = [1 << n for n in range(most.bit_length()) if 1 << n <= most]
    losses = [predicted_loss(channels.without(order[:count]), products) for count in counts]
    if not losses or min(losses) >= predicted_loss(channels, products):
        return np.empty(0, np.int64)
    count = next(n for n, loss in zip(counts, losses, strict=True) if loss <= nearly * min(losses))
    return np.sort(order[:count]).astype(np.int64)
