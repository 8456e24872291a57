"""Channel groups of random graphs: whatever is found free can be cut exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from channel_proof import prove_all
from onnx import helper, numpy_helper

from graphopt.ir.model import Model

SPACE = 4


class Builder:
    """A graph that grows by operators chosen at random; all its tensors are [2, C, H, W]."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list = []
        self.constants: list = []
        self.pool: list[tuple[str, tuple[int, ...]]] = [("x", (2, 4, SPACE, SPACE))]

    def pick(self) -> tuple[str, tuple[int, ...]]:
        last = len(self.pool) - 1
        return self.pool[last - int(self.rng.integers(0, min(3, len(self.pool))))]

    def constant(self, values: np.ndarray) -> str:
        name = f"k{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant((self.rng.standard_normal(shape) / 2).astype(np.float32))

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def add(self, op: str, inputs: list[str], count: int = 1, **attrs: object) -> list[str]:
        names = [f"{op}{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, inputs, names, **attrs))
        return names

    def keep(self, name: str, shape: tuple[int, ...]) -> None:
        self.pool.append((name, shape))

    def conv(self) -> None:
        name, (n, c, h, w) = self.pick()
        groups = int(self.rng.choice([g for g in (1, 1, 2, 3, c) if c % g == 0]))
        out = groups * int(self.rng.integers(1, 5)) if groups > 1 else int(self.rng.integers(2, 9))
        inputs = [name, self.weight(out, c // groups, 1, 1)]
        if self.rng.random() < 0.5:
            inputs.append(self.weight(out))
        self.keep(self.add("Conv", inputs, group=groups)[0], (n, out, h, w))

    def transposed(self) -> None:
        name, (n, c, h, w) = self.pick()
        groups = int(self.rng.choice([g for g in (1, 2, c) if c % g == 0]))
        per = int(self.rng.integers(1, 4))
        made = self.add("ConvTranspose", [name, self.weight(c, per, 1, 1)], group=groups)
        self.keep(made[0], (n, per * groups, h, w))

    def unary(self) -> None:
        name, shape = self.pick()
        op = str(self.rng.choice(["Relu", "Sigmoid", "Softplus", "Neg"]))
        self.keep(self.add(op, [name])[0], shape)

    def binary(self) -> None:
        (a, shape), (b, other) = self.pick(), self.pick()
        if shape[2:] != other[2:] or (shape[1] != other[1] and 1 not in (shape[1], other[1])):
            return
        op = str(self.rng.choice(["Add", "Mul", "Max"]))
        self.keep(self.add(op, [a, b])[0], (2, max(shape[1], other[1]), *shape[2:]))

    def scaled(self) -> None:
        name, shape = self.pick()
        self.keep(self.add("Mul", [name, self.weight(shape[1], 1, 1)])[0], shape)

    def concat(self) -> None:
        (a, shape), (b, other) = self.pick(), self.pick()
        if shape[2:] == other[2:] and shape[1] + other[1] < 24:
            made = self.add("Concat", [a, b], axis=1)
            self.keep(made[0], (2, shape[1] + other[1], *shape[2:]))

    def split(self) -> None:
        name, shape = self.pick()
        if shape[1] < 2:
            return
        first = int(self.rng.integers(1, shape[1])) if self.rng.random() < 0.5 else shape[1] // 2
        a, b = self.add("Split", [name, self.ints(first, shape[1] - first)], 2, axis=1)
        self.keep(a, (2, first, *shape[2:]))
        self.keep(b, (2, shape[1] - first, *shape[2:]))

    def sliced(self) -> None:
        name, shape = self.pick()
        start = int(self.rng.integers(0, shape[1]))
        end = int(self.rng.integers(start + 1, shape[1] + 1))
        made = self.add("Slice", [name, self.ints(start), self.ints(end), self.ints(1)])
        self.keep(made[0], (2, end - start, *shape[2:]))

    def gathered(self) -> None:
        name, shape = self.pick()
        indices = self.rng.integers(-shape[1], shape[1], int(self.rng.integers(2, 7)))
        made = self.add("Gather", [name, self.ints(*indices)], axis=1)
        self.keep(made[0], (2, len(indices), *shape[2:]))

    def shuffled(self) -> None:
        name, (n, c, h, w) = self.pick()
        divisors = [g for g in range(2, c) if c % g == 0]
        if divisors:
            g = int(self.rng.choice(divisors))
            apart = self.add("Reshape", [name, self.ints(0, g, c // g, h, w)])[0]
            turned = self.add("Transpose", [apart], perm=[0, 2, 1, 3, 4])[0]
            self.keep(self.add("Reshape", [turned, self.ints(0, -1, h, w)])[0], (n, c, h, w))

    def mixed(self) -> None:
        """Channels over space, as a grouped statistic or a transposition wants them."""
        name, (n, c, h, w) = self.pick()
        flat = self.add("Reshape", [name, self.ints(0, c * h, w)])[0]
        self.keep(self.add("Reshape", [flat, self.ints(0, c, h, w)])[0], (n, c, h, w))

    def like(self) -> None:
        """Flattened and back, by the sizes of a tensor."""
        name, shape = self.pick()
        sizes = self.add("Shape", [name])[0]
        flat = self.add("Reshape", [name, self.ints(0, -1)])[0]
        self.keep(self.add("Reshape", [flat, sizes])[0], shape)

    def last(self) -> None:
        name, (n, c, h, w) = self.pick()
        turned = self.add("Transpose", [name], perm=[0, 2, 3, 1])[0]
        product = self.add("MatMul", [turned, self.weight(c, 6)])[0]
        self.keep(self.add("Transpose", [product], perm=[0, 3, 1, 2])[0], (n, 6, h, w))

    def gate(self) -> None:
        name, (n, c, h, w) = self.pick()
        pooled = self.add("GlobalAveragePool", [name])[0]
        inner = self.add("Conv", [pooled, self.weight(3, c, 1, 1)])[0]
        outer = self.add("Conv", [inner, self.weight(c, 3, 1, 1)])[0]
        self.keep(self.add("Mul", [name, outer])[0], (n, c, h, w))

    def deep(self) -> None:
        name, (n, c, h, w) = self.pick()
        if c % 4 == 0 and h <= SPACE:
            mode = str(self.rng.choice(["DCR", "CRD"]))
            self.keep(
                self.add("DepthToSpace", [name], blocksize=2, mode=mode)[0],
                (n, c // 4, 2 * h, 2 * w),
            )
        elif h % 2 == 0 and c <= 4:
            self.keep(self.add("SpaceToDepth", [name], blocksize=2)[0], (n, 4 * c, h // 2, w // 2))

    def normalized(self) -> None:
        name, shape = self.pick()
        scale, bias = self.weight(shape[1]), self.weight(shape[1])
        groups = [g for g in range(1, shape[1] + 1) if shape[1] % g == 0]
        made = self.add(
            "GroupNormalization", [name, scale, bias], num_groups=int(self.rng.choice(groups))
        )
        self.keep(made[0], shape)

    def padded(self) -> None:
        name, (n, c, h, w) = self.pick()
        made = self.add("Pad", [name, self.ints(0, 1, 0, 0, 0, 2, 0, 0)])
        self.keep(made[0], (n, c + 3, h, w))

    def summed(self) -> None:
        name, (n, _, h, w) = self.pick()
        made = self.add("ReduceSum", [name, self.ints(1)], keepdims=1)
        self.keep(made[0], (n, 1, h, w))

    def model(self, steps: int) -> Model:
        self.conv()
        grow: list[Callable[[], None]] = [
            *(
                self.conv,
                self.conv,
                self.conv,
                self.transposed,
                self.unary,
                self.binary,
                self.binary,
            ),
            *(self.scaled, self.concat, self.split, self.sliced, self.gathered, self.shuffled),
            *(
                self.mixed,
                self.like,
                self.last,
                self.gate,
                self.deep,
                self.normalized,
                self.padded,
                self.summed,
            ),
        ]
        for _ in range(steps):
            grow[int(self.rng.integers(len(grow)))]()
        name, (_, c, h, w) = self.pool[-1]
        flat = self.add("Flatten", [name])[0]
        self.add("Gemm", [flat, self.weight(c * h * w, 3)])
        self.nodes[-1].output[0] = "y"
        batch = 2 if self.rng.random() < 0.5 else "N"
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", 1, [batch, 4, SPACE, SPACE])],
            [helper.make_tensor_value_info("y", 1, [batch, 3])],
            self.constants,
        )
        opsets = [helper.make_opsetid("", 21)]
        return Model.load(helper.make_model(graph, opset_imports=opsets, ir_version=10))


@pytest.mark.parametrize("seed", range(16))
def test_random_graphs(seed, native) -> None:
    prove_all(Builder(seed).model(8 + seed), native)
