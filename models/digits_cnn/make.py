"""Make this folder: train the digits CNN, export it, split the data, write the checksums.

    pip install scikit-learn torch==2.13.0 onnx onnxruntime
    python make.py

The CPU build of PyTorch by exactly that pin; neither it nor scikit-learn is a dependency of
graphopt. The seed is fixed and the training is deterministic, so that the same versions on
the same kind of processor give the same files; another processor may round differently.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from export import export
from train import Arrays, split, train

FOLDER = Path(__file__).parent
MODEL = "digits_cnn.onnx"
PARTS = ("digits_calib.npz", "digits_test.npz")


def accuracy(model: Path, data: Arrays) -> float:
    """Return the share of samples that the model puts in the right class under ONNX Runtime."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    x, y = data
    (logits,) = session.run(None, {"x": x})
    return float((np.asarray(logits).argmax(axis=1) == y).mean())


def write_checksums(names: list[str]) -> None:
    """Write ``SHA256SUMS`` in the form that ``sha256sum --check`` reads."""
    lines = [f"{hashlib.sha256((FOLDER / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (FOLDER / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Write the model, both parts of the data and the checksums; print the accuracies."""
    calibration, test = split()
    net, mean, std = train(*calibration)
    onnx.save(export(net, mean, std), FOLDER / MODEL)
    for name, (x, y) in zip(PARTS, (calibration, test), strict=True):
        np.savez_compressed(FOLDER / name, x=x, y=y)
    write_checksums([MODEL, *PARTS])
    for part, data in (("calibration", calibration), ("test", test)):
        print(f"{part}: {accuracy(FOLDER / MODEL, data):.4f} of {len(data[1])}")


if __name__ == "__main__":
    main()
