"""A node on its own: small whatever its weights take, equal where it is equal, and it runs."""

from __future__ import annotations

import numpy as np

from graphopt.ir.excerpts import Excerpt, Operand


def conv(filters: int, dtype: str = "float32") -> Excerpt:
    operands = (
        Operand(dtype, (1, 3, 9, 9)),
        Operand(dtype, (filters, 3, 3, 3), constant=True),
        Operand(dtype, (filters,), constant=True),
    )
    return Excerpt.of("Conv", 17, operands, {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]})


def test_equal_excerpts_are_equal_in_every_byte() -> None:
    assert conv(8) == conv(8)
    assert hash(conv(8)) == hash(conv(8))
    assert conv(8).model().to_bytes() == conv(8).model().to_bytes()
    assert conv(8) != conv(16)
    assert conv(8).model().to_bytes() != conv(16).model().to_bytes()


def test_weights_take_no_room() -> None:
    assert len(conv(1 << 20).model().to_bytes()) < 1000


def test_it_runs_with_weights_of_its_sizes(native) -> None:
    native.call("open", "excerpt", conv(8).model().to_bytes())
    (found,) = native.call("run", "excerpt", {"operand0": np.ones((1, 3, 9, 9), np.float32)})
    native.call("close", "excerpt")
    assert found.shape == (1, 8, 9, 9)
    np.testing.assert_allclose(found[0, :, 4, 4], 27 * 0.01 + 0.01, rtol=1e-5)


def test_an_omitted_input_stays_omitted(native) -> None:
    operands = (
        Operand("float32", (5, 1, 4)),
        Operand("float32", (1, 24, 4), constant=True),
        Operand("float32", (1, 24, 6), constant=True),
        None,
        None,
        Operand("float32", (1, 1, 6), constant=True),
    )
    excerpt = Excerpt.of("LSTM", 14, operands, {"hidden_size": 6})
    native.call("open", "excerpt", excerpt.model().to_bytes())
    (found,) = native.call("run", "excerpt", {"operand0": np.ones((5, 1, 4), np.float32)})
    native.call("close", "excerpt")
    assert found.shape == (5, 1, 1, 6)
