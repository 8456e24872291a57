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


@either(params=range(40, 300), slow=True)
def more_bits_flipped(_: Path, seed: int) -> Made:
    return bits_flipped(_, seed)


@either(params=range(40))
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
        "g (float[2] x, bool c) => (float[2] y) { w = Constant<value = float[2] {1,2}>() z = Add(w, "
        "w) y = If (c) "
        "<then_branch = t () => (float[2] a) { a = Reshape(x, s) }, else_branch = e () => (float[2] "
        "b) { b = Tile(z, o) }> }"
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
