"""Every transform is undone by its inverse, and every stream by the tree that it is written as."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.packing import coder, transforms
from graphopt.packing.entropy import entropy_bytes
from graphopt.packing.format import Cursor, varint
from graphopt.packing.trees import TreeReader
from graphopt.packing.wire import _TYPES, UNKNOWN, Kind

KINDS = [*_TYPES.values(), UNKNOWN]
streams = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from(b"\x00\x01\x02\xff"), max_size=300).map(bytes),
    st.tuples(st.binary(max_size=8), st.integers(0, 60)).map(lambda pair: pair[0] * pair[1]),
).map(transforms.view)
widths = st.sampled_from([2, 4, 8])


@settings(deadline=None)
@given(streams, widths)
def test_words(data, width) -> None:
    whole = data[: data.size - data.size % width]
    if not whole.size:
        return
    back = transforms.join_planes(transforms.planes(whole, width))
    assert back.tobytes() == whole.tobytes()
    back = transforms.unrotate(transforms.rotate(whole, width), width)
    assert back.tobytes() == whole.tobytes()
    found = transforms.palette(whole, width)
    if found is not None:
        assert transforms.unpalette(*found, width).tobytes() == whole.tobytes()


@settings(deadline=None)
@given(streams, st.sampled_from([1, 2, 4, 8]), st.binary(min_size=8, max_size=8))
def test_masks(data, width, usual) -> None:
    whole = data[: data.size - data.size % width]
    bits, rest = transforms.mask(whole, width, usual[:width])
    where = transforms.marked(bits, whole.size // width)
    assert transforms.unmask(where, rest, width, usual[:width]).tobytes() == whole.tobytes()


@settings(deadline=None)
@given(streams, st.sampled_from([1, 2, 4]))
def test_bits(data, bits) -> None:
    elements = transforms.split_bits(data, bits)
    assert elements.size == data.size * 8 // bits
    assert (elements < 1 << bits).all()
    assert transforms.join_bits(elements, bits).tobytes() == data.tobytes()


def test_bits_are_in_the_order_of_onnx() -> None:
    assert transforms.split_bits(transforms.view(b"\x21\x43"), 4).tolist() == [1, 2, 3, 4]
    assert transforms.split_bits(transforms.view(b"\xe4"), 2).tolist() == [0, 1, 2, 3]


@settings(deadline=None)
@given(streams)
def test_tuples(data) -> None:
    used = np.unique(data)
    if not 2 <= used.size <= 16:
        return
    digits = transforms.digits_of(data, used)
    for size in range(1, transforms.tuple_size(used.size) + 1):
        together = transforms.tuples(digits, used.size, size)
        assert together.size == -(-data.size // size)
        back = transforms.untuple(together, used, size, data.size)
        assert back.tobytes() == data.tobytes()


@pytest.mark.parametrize(
    ("base", "size"), [(2, 8), (3, 5), (4, 4), (5, 3), (7, 2), (16, 2), (17, 1)]
)
def test_as_many_symbols_as_a_byte_holds(base, size) -> None:
    assert transforms.tuple_size(base) == size


@settings(deadline=None)
@given(streams, st.integers(1, 9), st.integers(1, 5))
def test_classes(data, size, number) -> None:
    if data.size < size:
        return
    names = transforms.spread_classes(data, size, number)
    assert names.size == data.size // size
    assert (names < number).all()
    parts = [transforms.of_class(data, size, names, name) for name in range(number)]
    back = transforms.join_classes(parts, size, names)
    assert back.tobytes() == data[: names.size * size].tobytes()


def test_runs_of_channels_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    scales = rng.permutation(np.repeat([2, 20], 100))
    data = np.rint(rng.normal(size=(200, 256)) * scales[:, None]).astype(np.int8).view(np.uint8)
    names = transforms.spread_classes(data.reshape(-1), 256, 2)
    assert (names == (scales == 20)).all()
    flat = data.reshape(-1)
    assert len(coder.tensor(flat, UNKNOWN)) < 0.95 * entropy_bytes(flat, UNKNOWN)


def read(tree: bytes, count: int) -> bytes:
    cursor = Cursor(tree)
    found = TreeReader(cursor, count).read(count).tobytes()
    cursor.end()
    return found


@settings(deadline=None)
@given(streams, st.sampled_from(KINDS))
def test_trees(data, kind) -> None:
    assert read(coder.tensor(data, kind), data.size) == data.tobytes()
    assert read(coder.text(data.tobytes()), data.size) == data.tobytes()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 0.999])
@pytest.mark.parametrize("distinct", [2, 9, 300])
def test_trees_of_many_elements(kind: Kind, share, distinct) -> None:
    rng = np.random.default_rng(distinct)
    width = max(1, kind.bits // 8)
    values = rng.normal(size=distinct) if kind.floating else rng.integers(-9, 9, distinct)
    dtype = {2: np.float16, 4: np.float32, 8: np.float64} if kind.floating else {}
    values = values.astype(dtype.get(width, f"i{width}"))
    chosen = values[rng.integers(0, distinct, 20_000)]
    chosen[rng.random(chosen.size) < share] = 0
    data = transforms.view(chosen.tobytes() + b"tail"[: 3 * (width > 1)])
    tree = coder.tensor(data, kind)
    assert read(tree, data.size) == data.tobytes()
    assert len(tree) < data.size + 8


@pytest.mark.parametrize("clusters", [4, 8])
@pytest.mark.parametrize("zeros", [0.0, 0.85])
def test_indices_come_close_to_their_entropy(clusters, zeros) -> None:
    rng = np.random.default_rng(clusters)
    symbols = 1 + np.clip(rng.normal(clusters / 2, 1.5, 200_000), 0, clusters - 1).astype(np.uint8)
    symbols[rng.random(symbols.size) < zeros] = 0
    data = transforms.join_bits(symbols, 4)
    kind = Kind("uint4", 4)
    assert len(coder.tensor(data, kind)) < 1.035 * entropy_bytes(data, kind)


def test_the_entropy_of_known_tensors() -> None:
    uniform = transforms.view(bytes(range(256)) * 4)
    assert entropy_bytes(uniform, UNKNOWN) == pytest.approx(1024)
    assert entropy_bytes(uniform, Kind("uint4", 4)) == pytest.approx(1024)
    assert entropy_bytes(transforms.view(bytes(4000)), Kind("float", 32, True)) == 0
    two = np.tile(np.array([1.5, -2.25], np.float32), 800)
    assert entropy_bytes(two.view(np.uint8), Kind("float", 32, True)) == pytest.approx(208)


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**32, 2**63 - 1])
def test_numbers(number) -> None:
    cursor = Cursor(varint(number))
    assert cursor.varint() == number
    cursor.end()
