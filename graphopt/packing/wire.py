"""Where the tensors of an ONNX file lie, found by walking its wire format without parsing it.

Protobuf's wire format (protobuf.dev/programming-guides/encoding) is a sequence of tags, each with the number
of its field and how long it is. The walk follows only the fields that lead to tensors, over a file that may
be mapped into memory, and keeps nothing but where payloads begin and end. What it does not recognise or
cannot follow is left out, and so becomes structure: what is found here only says what to code apart, and an
archive unpacks to the same bytes whatever it says.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field

Buffer = bytes | mmap.mmap | memoryview

SMALLEST = 32
"""Bytes of a payload below which it stays where it is."""

_HINTS = 1 << 20
"""Payloads in other files that are noted."""

_FIELDS = 1 << 24
"""Fields that are walked over; a graph of a million nodes has fewer."""

_DEPTH = 100
"""Messages inside each other that are followed; protobuf itself reads no more."""


@dataclass(frozen=True)
class Kind:
    """What the elements of a payload are.

    Attributes:
        name: of the element type.
        bits: of one element; 8 where that is not known.
        floating: whether it is a float whose sign comes first.
    """

    name: str
    bits: int = 8
    floating: bool = False


STRUCTURE = Kind("structure")
UNKNOWN = Kind("bytes")

_TYPES = {
    1: Kind("float", 32, True),
    2: Kind("uint8"),
    3: Kind("int8"),
    4: Kind("uint16", 16),
    5: Kind("int16", 16),
    6: Kind("int32", 32),
    7: Kind("int64", 64),
    9: Kind("bool"),
    10: Kind("float16", 16, True),
    11: Kind("double", 64, True),
    12: Kind("uint32", 32),
    13: Kind("uint64", 64),
    14: Kind("complex64", 32, True),
    15: Kind("complex128", 64, True),
    16: Kind("bfloat16", 16, True),
    17: Kind("float8e4m3fn"),
    18: Kind("float8e4m3fnuz"),
    19: Kind("float8e5m2"),
    20: Kind("float8e5m2fnuz"),
    21: Kind("uint4", 4),
    22: Kind("int4", 4),
    23: Kind("float4e2m1", 4),
    24: Kind("float8e8m0"),
    25: Kind("uint2", 2),
    26: Kind("int2", 2),
    27: Kind("float6e2m3"),
    28: Kind("float6e3m2"),
}
"""By TensorProto.DataType of onnx.proto."""

_RAW = 9
_PAYLOADS = {4: _TYPES[1], 5: Kind("varint"), 7: Kind("varint"), 10: _TYPES[11], 11: Kind("varint")}
"""Packed fields of TensorProto that hold data in a form of their own."""

_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Fields of onnx.proto that lead to tensors."""


@dataclass(frozen=True)
class Span:
    """A payload: where it begins, its bytes, and what they are."""

    start: int
    length: int
    kind: Kind


Outside = dict[bytes, list[Span]]
"""Payloads in other files, by the name that the model gives the file."""


@dataclass
class Walk:
    """A walk over a file.

    Attributes:
        data: the file.
        outside: payloads in other files that were seen so far; of very many, not all.
        whole: whether the file could be followed to its end, as far as was walked.
        graphs: how many graphs were seen.
    """

    data: Buffer
    outside: Outside = field(default_factory=dict)
    whole: bool = True
    graphs: int = 0
    _hints: int = 0
    _steps: int = 0

    def spans(self) -> Iterator[Span]:
        """The payloads, in the order in which they lie."""
        stack: list[tuple[int, int, str]] = [(0, len(self.data), "model")]
        while stack:
            start, end, message = stack.pop()
            if message == "tensor":
                yield from self._tensor(start, end)
                continue
            children = _MESSAGES[message]
            for number, begin, stop in self.fields(start, end):
                if begin >= 0 and number in children and len(stack) < _DEPTH:
                    self.graphs += children[number] == "graph"
                    stack += [(stop, end, message), (begin, stop, children[number])]
                    break

    def fields(self, place: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Number, begin and end of each field; the begin is -1 - value where it is a number.

        Stops at what is no field; a group or a field that runs over the end of its message is none.
        """
        while place < end:
            self._steps += 1
            tag, place = self._varint(place, end)
            number, wire = tag >> 3, tag & 7
            begin = place
            if wire == 2:
                length, begin = self._varint(place, end)
                place = begin + length if length >= 0 else end + 1
            elif wire == 0:
                value, place = self._varint(place, end)
                begin = -1 - value
            elif wire in (1, 5):
                place += 8 if wire == 1 else 4
                begin = place
            else:
                place = end + 1
            if tag < 8 or place > end or self._steps > _FIELDS:
                self.whole = False
                return
            yield number if wire in (0, 2) else 0, begin, place

    def _varint(self, place: int, end: int) -> tuple[int, int]:
        """A number and where it ends; -1 and beyond ``end`` where there is none."""
        value = shift = 0
        for at in range(place, min(end, place + 10)):
            part = self.data[at]
            value |= (part & 0x7F) << shift
            if part < 0x80:
                return value, at + 1
            shift += 7
        return -1, end + 1

    def _tensor(self, start: int, end: int) -> Iterator[Span]:
        """The payloads of one TensorProto; its type may stand behind them."""
        kind, external, found = UNKNOWN, False, []
        entries: dict[bytes, bytes] = {}
        for number, begin, stop in self.fields(start, end):
            if begin < 0:
                kind = _TYPES.get(-1 - begin, UNKNOWN) if number == 2 else kind
                external = begin == -2 if number == 14 else external
            elif number == _RAW or number in _PAYLOADS:
                found.append((number, begin, stop - begin))
            elif number == 13:
                key, value = self._entry(begin, stop)
                entries[key] = value
        if external and entries:
            self._seen(entries, kind)
        for number, begin, length in found:
            if length >= SMALLEST:
                yield Span(begin, length, kind if number == _RAW else _PAYLOADS[number])

    def _entry(self, start: int, end: int) -> tuple[bytes, bytes]:
        """A StringStringEntryProto; texts that are far too long for their purpose are cut."""
        parts = {1: b"", 2: b""}
        for number, begin, stop in self.fields(start, end):
            if begin >= 0 and number in parts:
                parts[number] = bytes(self.data[begin : min(stop, begin + 4096)])
        return parts[1], parts[2]

    def _seen(self, entries: dict[bytes, bytes], kind: Kind) -> None:
        """Note what a tensor says of its data elsewhere."""
        spans = self.outside.setdefault(entries.get(b"location", b""), [])
        offset, length = (_number(entries.get(key, b"")) for key in (b"offset", b"length"))
        if length >= SMALLEST and self._hints < _HINTS:
            self._hints += 1
            spans.append(Span(offset, length, kind))


def _number(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) < 20 else 0
