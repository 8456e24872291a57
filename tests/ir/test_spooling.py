"""Large model files: their weights go to a temporary file, and nothing else about the model changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphopt.errors import ModelError
from graphopt.ir import spooling, storage
from graphopt.ir.model import Model

SHAPE = (160, 128)


def written(path, *more: TensorProto) -> bytes:
    rng = np.random.default_rng(0)
    tensors = [numpy_helper.from_array(rng.random(SHAPE, np.float32), name) for name in "ab"]
    floats = helper.make_tensor("c", TensorProto.FLOAT, SHAPE, rng.random(SHAPE).ravel())
    small = numpy_helper.from_array(np.ones(4, np.float32), "d")
    nodes = [helper.make_node("Sum", ["x", "a", "b", "c"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "xy")
    graph = helper.make_graph(
        nodes, "g", [x], [y], [*tensors, floats, small, *more], doc_string="é"
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.metadata_props.add(key="k", value="v")
    path.write_bytes(model.SerializeToString())
    return path.read_bytes()


@pytest.fixture
def spools(monkeypatch) -> None:
    monkeypatch.setattr(storage, "SPOOLED", 1)


def regions(model: Model) -> dict[str, str]:
    held = {c.name: c.stored for c in model.constants()}
    return {n: str(s.region.path) for n, s in held.items() if s is not None and s.region}


def test_a_model_is_the_same(tmp_path, spools) -> None:
    data = written(tmp_path / "m.onnx")
    model = Model.load(tmp_path / "m.onnx")
    assert sorted(regions(model)) == ["a", "b"]
    assert not model.external
    assert model.to_bytes() == Model.load(data).to_bytes()
    model.save(tmp_path / "n.onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "n.onnx"]
    for constant, other in zip(model.constants(), Model.load(data).constants(), strict=True):
        assert np.array_equal(constant.values, other.values)


def test_its_file_may_be_replaced_meanwhile(tmp_path, spools) -> None:
    data = written(tmp_path / "m.onnx")
    model = Model.load(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(b"")
    assert model.to_bytes() == Model.load(data).to_bytes()


@pytest.mark.parametrize("how", ["elsewhere", "no room", "two graphs"])
def test_other_files_are_read_whole(tmp_path, spools, monkeypatch, how: str) -> None:
    path, data = tmp_path / "m.onnx", b""
    if how == "elsewhere":
        (tmp_path / "w").write_bytes(bytes(4 * 160 * 128))
        outside = TensorProto(name="e", data_type=1, dims=SHAPE, doc_string="-" * spooling.SMALLEST)
        outside.data_location = TensorProto.EXTERNAL
        outside.external_data.add(key="location", value="w")
        written(path, outside)
    elif how == "no room":
        data = written(path)
        monkeypatch.setattr(
            spooling._Stripping, "_moved", lambda *_: (_ for _ in ()).throw(OSError)
        )
    else:
        data = (
            written(path)
            + onnx.ModelProto(graph=onnx.GraphProto(doc_string="more")).SerializeToString()
        )
    path.write_bytes(data if how != "elsewhere" else path.read_bytes())
    model = Model.load(path)
    inside = {name for name, place in regions(model).items() if not place.startswith(str(tmp_path))}
    assert not inside
    if how != "elsewhere":
        assert model.to_bytes() == Model.load(data).to_bytes()


def test_what_is_cut_short_is_refused(tmp_path, spools) -> None:
    data = written(tmp_path / "m.onnx")
    for length in (len(data) - 1, len(data) // 2, 100):
        (tmp_path / "m.onnx").write_bytes(data[:length])
        with pytest.raises(ModelError):
            Model.load(tmp_path / "m.onnx")
    lying = TensorProto(name="e", data_type=1, dims=[7, 7], raw_data=bytes(1 << 17))
    written(tmp_path / "m.onnx", lying)
    with pytest.raises(ModelError, match="'e'"):
        Model.load(tmp_path / "m.onnx")
