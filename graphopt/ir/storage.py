"""Model files: reading one that may be hostile, naming the data beside one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from graphopt.errors import ModelError, ResourceError, printable
from graphopt.files import regular_size
from graphopt.ir.spooling import spooled
from graphopt.packing.unpacker import Folder

PROTOBUF_LIMIT = 2**31 - 1
"""Bytes beyond which protobuf neither reads nor writes a message."""

EMBED_LIMIT = 2**31 - 2**24
"""Bytes of weights beyond which a model is written with external data; leaves room for the graph."""

_MAGIC = (
    (b"version https://git-lfs", "a Git LFS pointer, not the model itself", "Run: git lfs pull"),
    (b"<!DOCTYPE", "an HTML page", "Download the file itself, not the page around it"),
    (b"<html", "an HTML page", "Download the file itself, not the page around it"),
    (b"PK\x03\x04", "a zip archive (perhaps a PyTorch checkpoint)", "Export the model to ONNX"),
    (b"\x80\x02", "a pickle (perhaps a PyTorch checkpoint)", "Export the model to ONNX"),
    (b"\x80\x04", "a pickle", "Export the model to ONNX"),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first"),
    (b"\x89HDF", "an HDF5 file (perhaps Keras)", "Export the model to ONNX"),
    (b"ORTM", "an ORT-format model", "Use the .onnx file that it was made from"),
)


SPOOLED = 1 << 26
"""Bytes of a model file from which on its weights are not held in memory (``spooling``)."""


def read_model(path: Path) -> tuple[onnx.ModelProto, Folder | None]:
    """Read and parse a model file; its external data is not touched.

    Returns:
        The message, and the folder in which the weights of a large one now lie as external data.

    Raises:
        ModelError: no such file, not a regular file, or not an ONNX model.
        ResourceError: the file is larger than protobuf can read.
    """
    shown = printable(str(path))
    size = regular_size(path)
    if size > PROTOBUF_LIMIT:
        raise ResourceError(
            f"cannot read {shown}: {size} bytes is more than protobuf's limit of 2 GiB",
            "Save the model with external data",
        )
    try:
        with path.open("rb") as file:
            _refuse_foreign(file.read(64), shown)
        found = spooled(path) if size >= SPOOLED else None
        data, folder = found or (path.read_bytes(), None)
    except OSError as error:
        raise ModelError(f"cannot read {shown}: {error.strerror}") from None
    return parse_model(data, shown), folder


def _refuse_foreign(head: bytes, shown: str) -> None:
    if not head:
        raise ModelError(f"{shown} is empty")
    if not head.strip(b"\0"):
        raise ModelError(f"{shown} starts with zeros: not an ONNX model")
    for magic, what, hint in _MAGIC:
        if head.startswith(magic):
            raise ModelError(f"{shown} is {what}", hint)


def parse_model(data: bytes, shown: str = "the model") -> onnx.ModelProto:
    """Parse the bytes of a model.

    Raises:
        ModelError: the bytes are not an ONNX model with a graph.
    """
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ModelError(
            f"{shown} is not an ONNX model: its bytes do not parse",
            "The file is damaged, cut short, nested too deeply or of another format",
        ) from None
    if not proto.HasField("graph"):
        raise ModelError(f"{shown} is not an ONNX model: it has no graph")
    if proto.ir_version < 3:
        raise ModelError(
            f"{shown} has IR version {proto.ir_version}; 3 is the oldest that is supported",
            "Export the model again",
        )
    return proto


def data_name(path: Path, digest: str) -> str:
    """The name of the data file beside a model: ours, and tied to its contents.

    The digest in the name lets a new pair of files replace an old one without a moment at which the
    old model would read the new data.
    """
    return f"{path.name}.{digest[:12]}.data"


def stale_data(path: Path, keep: str | None) -> Iterator[Path]:
    """Data files that an earlier save of the same output left, by the name we give them."""
    pattern = re.compile(re.escape(path.name) + r"\.[0-9a-f]{12}\.data")
    for entry in path.parent.iterdir():
        if pattern.fullmatch(entry.name) and entry.name != keep:
            yield entry
