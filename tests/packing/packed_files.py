"""Files to pack, and archives that ``pack`` would never write."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graphopt.packing.archive import ArchiveWriter, Member
from graphopt.packing.format import varint
from graphopt.packing.packer import pack
from graphopt.packing.unpacker import unpack

SHA = hashlib.sha256(b"").digest()


def model(*tensors: TensorProto) -> onnx.ModelProto:
    """A model that holds tensors and uses none of them."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="only")],
        "g",
        [value("x", TensorProto.FLOAT, ["N", 3])],
        [value("y", TensorProto.FLOAT, ["N", 3])],
        list(tensors),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def tensor(name: str, values: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(values, name)


def raw(name: str, kind: int, data: bytes, *dims: int) -> TensorProto:
    return TensorProto(name=name, data_type=kind, dims=dims, raw_data=data)


def small(folder: Path) -> Path:
    """A file of some hundred bytes with structure, floats, and indices of 4 bits."""
    rng = np.random.default_rng(7)
    path = folder / "small.onnx"
    made = model(
        tensor("w", rng.normal(size=40).astype(np.float32)),
        raw("i", TensorProto.UINT4, rng.integers(0, 119, 60, np.uint8).tobytes(), 120),
    )
    path.write_bytes(made.SerializeToString())
    return path


def beside(folder: Path, *, count: int = 3) -> Path:
    """A model with two data files, one of them in a folder."""
    rng = np.random.default_rng(3)
    made, offset = model(), 0
    files: dict[str, bytearray] = {"w.bin": bytearray(), "more/w.bin": bytearray()}
    for index in range(2 * count):
        name = sorted(files)[index % 2]
        values = rng.normal(size=(64, 20)).astype(np.float32)
        entry = made.graph.initializer.add(name=f"w{index}", data_type=1, dims=values.shape)
        entry.data_location = TensorProto.EXTERNAL
        offset = len(files[name])
        for key, text in (("location", name), ("offset", str(offset)), ("length", "5120")):
            entry.external_data.add(key=key, value=text)
        files[name] += values.tobytes()
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(bytes(data) + b"tail")
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def there_and_back(data: bytes, folder: Path) -> int:
    """Pack bytes and unpack them; how many the archive has."""
    source = folder / "in.onnx"
    source.write_bytes(data)
    found = pack(source, folder / "p.gopt")
    unpack(folder / "p.gopt", folder / "out.onnx")
    assert (folder / "out.onnx").read_bytes() == data
    assert found.stored_bytes == len(data)
    assert found.packed_bytes == (folder / "p.gopt").stat().st_size
    assert sum(kind.stored_bytes for kind in found.kinds) == len(data)
    return found.packed_bytes


def archive(*blocks: tuple[int, bytes], members: list[Member] | None = None) -> bytes:
    """An archive with good digests around any payloads, all in the first file."""
    out = io.BytesIO()
    writer = ArchiveWriter(out, members or [Member("", sum(count for count, _ in blocks))])
    for count, payload in blocks:
        writer.block(payload, count)
    writer.end(SHA)
    for _ in (members or [None])[1:]:
        writer.end(SHA)
    return out.getvalue()


def payload(structure: bytes, size: int, plan: bytes = b"\0\0") -> bytes:
    """A block whose structure is any tree, its plan one of no tensors."""
    return varint(1) + varint(size) + plan + structure
