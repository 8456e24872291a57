"""Measurements of graphopt side by side with other ONNX optimizers; see README.md."""
