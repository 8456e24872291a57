"""Whatever a file holds comes back byte for byte, and takes less than Zstandard's level 19 makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from packed_files import beside, model, raw, small, tensor, there_and_back

from graphopt.packing.packer import pack
from graphopt.packing.unpacker import unpack

ROOT = Path(__file__).parent.parent.parent
MODELS = sorted(ROOT.glob("models/*/*.onnx"))
LEVEL_19 = zstandard.ZstdCompressor(level=19)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_shipped_models(path, tmp_path) -> None:
    data = path.read_bytes()
    assert there_and_back(data, tmp_path) < 0.95 * len(LEVEL_19.compress(data))


def test_all_element_types(tmp_path) -> None:
    rng = np.random.default_rng(0)
    kinds = [TensorProto.DataType.Value(name) for name in TensorProto.DataType.keys()]  # noqa: SIM118
    data = [rng.bytes(100 + 7 * kind) for kind in kinds if kind]
    made = model(*(raw(f"t{kind}", kind, part, 1) for kind, part in enumerate(data, 1)))
    there_and_back(made.SerializeToString(), tmp_path)


def indices(rng: np.random.Generator, clusters: int, zeros: float = 0.0) -> np.ndarray:
    symbols = np.clip(rng.normal(clusters / 2, 1.5, 40_000), 0, clusters - 1).astype(np.uint8)
    symbols[rng.random(symbols.size) < zeros] = 0
    return symbols


@pytest.mark.parametrize("clusters", [2, 3, 4, 8, 16])
@pytest.mark.parametrize("zeros", [0.0, 0.8, 0.97])
def test_packed_indices(clusters, zeros, tmp_path) -> None:
    rng = np.random.default_rng(clusters)
    symbols = indices(rng, clusters, zeros)
    four = symbols[::2] | symbols[1::2] << 4
    tensors = [raw("a", TensorProto.UINT4, four.tobytes(), 40_000)]
    tensors.append(tensor("b", indices(rng, clusters, zeros)))
    if clusters <= 4:
        table = indices(rng, clusters, zeros).reshape(-1, 4)
        two = table[:, 0] | table[:, 1] << 2 | table[:, 2] << 4 | table[:, 3] << 6
        tensors.append(raw("c", TensorProto.UINT2, two.tobytes(), 40_000))
    data = model(*tensors).SerializeToString()
    assert there_and_back(data, tmp_path) < len(LEVEL_19.compress(data))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int32, np.int64])
@pytest.mark.parametrize("kept", [1.0, 0.15])
def test_weights(dtype, kept, tmp_path) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 128, 64)) * (20 if np.issubdtype(dtype, np.integer) else 0.05)
    values[rng.random(values.shape) > kept] = 0
    data = model(*(tensor(f"w{i}", v) for i, v in enumerate(values.astype(dtype))))
    wire = data.SerializeToString()
    assert there_and_back(wire, tmp_path) < len(LEVEL_19.compress(wire))


def test_tensors_that_are_there_twice(tmp_path) -> None:
    rng = np.random.default_rng(5)
    values = [rng.normal(size=5000).astype(np.float32) for _ in range(3)]
    once = model(*(tensor(f"w{i}", v) for i, v in enumerate(values)))
    twice = model(*(tensor(f"w{i}", v) for i, v in enumerate([*values, *values[::-1]])))
    size = there_and_back(once.SerializeToString(), tmp_path)
    assert there_and_back(twice.SerializeToString(), tmp_path) < size + 60


def test_values_that_repeat_far_apart(tmp_path) -> None:
    rng = np.random.default_rng(6)
    values = np.tile(rng.normal(size=100_000).astype(np.float32), 4)
    data = model(tensor("w", values)).SerializeToString()
    assert there_and_back(data, tmp_path) < len(LEVEL_19.compress(data))


def test_shared_values_of_floats(tmp_path) -> None:
    rng = np.random.default_rng(2)
    codebook = rng.normal(size=8).astype(np.float32)
    data = model(tensor("w", codebook[rng.integers(0, 8, 30_000)])).SerializeToString()
    assert there_and_back(data, tmp_path) < len(data) / 10.3


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"hello", bytes(100_000), b"\xff" * 70_000, bytes(range(256)) * 999],
    ids=["empty", "zero", "text", "zeros", "ones", "steps"],
)
def test_files_that_are_no_models(data, tmp_path) -> None:
    there_and_back(data, tmp_path)
    assert pack(tmp_path / "in.onnx").notes


def test_a_file_cut_short(tmp_path) -> None:
    data = small(tmp_path).read_bytes()
    for end in range(1, len(data), 37):
        there_and_back(data[:end], tmp_path)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(noise=st.binary(max_size=400), data=st.data())
def test_any_bytes_among_fields(tmp_path, noise, data) -> None:
    base = small(tmp_path).read_bytes()
    start = data.draw(st.integers(0, len(base)))
    there_and_back(
        base[:start] + noise + base[data.draw(st.integers(start, len(base))) :], tmp_path
    )


def test_odd_protobuf(tmp_path) -> None:
    """Fields in another order, unknown ones, a length of more bytes than needed, a group."""
    payload = np.arange(40, dtype=np.float32).tobytes()
    fields = [
        b"\x4a\xa0\x81\x80\x00" + payload,  # raw_data, its length in four bytes
        b"\xfa\x3f\x03new",  # an unknown field
        b"\x10\x81\x80\x00",  # data_type, in three bytes
        b"\x08\x28",
        b"\x4a\x28" + payload[:40],  # raw_data once more
    ]
    made = b"".join(fields)
    graph = b"\x2a" + bytes([0x80 | len(made) & 0x7F, len(made) >> 7]) + made
    file = b"\x08\x0a\x3a" + bytes([0x80 | len(graph) & 0x7F, len(graph) >> 7]) + graph
    there_and_back(file, tmp_path)
    there_and_back(file + b"\x0b\x08\x01\x0c", tmp_path)


def test_tensors_longer_than_a_block(tmp_path) -> None:
    rng = np.random.default_rng(4)
    values = rng.integers(0, 9, 20 << 20, np.uint8)
    values[: 9 << 20] = 0
    made = model(tensor("w", values), tensor("v", rng.normal(size=99).astype(np.float32)))
    there_and_back(made.SerializeToString(), tmp_path)


def test_data_files_come_back_beside_the_model(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    path = beside(tmp_path / "in")
    found = pack(path)
    assert path.with_suffix(".gopt").exists()
    assert found.files == 3
    told = {kind.kind: kind.tensors for kind in found.kinds}
    assert told["float"] == 6
    done = unpack(path.with_suffix(".gopt"), tmp_path / "out" / "other.onnx")
    names = [str(Path(name).relative_to(tmp_path / "out")) for name in done.files]
    assert names == ["other.onnx", "more/w.bin", "w.bin"]
    for name in ("w.bin", "more/w.bin"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "in" / name).read_bytes()
    assert (tmp_path / "out" / "other.onnx").read_bytes() == path.read_bytes()
    unpack(
        path.with_suffix(".gopt"), tmp_path / "out" / "other.onnx"
    )  # the same files may stand there


def test_regions_that_overlap_or_lie_outside(tmp_path) -> None:
    path = beside(tmp_path)
    made = model()
    for offset, length in ((0, 5120), (100, 5120), (4, 1 << 40), (1 << 60, 64), (9000, 6364)):
        entry = made.graph.initializer.add(data_type=1, data_location=1)
        for key, text in (("location", "w.bin"), ("offset", str(offset)), ("length", str(length))):
            entry.external_data.add(key=key, value=text)
    path.write_bytes(made.SerializeToString())
    pack(path, tmp_path / "p.gopt")
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "p.gopt", tmp_path / "out" / "m.onnx")
    assert (tmp_path / "out" / "w.bin").read_bytes() == (tmp_path / "w.bin").read_bytes()


def test_the_same_model_gives_the_same_archive(tmp_path) -> None:
    path = beside(tmp_path)
    code = f"from graphopt.packing import pack; pack({str(path)!r}, {str(tmp_path / 'b.gopt')!r})"
    pack(path, tmp_path / "a.gopt")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env={"PYTHONHASHSEED": "5"})
    assert (tmp_path / "a.gopt").read_bytes() == (tmp_path / "b.gopt").read_bytes()


def test_a_graph_says_little(tmp_path) -> None:
    """Names and operators that repeat take few bytes, and so does all that surrounds a block."""
    nodes = [
        helper.make_node("Relu", [f"layer.{i}.in"], [f"layer.{i + 1}.in"], name=f"layer.{i}.relu")
        for i in range(300)
    ]
    made = model()
    made.graph.node.extend(nodes)
    data = made.SerializeToString()
    assert there_and_back(data, tmp_path) < len(LEVEL_19.compress(data))
