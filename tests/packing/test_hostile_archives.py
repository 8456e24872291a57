"""Archives that are damaged or mean harm: one clear error, bounded memory and time, nothing written."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packed_files import archive, beside, payload, small

import graphopt
from graphopt.errors import GraphoptError, ModelError, OutputError, ResourceError
from graphopt.packing import trees
from graphopt.packing.archive import Member, chained
from graphopt.packing.format import (
    BLOCK_LEAST,
    BLOCK_LIMIT,
    DIGEST,
    EXPANSION,
    FREE,
    MAGIC,
    PIECE,
    VERSION,
    varint,
)
from graphopt.packing.packer import pack
from graphopt.packing.unpacker import look, read_packed, unpack

OLD = b"what stood there before"


@pytest.fixture
def packed(tmp_path) -> bytes:
    pack(small(tmp_path), tmp_path / "p.gopt")
    return (tmp_path / "p.gopt").read_bytes()


def refused(data: bytes, folder: Path, kind: type[GraphoptError] = ModelError) -> str:
    """Unpack what must be refused; the message, which is one line."""
    (folder / "bad.gopt").write_bytes(data)
    (folder / "out.onnx").write_bytes(OLD)
    before = sorted(path.name for path in folder.rglob("*"))
    with pytest.raises(kind) as caught:
        unpack(folder / "bad.gopt", folder / "out.onnx")
    assert (folder / "out.onnx").read_bytes() == OLD
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_byte_is_guarded(packed, tmp_path) -> None:
    limit = 2**31
    for place in range(len(packed)):
        for change in (0x01, 0x80, 0xFF):
            data = bytearray(packed)
            data[place] ^= change
            with pytest.raises(ModelError):
                read_packed(bytes(data), limit)
        if place % 16 == 0:
            refused(bytes(data), tmp_path)


def test_every_truncation_is_seen(packed, tmp_path) -> None:
    for end in range(len(packed)):
        with pytest.raises(ModelError):
            read_packed(packed[:end], 2**31)
    refused(packed[:-1], tmp_path)
    refused(b"", tmp_path)


@pytest.mark.parametrize("more", [b"\0", b"\n", MAGIC])
def test_bytes_behind_the_end_are_seen(packed, more, tmp_path) -> None:
    refused(packed + more, tmp_path)
    refused(packed + packed, tmp_path)


def test_blocks_cannot_be_moved_or_left_out(tmp_path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "m").write_bytes(rng.bytes(3 * PIECE))
    pack(tmp_path / "m", tmp_path / "p.gopt")
    data = (tmp_path / "p.gopt").read_bytes()
    start = len(MAGIC) + 3 + len(varint(3 * PIECE))
    head, body, tail = data[:start], data[start:-DIGEST], data[-DIGEST:]
    size = len(body) // 3
    blocks = [body[place : place + size] for place in range(0, 3 * size, size)]
    assert b"".join(blocks) == body
    assert all(block.startswith(varint(PIECE)) for block in blocks)
    for order in ([1, 0, 2], [0, 0, 2], [0, 2, 1], [0, 1]):
        moved = head + b"".join(blocks[index] for index in order) + tail
        assert refused(moved, tmp_path).startswith("the packed model is damaged")


def test_what_is_no_archive(tmp_path) -> None:
    assert "not a packed model" in refused(b"hello", tmp_path)
    assert "cannot read" in _why(lambda: unpack(tmp_path / "none.gopt"))
    assert "folder" in _why(lambda: unpack(tmp_path))
    assert look(tmp_path / "none.gopt") is None
    assert look(small(tmp_path)) is None


def _why(call) -> str:
    with pytest.raises(ModelError) as caught:
        call()
    return str(caught.value)


def test_another_version(packed, tmp_path) -> None:
    data = bytearray(packed)
    data[len(MAGIC)] = VERSION + 1
    assert "version 2" in refused(bytes(data), tmp_path)


TREES = {
    "unknown kind": (10, b"\x99"),
    "ends early": (10, bytes([trees.RAW, 1, 2])),
    "too long": (3, bytes([trees.RAW]) + b"12345"),
    "bad zstd": (10, bytes([trees.ZSTD, 4, 0, 88, 1, 2])),
    "empty zstd": (10, bytes([trees.ZSTD, 0])),
    "zstd says its size": (10, bytes([trees.ZSTD, 9, 0xE0]) + b"\xff" * 7 + b"\1"),
    "zstd of another length": (
        200,
        bytes([trees.ZSTD]) + varint(12) + bytes.fromhex("005801000061620000ff0000"),
    ),
    "bad lzma": (10, bytes([trees.LZMA, 4, 9, 9, 9, 9])),
    "plane of 3": (9, bytes([trees.PLANES, 3, trees.RAW])),
    "rotate of 0": (8, bytes([trees.ROTATE, 0, trees.RAW]) + bytes(8)),
    "bits of 3": (8, bytes([trees.BITS, 3, trees.RAW]) + bytes(8)),
    "tuples of none": (8, bytes([trees.TUPLES, 0, 2, 0, 1])),
    "tuples of no symbol": (8, bytes([trees.TUPLES, 1, 0])),
    "tuples too wide": (8, bytes([trees.TUPLES, 9, 2, 0, 1])),
    "mask of 5": (10, bytes([trees.MASK, 5])),
    "no class": (40, bytes([trees.CLASSES, 0, 20, trees.RAW]) + bytes(50)),
    "many classes": (40, bytes([trees.CLASSES, 17, 20, trees.RAW]) + bytes(50)),
    "short runs": (40, bytes([trees.CLASSES, 2, 15, trees.RAW]) + bytes(50)),
    "runs too long": (40, bytes([trees.CLASSES, 2, 41, trees.RAW]) + bytes(50)),
    "an unknown class": (40, bytes([trees.CLASSES, 2, 20, trees.RAW, 0, 2, trees.RAW]) + bytes(40)),
    "a palette's end": (10, bytes([trees.PALETTE, 4])),
    "endless depth": (4000, bytes([trees.ROTATE, 1]) * 4000),
    "much work": (1 << 15, bytes([trees.BITS, 1]) * 9 + bytes([trees.FILL, 0])),
}


@pytest.mark.parametrize("kind", TREES)
def test_trees_that_are_none(kind, tmp_path) -> None:
    count, tree = TREES[kind]
    refused(archive((count, payload(tree, count))), tmp_path)


def block(structure: bytes, gaps: list[int], lengths: list[int], choices: list[int]) -> bytes:
    numbers = b"".join(map(varint, [len(gaps), *gaps, *lengths, *choices]))
    plan = bytes([trees.RAW]) + numbers
    head = varint(len(numbers)) + varint(len(structure)) + plan
    return head + bytes([trees.RAW]) + structure


PLANS = {
    "gap beyond the structure": (30, block(b"0123456789", [11], [20], [0])),
    "length beyond the block": (30, block(b"0123456789", [0], [21], [0])),
    "huge length": (30, block(b"0123456789", [0], [2**62], [0])),
    "huge lengths": (30, block(b"0123456789", [0] * 3, [2**62] * 3, [0] * 3)),
    "an unknown group": (30, block(b"0123456789", [0], [20], [2])),
    "a copy of nothing": (30, block(b"0123456789", [0], [0], [1])),
    "a copy of itself": (30, block(b"0123456789", [0, 0], [10, 0], [0, 3])),
    "said by the structure": (30, block(b"012345678\xff", [10], [0], [0])),
    "structure beyond the block": (5, block(b"0123456789", [], [], [])),
    "nothing to fill the block": (30, block(b"0123456789", [], [], [])),
    "very many": (30, varint(4) + varint(10) + bytes([trees.RAW]) + varint(1 << 27)),
    "a plan too long": (30, varint(1 << 40) + varint(10)),
}


@pytest.mark.parametrize("kind", PLANS)
def test_plans_that_are_none(kind, tmp_path) -> None:
    count, data = PLANS[kind]
    refused(archive((count, data)), tmp_path)


def test_sizes_far_beyond(tmp_path) -> None:
    """An archive that says it holds far more than it can is refused before anything is read."""
    fill = payload(bytes([trees.FILL, 0]), BLOCK_LIMIT)
    for size in (1 << 30, 1 << 62):
        data = archive((BLOCK_LIMIT, fill), members=[Member("", size)])
        started = time.perf_counter()
        assert "more than" in refused(data, tmp_path)
        assert time.perf_counter() - started < 1


def test_a_block_cannot_hold_more_than_its_bytes_allow(tmp_path) -> None:
    fill = payload(bytes([trees.FILL, 0]), PIECE)
    good = archive((PIECE, fill))
    assert len(good) > PIECE // EXPANSION - FREE
    head = MAGIC + bytes([VERSION, 1, 0]) + varint(PIECE)
    body = varint(PIECE) + varint(len(fill)) + fill
    data = head + body + chained(b"", head + body) + bytes(3000)
    assert "a block of 8388608 bytes" in refused(data, tmp_path)
    bloated = archive((1, b"\0" * (FREE + 2)))
    assert "a block of 1 bytes" in refused(bloated, tmp_path)


def test_very_many_small_blocks(tmp_path) -> None:
    one = payload(bytes([trees.FILL, 0]), 100)
    data = archive(*[(100, one)] * 1000)
    assert "a block of 100 bytes" in refused(data, tmp_path)
    least = payload(bytes([trees.FILL, 0]), BLOCK_LEAST)
    refused(archive((BLOCK_LEAST, least), (0, least)), tmp_path)


def test_many_files_and_long_names(tmp_path) -> None:
    refused(MAGIC + bytes([VERSION, 0]) + bytes(200), tmp_path)
    refused(MAGIC + bytes([VERSION]) + varint(1 << 40) + bytes(200), tmp_path)
    refused(MAGIC + bytes([VERSION, 1]) + varint(1 << 40) + bytes(200), tmp_path)
    refused(MAGIC + bytes([VERSION]) + b"\xff" * 40, tmp_path)


NAMES = [
    "../up.bin",
    "a/../../up.bin",
    "/tmp/absolute.bin",
    "a\\b.bin",
    "C:\\x.bin",
    "C:x.bin",
    "\\\\host\\share\\x.bin",
    "",
    ".",
    "..",
    "a/.",
    "a//b",
    "a/",
    ".bashrc",
    "a/.ssh/keys",
    "nul\0.bin",
    "line\nend.bin",
    "\x1b[31mred.bin",
    "\u202exe.bin",
    " ",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_that_lead_elsewhere(name, tmp_path) -> None:
    one = (4, payload(bytes([trees.RAW]) + b"data", 4))
    members = [Member("", 4), Member(name, 0)]
    inner = tmp_path / "inner"
    inner.mkdir()
    refused(archive(one, members=members), inner)
    with pytest.raises(ModelError):
        graphopt.load(archive(one, members=members))


def test_names_that_are_there_twice(tmp_path) -> None:
    one = (4, payload(bytes([trees.RAW]) + b"data", 4))
    for names in (["a", "a"], ["out.onnx"], ["OUT.onnx"]):
        refused(
            archive(one, members=[Member("", 4), *(Member(name, 0) for name in names)]), tmp_path
        )


def test_a_name_that_is_no_text(tmp_path) -> None:
    head = MAGIC + bytes([VERSION, 2, 0, 0, 2]) + b"\xff\xfe" + b"\0"
    refused(head + chained(b"", head), tmp_path)


@pytest.fixture
def with_files(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    pack(beside(tmp_path / "in"), tmp_path / "p.gopt")
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def attempt(folder: Path) -> None:
    before = sorted(os.walk(folder))
    with pytest.raises(OutputError):
        unpack(folder.parent / "p.gopt", folder / "m.onnx")
    assert sorted(os.walk(folder)) == before


def test_links_are_not_followed(with_files) -> None:
    elsewhere = with_files.parent / "elsewhere"
    elsewhere.mkdir()
    (with_files / "more").symlink_to(elsewhere)
    attempt(with_files)
    (with_files / "more").unlink()
    target = elsewhere / "target"
    target.write_bytes(OLD)
    (with_files / "w.bin").symlink_to(target)
    attempt(with_files)
    assert target.read_bytes() == OLD
    assert list(elsewhere.iterdir()) == [target]


def test_other_files_are_not_replaced(with_files) -> None:
    (with_files / "w.bin").write_bytes(OLD)
    attempt(with_files)
    assert (with_files / "w.bin").read_bytes() == OLD
    (with_files / "w.bin").unlink()
    (with_files / "w.bin").mkdir()
    attempt(with_files)
    (with_files / "w.bin").rmdir()
    (with_files / "more").write_bytes(OLD)
    attempt(with_files)


def test_a_failure_at_the_end_leaves_nothing(with_files) -> None:
    (with_files / "m.onnx").mkdir()
    attempt(with_files)
    data = bytearray((with_files.parent / "p.gopt").read_bytes())
    data[-1] ^= 1
    (with_files.parent / "p.gopt").write_bytes(data)
    (with_files / "m.onnx").rmdir()
    with pytest.raises(ModelError):
        unpack(with_files.parent / "p.gopt", with_files / "m.onnx")
    assert not list(with_files.iterdir())


def test_more_than_the_disk_holds(packed, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("graphopt.packing.unpacker.shutil.disk_usage", lambda _: _Usage())
    assert "are free" in refused(packed, tmp_path, OutputError)


class _Usage:
    free = 10


def test_a_model_too_large_for_memory(packed) -> None:
    with pytest.raises(ResourceError):
        read_packed(packed, 100)


tree_bytes = st.lists(
    st.one_of(
        st.sampled_from([trees.RAW, trees.FILL, trees.ZSTD, trees.LZMA, *range(16, 23)]),
        st.sampled_from([0, 1, 2, 3, 4, 8, 16, 255]),
        st.integers(0, 255),
    ),
    max_size=60,
).map(bytes)


@settings(
    deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(count=st.sampled_from([1, 7, 64, 1000, FREE, PIECE]), tree=tree_bytes)
def test_any_tree_is_read_or_refused_in_bounded_memory(count, tree) -> None:
    data = archive((count, payload(tree, count)))
    tracemalloc.start()
    try:
        with pytest.raises(ModelError):
            read_packed(data, 2**31)  # at the latest its SHA-256 is wrong
        assert tracemalloc.get_traced_memory()[1] < 40 * BLOCK_LIMIT
    finally:
        tracemalloc.stop()
