"""How far the outputs of a changed model are from the original's, on the data.

    gap = mean over outputs of  E (y' - y)^2 / Var y

Outputs of Softmax and Sigmoid are compared at what these read, where both models have that.
"""

from __future__ import annotations

import math

import numpy as np

from graphopt.errors import NativeError
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.numerics.streaming import Cross, CrossSpec, ElementRows
from graphopt.pass_base import Observe
from graphopt.runtime.observing import Request

from ._qdq.losses import compared


def output_gap(model: Model, original: Model, observe: Observe) -> float:
    """The gap; infinite where it cannot be measured, or where no output holds floats.

    Args:
        model: the changed model, with the inputs and outputs of the original.
        original: the model before.
        observe: runs both.
    """
    mine, theirs = (compared(each, infer(each.graph, each.functions)) for each in (model, original))
    names = [name for name in mine if name in theirs]
    if not names or len(mine) != len(names):
        names = [t.name for t in model.graph.outputs if t.name in {*mine, *theirs}]
    spec = CrossSpec(ElementRows(), ElementRows())
    asked = [Request(name, spec, name, target_in_other=True) for name in names]
    if not asked:
        return math.inf
    try:
        answers = observe(model, asked, other=original)
    except NativeError:
        return math.inf
    gaps = [_share(answers[request].value) for request in asked]
    found = float(np.mean(gaps))
    return found if math.isfinite(found) else math.inf


def _share(found: Cross | None) -> float:
    """The mean square of the difference as a share of the original's variance."""
    if found is None or not found.gram.rows:
        return math.inf
    spread = float(found.variance[0])
    inner = float(found.covariance()[0, 0])
    own = float(found.gram.second[0] - found.gram.mean[0] ** 2)
    apart = float(found.gram.mean[0] - found.mean[0]) ** 2
    error = max(own + spread - 2.0 * inner, 0.0) + apart
    return error / spread if spread > 0 else (math.inf if error else 0.0)
