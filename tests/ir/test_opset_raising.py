"""Raising a whole model: what is refused, what is kept, bodies, functions and versions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, parser
from opset_models import EMPTY, IMAGE, F, X, assert_same, feed_of, floats, info, ints, one

from graphopt.ir.graph import Variable
from graphopt.ir.model import Model
from graphopt.ir.opset_raising import NEWEST, OpsetError, objection, raise_opset
from graphopt.ir.text import canonical

HALF = 2.0**-9
"""Runtimes without half precision round to it where they please."""

REFUSALS = {
    "mask": (one("Dropout", 7, [X], outputs=2), "the mask"),
    "mask of opset 10": (one("Dropout", 10, [X], outputs=2), "the mask"),
    "statistics of elements": (
        one("BatchNormalization", 7, [X, *[floats(3, 4, 5)] * 4], spatial=0),
        "spatial=0",
    ),
    "training": (
        one("BatchNormalization", 9, [X, *[floats(3)] * 4], outputs=3),
        "as in training",
    ),
    "unknown scales": (one("Resize", 10, [IMAGE, np.ones(4, F)]), "scales are not known"),
    "mixed scales": (
        one("Resize", 10, [IMAGE, np.array([1, 1, 2, 0.5], F)], fixed=[1]),
        "both sides of 1",
    ),
    "lost coordinates": (
        one(
            "Resize",
            11,
            [IMAGE, EMPTY, np.ones(4, F)],
            mode="linear",
            coordinate_transformation_mode="tf_half_pixel_for_nn",
        ),
        "no coordinates 'tf_half_pixel_for_nn'",
    ),
    "integers": (one("Erf", 9, [ints(1, 2)]), "no Erf of integers"),
    "batched Scan": (
        one("Scan", 8, [None, X], body=helper.make_graph([], "g", [], []), num_scan_inputs=1),
        "batches of sequences",
    ),
    "empty axes": (one("Squeeze", 11, [floats(1, 2)], axes=[]), "empty list of axes"),
    "old broadcasting": (one("Add", 6, [X, X], axis=0), "changed in opset 7 is not known"),
    "not an operator": (one("Quux", 11, [X]), "opset 11 has no such operator"),
    "newer than the model": (one("GroupNormalization", 17, [X, X, X]), "no such operator"),
    "unknown channels": (
        one("GroupNormalization", 18, [X, floats(3), floats(3)], free=True, num_groups=3),
        "channels is not proven",
    ),
    "no groups": (
        one("GroupNormalization", 18, [X, floats(3), floats(3)], num_groups=0),
        "channels is not proven",
    ),
    "no k": (one("TopK", 7, [X], outputs=2), "lacks the attribute 'k'"),
    "no scales": (one("Upsample", 9, [X]), "lacks an input"),
    "axis of text": (one("Softmax", 11, [X], axis="one"), "'axis' is of another type"),
    "axes of one": (one("ReduceSum", 11, [X], axes=1), "'axes' is of another type"),
    "axes of floats": (one("Squeeze", 11, [X], axes=[0.5]), "'axes' is of another type"),
    "scales of text": (
        one("Resize", 10, [IMAGE, np.array(["a"], object)], fixed=[1]),
        "scales are not known",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name) -> None:
    proto, why = REFUSALS[name]
    earlier = helper.make_node("ReduceMax", ["first"], ["other"], axes=[0])
    proto.graph.input.append(info("first", X))
    proto.graph.node.insert(0, earlier)  # could be raised, and stands before what cannot
    model = Model.load(proto)
    before = model.to_bytes()
    nodes = list(model.graph.nodes)
    found = objection(model, NEWEST)
    assert why in found and "\n" not in found
    assert found.startswith(f"{nodes[1].op} '{nodes[1].op}→o0' cannot be raised: ")
    with pytest.raises(OpsetError, match=found[:20]) as caught:
        raise_opset(model, NEWEST)
    assert str(caught.value) == found
    assert model.to_bytes() == before
    assert model.graph.nodes == nodes


def test_an_unused_mask_is_dropped() -> None:
    model = assert_same(one("Dropout", 7, [X]), {"i0": X}, NEWEST)
    proto = one("Dropout", 7, [X])
    proto.graph.node[0].output.append("mask")
    raised = assert_same(proto, {"i0": X}, NEWEST)
    assert canonical(raised) == canonical(model)


def test_omitted_statistics_are_dropped() -> None:
    proto = one("BatchNormalization", 9, [X, *[floats(3)] * 4])
    proto.graph.node[0].output.extend([""] * 4)
    model = Model.load(proto)
    raise_opset(model, NEWEST)
    assert [t.name for t in model.graph.nodes[0].outputs] == ["o0"]


def test_bounds_of_an_unknown_type() -> None:
    proto = one("Clip", 7, [X], min=0.0)
    proto.graph.node[0].input[0] = "mystery"
    proto.graph.node.insert(0, helper.make_node("Mystery", ["i0"], ["mystery"], domain="here"))
    proto.opset_import.append(helper.make_opsetid("here", 1))
    assert "element type of its input 0 is not proven" in objection(Model.load(proto), 11)


WIDEST = float(np.finfo(F).max)


@pytest.mark.parametrize(
    ("dtype", "given", "bounds"),
    [
        (np.float16, {"min": -1.0}, (-1, np.inf)),
        (np.float16, {"max": 1.0}, (-np.inf, 1)),
        (np.float64, {"min": -1.0}, (-1, WIDEST)),
        (np.float64, {"max": 1.0}, (-WIDEST, 1)),
    ],
)
def test_bounds_take_the_type_of_the_input(dtype, given, bounds) -> None:
    model = Model.load(one("Clip", 7, [X.astype(dtype)], **given))
    raise_opset(model, 13)
    low, high = (t.values for t in model.graph.nodes[0].inputs[1:])
    assert (low.dtype, high.dtype, low, high) == (dtype, dtype, *bounds)


def test_group_normalization_keeps_its_precision() -> None:
    inputs = [v.astype(np.float16) for v in (floats(2, 6, 4), floats(3), floats(3))]
    proto = one("GroupNormalization", 18, inputs, num_groups=3)
    model = assert_same(proto, feed_of(inputs, ()), 21, HALF)
    assert next(n for n in model.nodes() if n.op == "GroupNormalization").attrs["stash_type"] == 10


def test_names_numbers_and_messages_stay() -> None:
    proto = one("Softmax", 11, [X], axis=1)
    proto.graph.node[0].name = "probabilities"
    proto.graph.node[0].doc_string = "told"
    model = Model.load(proto)
    (node,) = model.graph.nodes
    uid = node.uid
    raise_opset(model, 13)
    assert (node.name, node.uid, node.dead) == ("probabilities", uid, False)
    assert [n.op for n in model.graph.nodes] == ["Flatten", "Softmax", "Reshape"]
    assert model.graph.outputs[0].name == "o0"
    assert model.to_proto().graph.node[1].doc_string == "told"
    assert Model.load(model.to_bytes()).to_bytes() == model.to_bytes()


def test_copies_are_independent() -> None:
    proto = with_function(11, 11)
    model = Model.load(proto)
    before, copy = model.to_bytes(), model.copy()
    raise_opset(copy, 17)
    assert model.to_bytes() == before
    raised, again = copy.to_bytes(), copy.copy()
    raise_opset(copy, 21)
    assert again.to_bytes() == raised


@pytest.mark.parametrize(("to", "ir"), [(11, 6), (13, 7), (17, 8), (19, 9), (21, 10), (23, 11)])
def test_ir_version_follows(to, ir) -> None:
    model = Model.load(one("Relu", 7, [X]))
    raise_opset(model, to)
    assert model.header.ir_version == ir
    newer = one("Relu", 7, [X])
    newer.ir_version = 12
    model = Model.load(newer)
    raise_opset(model, to)
    assert model.header.ir_version == 12


def test_initializers_that_had_to_be_inputs() -> None:
    proto = one("Upsample", 9, [IMAGE, np.array([1, 1, 2, 2], F)], fixed=[1])
    proto.ir_version = 3
    proto.graph.input.append(info("i1", np.ones(4, F)))
    model = assert_same(proto, {"i0": IMAGE}, 21)
    assert [entry.name for entry in model.to_proto().graph.input] == ["i0"]


def test_never_lowered() -> None:
    proto = one("Relu", 17, [X])
    proto.ir_version = 7
    model = Model.load(proto)
    before = model.to_bytes()
    for to in (0, 13, 17):
        assert objection(model, to) == ""
        raise_opset(model, to)
        assert model.to_bytes() == before


def test_never_beyond_what_is_known() -> None:
    said = objection(Model.load(one("Relu", 17, [X])), NEWEST + 1)
    assert said == f"models can be raised to opset {NEWEST} at most, not to {NEWEST + 1}"


def test_both_names_of_the_standard() -> None:
    proto = one("Squeeze", 11, [floats(1, 3)], axes=[0])
    proto.graph.node[0].domain = "ai.onnx"
    proto.opset_import[0].domain = "ai.onnx"
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    model = Model.load(proto)
    raise_opset(model, 13)
    assert {e.domain: e.version for e in model.to_proto().opset_import} == {
        "ai.onnx": 13,
        "ai.onnx.ml": 2,
    }
    assert len(model.graph.nodes[0].inputs) == 2


def test_a_model_without_standard_operators() -> None:
    proto = one("Mystery", 11, [X])
    proto.graph.node[0].domain = "here"
    proto.opset_import[0].domain = "here"
    model = Model.load(proto)
    raise_opset(model, 13)
    assert {e.domain: e.version for e in model.to_proto().opset_import} == {"here": 11, "": 13}


def test_training_information_is_refused() -> None:
    proto = one("Relu", 11, [X])
    proto.training_info.add().algorithm.node.append(helper.make_node("Relu", ["a"], ["b"]))
    assert "training information" in objection(Model.load(proto), 13)


def with_function(
    opset: int, own: int, body: str = "y = Softmax <axis = 1> (x)"
) -> onnx.ModelProto:
    """A model that calls a local function, which imports its own version."""
    return parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}, "local" : 1]>
        g (float[2,3,4] i0) => (float[2,3,4] o0) {{ r = Relu (i0) o0 = local.f (r) }}
        <domain: "local", opset_import: ["" : {own}]> f (x) => (y) {{ {body} }}"""
    )


@pytest.mark.parametrize(("opset", "own", "to"), [(11, 11, 13), (12, 11, 17), (11, 11, 21)])
def test_functions(opset, own, to) -> None:
    x = floats(2, 3, 4)
    model = assert_same(with_function(opset, own), {"i0": x}, to)
    (function,) = model.functions
    assert function.opset == to
    assert [n.op for n in function.nodes] == ["Shape", "Flatten", "Softmax", "Reshape"]
    assert [e.version for e in model.to_proto().functions[0].opset_import] == [to]


def test_a_function_that_is_older_than_the_model() -> None:
    model = Model.load(with_function(13, 11))
    raise_opset(model, 13)
    assert [n.op for n in model.functions[0].nodes] == ["Shape", "Flatten", "Softmax", "Reshape"]
    assert model.header.ir_version == 8


def test_a_function_that_is_newer_stays() -> None:
    model = Model.load(with_function(11, 17))
    raise_opset(model, 13)
    assert model.functions[0].opset == 17
    assert [n.attrs["axis"] for n in model.functions[0].nodes] == [1]


def test_an_attribute_of_the_caller() -> None:
    proto = with_function(11, 11)
    attribute = proto.functions[0].node[0].attribute[0]
    attribute.CopyFrom(onnx.AttributeProto(name="axis", ref_attr_name="a", type=attribute.type))
    proto.functions[0].attribute.append("a")
    assert "'axis' is decided by the caller" in objection(Model.load(proto), 13)


def test_what_a_local_function_redefines() -> None:
    proto = with_function(11, 11, "y = Identity (x)")
    proto.functions[0].domain = ""
    proto.functions[0].name = "Softmax"
    proto.graph.node[1].domain, proto.graph.node[1].op_type = "", "Softmax"
    model = Model.load(proto)
    raise_opset(model, 13)  # no Softmax of the standard
    assert [n.op for n in model.graph.nodes] == ["Relu", "Softmax"]
    proto.functions[0].name = "Flatten"
    proto.graph.node[1].attribute.append(helper.make_attribute("axis", 0))
    assert "becomes Flatten, which a local function" in objection(Model.load(proto), 13)


def test_empty_inputs_are_left_out() -> None:
    inputs = [IMAGE, EMPTY, EMPTY, ints(1, 2, 14, 16)]
    for opset, names in ((11, ["i0", "i1", "i2", "i3"]), (13, ["i0", "", "", "i3"])):
        model = Model.load(one("Resize", 11, inputs, fixed=[1, 2, 3]))
        raise_opset(model, opset)
        assert [t.name for t in model.graph.nodes[0].inputs] == names


def test_omitted_inputs_stay_omitted() -> None:
    model = Model.load(one("DFT", 17, [floats(2, 8, 1)]))
    raise_opset(model, 20)
    (node,) = model.graph.nodes
    assert [t.name for t in node.inputs] == ["i0", "", "axis"]
    assert type(node.inputs[1]) is Variable


def test_a_cycle_is_refused() -> None:
    proto = one("ReduceSum", 11, [X], axes=[0])
    proto.graph.node.append(helper.make_node("Neg", ["a"], ["b"]))
    proto.graph.node.append(helper.make_node("Neg", ["b"], ["a"]))
    model = Model.load(proto)
    before = model.to_bytes()
    assert objection(model, 13) == "the model cannot be raised: the graph has a cycle"
    assert model.to_bytes() == before
