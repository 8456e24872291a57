"""Refuse: requests that make no sense: recipes, options, data files, places to write to."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
from corpus import Made, refuse, simple

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
    "escape_codes": b'"\\u001b[31m" = 1\n',
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


def option(_: Path, kind: str) -> Made:
    return simple()


for _kind, _given in OPTIONS.items():
    refuse(1, params=[_kind], arguments=_given)(option)


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
