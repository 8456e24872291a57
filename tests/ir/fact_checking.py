"""Compare inferred facts with the tensors of a run, under one consistent binding of the symbols."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_graphsurgeon as gs

from graphopt.ir.inference import Facts
from graphopt.numerics.dims import Dim, Expr, evaluate, symbols


class Binding:
    """Values of symbols, learnt from the first tensor in which one stands alone."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.claims: list[tuple[Dim, int, str]] = []

    def claim(self, dim: Dim, actual: int, where: str) -> None:
        self.claims.append((dim, int(actual), where))

    def verify(self) -> int:
        """Check all claims; return how many could not be, for want of a value."""
        pending, progress = self.claims, True
        while progress:
            progress, rest = False, []
            for dim, actual, where in pending:
                names = symbols(dim)
                if names <= self.values.keys():
                    found = evaluate(dim, self.values)
                    assert found == actual, f"{where}: {dim} is {actual}, not {found}"
                    progress = True
                elif len(names) == 1 and isinstance(dim, Expr) and repr(dim) in names:
                    self.values[repr(dim)] = actual
                    progress = True
                else:
                    rest.append((dim, actual, where))
            pending = rest
        return len(pending)


def claim_all(
    facts: Facts, actual: Iterable[tuple[gs.Tensor, object]], binding: Binding, where: str
) -> None:
    """Claim that every fact of these tensors holds of these arrays."""
    for tensor, array in actual:
        fact = facts.fact(tensor)
        name = f"{where}: {tensor.name}"
        if isinstance(array, list):
            assert fact.kind in ("sequence", "optional", "unknown"), name
            for entry in array if fact.kind == "sequence" else ():
                if fact.shape is not None:
                    assert len(fact.shape) == entry.ndim, name
                    for dim, size in zip(fact.shape, entry.shape, strict=True):
                        assert not isinstance(dim, int) or dim == size, name
            continue
        if array is None:
            assert fact.kind in ("optional", "unknown"), name
            continue
        array = np.asarray(array)
        assert fact.kind in ("tensor", "optional", "unknown"), f"{name}: {fact.kind}"
        if fact.dtype is not None:
            is_text = array.dtype.kind in "USO" and fact.dtype.kind == "O"
            assert is_text or fact.dtype == array.dtype, f"{name}: {fact.dtype}, {array.dtype}"
        if fact.shape is not None:
            assert len(fact.shape) == array.ndim, f"{name}: {fact.shape}, {array.shape}"
            for dim, size in zip(fact.shape, array.shape, strict=True):
                binding.claim(dim, size, f"{name}: {fact.shape}")
        if fact.value is not None:
            assert fact.value.shape == array.shape, f"{name}: {fact.value}"
            for entry, number in zip(fact.value.flat, array.flat, strict=True):
                assert number == int(number), f"{name}: {number}"
                binding.claim(entry, int(number), f"{name}: {fact.value}")
