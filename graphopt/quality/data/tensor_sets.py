"""ONNX test data: folders ``test_data_set_*`` of ``input_0.pb``, ``output_0.pb`` and so on.

Each file is a TensorProto; ``input_k`` is the k-th input that the model must be given. Each folder is one
run of the model as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, numpy_helper

from graphopt.errors import ResourceError, UsageError, printable
from graphopt.quality.data.memory import complete_piece
from graphopt.quality.data.reading import damaged, open_file, reading, require_file, show
from graphopt.quality.data.source import LARGEST_SAMPLE, About, Needs, Piece, Source

_SET = re.compile(r"test_data_set_(\d+)", re.ASCII)
_INPUT = re.compile(r"input_\d+\.pb", re.ASCII)
_OUTPUT = re.compile(r"output_\d+", re.ASCII)


def is_set(folder: Path) -> bool:
    """Whether a folder holds the tensors of one run."""
    return (folder / "input_0.pb").is_file()


def sets_in(folder: Path) -> list[Path]:
    """The folders ``test_data_set_*`` in a folder, by number."""
    found = [(match, p) for p in folder.iterdir() if (match := _SET.fullmatch(p.name))]
    return [path for match, path in sorted(found, key=lambda pair: int(pair[0][1]))]


def tensor_set_source(shown: str, folders: Sequence[Path], needs: Needs) -> TensorSets:
    """The samples in folders of tensors.

    Raises:
        UsageError: the labels do not name an output.
    """
    if needs.labels is not None and not _OUTPUT.fullmatch(needs.labels):
        if needs.evaluates:
            raise UsageError(
                f"{shown} is test data, whose labels are its outputs, and none is called "
                f"{printable(needs.labels)!r}",
                "Name one as in output_0",
            )
        needs = needs.without_labels()
    return TensorSets(About(shown), tuple(folders), needs)


@dataclass(frozen=True)
class TensorSets(Source):
    """Folders of tensors, each one run of the model.

    Attributes:
        folders: in order.
        needs: what is wanted of them.
    """

    folders: tuple[Path, ...]
    needs: Needs

    def pieces(self) -> Iterator[Piece]:
        """One piece for each folder."""
        for folder in self.folders:
            with reading(show(folder)):
                count = sum(1 for p in folder.iterdir() if _INPUT.fullmatch(p.name))
            known = self.needs.all
            if not len(self.needs.inputs) <= count <= len(known):
                raise UsageError(
                    f"{show(folder)} holds {count} inputs, the model takes {len(self.needs.inputs)}"
                )
            arrays = {known[k].name: read_tensor(folder / f"input_{k}.pb") for k in range(count)}
            yield complete_piece(arrays, self._labels(folder), show(folder))

    def _labels(self, folder: Path) -> np.ndarray | None:
        path = folder / f"{self.needs.labels}.pb"
        if self.needs.labels is None or not (self.needs.evaluates or path.is_file()):
            return None
        return read_tensor(path)


def read_tensor(path: Path) -> np.ndarray:
    """The array in a file that holds a TensorProto.

    Raises:
        UsageError: the file is missing or holds something else.
        ResourceError: it is too large.
    """
    shown = show(path)
    if require_file(path) > LARGEST_SAMPLE:
        raise ResourceError(f"cannot read the data {shown}: more than {LARGEST_SAMPLE} bytes")
    proto = TensorProto()
    with open_file(path) as file, reading(shown):
        content = file.read()
    try:
        proto.ParseFromString(content)
        if not proto.data_type or proto.data_location == TensorProto.EXTERNAL:
            raise ValueError("no tensor with its values inside")
        array = numpy_helper.to_array(proto)
    except MemoryError:
        raise ResourceError(f"cannot read the data {shown}: not enough memory") from None
    except Exception:  # noqa: BLE001 - whatever the package finds wrong with hostile bytes
        raise damaged(shown, "it is not a tensor of the ONNX format") from None
    return array
