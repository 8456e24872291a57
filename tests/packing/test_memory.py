"""A file is packed and unpacked in far less memory than it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from packed_files import model

ROOT = Path(__file__).parent.parent.parent
PARTS = 40
PART = 8 << 20
ROOM = 160 << 20
"""Bytes for a block, its streams and the tables of Zstandard; half of what the file has."""

CHILD = """
import sys
from graphopt.packing import pack, unpack

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))

before = peak()
{"pack": pack, "unpack": unpack}[sys.argv[1]](sys.argv[2], sys.argv[3])
print(peak() - before)
"""


def run(verb: str, source: Path, target: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, verb, str(source), str(target)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize(
    "parts",
    [pytest.param(1, marks=pytest.mark.slow, id="one tensor"), pytest.param(PARTS, id="many")],
)
def test_a_large_file(parts, tmp_path) -> None:
    """320 MiB, as one tensor and as many."""
    rng = np.random.default_rng(0)
    source, target, back = tmp_path / "m.onnx", tmp_path / "m.gopt", tmp_path / "b.onnx"
    part = rng.integers(0, 256, PART, np.uint8).tobytes()
    made = model()
    for index in range(parts):
        # Shifted against each other, so that none equals another.
        data = b"".join(part[step:] + part[:step] for step in range(index, PARTS, parts))
        made.graph.initializer.add(name=f"w{index}", data_type=2, dims=[len(data)], raw_data=data)
    source.write_bytes(made.SerializeToString())
    del made, data
    assert run("pack", source, target) < ROOM
    assert run("unpack", target, back) < ROOM
    assert back.read_bytes() == source.read_bytes()
