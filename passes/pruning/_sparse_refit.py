"""Sparse weights one layer after the other, each fitted to what the layer gave in the original.

    W_0 = argmin |X W^T + b - Y|^2          X: the layer's input in the model as it is by now
    W   = sparse(W_0), its zeros chosen     Y: the layer's output in the original
    W   = argmin |X W^T + b - Y|^2 over the weights that are not zero

Layers come in the order of computation, so each makes up for what the ones before it lose. All three steps
pull towards the original weights (ridge), so a layer without enough data keeps close to them.
"""

from __future__ import annotations

import numpy as np

from graphopt.errors import NativeError
from graphopt.ir.model import Model
from graphopt.numerics.least_squares import ridge
from graphopt.numerics.sparsity import Sparsity, refitted
from graphopt.numerics.streaming import Cross, CrossSpec
from graphopt.pass_base import Context
from graphopt.runtime.observing import Request

from ._sparse_moments import ROWS, Known, from_gram
from ._sparse_places import Place
from ._sparse_solving import Method, Part, Problem

DAMPING = 0.01
"""The ridge as a share of the mean of H's diagonal, as in SparseGPT."""


def sparsify_towards(
    place: Place, dense: Model, context: Context, method: Method, sparsity: Sparsity
) -> str:
    """Give a layer sparse weights that fit the original's output.

    Args:
        place: the weights of a layer of ``context.model``.
        dense: the original; its tensors have the same names.
        context: observes.
        method: how weights are chosen.
        sparsity: how many.

    Returns:
        Why it could not be done, nothing being changed then; empty where it was.
    """
    layer = place.layer
    assert layer is not None
    assert context.observe is not None
    spec = CrossSpec(layer.rows, layer.outputs, sampling=ROWS)
    output = layer.node.outputs[0].name
    request = Request(layer.node.inputs[0].name, spec, output, target_in_other=True)
    try:
        answer = context.observe(context.model, [request], other=dense)[request]
        if answer.value is None:
            return str(answer.why)
        known = from_gram(place, answer.value.gram)
        if known.mean is None:
            return known.why
        _fit(known, answer.value, method, sparsity)
    except (NativeError, ValueError) as error:
        return str(error)
    return ""


def _fit(known: Known, found: Cross, method: Method, sparsity: Sparsity) -> None:
    place, original = known.place, known.problem
    assert known.mean is not None
    centred = place.bias() is not None
    crosses = [_cross(found, part, centred) for part in original.parts]
    wanted = np.zeros(original.matrices.shape)
    for part, cross in zip(original.parts, crosses, strict=True):
        assert part.moments is not None
        old = original.matrices[part.group][:, part.features]
        none = np.zeros(len(part.features)), np.zeros(len(old))
        best = ridge(part.moments, cross.T, *none, old.T, DAMPING).weights.T
        # what is zero already stays so
        wanted[part.group][:, part.features] = np.where(old == 0, 0.0, best)
    new = Problem(wanted, original.parts).solve(method, sparsity)
    for part, cross in zip(original.parts, crosses, strict=True):
        assert part.moments is not None
        old = original.matrices[part.group][:, part.features]
        chosen = new[part.group][:, part.features]
        new[part.group][:, part.features] = refitted(chosen, part.moments, cross, old, DAMPING)
    if not np.isfinite(new).all():
        raise ValueError("its moments are not finite")
    bias = None
    if centred:
        means = found.mean.reshape(len(new), -1)
        bias = (means - np.einsum("gi,goi->go", known.mean, new)).ravel()
    place.assign(new, bias)


def _cross(found: Cross, part: Part, centred: bool) -> np.ndarray:
    """Moments of the targets with the features of a part, of shape ``(outputs, features)``."""
    count = 1 if centred else found.gram.rows
    moments = found.covariance(part.group) if centred else found.product(part.group)
    return np.asarray(moments[part.features].T / count)
