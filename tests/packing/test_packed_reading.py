"""Archives wherever a model is read or written, and the two commands."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from packed_files import beside, small

import graphopt
from graphopt import cli
from graphopt.errors import GraphoptError, ModelError, OutputError, UsageError
from graphopt.packing import pack, unpack

MODEL = Path(__file__).parent.parent.parent / "models/digits_mlp/digits_mlp.onnx"


def call(*arguments: object) -> int:
    return cli.run([str(argument) for argument in arguments])


@pytest.fixture
def packed(tmp_path) -> Path:
    graphopt.pack(MODEL, tmp_path / "m.gopt")
    return tmp_path / "m.gopt"


def test_loading_goes_by_the_bytes_and_not_by_the_name(packed, tmp_path) -> None:
    renamed = tmp_path / "packed.onnx"
    renamed.write_bytes(packed.read_bytes())
    (tmp_path / "plain.gopt").write_bytes(MODEL.read_bytes())
    expected = graphopt.load(MODEL).to_bytes()
    for source in (packed, renamed, tmp_path / "plain.gopt", packed.read_bytes()):
        assert graphopt.load(source).to_bytes() == expected


def test_data_files_are_read_out_of_an_archive_and_go_again(tmp_path, monkeypatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    path = beside(tmp_path / "in")
    pack(path, tmp_path / "p.gopt")
    loaded, expected = graphopt.load(tmp_path / "p.gopt"), graphopt.load(path)
    assert loaded.external
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    copied = loaded.copy()
    del loaded
    gc.collect()
    pairs = zip(copied.constants(), expected.constants(), strict=True)
    assert all(np.array_equal(a.values, b.values) for a, b in pairs)
    copied.save(tmp_path / "again.gopt")
    unpack(tmp_path / "again.gopt", tmp_path / "again.onnx")
    again = graphopt.load(tmp_path / "again.onnx")
    pairs = zip(again.constants(), expected.constants(), strict=True)
    assert all(np.array_equal(a.values, b.values) for a, b in pairs)
    del copied, pairs
    gc.collect()
    assert not list((tmp_path / "tmp").iterdir())


def test_saving_under_the_end_of_an_archive_packs(tmp_path) -> None:
    model = graphopt.load(MODEL)
    digest = model.save(tmp_path / "m.gopt")
    assert [path.name for path in tmp_path.iterdir()] == ["m.gopt"]
    import hashlib

    assert hashlib.sha256((tmp_path / "m.gopt").read_bytes()).hexdigest() == digest
    unpack(tmp_path / "m.gopt")
    assert (tmp_path / "m.onnx").read_bytes() == model.to_bytes()
    with pytest.raises(OutputError):
        model.save(tmp_path / "none" / "m.gopt")


def test_packing_twice_and_what_is_missing(packed, tmp_path) -> None:
    with pytest.raises(UsageError, match="packed already"):
        pack(packed, tmp_path / "n.gopt")
    with pytest.raises(ModelError, match="cannot read"):
        pack(tmp_path / "none.onnx")
    with pytest.raises(OutputError):
        pack(MODEL, tmp_path / "none" / "m.gopt")
    with pytest.raises(UsageError, match="replace the archive"):
        unpack(packed, packed)
    path = beside(tmp_path)
    for target in (path, tmp_path / "w.bin"):
        before = target.read_bytes()
        with pytest.raises(UsageError, match="replace what is packed"):
            pack(path, target)
        assert target.read_bytes() == before
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match="Put the data file beside the model"):
        pack(path)
    assert not (tmp_path / "n.gopt").exists()


@pytest.mark.parametrize("name", ["../up.bin", "/etc/hostname", ".hidden", "a\\b", "", "link"])
def test_data_files_that_are_not_packed(name, tmp_path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    for file in (tmp_path / "up.bin", inner / ".hidden", inner / "target"):
        file.write_bytes(bytes(64))
    (inner / "link").symlink_to(inner / "target")
    made = onnx.load(small(inner))
    entry = made.graph.initializer.add(data_type=1, dims=[16], data_location=1)
    entry.external_data.add(key="location", value=name)
    (inner / "m.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(ModelError):
        pack(inner / "m.onnx")
    assert not (inner / "m.gopt").exists()


def test_the_commands(tmp_path, capsys) -> None:
    source = tmp_path / "m.onnx"
    source.write_bytes(MODEL.read_bytes())
    assert call("pack", source) == 0
    shown = capsys.readouterr().out
    for word in ("structure", "float", "entropy", "ratio", "MB/s", "wrote"):
        assert word in shown
    archive = tmp_path / "m.gopt"
    assert call("unpack", archive, "-o", tmp_path / "back.onnx") == 0
    assert "wrote" in capsys.readouterr().out
    assert (tmp_path / "back.onnx").read_bytes() == source.read_bytes()
    assert call("pack", source, "-q") == 0
    assert capsys.readouterr().out == ""


def test_what_does_not_unpack_is_not_written(tmp_path, monkeypatch) -> None:
    for name, broken in (
        ("join_planes", lambda parts: parts[0].repeat(len(parts))),
        ("join_planes", lambda parts: parts[0]),
    ):
        monkeypatch.setattr(f"graphopt.packing.transforms.{name}", broken)
        with pytest.raises(GraphoptError, match="does not unpack"):
            pack(MODEL, tmp_path / "m.gopt")
        assert not list(tmp_path.iterdir())


def test_the_figures_as_json(tmp_path, capsys) -> None:
    target = tmp_path / "m.gopt"
    assert call("pack", MODEL, "-o", target, "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stored_bytes"] == MODEL.stat().st_size
    assert found["packed_bytes"] == target.stat().st_size
    assert found["ratio"] == pytest.approx(found["stored_bytes"] / found["packed_bytes"])
    assert sum(kind["stored_bytes"] for kind in found["kinds"]) == found["stored_bytes"]
    inside = sum(kind["packed_bytes"] for kind in found["kinds"])
    assert 0 < found["packed_bytes"] - inside < 100
    assert call("unpack", target, "-o", tmp_path / "b.onnx", "--json", tmp_path / "u.json") == 0
    assert json.loads((tmp_path / "u.json").read_text())["sha256"] == found["sha256"]


def test_inspect_says_that_it_is_packed(packed, capsys) -> None:
    assert call("inspect", packed) == 0
    shown = capsys.readouterr().out
    assert "packed, holds" in shown
    assert call("inspect", packed, "--json", "-") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packed"]["stored_bytes"] == MODEL.stat().st_size
    assert found["packed"]["packed_bytes"] == packed.stat().st_size == found["model"]["file_bytes"]
    assert call("inspect", MODEL, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["packed"] is None


def test_optimize_compare_and_bench(packed, tmp_path, capsys) -> None:
    out = tmp_path / "out.gopt"
    assert call("optimize", packed, "-o", out, "--json", "-", "-q") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"]["verdict"] == "equal"
    assert report["output"]["file_bytes"] == out.stat().st_size
    assert report["input"]["file_bytes"] == packed.stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gopt", "out.gopt"]
    assert call("compare", MODEL, out, "--no-latency") == 0
    assert call("bench", packed, "--rounds", 5) == 0


@pytest.mark.parametrize("command", ["unpack", "inspect", "optimize", "bench"])
def test_a_damaged_archive_is_one_line(command, packed, capsys) -> None:
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 4
    packed.write_bytes(data)
    before = sorted(packed.parent.iterdir())
    assert call(command, packed) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith("graphopt: error: the packed model is damaged")
    assert sorted(packed.parent.iterdir()) == before


def test_errors_of_the_commands(packed, tmp_path, capsys) -> None:
    for arguments, code in (
        (["unpack", MODEL], 2),
        (["unpack", tmp_path / "none.gopt"], 2),
        (["unpack", packed, "-o", tmp_path / "none" / "m.onnx"], 7),
        (["pack", packed], 1),
        (["pack", tmp_path / "none.onnx"], 2),
        (["pack", MODEL, "-o", tmp_path], 7),
        (["pack"], 1),
    ):
        assert call(*arguments) == code
        assert len(capsys.readouterr().err.splitlines()) == 1
