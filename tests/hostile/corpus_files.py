"""Refuse: files that are no model, and requests that make no sense."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import onnx
from corpus import Made, either, refuse, simple, text
from onnx import numpy_helper

FOREIGN: dict[str, bytes] = {
    "empty": b"",
    "zeros": bytes(5000),
    "one_zero": b"\0",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "html_lower": b"<!doctype html>\n<title>x</title>",
    "html_bare": b"\n <html><body>x</body></html>",
    "xml": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "json": b'{"error": "not found"}',
    "text": b"this is not a model\n",
    "pickle": pickle.dumps({"a": 1}, 4),
    "pickle2": pickle.dumps({"a": 1}, 2),
    "pickle5": pickle.dumps({"a": 1}, 5),
    "gzip": gzip.compress(b"onnx" * 20),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(20),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(20),
    "elf": b"\x7fELF" + bytes(60),
    "tflite": b"\x1c\0\0\0TFL3" + bytes(60),
    "safetensors": b"\x02\0\0\0\0\0\0\0{}",
    "all_ones": b"\xff" * 1000,
    "protobuf_bomb": b"\x3a\xff\xff\xff\xff\x7f" + b"x" * 100,
    "deep_nesting": b"\x3a\x80\x01" * 2000,
}


@refuse(params=FOREIGN)
def foreign(_: Path, kind: str) -> Made:
    return FOREIGN[kind]


@refuse(says="zip")
def zip_archive(_: Path) -> Made:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"x")
    return buffer.getvalue()


@refuse(params=range(1, 20))
def truncated(_: Path, twentieth: int) -> Made:
    data = simple().SerializeToString()
    return data[: len(data) * twentieth // 20]


@refuse(params=(-1, -2, -6))
def truncated_at_the_end(_: Path, end: int) -> Made:
    return simple().SerializeToString()[:end]


@refuse(says="folder")
def directory(folder: Path) -> Made:
    (folder / "model.onnx").mkdir()
    return None


@refuse(says="regular file")
def fifo(folder: Path) -> Made:
    os.mkfifo(folder / "model.onnx")
    return None


@refuse(says="regular file", params=("/dev/zero", "/dev/null", "/dev/tty"))
def device(_: Path, path: str) -> Made:
    return Path(path)


@refuse()
def missing(folder: Path) -> Made:
    return folder / "none.onnx"


@refuse()
def missing_with_escape_codes(folder: Path) -> Made:
    return folder / "\x1b[31mnone\n.onnx"


@refuse()
def dangling_link(folder: Path) -> Made:
    (folder / "model.onnx").symlink_to("nowhere")
    return None


@refuse()
def link_to_itself(folder: Path) -> Made:
    (folder / "model.onnx").symlink_to("model.onnx")
    return None


@refuse()
def name_too_long(folder: Path) -> Made:
    return folder / ("n" * 5000)


@refuse()
def path_through_a_file(folder: Path) -> Made:
    (folder / "file").write_bytes(b"")
    return folder / "file" / "model.onnx"


def _hole(folder: Path, head: bytes, size: int) -> None:
    with (folder / "model.onnx").open("wb") as file:
        file.write(head)
        file.truncate(size)


@refuse(2, 5)
def sparse_file_of_3_gib(folder: Path) -> Made:
    _hole(folder, b"", 3 << 30)
    return None


@refuse(2, 5)
def sparse_file_of_1_gib(folder: Path) -> Made:
    _hole(folder, b"", 1 << 30)
    return None


@refuse(2, 5, mebibytes=2600, slow=True)
def sparse_file_behind_a_model(folder: Path) -> Made:
    _hole(folder, simple().SerializeToString(), 1 << 30)
    return None


# Requests


def _fine(folder: Path) -> Made:
    return simple()


RECIPES: dict[str, bytes] = {
    "empty_name": b"[[pass]]\n",
    "unknown_pass": b"[[pass]]\nname = 'none'\n",
    "unknown_option": b"[[pass]]\nname = 'fold-constants'\nfoo = 1\n",
    "unknown_key": b"code = 'x.so'\n",
    "not_toml": b"[[[[",
    "binary": bytes(range(256)),
    "pass_is_text": b"pass = 'x'\n",
    "pass_is_number": b"pass = 3\n",
    "pass_list": b"pass = ['x']\n",
    "name_is_number": b"[[pass]]\nname = 3\n",
    "skip_is_text": b"skip = 'fold-constants'\n",
    "skip_unknown": b"skip = ['none']\n",
    "escape_codes": b"\"\\u001b[31m\" = 1\n",
    "deep": b"a = " + b"[" * 5000 + b"]" * 5000,
}


@refuse(1, params=RECIPES, arguments=("-r", "{}/recipe.toml"))
def recipe(folder: Path, kind: str) -> Made:
    (folder / "recipe.toml").write_bytes(RECIPES[kind])
    return simple()


@refuse(1, arguments=("-r", "{}/none.toml"))
def recipe_missing(folder: Path) -> Made:
    return simple()


@refuse(1, arguments=("-r", "{}/pyproject.toml"))
def pyproject_without_table(folder: Path) -> Made:
    (folder / "pyproject.toml").write_text("[tool]\ngraphopt = 3\n")
    return simple()


@refuse(1, arguments=("-r", "{}/pyproject.toml"))
def pyproject_tool_is_no_table(folder: Path) -> Made:
    (folder / "pyproject.toml").write_text("tool = 3\n")
    return simple()


OPTIONS: dict[str, tuple[str, ...]] = {
    "unknown_pass": ("-p", "none"),
    "escape_codes": ("-p", "\x1b[31m"),
    "no_value": ("-p", "fold-constants:x"),
    "unknown_option": ("-p", "fold-constants:x=1"),
    "unknown_skip": ("-s", "none"),
    "unknown_flag": ("--nonsense",),
    "memory_zero": ("--memory", "0"),
    "memory_text": ("--memory", "lots"),
    "timeout_negative": ("--timeout", "-1"),
    "timeout_nan": ("--timeout", "nan"),
    "growth_negative": ("--growth", "-1"),
    "both": ("-p", "folding", "-r", "x.toml"),
    "two_models": ("other.onnx",),
}


for _kind, _given in OPTIONS.items():
    refuse(1, params=[_kind], arguments=_given)(lambda folder, kind: simple())


def _npz(folder: Path, **arrays: np.ndarray) -> None:
    np.savez(folder / "data.npz", **arrays)


X = np.ones((8, 4), np.float32)
ARRAYS: dict[str, dict[str, np.ndarray]] = {
    "objects": {"x": np.array([{}, []], dtype=object)},
    "missing_input": {"z": X},
    "wrong_type": {"x": X.astype(np.float64)},
    "wrong_shape": {"x": X[:, :3]},
    "wrong_rank": {"x": X[:, 0]},
    "scalar": {"x": X[0, 0]},
    "no_samples": {"x": X[:0]},
    "nan": {"x": X * np.nan},
    "strings": {"x": np.array(["a"] * 8)},
    "nothing": {},
}


@refuse(1, params=ARRAYS, arguments=("--data", "{}/data.npz"))
def data_arrays(folder: Path, kind: str) -> Made:
    _npz(folder, **ARRAYS[kind])
    return simple()


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, ("pwned",))


def _bomb() -> bytes:
    """An array of 64 GiB of zeros, packed."""
    buffer, body = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(
        body, {"descr": "<f4", "fortran_order": False, "shape": (1 << 32, 4)}
    )
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", body.getvalue() + bytes(1 << 20))
    return buffer.getvalue()


def _archive(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("x.npy", content)
    return buffer.getvalue()


DATA_FILES: dict[str, bytes] = {
    "pickle": pickle.dumps(_Trap()),
    "pickle_inside": _archive(pickle.dumps(_Trap())),
    "no_array_inside": _archive(b"text"),
    "bad_header": _archive(b"\x93NUMPY\x01\0\x10\0{'descr': os, }  "),
    "empty": b"",
    "zeros": bytes(100),
    "text": b"x,y\n1,2\n",
    "cut_zip": _archive(b"\x93NUMPY")[:40],
    "bomb": _bomb(),
}


@refuse(1, 5, params=DATA_FILES, arguments=("--data", "{}/data.npz"))
def data_file(folder: Path, kind: str) -> Made:
    (folder / "data.npz").write_bytes(DATA_FILES[kind])
    return simple()


@refuse(1, arguments=("--data", "{}/data.npz"))
def data_is_a_single_array(folder: Path) -> Made:
    with (folder / "data.npz").open("wb") as file:
        np.save(file, X)
    return simple()


@refuse(1, params=("/dev/zero", "/dev/null"), arguments=("--data", "{}/data.npz"))
def data_device(folder: Path, path: str) -> Made:
    (folder / "data.npz").symlink_to(path)
    return simple()


@refuse(1, arguments=("--data", "{}"))
def data_is_a_folder(folder: Path) -> Made:
    return simple()


@refuse(1, arguments=("--data", "{}/none.npz"))
def data_missing(folder: Path) -> Made:
    return simple()


@refuse(7, arguments=("-o", "{}/none/out.onnx"))
def output_folder_missing(folder: Path) -> Made:
    return simple()


@refuse(7, arguments=("-o", "{}"))
def output_is_a_folder(folder: Path) -> Made:
    return simple()


@refuse(7, arguments=("-o", "{}/model.onnx/out.onnx"))
def output_below_a_file(folder: Path) -> Made:
    return simple()


@refuse(7, arguments=("-o", "/proc/out.onnx"))
def output_in_proc(folder: Path) -> Made:
    return simple()


@refuse(1, 7, arguments=("-o", ""))
def output_empty(folder: Path) -> Made:
    return simple()


@refuse(7, arguments=("-o", "{}/" + "n" * 300))
def output_name_too_long(folder: Path) -> Made:
    return simple()


@either(params=range(60))
def bits_flipped(_: Path, seed: int) -> Made:
    rng = np.random.default_rng(seed)
    data = bytearray(simple().SerializeToString())
    for _number in range(1 + seed % 4):
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(data)


@either(params=range(25))
def bytes_replaced(_: Path, seed: int) -> Made:
    rng = np.random.default_rng(1000 + seed)
    body = text(
        "g (float[2] x, bool c) => (float[2] y) { w = Constant<value = float[2] {1,2}>() z = Add(w, w) y = If (c) "
        "<then_branch = t () => (float[2] a) { a = Reshape(x, s) }, else_branch = e () => (float[2] b) { b = Tile(z, o) }> }"
    )
    body.graph.initializer.append(_int64("s", [-1]))
    body.graph.initializer.append(_int64("o", [1]))
    data = bytearray(body.SerializeToString())
    for _number in range(1 + seed % 3):
        data[rng.integers(len(data))] = int(rng.integers(256))
    return bytes(data)


def _int64(name: str, values: list[int]) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values), name)


@either(params=range(10))
def noise(_: Path, seed: int) -> Made:
    return b"\x08\x08" + np.random.default_rng(seed).bytes(200)
