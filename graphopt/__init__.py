"""graphopt: a graph compiler for ONNX models."""
