"""Recurrent layers (ONNX operator spec: RNN, GRU, LSTM).

With S steps, batch B, D directions and hidden size H: layout 0 gives Y [S, D, B, H] and final
states [D, B, H]; layout 1 (opset 14) gives Y [B, S, D, H] and final states [B, D, H].
"""

from __future__ import annotations

from graphopt.ir.inference.call import Call
from graphopt.ir.inference.facts import Fact, Shape
from graphopt.ir.inference.registry import rule
from graphopt.numerics.dims import Dim


@rule("GRU", "LSTM", "RNN")
def recurrent(call: Call) -> list[Fact]:
    """All outputs, the final hidden state and, of an LSTM, the final cell state."""
    data, weight = call.shape(0), call.shape(2)
    dtype = call.common_dtype(0, 1, 2)
    directions = 2 if call.text("direction", "forward").lower() == "bidirectional" else 1
    hidden: Dim = call.fresh()
    if weight is not None:
        hidden = weight[2]
    elif call.integer("hidden_size", 0) > 0:
        hidden = call.integer("hidden_size", 0)
    steps, batch = (call.fresh(), call.fresh()) if data is None else data[:2]
    every: Shape = (steps, directions, batch, hidden)
    last: Shape = (directions, batch, hidden)
    if call.integer("layout", 0):
        steps, batch = batch, steps
        every, last = (batch, steps, directions, hidden), (batch, directions, hidden)
    return [Fact(dtype, every), Fact(dtype, last), Fact(dtype, last)]
