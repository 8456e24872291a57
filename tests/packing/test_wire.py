"""The walk over a file finds every tensor wherever it is, and never leaves the file."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from packed_files import model, raw, tensor

from graphopt.packing.format import PIECE, SEGMENTS
from graphopt.packing.packer import cut
from graphopt.packing.wire import UNKNOWN, Kind, Span, Walk

DATA = bytes(range(64))


def found(made: onnx.ModelProto | bytes) -> list[tuple[str, bytes]]:
    data = made if isinstance(made, bytes) else made.SerializeToString()
    walk = Walk(data)
    spans = list(walk.spans())
    assert all(a.start + a.length <= b.start for a, b in itertools.pairwise(spans))
    return [(s.kind.name, data[s.start : s.start + s.length]) for s in spans]


def test_tensors_of_all_types() -> None:
    kinds = [TensorProto.DataType.Value(name) for name in TensorProto.DataType.keys()]  # noqa: SIM118
    made = model(*(raw(f"t{kind}", kind, DATA, 1) for kind in kinds if kind))
    names = [name for name, data in found(made)]
    expected = [TensorProto.DataType.Name(kind).lower() for kind in kinds if kind]
    assert names == ["bytes" if name == "string" else name for name in expected]
    assert all(data == DATA for _, data in found(made))


def test_every_place() -> None:
    branch = helper.make_graph([], "b", [], [], [raw("body", 2, DATA + b"1", 65)])
    constant = helper.make_node("Constant", [], ["c"], value=raw("", 3, DATA + b"2", 65))
    several = helper.make_node("Thing", [], ["t"], domain="d")
    several.attribute.add(name="k", type=9).tensors.append(raw("", 3, DATA + b"3", 65))
    sparse = helper.make_node("Constant", [], ["s"])
    value = sparse.attribute.add(name="sparse_value", type=11).sparse_tensor
    value.values.CopyFrom(raw("", 1, DATA, 16))
    value.indices.CopyFrom(raw("", 7, DATA, 8))
    made = model(raw("first", 9, DATA + b"0", 65))
    made.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch))
    made.graph.node.extend([constant, several, sparse])
    made.functions.add(name="f").node.append(constant)
    made.training_info.add().algorithm.initializer.append(raw("", 10, DATA, 32))
    kinds = [name for name, _ in found(made)]
    assert sorted(kinds) == sorted(
        ["bool", "uint8", "int8", "int8", "float", "int64", "int8", "float16"]
    )


def test_typed_fields() -> None:
    made = model(
        helper.make_tensor("f", TensorProto.FLOAT, [40], np.arange(40.0)),
        helper.make_tensor("d", TensorProto.DOUBLE, [40], np.arange(40.0)),
        helper.make_tensor("i", TensorProto.INT64, [40], np.arange(40)),
        helper.make_tensor("h", TensorProto.FLOAT16, [40], np.arange(40.0)),
    )
    assert [(name, len(data)) for name, data in found(made)][:2] == [
        ("float", 160),
        ("double", 320),
    ]
    assert [name for name, _ in found(made)][2:] == ["varint", "varint"]


def test_the_type_may_stand_behind_the_data() -> None:
    reversed_fields = b"\x4a\x40" + DATA + b"\x10\x0b"
    graph = b"\x2a" + bytes([len(reversed_fields)]) + reversed_fields
    assert found(b"\x3a" + bytes([len(graph)]) + graph) == [("double", DATA)]


def test_what_a_model_says_of_its_data_files() -> None:
    made = model()
    entry = made.graph.initializer.add(data_type=1, dims=[16], data_location=1)
    for key, text in (("location", "w.bin"), ("offset", "64"), ("length", "128")):
        entry.external_data.add(key=key, value=text)
    other = made.graph.initializer.add(data_type=1, dims=[16], data_location=1)
    other.external_data.add(key="location", value="v.bin")
    walk = Walk(made.SerializeToString())
    assert not list(walk.spans())
    assert walk.outside == {b"w.bin": [Span(64, 128, Kind("float", 32, True))], b"v.bin": []}


@settings(deadline=None)
@given(st.binary(max_size=200), st.data())
def test_hostile_bytes(noise, data) -> None:
    base = model(tensor("w", np.arange(40, dtype=np.float32))).SerializeToString()
    place = data.draw(st.integers(0, len(base)))
    hostile = base[:place] + noise + base[data.draw(st.integers(0, len(base))) :]
    for _, part in found(hostile):
        assert len(part) >= 32


def test_deep_messages() -> None:
    graph = b"\x2a\x42\x4a\x40" + DATA
    for _ in range(5000):
        attribute = b"\x32" + _length(graph) + graph
        node = b"\x2a" + _length(attribute) + attribute
        graph = b"\x0a" + _length(node) + node
    assert found(b"\x3a" + _length(graph) + graph) == []


def _length(data: bytes) -> bytes:
    from graphopt.packing.format import varint

    return varint(len(data))


spans = st.lists(st.tuples(st.integers(0, 3 * PIECE), st.integers(32, 3 * PIECE)), max_size=8)


@settings(deadline=None)
@given(spans, st.integers(0, 3 * PIECE))
def test_blocks_cover_a_file_and_keep_to_their_limits(gaps, tail) -> None:
    from graphopt.packing.format import BLOCK_LEAST, BLOCK_LIMIT

    place, made = 0, []
    for gap, length in gaps:
        made.append(Span(place + gap, length, UNKNOWN))
        place += gap + length
    size, end, seen = place + tail, 0, []
    for begin, stop, held in cut(made, size):
        assert begin == end < stop
        assert BLOCK_LEAST <= stop - begin <= BLOCK_LIMIT or stop == size
        assert all(begin <= s.start and s.start + s.length <= stop for s in held)
        assert len(held) <= SEGMENTS
        seen += held
        end = stop
    assert end == size
    assert sum(s.length for s in seen) == sum(length for _, length in gaps)


def test_blocks_of_very_many_tensors() -> None:
    made = [Span(34 * index + 2, 32, UNKNOWN) for index in range(2 * SEGMENTS + 10)]
    sizes = [len(held) for _, _, held in cut(made, 34 * len(made))]
    assert sizes == [SEGMENTS, SEGMENTS, 10]
