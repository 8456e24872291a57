"""Data ten times larger than the memory allowed is opened, calibrated with and evaluated on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = Path(__file__).parent.parent.parent
ROOM = 32 << 20
"""Bytes of address space beyond what the process has once everything is imported."""

CHILD = """
import resource, sys
import numpy as np
from graphopt.quality.data import DataOptions, open_dataset
from graphopt.testing import parse

model = parse('<ir_version: 8, opset_import: ["" : 17]> '
              'g (float[N,64,256] x) => (float[N,64,256] y) { y = Relu(x) }')

def read(options):
    dataset = open_dataset(options, model)
    seen = [sum(b.size for b in dataset.batches(p)) for p in ("calibration", "evaluation")]
    assert sum(seen) == dataset.samples, seen
    return dataset.samples

read(DataOptions({"x": np.zeros((9, 64, 256), np.float32)}))  # what is imported late is there now
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
print(read(DataOptions(sys.argv[1], labels=sys.argv[2] or None)))
try:
    np.zeros(2 * ROOM, np.uint8)
except MemoryError:
    print("limited")
"""

COUNT = 10 * ROOM // (64 * 256 * 4) + 1


def run(source: object, labels: str = "") -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD.replace("ROOM", str(ROOM)), str(source), labels],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env={"OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(COUNT), "limited"]


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS")


def test_data_ten_times_larger_than_the_memory(tmp_path) -> None:
    npy = tmp_path / "d.npy"
    with npy.open("wb") as file:  # a file with a hole takes no room on disk
        header = {"descr": "<f4", "fortran_order": False, "shape": (COUNT, 64, 256)}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + COUNT * 64 * 256 * 4)
    run(npy)


@pytest.mark.slow
def test_every_kind_of_file_ten_times_larger_than_the_memory(tmp_path) -> None:
    x, y = np.random.default_rng(0).random((COUNT, 64, 256), np.float32), np.arange(COUNT)
    np.savez(tmp_path / "plain.npz", x=x, y=y)
    np.savez_compressed(tmp_path / "packed.npz", x=np.round(x), y=y)
    save_file({"x": x, "y": y}, tmp_path / "d.safetensors")
    (tmp_path / "shards").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(COUNT), 3)):
        np.savez(tmp_path / "shards" / f"{number}.npz", x=x[rows], y=y[rows])
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def batches():\n"
        f"    for number in range({COUNT}):\n"
        "        yield {'x': np.full((1, 64, 256), number, np.float32), 'y': [number]}\n"
    )
    for name in ("plain.npz", "packed.npz", "d.safetensors", "shards", "mine.py:batches"):
        run(tmp_path / name, "y")
