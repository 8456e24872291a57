"""Pack real models, and beside it what Zstandard's level 19 makes of the same files.

    python -m benchmarks.fetch
    python -m benchmarks.packing --markdown packing.md

Each file is packed, unpacked several times with one thread, and compared byte for byte. The level 19 of the
``zstandard`` package is the codec of ``zstd -19``; its frame lacks the 4 bytes of a checksum that the program
adds.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard

import graphopt
from benchmarks.folding import models
from benchmarks.measure import ROOT
from graphopt.ir.storage import PROTOBUF_LIMIT
from graphopt.packing import pack, unpack
from graphopt.packing.unpacker import read_packed

SMALL = ROOT / "models" / "digits_cnn" / "digits_cnn.onnx"
"""The model that the passes below are run on, without a judge."""

PASSES = (
    "quantize-weights:bits=8",
    "quantize-weights:bits=4",
    "binarize-weights",
    "sparsify-weights:amount=0.85",
)

COLUMNS = (
    "Model",
    "file, KiB",
    "zstd -19, KiB",
    "graphopt, KiB",
    "graphopt / zstd",
    "entropy, KiB",
    "pack, MB per CPU second",
    "unpack, MB per CPU second",
    "to the disk, MB/s",
)


@dataclass(frozen=True)
class Row:
    """What came of one file; sizes in bytes, times in seconds.

    Attributes:
        name: of the model.
        stored: of the file.
        zstd: by level 19.
        packed: the archive.
        bound: the order-0 entropy of its tensors, and its structure as packed.
        pack_s: of the processor, for packing it once.
        memory_s: of the processor, for unpacking it to memory, the fastest of all times.
        unpack_s: on the clock, for unpacking it to the disk, synced, the fastest of all times.
    """

    name: str
    stored: int
    zstd: int
    packed: int
    bound: int
    pack_s: float
    memory_s: float
    unpack_s: float

    def cells(self) -> list[str]:
        """The row as it is shown."""
        kib = [f"{size / 1024:.1f}" for size in (self.stored, self.zstd, self.packed)]
        rates = [self.stored / s / 1e6 for s in (self.pack_s, self.memory_s, self.unpack_s)]
        ratio = f"{self.packed / self.zstd:.3f}"
        return [self.name, *kib, ratio, f"{self.bound / 1024:.1f}", *(f"{r:.3g}" for r in rates)]


def made(folder: Path) -> Iterator[Path]:
    """What lossy passes make of a small model."""
    for chosen in PASSES:
        path = folder / f"{SMALL.stem}, {chosen.replace('/', ' ')}.onnx"
        graphopt.optimize(SMALL, path, passes=[chosen], budget=graphopt.Budget(None))
        yield path


def fastest(call: Callable[[], object], times: int, clock: Callable[[], float]) -> float:
    """The seconds of the fastest of several calls, by a clock."""
    found = []
    for _ in range(times):
        started = clock()
        call()
        found.append(clock() - started)
    return min(found)


def measured(path: Path, times: int) -> Row:
    """Pack and unpack one file both ways.

    Raises:
        AssertionError: it did not come back as it was.
    """
    data = path.read_bytes()
    frame = zstandard.ZstdCompressor(level=19).compress(data)
    with tempfile.TemporaryDirectory() as folder:
        archive, back = Path(folder, "m.gopt"), Path(folder, "m.onnx")
        started = time.process_time()
        found = pack(path, archive)
        pack_s = time.process_time() - started
        unpack_s = fastest(lambda: unpack(archive, back), times, time.perf_counter)
        assert back.read_bytes() == data, f"{path} did not come back as it was"
        read = functools.partial(read_packed, archive, PROTOBUF_LIMIT)
        memory_s = fastest(read, times, time.process_time)
    return Row(
        path.stem,
        found.stored_bytes,
        len(frame),
        found.packed_bytes,
        found.bound_bytes,
        pack_s,
        memory_s,
        unpack_s,
    )


def markdown(rows: Sequence[Row]) -> str:
    """All rows as a Markdown table."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def main() -> int:
    """Measure all models; return 1 where one of them is larger than Zstandard makes it."""
    parser = argparse.ArgumentParser(description="Pack real models, and compare with zstd -19.")
    parser.add_argument("--models", metavar="GLOB", help="models to pack instead of the usual ones")
    parser.add_argument("--times", type=int, default=5, help="unpackings of each; default: 5")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table here, too")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [path for group in models(options.models).values() for path in group]
        if not options.models:
            paths += made(Path(folder))
        for path in paths:
            print(path.stem, file=sys.stderr)
            rows.append(measured(path, options.times))
    text = markdown(rows)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text, encoding="utf-8")
    return int(any(row.packed >= row.zstd for row in rows))


if __name__ == "__main__":
    sys.exit(main())
