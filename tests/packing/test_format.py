"""Archives are what docs/packing.md says: a reader that was written from it reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from packed_files import beside, model, raw, tensor
from plain_reader import NODES, files

from graphopt.packing import pack, trees

ROOT = Path(__file__).parent.parent.parent


def varied() -> bytes:
    """A model for which every node is used."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=3000).astype(np.float32)
    sparse = np.where(rng.random(3000) < 0.1, weights, 0).astype(np.float32)
    scales = np.repeat(rng.permutation([1, 20] * 32), 256)
    uneven = np.rint(rng.normal(size=64 * 256) * scales).astype(np.int8)
    indices = np.minimum(rng.geometric(0.4, 5000), 7).astype(np.uint8)
    made = model(
        tensor("w", weights),
        tensor("s", sparse),
        tensor("p", rng.choice(weights[:9], 2000)),
        tensor("u", uneven),
        raw("i", TensorProto.UINT4, (indices[::2] | indices[1::2] << 4).tobytes(), 5000),
        tensor("n", rng.integers(0, 256, 4000, np.uint8)),
        tensor("z", np.ones(500, np.bool_)),
        tensor("w2", weights),
    )
    return made.SerializeToString()


def test_every_node_of_the_format_is_written_and_read(tmp_path, monkeypatch) -> None:
    (tmp_path / "m.onnx").write_bytes(varied())
    pack(tmp_path / "m.onnx")
    used = set()
    counted = {kind: _counting(kind, read, used) for kind, read in NODES.items()}
    monkeypatch.setattr("plain_reader.NODES", counted)
    assert files((tmp_path / "m.gopt").read_bytes()) == {"": varied()}
    assert used == set(NODES) == {*trees._LEAVES, *trees._BRANCHES}


def _counting(kind, read, used):
    def counted(reader, count):
        used.add(kind)
        return read(reader, count)

    return counted


@pytest.mark.parametrize("name", ["digits_cnn", "digits_mlp"])
def test_shipped_models(name, tmp_path) -> None:
    source = ROOT / f"models/{name}/{name}.onnx"
    pack(source, tmp_path / "m.gopt")
    assert files((tmp_path / "m.gopt").read_bytes()) == {"": source.read_bytes()}


def test_data_files(tmp_path) -> None:
    path = beside(tmp_path)
    pack(path)
    expected = {"": path.read_bytes()}
    expected |= {name: (tmp_path / name).read_bytes() for name in ("more/w.bin", "w.bin")}
    assert files(path.with_suffix(".gopt").read_bytes()) == expected
    (tmp_path / "none").write_bytes(b"")
    pack(tmp_path / "none", tmp_path / "none.gopt")
    assert files((tmp_path / "none.gopt").read_bytes()) == {"": b""}
