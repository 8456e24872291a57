"""Clustering models of 100 million weights: what time and memory the command takes.

    python -m benchmarks.clustering                          # all cases, one after another
    python -m benchmarks.clustering transformer --data --inside

Two models are made. Their weights are drawn from Student's t distribution with five degrees of freedom, each
output channel with a scale of its own, so that they have heavy tails as trained ones do:

    transformer  8 blocks of attention and a feed-forward network, 1024 wide, each with a normalization before
                 it and a residual connection around it
    cnn          42 convolutions of 512 channels, 3 x 3, two of them in each residual block

``--data`` gives 32 samples that are drawn, too; without it the metric is none and nothing is observed.
``--inside`` writes the weights into the model's file, else they lie beside it; ``--layers`` makes fewer
blocks or convolutions. Columns: wall time, processor time of all processes, the largest resident set of one
of them, and that less what it is where the command only lists its passes, in multiples of the model's bytes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.measure import ROOT

T = TypeVar("T")

WIDTH, INNER, BLOCKS, TOKENS = 1024, 4096, 8, 32
CHANNELS, CONVS, PIXELS = 512, 42, 8
SAMPLES = 32
FREEDOM = 5.0
"""Degrees of freedom of Student's t: the kurtosis is 9, that of a normal distribution 3."""


class Writer:
    """A graph that is being written.

    Args:
        seed: of the weights.
    """

    def __init__(self, seed: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[str], **attrs: Any) -> str:
        """A node; the name of what it gives."""
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attrs))
        return name

    def weight(self, shape: tuple[int, ...], inputs: int, axis: int) -> str:
        """A drawn weight of a layer with so many inputs and its outputs on an axis; its name."""
        scales = np.exp(0.3 * self.rng.standard_normal(shape[axis])) / np.sqrt(2.0 * inputs)
        spread = [-1 if n == axis else 1 for n in range(len(shape))]
        values = self.rng.standard_t(FREEDOM, shape).astype(np.float32)
        values *= scales.reshape(spread).astype(np.float32)
        return self.constant(values)

    def constant(self, values: np.ndarray) -> str:
        """An initializer; its name."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def model(self, shape: list[Any], result: str) -> onnx.ModelProto:
        """The model that reads x and gives the result."""
        x, y = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", result)
        )
        graph = helper.make_graph(self.nodes, "clustered", [x], [y], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def transformer(blocks: int = BLOCKS) -> onnx.ModelProto:
    """Blocks of attention and feed-forward networks."""
    writer = Writer()
    ones, zeros = (writer.constant(np.full(WIDTH, n, np.float32)) for n in (1.0, 0.0))

    def product(read: str, rows: int, columns: int) -> str:
        return writer.add("MatMul", [read, writer.weight((rows, columns), rows, 1)])

    read = "x"
    for _ in range(blocks):
        normal = writer.add("LayerNormalization", [read, ones, zeros], axis=-1)
        query, key, value = (product(normal, WIDTH, WIDTH) for _ in range(3))
        scores = writer.add("MatMul", [query, writer.add("Transpose", [key], perm=[0, 2, 1])])
        scale = writer.constant(np.array(WIDTH**-0.5, np.float32))
        weights = writer.add("Softmax", [writer.add("Mul", [scores, scale])], axis=-1)
        mixed = product(writer.add("MatMul", [weights, value]), WIDTH, WIDTH)
        read = writer.add("Add", [read, mixed])
        normal = writer.add("LayerNormalization", [read, ones, zeros], axis=-1)
        hidden = writer.add("Relu", [product(normal, WIDTH, INNER)])
        read = writer.add("Add", [read, product(hidden, INNER, WIDTH)])
    return writer.model(["N", TOKENS, WIDTH], read)


def cnn(convs: int = CONVS) -> onnx.ModelProto:
    """Residual blocks of two convolutions."""
    writer, read = Writer(), "x"
    for _ in range(convs // 2):
        inner = read
        for last in (False, True):
            weight = writer.weight((CHANNELS, CHANNELS, 3, 3), 9 * CHANNELS, 0)
            bias = writer.constant(np.zeros(CHANNELS, np.float32))
            inner = writer.add("Conv", [inner, weight, bias], pads=[1, 1, 1, 1])
            inner = inner if last else writer.add("Relu", [inner])
        read = writer.add("Relu", [writer.add("Add", [read, inner])])
    return writer.model(["N", CHANNELS, PIXELS, PIXELS], read)


MODELS = {"transformer": transformer, "cnn": cnn}
SHAPES = {"transformer": (TOKENS, WIDTH), "cnn": (CHANNELS, PIXELS, PIXELS)}
"""Of a sample."""


class Cost(NamedTuple):
    """What a run of the command took: seconds, of the processor too, and bytes resident."""

    status: int
    wall: float
    cpu: float
    resident: int


def run(arguments: list[str]) -> Cost:
    """Run the command with nothing cached; what it says goes nowhere."""
    command = [sys.executable, "-m", "graphopt", *arguments]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "XDG_CACHE_HOME": cache}
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(process.returncode, wall, cpu, usage.ru_maxrss * 1024)


def clustered(model: Path, data: Path | None) -> list[str]:
    """Arguments that let the tensors of a model take 8 values each."""
    target = model.with_suffix(".out.onnx")
    found = ["optimize", str(model), "-o", str(target), "--pass", "cluster-weights:clusters=8"]
    return [*found, "--max-drop", "none", "--data", str(data)] if data else found


def prepared(name: str, folder: Path, size: int | None, inside: bool) -> tuple[Path, Path]:
    """Write a model and its data; their paths.

    Args:
        name: of the model.
        folder: to write to.
        size: blocks or convolutions; None for those of 100 million weights.
        inside: whether the weights stand in the model's file.
    """
    make = MODELS[name]
    made = make() if size is None else make(size)
    path, data = folder / f"{name}.onnx", folder / "data.npz"
    location = None if inside else f"{name}.data"
    onnx.save(made, path, save_as_external_data=not inside, location=location)
    shape = SHAPES[name]
    x = np.random.default_rng(2).standard_normal((SAMPLES, *shape)).astype(np.float32)
    np.savez(data, x=x)
    return path, data


def apart(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function in a process of its own: one that is started from a large one counts as large, too."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def cases(given: argparse.Namespace) -> Iterator[tuple[str, bool, bool]]:
    """Model, whether with data, and whether the weights stand inside."""
    if given.model:
        yield given.model, given.data, given.inside
        return
    for name in MODELS:
        for data in (False, True):
            yield from ((name, data, inside) for inside in (False, True))


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", choices=MODELS)
    parser.add_argument("--data", action="store_true")
    parser.add_argument("--inside", action="store_true")
    parser.add_argument("--folder", type=Path, help="to write to and keep; a temporary one")
    parser.add_argument("--layers", type=int, help="blocks or convolutions; of 100 million weights")
    given = parser.parse_args()
    empty = run(["passes", "list"])
    print("| model | weights | data | s | CPU s | peak MiB | of the model |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for name, data, inside in cases(given):
        with tempfile.TemporaryDirectory() as made:
            folder = given.folder or Path(made)
            folder.mkdir(exist_ok=True)
            path, samples = apart(prepared, name, folder, given.layers, inside)
            size = path.stat().st_size
            size += 0 if inside else path.with_suffix(".data").stat().st_size
            cost = run(clustered(path, samples if data else None))
        share = (cost.resident - empty.resident) / size
        row = [name, "inside" if inside else "beside", "32 samples" if data else "none"]
        row += [f"{cost.wall:.0f}", f"{cost.cpu:.0f}", f"{cost.resident / 2**20:.0f}"]
        row += [f"{share:.2f}" if not cost.status else f"exit status {cost.status}"]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
