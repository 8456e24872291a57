"""Saving: whatever happens, the old output or the new one stands there whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from command import graphopt_command, snapshot
from corpus import floats, simple, text
from corpus_values import external

from graphopt.errors import OutputError
from graphopt.ir.model import Model

OLD = b"the output of an earlier run"


def weighty() -> onnx.ModelProto:
    """A model of 4 MiB."""
    made = text(
        "g (float[1,1024] x) => (float[1,1024] y) { h = MatMul(x, w) i = Identity(h) y = Relu(i) }"
    )
    made.graph.initializer.append(floats("w", 1024, 1024))
    return made


def split(folder: Path) -> Path:
    """The same model with its weights beside it."""
    onnx.save(
        weighty(),
        folder / "in.onnx",
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
    )
    return folder / "in.onnx"


def write(made: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(made.SerializeToString())
    return path


@pytest.mark.parametrize("kind", ["inside", "outside"])
@pytest.mark.parametrize("limit", [1000, 4096, 100_000, 1 << 21])
def test_full_disk(tmp_path: Path, kind: str, limit: int) -> None:
    source = split(tmp_path) if kind == "outside" else write(weighty(), tmp_path / "in.onnx")
    target = tmp_path / "out.onnx"
    target.write_bytes(OLD)
    (tmp_path / "tmp").mkdir()
    before = snapshot(tmp_path)
    arguments = ["optimize", str(source), "-o", str(target)]
    ended = graphopt_command(arguments, tmp_path, file_bytes=limit)
    assert ended.code == 7, ended.err
    assert ended.err.startswith("graphopt: error: cannot write")
    assert len(ended.err.splitlines()) == 1
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("kind", ["inside", "outside"])
def test_killed(tmp_path: Path, kind: str, number: int) -> None:
    """Killed at any time, in the middle of a save too, the output is an old or a new one."""
    model = Model.load(split(tmp_path) if kind == "outside" else weighty())
    target = tmp_path / "out.onnx"
    model.save(target)
    expected = Model.load(target).to_bytes()
    pid = os.fork()
    if pid == 0:
        while True:
            model.save(target)
    try:
        import time

        time.sleep(0.01 + 0.017 * number)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert Model.load(target).to_bytes() == expected
    onnx.checker.check_model(str(target))


def test_output_may_be_the_input(tmp_path: Path) -> None:
    path = write(weighty(), tmp_path / "model.onnx")
    assert graphopt_command(["optimize", str(path), "-o", str(path)], tmp_path).code == 0
    assert [node.op_type for node in onnx.load(path).graph.node] == ["MatMul", "Relu"]
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx", "tmp"}


def test_output_may_be_the_input_with_its_data_outside(tmp_path: Path) -> None:
    path = split(tmp_path)
    for _ in range(3):
        assert graphopt_command(["optimize", str(path), "-o", str(path)], tmp_path).code == 0
    names = sorted(p.name for p in tmp_path.iterdir())
    assert len(names) == 4
    assert names[0] == "in.onnx"
    assert names[1].startswith("in.onnx.")
    assert names[2:] == ["tmp", "w.bin"]
    weights = onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    assert np.array_equal(weights, onnx.numpy_helper.to_array(weighty().graph.initializer[0]))


def test_output_keeps_the_mode_of_the_old_one(tmp_path: Path) -> None:
    path = write(simple(), tmp_path / "model.onnx")
    path.chmod(0o640)
    Model.load(path).save(path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_is_followed_or_replaced_but_its_target_is_never_half_written(
    tmp_path: Path,
) -> None:
    real = tmp_path / "real.onnx"
    real.write_bytes(OLD)
    link = tmp_path / "out.onnx"
    link.symlink_to(real)
    model = Model.load(simple())
    model.save(link)
    assert real.read_bytes() in (OLD, model.to_bytes())
    assert Model.load(link).to_bytes() == model.to_bytes()


@pytest.mark.parametrize(
    "path", ["none/out.onnx", ".", "file/out.onnx", "n" * 300, "/proc/out.onnx"]
)
def test_unwritable(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    before = snapshot(tmp_path)
    with pytest.raises(OutputError):
        Model.load(simple()).save(tmp_path / path)
    assert snapshot(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_is_read_only(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.raises(OutputError):
        Model.load(simple()).save(folder / "out.onnx")


CALLS = ("fsync", "replace", "rename", "chmod", "open")


@pytest.mark.parametrize("place", range(12))
@pytest.mark.parametrize("kind", ["inside", "outside"])
def test_every_system_call_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, place: int
) -> None:
    """The n-th call that touches the disk fails: the old output stays, and nothing is left over."""
    model = Model.load(split(tmp_path) if kind == "outside" else weighty())
    target = tmp_path / "out.onnx"
    model.save(target)
    old = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    changed = model.copy()
    changed.header.producer_name = "new"
    count = 0

    def failing(name: str):
        real = getattr(os, name)

        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == place + 1:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        for name in CALLS:
            patched.setattr(os, name, failing(name))
        try:
            changed.save(target)
        except OutputError:
            failed = True
        else:
            failed = False
    now = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert set(now) == set(old)
    if failed and now != old:  # what fails after the renaming can only be reported
        assert Model.load(target).header.producer_name == "new"
    Model.load(target).to_bytes()


def test_data_of_other_models_stays(tmp_path: Path) -> None:
    other = tmp_path / "other.onnx.0123456789ab.data"
    mine = tmp_path / "out.onnx.txt"
    for path in (other, mine):
        path.write_bytes(b"x")
    (tmp_path / "in").mkdir()
    made = external(tmp_path / "in", "w.bin", True, 0)
    model = Model.load(write(made, tmp_path / "in" / "model.onnx"))
    model.save(tmp_path / "out.onnx")
    assert other.exists()
    assert mine.exists()
