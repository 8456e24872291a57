"""Refuse: external data that leads out of the model's folder, or nowhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
from corpus import SECRET, Made, refuse, text
from onnx import TensorProto as T

COUNT = len(SECRET)
"""The tensors of these cases hold as many bytes as the secret has."""


def plant(folder: Path) -> Path:
    """Put the secret beside the model's folder."""
    secret = folder.parent / "secret.bin"
    secret.write_bytes(SECRET)
    return secret


def pointing(tensor: onnx.TensorProto, **keys: str) -> None:
    """Let a tensor keep its bytes in a file."""
    tensor.Clear()
    tensor.name, tensor.data_type = "w", T.UINT8
    tensor.dims.append(COUNT)
    tensor.data_location = T.EXTERNAL
    for key, entry in keys.items():
        tensor.external_data.add(key=key, value=entry)


def reader(**keys: str) -> onnx.ModelProto:
    made = text(f"g (uint8[{COUNT}] x) => (uint8[{COUNT}] y) {{ y = Add(x, w) }}")
    pointing(made.graph.initializer.add(), **keys)
    return made


LOCATIONS: dict[str, Callable[[Path, Path], str]] = {
    "parent": lambda folder, secret: "../secret.bin",
    "down_and_up": lambda folder, secret: "a/../../secret.bin",
    "absolute": lambda folder, secret: str(secret),
    "double_slash": lambda folder, secret: "/" + str(secret),
    "inside_but_dots": lambda folder, secret: f"../{folder.name}/w.bin",
    "backslashes": lambda folder, secret: "..\\secret.bin",
    "drive": lambda folder, secret: "C:\\secret.bin",
    "share": lambda folder, secret: "\\\\host\\share\\secret.bin",
    "url": lambda folder, secret: f"file://{secret}",
    "home": lambda folder, secret: "~/secret.bin",
    "variable": lambda folder, secret: "$HOME/secret.bin",
    "nul": lambda folder, secret: "w.bin\0../secret.bin",
    "empty": lambda folder, secret: "",
    "dot": lambda folder, secret: ".",
    "missing": lambda folder, secret: "none.bin",
    "escape_codes": lambda folder, secret: "\x1b[31m.bin",
    "long": lambda folder, secret: "n" * 5000,
    "procfs": lambda folder, secret: "/proc/self/environ",
    "a_folder": lambda folder, secret: "a",
    "link": lambda folder, secret: _link(folder / "link", secret),
    "link_to_folder": lambda folder, secret: _link(folder / "up", folder.parent) + "/secret.bin",
    "link_inside": lambda folder, secret: _link(folder / "link", folder / "w.bin"),
    "hard_link": lambda folder, secret: _hard(folder / "hard.bin", secret),
    "fifo": lambda folder, secret: _fifo(folder / "fifo"),
    "device": lambda folder, secret: _link(folder / "zero", Path("/dev/zero")),
}


def _link(path: Path, to: Path) -> str:
    path.symlink_to(to)
    return path.name


def _hard(path: Path, to: Path) -> str:
    path.hardlink_to(to)
    return path.name


def _fifo(path: Path) -> str:
    os.mkfifo(path)
    return path.name


def _world(folder: Path) -> Path:
    (folder / "a").mkdir()
    (folder / "w.bin").write_bytes(bytes(COUNT))
    return plant(folder)


@refuse(params=LOCATIONS)
def escape(folder: Path, kind: str) -> Made:
    return reader(location=LOCATIONS[kind](folder, _world(folder)))


KEYS: dict[str, dict[str, str]] = {
    "offset_beyond": {"offset": "1000000"},
    "offset_just_beyond": {"offset": "1"},
    "offset_negative": {"offset": "-1"},
    "offset_text": {"offset": "one"},
    "offset_empty": {"offset": ""},
    "offset_hex": {"offset": "0x10"},
    "offset_float": {"offset": "1.0"},
    "offset_arabic": {"offset": "\u0661"},
    "offset_overflow": {"offset": str(1 << 64)},
    "offset_wraps": {"offset": str((1 << 63) - 1)},
    "length_beyond": {"length": "1000000"},
    "length_short": {"length": "1"},
    "length_negative": {"length": "-1"},
    "length_zero": {"length": "0"},
    "length_text": {"length": "many"},
    "unknown_key": {"exec": "touch pwned"},
    "attribute_key": {"__class__": "x"},
    "basepath": {"basepath": "/"},
}


@refuse(params=KEYS)
def bad_key(folder: Path, kind: str) -> Made:
    _world(folder)
    return reader(location="w.bin", **KEYS[kind])


@refuse()
def location_twice(folder: Path) -> Made:
    _world(folder)
    made = reader(location="w.bin")
    made.graph.initializer[0].external_data.add(key="location", value="../secret.bin")
    return made


@refuse()
def no_location(folder: Path) -> Made:
    _world(folder)
    return reader()


@refuse()
def data_file_cut_short(folder: Path) -> Made:
    (folder / "w.bin").write_bytes(bytes(COUNT - 1))
    return reader(location="w.bin")


@refuse()
def strings_outside(folder: Path) -> Made:
    _world(folder)
    made = reader(location="w.bin")
    made.graph.initializer[0].data_type = T.STRING
    return made


@refuse()
def inside_and_outside(folder: Path) -> Made:
    _world(folder)
    made = reader(location="../secret.bin")
    made.graph.initializer[0].raw_data = bytes(COUNT)
    return made


def _constant(node: onnx.NodeProto) -> None:
    node.op_type, node.output[:] = "Constant", ["w"]
    attribute = node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    pointing(attribute.t, location="../secret.bin")


def _in_constant(made: onnx.ModelProto) -> None:
    del made.graph.initializer[:]
    node = onnx.NodeProto()
    _constant(node)
    made.graph.node.insert(0, node)


def _in_body(made: onnx.ModelProto) -> None:
    branch = onnx.GraphProto(name="b")
    branch.node.add(op_type="Add", input=["x", "w"], output=["z"])
    branch.output.add(name="z")
    pointing(branch.initializer.add(), location="../secret.bin")
    node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    made.graph.node[0].CopyFrom(node)
    made.graph.input.append(onnx.helper.make_tensor_value_info("c", T.BOOL, []))
    del made.graph.initializer[:]


def _in_function(made: onnx.ModelProto) -> None:
    function = made.functions.add(domain="local", name="f", input=["p"], output=["q"])
    function.opset_import.add(domain="", version=21)
    made.opset_import.add(domain="local", version=1)
    _constant(function.node.add())
    function.node.add(op_type="Add", input=["p", "w"], output=["q"])
    made.graph.node[0].CopyFrom(onnx.helper.make_node("f", ["x"], ["y"], domain="local"))
    del made.graph.initializer[:]


def _in_sparse(made: onnx.ModelProto) -> None:
    del made.graph.initializer[:]
    sparse = made.graph.sparse_initializer.add(dims=[COUNT])
    pointing(sparse.values, location="../secret.bin")
    sparse.indices.CopyFrom(onnx.helper.make_tensor("i", T.INT64, [COUNT], range(COUNT)))


def _in_training(made: onnx.ModelProto) -> None:
    made.graph.initializer[0].Clear()
    made.graph.initializer[0].CopyFrom(onnx.helper.make_tensor("w", T.UINT8, [COUNT], [1] * COUNT))
    step = made.training_info.add()
    pointing(step.initialization.initializer.add(), location="../secret.bin")


def _in_list_attribute(made: onnx.ModelProto) -> None:
    made.graph.initializer[0].CopyFrom(onnx.helper.make_tensor("w", T.UINT8, [COUNT], [1] * COUNT))
    made.graph.initializer[0].ClearField("data_location")
    del made.graph.initializer[0].external_data[:]
    node = made.graph.node.add(op_type="Thing", domain="custom", input=["x"], output=["t"])
    attribute = node.attribute.add(name="k", type=onnx.AttributeProto.TENSORS)
    pointing(attribute.tensors.add(), location="../secret.bin")
    made.opset_import.add(domain="custom", version=1)


PLACES = {
    "constant": _in_constant,
    "body": _in_body,
    "function": _in_function,
    "sparse": _in_sparse,
    "training": _in_training,
    "list_attribute": _in_list_attribute,
}


@refuse(params=PLACES)
def escape_from(folder: Path, kind: str) -> Made:
    _world(folder)
    made = reader(location="../secret.bin")
    PLACES[kind](made)
    return made
