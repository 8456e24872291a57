"""Reading and writing a model loses nothing: what was not changed is written as it was read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto as T
from onnx import helper, numpy_helper, parser

from graphopt.errors import ModelError, ResourceError
from graphopt.ir import storage
from graphopt.ir.model import Model

TYPES = [number for name, number in T.DataType.items() if name != "UNDEFINED"]


def text(body: str, opset: int = 21, ir: int = 10, imports: str = "") -> onnx.ModelProto:
    head = f'<ir_version: {ir}, opset_import: ["" : {opset}{imports}]>\n'
    return parser.parse_model(head + body)


def rewritten(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Through bytes, the IR and bytes; twice, since the second time must change nothing."""
    data = Model.load(proto.SerializeToString(deterministic=True)).to_bytes()
    assert Model.load(data).to_bytes() == data
    return onnx.load_from_string(data)


def assert_lossless(proto: onnx.ModelProto) -> None:
    assert rewritten(proto) == proto
    assert Model.load(proto).to_bytes() == proto.SerializeToString(deterministic=True)


def stored(name: str, kind: int, shape: tuple[int, ...], raw: bool) -> onnx.TensorProto:
    count = int(np.prod(shape))
    if kind == T.STRING:
        return helper.make_tensor(name, kind, shape, ["ß"] * count)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    values = (np.arange(count) % 2).astype(dtype).reshape(shape)
    if raw:
        return numpy_helper.from_array(values, name)
    return helper.make_tensor(name, kind, shape, values.flatten().tolist())


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0, 2)], ids=str)
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("kind", TYPES, ids=T.DataType.Name)
def test_every_element_type(kind: int, raw: bool, shape: tuple[int, ...]) -> None:
    tensor = stored("w", kind, shape, raw)
    tensor.doc_string = "weights"
    constant = helper.make_node("Constant", [], ["c"], value=stored("", kind, shape, raw))
    graph = helper.make_graph(
        [constant, helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info(name, kind, shape) for name in "yc"],
        [tensor],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13)
    assert_lossless(proto)
    model = Model.load(proto)
    values = model.constants()[0].values
    assert values.shape == shape
    assert not values.flags.writeable
    assert_equal(model.constants()[0].values, numpy_helper.to_array(tensor))
    assert_lossless(model.to_proto())


def assert_equal(values: np.ndarray, expected: np.ndarray) -> None:
    assert values.dtype == expected.dtype
    assert values.tobytes() == expected.tobytes() or list(values.flat) == list(expected.flat)


def documented() -> onnx.ModelProto:
    proto = text(
        "g (float[N,4] x) => (float[N,3] y) { h = MatMul(x, w) y = Relu(h) dead = Neg(h) }"
    )
    proto.graph.initializer.append(stored("w", T.FLOAT, (4, 3), True))
    proto.graph.initializer.append(stored("unused", T.INT8, (4,), True))
    proto.producer_name, proto.producer_version = "a", "b"
    proto.domain, proto.model_version, proto.doc_string = "c.d", 9, "model"
    proto.metadata_props.add(key="k", value="v")
    graph = proto.graph
    graph.doc_string = "graph"
    graph.metadata_props.add(key="g", value="v")
    graph.input[0].doc_string = "input"
    graph.input[0].metadata_props.add(key="i", value="v")
    graph.input[0].type.denotation = "IMAGE"
    graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    graph.value_info.append(helper.make_tensor_value_info("h", T.FLOAT, ["N", 3]))
    graph.value_info[0].doc_string = "inner"
    graph.value_info.append(helper.make_tensor_value_info("nothing", T.FLOAT, None))
    graph.quantization_annotation.add(tensor_name="y").quant_parameter_tensor_names.add(
        key="SCALE_TENSOR", value="w"
    )
    node = graph.node[1]
    node.name, node.doc_string = "relu", "node"
    node.metadata_props.add(key="n", value="v")
    graph.initializer[0].doc_string = "weights"
    graph.initializer[0].metadata_props.add(key="t", value="v")
    proto.opset_import.add(domain="custom", version=3)
    step = proto.training_info.add()
    step.algorithm.name = "t"
    step.algorithm.node.add(op_type="Neg", input=["w"], output=["nw"])
    step.update_binding.add(key="w", value="nw")
    return proto


LOSSLESS = {
    "documented": documented,
    "sequences_and_optionals": lambda: text(
        "g (seq(float[2]) s, optional(float[2]) o, int64 i, seq(seq(float)) q) => (float[2] y, "
        "optional(float[2]) o, seq(float[2]) t) "
        "{ y = SequenceAt(s, i) t = SequenceInsert(s, y) }"
    ),
    "map_output": lambda: _map_output(),
    "input_is_output": lambda: text("g (float[2] x) => (float[2] x) { }"),
    "no_output": lambda: text("g (float[2] x) => () { y = Neg(x) }"),
    "unknown_dims": lambda: text("g (float[N,?,3] x, float y, float[] z) => (float o) { o = Size(x) }"),
    "omitted_inputs": lambda: text("g (float[4] x) => (float[4] y, int64[N] i) { y = Clip(x, , ) u, "
                                   ", i = Unique(x) }"),
    "bodies": lambda: text(
        "g (float[2] x, bool c) => (float[2] y) { y = If (c) <then_branch = t () => (float[2] a) "
        "<float[2] k = {1, 2}, float[2] n> { n = Add(x, k) a = Neg(n) }, else_branch = e () => "
        "(float[2] b) { b = Exp(x) }> }"
    ),
    "functions": lambda: text(
        "g (float[2,3] x) => (float[2,3] y) { a = local.f <axis = 0> (x) y = local.f(a) }\n"
        '<domain: "local", opset_import: ["" : 18], doc_string: "f"> f <axis: int = 1> (p) => (q) '
        "{ k = Constant<value = float {2.0}>() m = Mul(p, k) q = Softmax <axis: int = @axis> (m) }",
        imports=', "local" : 1',
    ),
    "ir_3": lambda: _ir_3(),
    "overridable": lambda: _overridable(),
    "sparse": lambda: _sparse(),
    "attributes": lambda: _attributes(),
    "no_standard_operators": lambda: _custom_only(),
    "names_that_collide": lambda: _collision(),
}  # fmt: skip


def _map_output() -> onnx.ModelProto:
    proto = text("g (float[2] x) => (float[2] y) { y = custom.Map(x) }", imports=', "custom" : 1')
    kind = proto.graph.output[0].type.map_type
    kind.key_type = T.INT64
    kind.value_type.tensor_type.elem_type = T.FLOAT
    return proto


def _ir_3() -> onnx.ModelProto:
    proto = text("g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", 8, 3)
    proto.graph.initializer.append(stored("w", T.FLOAT, (2,), True))
    return proto


def _overridable() -> onnx.ModelProto:
    proto = text("g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }")
    proto.graph.initializer.append(stored("w", T.FLOAT, (2,), True))
    return proto


def _sparse() -> onnx.ModelProto:
    proto = text("g (float[3,4] x) => (float[3,4] y) { y = Add(x, w) }")
    sparse = proto.graph.sparse_initializer.add(dims=[3, 4])
    sparse.values.CopyFrom(stored("w", T.FLOAT, (2,), True))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([1, 11]), "i"))
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.add(
        name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR
    ).sparse_tensor.CopyFrom(sparse)
    proto.graph.node.insert(0, node)
    return proto


def _attributes() -> onnx.ModelProto:
    proto = text("g (float[2] x) => (float[2] y) { y = custom.Thing(x) }", imports=', "custom" : 1')
    node = proto.graph.node[0]
    node.overload = "o"
    values: dict[str, object] = {
        "i": 3, "f": 0.1, "s": "text", "raw": b"\xff\x00", "ints": [1, -2], "floats": [0.1, float("nan")],
        "strings": ["a", b"\xfe"], "t": stored("t", T.INT4, (3,), True), "zero": 0, "empty": "",
    }  # fmt: skip
    for name, value in values.items():
        node.attribute.append(helper.make_attribute(name, value, "documented"))
    kinds = onnx.AttributeProto
    for name, kind in (
        ("none", kinds.INTS),
        ("no_text", kinds.STRINGS),
        ("no_graph", kinds.GRAPHS),
        ("no_tensor", kinds.TENSORS),
    ):
        node.attribute.add(name=name, type=kind)
    two = node.attribute.add(name="two", type=kinds.TENSORS)
    two.tensors.extend([stored("a", T.BFLOAT16, (2,), True), stored("b", T.STRING, (1,), False)])
    kind = node.attribute.add(name="kind", type=kinds.TYPE_PROTO)
    kind.tp.CopyFrom(helper.make_tensor_type_proto(T.FLOAT, [1]))
    return proto


def _custom_only() -> onnx.ModelProto:
    proto = text("g (float[2] x) => (float[2] y) { y = custom.Thing(x) }", imports=', "custom" : 1')
    del proto.opset_import[0]
    return proto


def _collision() -> onnx.ModelProto:
    proto = documented()
    for node in proto.graph.node:
        node.name = "h"
    proto.graph.name = "h"
    return proto


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless(kind: str) -> None:
    proto = LOSSLESS[kind]()
    found = rewritten(proto)
    if kind == "ir_3":  # the order of inputs that are initializers is not kept
        assert sorted(i.name for i in found.graph.input) == sorted(
            i.name for i in proto.graph.input
        )
        del found.graph.input[:], proto.graph.input[:]
    for made in (found, proto):  # declarations of nothing come first
        made.graph.value_info.sort(key=lambda info: info.name)
    assert str(found) == str(proto)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_copy_is_independent(kind: str) -> None:
    model = Model.load(LOSSLESS[kind]())
    before = model.to_bytes()
    copied = model.copy()
    assert copied.to_bytes() == before
    ours = {id(t) for t in _tensors(model)}
    assert not ours & {id(t) for t in _tensors(copied)}
    for scope in copied.scopes():
        scope.name = "changed"
        for node in scope.nodes:
            node.name = node.op = "changed"
            node.attrs.clear()
            node.inputs.clear()
    for tensor in _tensors(copied):
        tensor.name = "changed"
    copied.header.producer_name = "changed"
    del copied.header.opset_import[:]
    copied.graph.initializers.clear()
    copied.graph.outputs = []
    assert model.to_bytes() == before


def _tensors(model: Model) -> Iterator[object]:
    for scope in model.scopes():
        yield from itertools.chain(scope.inputs, scope.outputs, scope.initializers)
        for node in scope.nodes:
            yield from itertools.chain(node.inputs, node.outputs)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_loading_leaves_the_message_alone(kind: str) -> None:
    proto = LOSSLESS[kind]()
    before = proto.SerializeToString(deterministic=True)
    Model.load(proto).to_bytes()
    assert proto.SerializeToString(deterministic=True) == before


def split(folder: Path, one: bool) -> Path:
    proto = text(
        "g (float[8,64] x) => (float[8,64] y) { h = MatMul(x, a) i = MatMul(h, b) y = Add(i, c) }"
    )
    for index, (name, shape) in enumerate((("a", (64, 64)), ("b", (64, 64)), ("c", (64,)))):
        values = np.random.default_rng(index).standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    path = folder / "model.onnx"
    onnx.save(
        proto,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=one,
        location="w" if one else None,
        size_threshold=0,
    )
    return path


@pytest.mark.parametrize("one", [True, False], ids=["one_file", "file_each"])
@pytest.mark.parametrize("read", [True, False], ids=["read", "untouched"])
def test_external_data(tmp_path: Path, one: bool, read: bool) -> None:
    source = split(tmp_path, one)
    model = Model.load(source)
    assert model.external
    expected = {t.name: numpy_helper.to_array(t) for t in onnx.load(source).graph.initializer}
    if read:
        for constant in model.constants():
            assert np.array_equal(constant.values, expected[constant.name])
    target = tmp_path / "out" / "out.onnx"
    target.parent.mkdir()
    hashes = {model.save(target), model.save(target)}
    files = {p.name: p.read_bytes() for p in target.parent.iterdir()}
    hashes.add(Model.load(target).save(target))
    assert {p.name: p.read_bytes() for p in target.parent.iterdir()} == files
    assert len(hashes) == 1
    assert len(files) == 2
    saved = onnx.load(target)
    assert {t.name for t in saved.graph.initializer} == set(expected)
    for tensor in saved.graph.initializer:
        assert np.array_equal(numpy_helper.to_array(tensor), expected[tensor.name])
    onnx.checker.check_model(str(target))
    assert Model.load(target).to_bytes() == model.to_bytes()


@pytest.mark.parametrize(
    "kind", ["INT4", "BFLOAT16", "FLOAT8E4M3FN", "STRING", "BOOL", "COMPLEX64"]
)
def test_external_data_of_odd_types(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = T.DataType.Value(kind)
    graph = helper.make_graph(
        [],
        "g",
        [],
        [helper.make_tensor_value_info("w", number, [4001])],
        [stored("w", number, (4001,), False)],
    )
    model = Model.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))
    monkeypatch.setattr(storage, "EMBED_LIMIT", 100)
    with pytest.raises(ResourceError):
        model.to_bytes()
    model.save(tmp_path / "out.onnx")
    assert len(list(tmp_path.iterdir())) == (1 if kind == "STRING" else 2)
    again = Model.load(tmp_path / "out.onnx")
    assert_equal(again.constants()[0].values, model.constants()[0].values)
    onnx.checker.check_model(str(tmp_path / "out.onnx"))


def test_external_data_that_changed(tmp_path: Path) -> None:
    model = Model.load(split(tmp_path, True))
    constant = next(c for c in model.constants() if c.name == "a")
    constant.values = constant.values.T * 2
    model.save(tmp_path / "out.onnx")
    saved = {
        t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "out.onnx").graph.initializer
    }
    assert np.array_equal(saved["a"], constant.values)


# Models drawn at random


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """Graphs of unary and binary operators over inputs, initializers and earlier nodes."""
    names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
    known = draw(st.lists(names, min_size=3, max_size=6, unique=True))
    split_at = draw(st.integers(1, len(known) - 1))
    proto = onnx.ModelProto(ir_version=10)
    proto.opset_import.add(domain="", version=21)
    graph = proto.graph
    graph.name = draw(names)
    for name in known[:split_at]:
        graph.input.append(
            helper.make_tensor_value_info(name, T.FLOAT, draw(st.sampled_from([[2], ["N"], None])))
        )
    for name in known[split_at:]:
        graph.initializer.append(stored(name, T.FLOAT, (2,), draw(st.booleans())))
        if draw(st.booleans()):
            graph.input.append(helper.make_tensor_value_info(name, T.FLOAT, [2]))
    for output in draw(st.lists(names, max_size=8, unique=True)):
        if output in known:
            continue
        op, count = draw(st.sampled_from([("Neg", 1), ("Add", 2), ("Sum", 3), ("Identity", 1)]))
        inputs = [draw(st.sampled_from(known)) for _ in range(count)]
        node = graph.node.add(op_type=op, input=inputs, output=[output])
        if draw(st.booleans()):
            node.name = draw(names)
        if draw(st.booleans()):
            node.metadata_props.add(key=draw(names), value=draw(names))
        if draw(st.booleans()):
            graph.value_info.append(helper.make_tensor_value_info(output, T.FLOAT, [2]))
        known.append(output)
    for output in draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True)):
        graph.output.append(helper.make_tensor_value_info(output, T.FLOAT, None))
        entries = [info for info in graph.value_info if info.name == output]
        for entry in entries:
            graph.value_info.remove(entry)
    return proto


@settings(max_examples=80, deadline=None)
@given(models())
def test_any_graph(proto: onnx.ModelProto) -> None:
    found = rewritten(proto)
    for field in ("node", "initializer", "output", "input", "value_info", "name"):
        ours, theirs = getattr(found.graph, field), getattr(proto.graph, field)
        assert _as_set(ours) == _as_set(theirs), field
    assert list(found.graph.node) == list(proto.graph.node)
    assert [i.name for i in found.graph.input] == [i.name for i in proto.graph.input]
    assert Model.load(proto).copy().to_bytes() == Model.load(proto).to_bytes()


def _as_set(field: object) -> object:
    return field if isinstance(field, str) else sorted(str(entry) for entry in field)  # type: ignore[attr-defined]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 10_000), st.booleans())
def test_damage_is_a_model_error_or_harmless(noise: bytes, place: int, insert: bool) -> None:
    """Bytes that were overwritten or added never raise anything but a ModelError."""
    data = (
        LOSSLESS["functions"]().SerializeToString() + LOSSLESS["bodies"]().graph.SerializeToString()
    )
    place %= len(data)
    damaged = data[:place] + noise + data[place if insert else place + len(noise) :]
    try:
        model = Model.load(damaged)
    except (ModelError, ResourceError):
        return
    model.copy().to_bytes()
    for constant in model.constants():
        try:
            assert constant.values.shape == tuple(constant.shape)
        except ModelError:
            continue


def test_a_declaration_of_an_input_or_output_beside_its_own_is_kept() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { y = Relu (x) }'
    )
    model.graph.value_info.extend([model.graph.input[0], model.graph.output[0]])
    assert Model.load(model).to_proto() == model
