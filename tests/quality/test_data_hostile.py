"""Files that lie, are cut, hold objects or lead in circles: one line, nothing run, no memory spent."""

from __future__ import annotations

import json
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from data_models import model_of, opened, refusal, samples, simple
from onnx import numpy_helper
from PIL import Image
from safetensors.numpy import save

from graphopt.errors import GraphoptError

X = samples(40)


def npy_bytes(array=X, descr=None, shape=None, by_column=False) -> bytes:
    """A ``.npy`` file whose header may lie."""
    header = {
        "descr": descr or np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": by_column,
        "shape": array.shape if shape is None else shape,
    }
    return raw_header(f"{header}\n".encode()) + array.tobytes()


def raw_header(text: bytes, version=b"\x01\x00", length=None) -> bytes:
    size = len(text) if length is None else length
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", size) + text


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("trapped",))


WHOLE = npy_bytes()
NPY = {
    "empty": (b"", "not an array in the .npy format"),
    "text": (b"x,y\n1,2\n", "not an array in the .npy format"),
    "pickle": (pickle.dumps(Trap()), "not an array in the .npy format"),
    "header_cut": (WHOLE[:40], "not an array in the .npy format"),
    "header_is_code": (raw_header(b"{'descr': os.mkdir('trapped')}"), "not an array"),
    "header_is_deep": (raw_header(b"(" * 2000), "not an array"),
    "header_is_long": (raw_header(b"x", b"\x02\x00", 1 << 31), "not an array"),
    "header_of_version_9": (raw_header(b"{}", b"\x09\x00"), "not an array"),
    "values_cut": (WHOLE[:-1], "declares 480 bytes and has 479"),
    "values_beyond": (WHOLE + b"\0", "declares 480 bytes and has 481"),
    "huge": (npy_bytes(shape=(1 << 60, 3)), "declares"),
    "huge_sample": (npy_bytes(shape=(1, 1 << 60)), "declares samples of"),
    "negative": (npy_bytes(shape=(-40, 3)), "negative size"),
    "shape_of_text": (
        raw_header(b"{'descr':'<f4','fortran_order':False,'shape':('a',)}\n"),
        "not an",
    ),
    "objects": (npy_bytes(np.empty(3), "|O"), "holds objects or records"),
    "records": (npy_bytes(np.zeros(3, "f4,f4")), "holds objects or records"),
    "bytes": (npy_bytes(np.zeros(3, "V2")), "which no model takes"),
    "times": (npy_bytes(np.zeros(3, "M8[s]")), "which no model takes"),
    "no_bytes": (npy_bytes(np.zeros(0), "<U0", (1 << 60,)), "which no model takes"),
    "no_values": (npy_bytes(np.zeros(0, np.float32), None, (1 << 60, 0)), "are empty"),
    "by_column": (npy_bytes(by_column=True), "column by column"),
    "single": (npy_bytes(X[0, 0]), "no array has an axis"),
}


@pytest.mark.parametrize("kind", NPY)
@pytest.mark.parametrize("container", ["npy", "npz", "packed", "folder"])
def test_arrays_that_lie(kind, container, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, says = NPY[kind]
    path = tmp_path / "d.npz"
    if container in ("npz", "packed"):
        packing = zipfile.ZIP_STORED if container == "npz" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", packing) as archive:
            archive.writestr("x.npy", content)
    else:
        path = tmp_path / "x.npy"
        path.write_bytes(content)
    given = tmp_path if container == "folder" else path
    tracemalloc.start()
    try:
        said = refusal(given, simple())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert says in said
    assert str(given) in said
    assert peak < 8 << 20
    assert not (tmp_path / "trapped").exists()


def test_an_archive_that_is_none(tmp_path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=X, y=np.arange(40))
    whole = path.read_bytes()
    for content in (b"", bytes(100), WHOLE, whole[: len(whole) // 2], pickle.dumps(Trap())):
        path.write_bytes(content)
        assert "it is not a whole .npz archive" in refusal(path, simple())


def test_an_archive_that_is_broken_within(tmp_path) -> None:
    path = tmp_path / "d.npz"
    for pack in (np.savez, np.savez_compressed):
        pack(path, x=samples(4000))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
        assert f"cannot read the data {path}: its compressed contents are broken" in refusal(
            path, simple()
        )


def test_an_archive_whose_directory_lies(tmp_path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=X)
    content = path.read_bytes()
    place = content.rindex(b"PK\x01\x02")
    size = struct.unpack_from("<I", content, place + 24)[0]
    changes = {
        "size": content[: place + 24] + struct.pack("<I", size + 480) + content[place + 28 :],
        "method": content[: place + 10] + struct.pack("<H", 99) + content[place + 12 :],
        "encrypted": content[: place + 8] + b"\x01\x00" + content[place + 10 :],
        "offset": content[: place + 42] + struct.pack("<I", 9) + content[place + 46 :],
    }
    for changed in changes.values():
        path.write_bytes(changed)
        assert str(path) in refusal(path, simple())


def test_a_name_that_is_there_twice(tmp_path) -> None:
    path = tmp_path / "d.npz"
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", WHOLE)
        archive.writestr("x.npy", WHOLE)
    assert "it holds 'x' twice" in refusal(path, simple())


def test_a_bomb_is_read_in_small_pieces(tmp_path) -> None:
    count, width = 1 << 14, 1 << 10  # 64 MiB of zeros
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        head = npy_bytes(np.zeros(0, np.float32), shape=(count, width))
        archive.writestr("x.npy", head + bytes(4 * count * width))
    assert path.stat().st_size < 1 << 17
    tracemalloc.start()
    try:
        dataset = opened(path, model_of("float[N,W] x"), calibrates=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert dataset.samples == count
    assert peak < 16 << 20


VALUES = X.tobytes()


def safetensors_file(header, values=VALUES, length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + values


def entry(**changes):
    return {"x": {"dtype": "F32", "shape": [40, 3], "data_offsets": [0, 480], **changes}}


SAFETENSORS = {
    "empty": (b"", "not a whole .safetensors file"),
    "zeros": (bytes(100), "not a whole .safetensors file"),
    "cut": (save({"x": X})[:30], "not a whole .safetensors file"),
    "length": (safetensors_file(entry(), length=1 << 62), "not a whole .safetensors file"),
    "text": (safetensors_file(b"x" * 40), "no .safetensors header"),
    "list": (safetensors_file([1, 2, 3]), "no .safetensors header"),
    "deep": (safetensors_file(b"[" * 200_000), "no .safetensors header"),
    "twins": (safetensors_file(b'{"x": 1, "x": 2}'), "no .safetensors header"),
    "number": (safetensors_file({"x": 3}), "does not describe the array 'x'"),
    "no_shape": (safetensors_file({"x": {"dtype": "F32"}}), "does not describe the array 'x'"),
    "shape": (safetensors_file(entry(shape="ab")), "does not describe the array 'x'"),
    "negative": (safetensors_file(entry(shape=[-40, -3])), "does not describe the array 'x'"),
    "fraction": (safetensors_file(entry(shape=[40.0, 3])), "does not describe the array 'x'"),
    "beyond": (safetensors_file(entry(data_offsets=[0, 960])), "does not describe the array 'x'"),
    "backwards": (safetensors_file(entry(data_offsets=[480, 0])), "does not describe"),
    "one_end": (safetensors_file(entry(data_offsets=[0])), "does not describe the array 'x'"),
    "size": (safetensors_file(entry(shape=[41, 3])), "declares 492 bytes and has 480"),
    "values_cut": (safetensors_file(entry())[:-1], "does not describe the array 'x'"),
    "type": (safetensors_file(entry(dtype="F4")), "'x' of {} is of the type F4"),
    "type_is_a_list": (safetensors_file(entry(dtype=[1])), "is of the type"),
}


@pytest.mark.parametrize("kind", SAFETENSORS)
def test_safetensors_that_lie(kind, tmp_path) -> None:
    content, says = SAFETENSORS[kind]
    path = tmp_path / "d.safetensors"
    path.write_bytes(content)
    assert says.replace("{}", str(path)) in refusal(path, simple())


def test_what_is_no_regular_file(tmp_path) -> None:
    path = tmp_path / "d.npz"
    for target, says in (
        ("/dev/zero", "not a regular file"),
        (path, "cannot read"),
        ("x", "no such"),
    ):
        path.symlink_to(target)
        assert says in refusal(path, simple())
        path.unlink()
    os.mkfifo(path)
    assert "not a regular file" in refusal(path, simple())
    assert "it is no kind of file that is read" in refusal(__file__, simple())
    for odd in ("a\0b.npz", "n" * 5000, "", "none.npz", "x\x1b[31m.npz"):
        said = refusal(odd, simple())
        assert "cannot read the data" in said or "holds" in said
        assert "\x1b" not in said and "\0" not in said


def test_folders_without_data_or_with_several_kinds(tmp_path) -> None:
    said = refusal(tmp_path, simple())
    assert "holds no data. It must hold .npz" in said
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "d.npz").write_bytes(b"")
    assert "holds no data" in refusal(tmp_path, simple())
    np.savez(tmp_path / "a.npz", x=X)
    np.save(tmp_path / "b.npy", X)
    (tmp_path / "c.png").write_bytes(b"")
    assert "several kinds of data: .npy, .npz, .png" in refusal(tmp_path, simple())


def test_a_broken_shard_is_named(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=X)
    np.savez(tmp_path / "b.npz", x=X[:, :2])
    assert "array 'x' of " in refusal(tmp_path, simple())
    assert "b.npz has samples of shape (2,)" in refusal(tmp_path, simple())
    wrong = X.copy()
    wrong[5] = np.nan
    np.savez(tmp_path / "b.npz", x=wrong)
    assert "b.npz holds NaN or infinity, first in sample 45" in refusal(tmp_path, simple())
    (tmp_path / "b.npz").write_bytes(b"")
    assert "b.npz: it is not a whole .npz archive" in refusal(tmp_path, simple())


def test_a_file_that_changes_while_it_is_used(tmp_path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=X)
    dataset = opened(path, simple())
    for changed, says in ((X + 1, "Leave it alone"), (X[:-8], "ends within|declares|contents")):
        np.savez(path, x=changed)
        with pytest.raises(Exception, match=says):
            list(dataset.batches("evaluation"))
    path.unlink()
    with pytest.raises(Exception, match="no such file"):
        list(dataset.batches("evaluation"))


@pytest.mark.parametrize("suffix", ["npz", "packed.npz", "safetensors", "npy", "pb", "png"])
def test_changed_bytes_end_in_samples_or_in_one_line(suffix, tmp_path) -> None:
    rng = np.random.default_rng(0)
    path, given, model = tmp_path / f"d.{suffix}", tmp_path / f"d.{suffix}", simple()
    if suffix == "pb":
        (tmp_path / "test_data_set_0").mkdir()
        path, given = tmp_path / "test_data_set_0" / "input_0.pb", tmp_path
        path.write_bytes(numpy_helper.from_array(X).SerializeToString())
    elif suffix == "png":
        given, model = tmp_path, model_of("float[N,3,8,8] x")
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    elif suffix == "npy":
        np.save(path, X)
    elif suffix == "safetensors":
        path.write_bytes(save({"x": X}))
    else:
        (np.savez if suffix == "npz" else np.savez_compressed)(path, x=X)
    whole = path.read_bytes()
    for _ in range(60):
        content = bytearray(whole)
        for at in rng.integers(0, len(content), 3):
            content[at] ^= int(rng.integers(1, 256))
        path.write_bytes(
            content[: int(rng.integers(len(content)))] if rng.random() < 0.3 else content
        )
        try:
            assert opened(given, model, calibrates=False).samples
        except GraphoptError as error:
            assert "\n" not in str(error)


def test_names_with_control_characters_are_shown_escaped() -> None:
    said = refusal({"\x1b[31mred": X}, simple())
    assert "\x1b" not in said and "\\u001b" in said
    assert "of 9" not in refusal({str(n): X for n in range(100)}, model_of("float[N,3] input"))
