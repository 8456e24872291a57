"""What the original and the result of a run take when they are packed, and the result's archive."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

from graphopt.errors import UsageError, printable
from graphopt.files import is_same
from graphopt.ir.model import Model
from graphopt.packing import pack
from graphopt.packing.format import SUFFIX
from graphopt.packing.summary import PackSummary
from graphopt.packing.unpacker import has_magic
from graphopt.report import PackedInfo, PackingInfo


def archive_path(output: str | os.PathLike[str]) -> Path:
    """Where the archive of a result goes: beside the file that it is written to, under the same name."""
    return Path(output).with_suffix(SUFFIX)


def require_apart(model: Model, output: str | os.PathLike[str]) -> None:
    """Refuse an archive that would replace the model that it is made from, unless that was asked for.

    Raises:
        UsageError: so it is.
    """
    target = archive_path(output)
    if model.path is not None and Path(output) != target and is_same(model.path, target):
        raise UsageError(
            f"the packed result would replace the model, {printable(str(target))}",
            "Give another name with -o, or say --no-pack",
        )


def packed_original(model: Model) -> PackedInfo:
    """What the original takes when it is packed, in the file that it was read from.

    Where there is none, or that is an archive, the model is written and packed aside.

    Raises:
        ModelError: its data files are unsafe to read.
    """
    if model.path is None or not model.path.is_file() or has_magic(model.path):
        return _aside(model, "model")
    with tempfile.TemporaryDirectory(prefix="graphopt-") as folder:
        return _info(pack(model.path, Path(folder, f"model{SUFFIX}")))


def compared_packed(
    before: PackedInfo | None, result: Model, output: str | os.PathLike[str] | None
) -> PackingInfo | None:
    """The result packed, beside the original; None where that was not packed. See ``packed_result``."""
    return None if before is None else PackingInfo(before, packed_result(result, output))


def packed_result(model: Model, output: str | os.PathLike[str] | None) -> PackedInfo:
    """What the result takes when it is packed, and its archive beside the file that it was written to.

    Args:
        model: the result.
        output: where it was written to, as it is or as an archive already; None: no archive is kept.

    Raises:
        OutputError: the archive cannot be written; what stood there is untouched.
    """
    if output is None:
        return _aside(model, "model")
    target = archive_path(output)
    if Path(output) == target:
        return replace(_aside(model, target.stem), path=str(target))
    return replace(_info(pack(output, target)), path=str(target))


def _aside(model: Model, name: str) -> PackedInfo:
    with tempfile.TemporaryDirectory(prefix="graphopt-") as folder:
        plain = Path(folder, f"{name}.onnx")
        model.save(plain)
        return _info(pack(plain, Path(folder, f"{name}{SUFFIX}")))


def _info(found: PackSummary) -> PackedInfo:
    return PackedInfo(
        "", found.archive_sha256, found.stored_bytes, found.packed_bytes, found.bound_bytes
    )
