"""A model opened in the native process, ready to be run again and again."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

from onnx import helper

from graphopt.errors import NativeError
from graphopt.ir.graph import element_bits
from graphopt.ir.model import Model
from graphopt.quality.inputs import Feeds
from graphopt.runtime.exposing import SEND_BYTES, Exposed
from graphopt.runtime.native import Native

MANY = 1 << 24
"""Codes of weights from which on floats are computed from them in every run, and not held."""


class Opened:
    """A model opened as a session; a context manager that closes it.

    Args:
        native: the process.
        model: the model.
        names: the tensors that a run returns: the model's outputs, then inner tensors of its main graph.
        backend: ``ort`` or ``reference``.
        seconds: how long one run may take.
        optimize: whether ONNX Runtime may apply its own graph optimizations.
        provider: what runs it, as in ``cpu`` or ``cuda:0``.
        threads: for one operator.

    Raises:
        NativeError: the model cannot be opened.
    """

    def __init__(
        self,
        native: Native,
        model: Model,
        names: Sequence[str],
        *,
        backend: str = "ort",
        seconds: float = 60.0,
        optimize: bool = False,
        provider: str = "cpu",
        threads: int = 1,
    ) -> None:
        self.native = native
        self.model = model
        self.names = list(names)
        self.seconds = seconds
        self.how = (backend, optimize, threads, provider)
        self.key = f"{self.how}:{id(model)}"
        self._exposed: Exposed | None = None
        self._open()

    def _open(self) -> None:
        source = self._source()
        fold = not self.how[1] or not _grows(self.model)
        how = {"seconds": 2 * self.seconds, "fold": fold}
        self.native.call("open", self.key, source, *self.how, **how)
        self.generation = self.native.generation

    def _source(self) -> bytes | str:
        if self.model.weight_bytes() > SEND_BYTES:
            self._exposed = self._exposed or Exposed(self.model)
            return self._exposed.returning(self.names)
        proto = self.model.to_proto()
        known = {output.name for output in proto.graph.output}
        extra = [name for name in self.names if name not in known]
        proto.graph.output.extend(map(helper.make_empty_tensor_value_info, extra))
        return bytes(proto.SerializeToString())

    def run(self, feeds: Feeds) -> list[Any]:
        """The named tensors for one set of inputs.

        Raises:
            NativeError: the model does not run on it.
        """
        if not self.native.alive or self.generation != self.native.generation:
            self._open()  # the process that held the session died
        names = list(self.names)
        answer: list[Any] = self.native.call("run", self.key, feeds, names, seconds=self.seconds)
        return answer

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(NativeError):
            self.native.call("close", self.key)
        if self._exposed is not None:
            self._exposed.close()


def _grows(model: Model) -> bool:
    """Whether a model would take far more memory with its constants computed than its file.

    ONNX Runtime holds all steps from codes to floats until it has computed the last constant; the result of a
    run is the same without. Integer kernels come about only with their constants computed.
    """
    integers = {"QuantizeLinear", "DequantizeLinear"}
    if any(node.op in integers for node in model.nodes()):
        return False
    narrow = (c for c in model.constants() if c.dtype != object and element_bits(c.dtype) <= 8)
    return sum(math.prod(constant.shape) for constant in narrow) > MANY
