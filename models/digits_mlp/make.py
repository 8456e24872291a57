"""Make this folder: train a three-layer perceptron on the digits with plain NumPy, export it.

    python make.py

It needs nothing beyond numpy, onnx and onnxruntime, and reads the data of ``../digits_cnn``.
The layers are written as MatMul + Add, the flatten as a Reshape to ``[0, -1]``, and the first
layer is preceded by a normalization of the input, so that folding has work to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]
Layers = list[tuple[Array, Array]]

FOLDER = Path(__file__).parent
DATA = FOLDER.parent / "digits_cnn"
MODEL = FOLDER / "digits_mlp.onnx"
WIDTHS = (64, 128, 96, 10)
SEED = 7
EPOCHS = 200
BATCH = 64
RATE = 2e-3
DECAY = 0.02


def load(part: str) -> tuple[Array, NDArray[np.int64]]:
    """Return images float32 [N, 1, 8, 8] in 0..1 and labels int64 [N] of ``calib`` or ``test``."""
    with np.load(DATA / f"digits_{part}.npz") as data:
        return data["x"], data["y"]


def jitter(x: Array, rng: np.random.Generator) -> Array:
    """Shift every image by up to one pixel with zeros moving in, and add a little noise."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    moved = np.empty_like(x)
    for i, (row, column) in enumerate(rng.integers(0, 3, (len(x), 2))):
        moved[i] = padded[i, :, row : row + 8, column : column + 8]
    still = rng.random(len(x)) < 0.5
    moved[still] = x[still]
    return moved + rng.normal(0, 0.06, x.shape).astype(np.float32)


def forward(layers: Layers, x: Array) -> list[Array]:
    """Return the input of every layer and, last, the logits."""
    values = [x]
    for i, (weight, bias) in enumerate(layers):
        y = values[-1] @ weight + bias
        values.append(np.maximum(y, 0) if i + 1 < len(layers) else y)
    return values


def gradients(layers: Layers, values: list[Array], labels: NDArray[np.int64]) -> Iterator[Array]:
    """Yield the gradient of the mean cross entropy: weight, then bias, last layer first."""
    logits = values[-1]
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    chances[np.arange(len(labels)), labels] -= 1
    back: Array = chances / len(labels)
    for (weight, _), x in zip(reversed(layers), reversed(values[:-1]), strict=True):
        yield x.T @ back
        yield back.sum(axis=0)
        back = (back @ weight.T) * (x > 0)


def train(x: Array, y: NDArray[np.int64], mean: float, std: float) -> Layers:
    """Train with AdamW and a cosine schedule; returns ``(weight [in, out], bias [out])`` each."""
    rng = np.random.default_rng(SEED)
    shapes = list(pairwise(WIDTHS))
    layers: Layers = [
        (
            rng.normal(0, np.sqrt(2 / rows), (rows, columns)).astype(np.float32),
            np.zeros(columns, np.float32),
        )
        for rows, columns in shapes
    ]
    moments = [[(np.zeros_like(p), np.zeros_like(p)) for p in layer] for layer in layers]
    steps = EPOCHS * (len(x) // BATCH)
    for step in range(1, steps + 1):
        chosen = rng.choice(len(x), BATCH, replace=False)
        images = (jitter(x[chosen], rng).reshape(BATCH, -1) - mean) / std
        found = gradients(layers, forward(layers, images), y[chosen])
        rate = RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
        for layer, moment in zip(reversed(layers), reversed(moments), strict=True):
            for parameter, (first, second) in zip(layer, moment, strict=True):
                gradient = next(found)
                first += 0.1 * (gradient - first)
                second += 0.001 * (gradient**2 - second)
                size = np.sqrt(second / (1 - 0.999**step)) + 1e-8
                parameter -= rate * (first / (1 - 0.9**step) / size + DECAY * parameter)
    return layers


def export(layers: Layers, mean: float, std: float) -> onnx.ModelProto:
    """Return the checked model: ``x`` float32 [N, 1, 8, 8] to ``logits`` float32 [N, 10]."""
    weights: dict[str, NDArray[Any]] = {
        "mean": np.array(mean, np.float32),
        "std": np.array(std, np.float32),
        "flat": np.array([0, -1], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["pixels"]),
        helper.make_node("Sub", ["pixels", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["h0"]),
    ]
    for i, (weight, bias) in enumerate(layers):
        last = i + 1 == len(layers)
        weights |= {f"w{i}": weight, f"b{i}": bias}
        total = "logits" if last else f"sum{i}"
        nodes.append(helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"product{i}"]))
        nodes.append(helper.make_node("Add", [f"product{i}", f"b{i}"], [total]))
        if not last:
            nodes.append(helper.make_node("Relu", [total], [f"h{i + 1}"]))
    graph = helper.make_graph(
        nodes,
        "digits_mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Write the model and its checksum; print its accuracies under ONNX Runtime."""
    x, y = load("calib")
    mean, std = float(x.mean()), float(x.std())
    onnx.save(export(train(x, y, mean, std), mean, std), MODEL)
    digest = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    (FOLDER / "SHA256SUMS").write_text(f"{digest}  {MODEL.name}\n", encoding="utf-8")
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    for part in ("calib", "test"):
        x, y = load(part)
        (logits,) = session.run(None, {"x": x})
        share = float((np.asarray(logits).argmax(axis=1) == y).mean())
        print(f"{part}: {share:.4f} of {len(y)}")


if __name__ == "__main__":
    main()
