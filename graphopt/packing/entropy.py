"""How few bytes the elements of a tensor could take if each were coded by its frequency alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graphopt.packing import transforms
from graphopt.packing.transforms import Bytes
from graphopt.packing.wire import Kind


def entropy_bytes(data: Bytes, kind: Kind) -> float:
    """The order-0 entropy of a tensor in bytes, without any table of frequencies.

    The symbols are the elements where these have up to 8 bits. Wider ones are taken byte by byte, floats with
    their sign behind their exponent; where at most 256 of them are distinct, the distinct ones count as they
    are, and the symbols say which of them it is.
    """
    if kind.bits < 8:
        return entropy(np.bincount(transforms.split_bits(data, kind.bits)))
    width = kind.bits // 8
    whole = data[: data.size - data.size % width]
    rest = float(data.size - whole.size)
    if width == 1 or whole.size == 0:
        return rest + entropy(np.bincount(whole, minlength=1))
    found = transforms.palette(whole, width)
    if found is not None:
        colours, places = found
        rest += min(_by_planes(whole, kind), colours.size + entropy(np.bincount(places)))
        return rest
    return rest + _by_planes(whole, kind)


def _by_planes(data: Bytes, kind: Kind) -> float:
    width = kind.bits // 8
    turned = transforms.rotate(data, width) if kind.floating else data
    return sum(entropy(np.bincount(plane)) for plane in transforms.planes(turned, width))


def entropy(counts: NDArray[np.integer]) -> float:
    """Bytes of symbols with these counts, each coded by its share."""
    used = counts[counts > 0].astype(np.float64)
    total = used.sum()
    return float(total * np.log2(total) - (used * np.log2(used)).sum()) / 8 if used.size else 0.0
