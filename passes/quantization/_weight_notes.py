"""What the report tells of nodes whose weights are stored in few bits and computed with as floats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from graphopt.ir.graph import Node
from graphopt.lossy_pass import Choice
from graphopt.numerics.decibels import sqnr_db
from graphopt.pass_base import Finding
from graphopt.report import QuantizedInfo, StoredInfo

from ._weight_places import Place

WHY = "its weights take fewer bytes, and runtimes compute with them as floats"


@dataclass
class Ledger:
    """Collects weights as they are stored, and tells of the nodes that read them."""

    _nodes: dict[int, Node] = field(default_factory=dict)
    _stored: dict[int, list[StoredInfo]] = field(default_factory=dict)
    _outer: dict[int, bool] = field(default_factory=dict)

    def add(self, place: Place, choice: Choice, bits: int, block: int, values: np.ndarray) -> None:
        """Remember one weight, which is still as it was.

        Args:
            place: the weight and its reader.
            choice: how it is stored, in words, and what that is predicted to lose.
            bits: of an element.
            block: inputs that share a scale; 0: a channel.
            values: that the runtime will compute with, of the weight's shape.
        """
        node = place.reader
        self._nodes[node.uid], self._outer[node.uid] = node, place.main
        ratio = sqnr_db(place.weight.values, values)
        found = StoredInfo(place.name, bits, block, choice.what, ratio, choice.loss)
        self._stored.setdefault(node.uid, []).append(found)

    def findings(self) -> Iterator[Finding]:
        """One for each node, in the order in which they came."""
        for uid, node in self._nodes.items():
            stored = self._stored[uid]
            bits = " and ".join(str(n) for n in sorted({entry.bits for entry in stored}))
            precision = f"float, stored in {bits} {'bit' if bits == '1' else 'bits'}"
            gives = str(node.outputs[0].name) if self._outer[uid] and node.outputs else ""
            row = QuantizedInfo(
                node.label, str(node.op), "stored", precision, WHY, gives, weights=stored
            )
            yield Finding(node, row)
