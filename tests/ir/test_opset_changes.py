"""Every change of the standard operators is classified, and every conversion keeps the numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper
from opset_models import EMPTY, IMAGE, F, X, assert_same, feed_of, floats, ints, one

from graphopt.ir import opset_raising
from graphopt.ir.model import Model
from graphopt.ir.opset_changes import CONVERSIONS
from graphopt.ir.opset_raising import NEWEST, REFUSED, WIDENED, objection, raise_opset

OLDEST = 7
Schema = onnx.defs.OpSchema
Step = tuple[str, int]
CACHE = Path(__file__).parents[2] / "benchmarks" / "cache" / "rapidocr-onnxruntime"


def changes() -> Iterator[tuple[Step, Schema, Schema]]:
    """Every change of an operator that a model of an opset from 7 on may meet."""
    histories: dict[str, list[Schema]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            histories.setdefault(schema.name, []).append(schema)
    for name, history in histories.items():
        history.sort(key=lambda schema: schema.since_version)
        for old, new in itertools.pairwise(history):
            if OLDEST < new.since_version <= NEWEST:
                yield (name, new.since_version), old, new


CHANGES = {step: (old, new) for step, old, new in changes()}
LISTED = {(op, version) for version, ops in WIDENED.items() for op in ops.split()}


def only_widens(old: Schema, new: Schema) -> bool:
    """Whether all that the old schema admits means something in the new one, by form alone."""
    kept = all(
        name in new.attributes and kept_attribute(attribute, new.attributes[name])
        for name, attribute in old.attributes.items()
    )
    added = [new.attributes[name] for name in new.attributes.keys() - old.attributes.keys()]
    return (
        not new.deprecated
        and kept
        and not any(attribute.required for attribute in added)
        and kept_parameters(old, new, "inputs")
        and kept_parameters(old, new, "outputs")
    )


def kept_attribute(old: Schema.Attribute, new: Schema.Attribute) -> bool:
    same = old.type == new.type and default(old) == default(new)
    return same and (old.required or not new.required)


def default(attribute: Schema.Attribute) -> object:
    held = attribute.default_value
    return helper.get_attribute_value(held) if held.name else None


def kept_parameters(old: Schema, new: Schema, field: str) -> bool:
    before, after = getattr(old, field), getattr(new, field)
    optional = Schema.FormalParameterOption.Optional
    if len(before) > len(after) or any(entry.option != optional for entry in after[len(before) :]):
        return False
    pairs = zip(before, after, strict=False)
    return all(
        a.option in (b.option, optional) and types(old, b) <= types(new, a) for b, a in pairs
    )


def types(schema: Schema, parameter: Schema.FormalParameter) -> set[str]:
    named = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    return named.get(parameter.type_str, {parameter.type_str})


def test_every_change_is_in_one_table() -> None:
    tables = [LISTED, set(CONVERSIONS), set(REFUSED)]
    unlisted = CHANGES.keys() - set().union(*tables)
    assert not unlisted, "review what changed and list it"
    assert len(CHANGES) == sum(map(len, tables)), "a change stands in two tables, or is none"


def test_what_is_listed_as_a_widening_is_one() -> None:
    assert not {step for step in LISTED if not only_widens(*CHANGES[step])}


def test_conversions_of_what_seems_a_widening() -> None:
    """Their forms agree, but not what they mean; the texts say so."""
    same_form = {step for step in CONVERSIONS if only_widens(*CHANGES[step])}
    steps = {("GroupNormalization", 21), ("Resize", 13), ("RoiAlign", 16), ("Split", 18)}
    assert same_form == steps


def test_a_change_in_no_table_is_refused(monkeypatch) -> None:
    monkeypatch.setitem(opset_raising._WIDENED, 14, frozenset())
    model = Model.load(one("Relu", 13, [floats(2)]))
    assert objection(model, 14) == (
        "Relu 'Relu→o0' cannot be raised: how it changed in opset 14 is not known"
    )


WILD = np.array([[np.nan, np.inf, -np.inf], [-2, 0.25, 7]], F)
TIES = np.round(floats(3, 9) * 2)
BOXES = np.array([[0, 0, 9, 9], [1.3, 2.1, 7.7, 8.8], [-1, -2, 3, 4]], F)
REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]

CASES: list[tuple[str, int, list[np.ndarray | None], dict[str, object]]] = [
    *(
        (op, 7, [X], {} if axis is None else {"axis": axis})
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for axis in (None, 0, 1, 2, 3)
    ),
    *(("Softmax", 11, [X], {"axis": axis}) for axis in (-1, -2, -4)),
    ("Softmax", 11, [floats(2, 3, 1, 1)], {"axis": 1}),
    ("Softmax", 11, [floats(2, 1, 3, 1)], {"axis": 1}),
    ("Softmax", 11, [floats(2, 1, 1)], {"axis": 1}),
    *(
        (f"Reduce{what}", 7, [np.abs(X)], attrs)
        for what in REDUCTIONS
        for attrs in ({}, {"axes": [1]}, {"axes": [0, 2], "keepdims": 0}, {"axes": []})
    ),
    *(("Squeeze", 7, [floats(1, 3, 1)], a) for a in ({}, {"axes": [0]}, {"axes": [0, 2]})),
    *(("Unsqueeze", 7, [floats(2, 3)], {"axes": axes}) for axes in ([0], [3, 1], [])),
    ("Squeeze", 11, [floats(1, 3, 1)], {"axes": [-1, 0]}),
    ("Unsqueeze", 11, [floats(2, 3)], {"axes": [-1]}),
    ("Split", 7, [floats(6, 4)], {"outputs": 3}),
    ("Split", 7, [floats(6, 4)], {"outputs": 2, "axis": 1, "split": [1, 3]}),
    ("Split", 13, [floats(6, 4), ints(1, 3)], {"outputs": 2, "axis": 1, "fixed": [1]}),
    ("Slice", 7, [floats(6, 4)], {"starts": [1, -3], "ends": [100, -1]}),
    ("Slice", 7, [floats(6, 4)], {"starts": [-100], "ends": [2**63 - 1], "axes": [1]}),
    ("Slice", 7, [floats(6, 4)], {"starts": [], "ends": []}),
    ("TopK", 7, [TIES], {"outputs": 2, "k": 4}),
    ("TopK", 10, [TIES.T, ints(2)], {"outputs": 2, "axis": 0}),
    *(
        ("Pad", 7, [floats(3, 5)], {"pads": [1, 0, 0, 2], "mode": mode, "value": 1.5})
        for mode in ("constant", "reflect", "edge")
    ),
    ("Pad", 7, [floats(3, 5)], {"pads": [-1, 0, 0, -2]}),
    *(
        ("Clip", 6 + version, [WILD], attrs)
        for version in (1, 4)
        for attrs in ({}, {"min": -0.5}, {"max": 0.5}, {"min": 0.0, "max": 6.0})
    ),
    ("Dropout", 7, [X], {"ratio": 0.3}),
    ("Dropout", 7, [X], {"ratio": 0.3, "outputs": 1}),
    ("Dropout", 10, [X], {}),
    ("Scatter", 9, [floats(4, 4), np.array([[0, 3], [1, 2]]), floats(2, 2)], {"axis": 1}),
    (
        "BatchNormalization",
        7,
        [X, *(floats(3, seed=s) for s in (1, 2, 3)), np.abs(floats(3))],
        {"epsilon": 1e-3},
    ),
    *(
        ("RoiAlign", 10, [floats(1, 2, 9, 9), BOXES, ints(0, 0, 0)], {"mode": mode, **size})
        for mode in ("avg", "max")
        for size in ({}, {"output_height": 3, "output_width": 2, "sampling_ratio": 2})
    ),
    *(
        ("GridSample", 16, [floats(1, 2, 5, 6), floats(1, 4, 3, 2)], attrs)
        for attrs in ({}, {"mode": "bilinear"}, {"mode": "nearest"}, {"mode": "bicubic"})
    ),
    ("DFT", 17, [floats(2, 8, 5, 1)], {}),
    ("DFT", 17, [floats(2, 8, 5, 1)], {"axis": 2, "onesided": 1}),
    ("DFT", 17, [floats(2, 8, 5, 2), np.array(6)], {"axis": 1, "inverse": 1}),
    ("GroupNormalization", 18, [floats(2, 6, 4), floats(3), floats(3)], {"num_groups": 3}),
    ("Erf", 9, [X], {}),
    *(
        ("Upsample", 7, [floats(1, 2, 5, 6)], {"mode": mode, "scales": scales})
        for mode in ("nearest", "linear")
        for scales in ([1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 1.5, 2.3])
    ),
    *(
        ("Upsample", 9, [floats(1, 2, 5, 6), np.array([1, 1, 1.7, 3], F)], {"mode": mode, **fixed})
        for mode in ("nearest", "linear")
        for fixed in ({}, {"fixed": [1]})
    ),
    *(
        ("Resize", 10, [floats(1, 2, 9, 7), np.array(s, F)], {"mode": mode, "fixed": [1]})
        for mode in ("nearest", "linear")
        for s in ([1, 1, 2, 2], [1, 1, 1.5, 2.3], [1, 1, 0.37, 0.77], [1, 1, 1, 0.4])
    ),
    ("Resize", 10, [floats(1, 2, 9, 7), np.array([1, 1, 2, 0.5], F)], {"mode": "linear"}),
    *(
        ("Resize", 11, [floats(1, 2, 9, 7), EMPTY, EMPTY, ints(1, 2, *size)], {**how, "fixed": [2]})
        for size in ((18, 20), (5, 3), (13, 4))
        for how in (
            {"mode": "nearest"},
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
            {"mode": "cubic", "coordinate_transformation_mode": "pytorch_half_pixel"},
            {
                "mode": "nearest",
                "coordinate_transformation_mode": "tf_half_pixel_for_nn",
                "nearest_mode": "floor",
            },
        )
    ),
    (
        "Resize",
        11,
        [
            floats(1, 1, 9, 7),
            np.array([0, 0, 0.1, 0.2, 1, 1, 0.8, 0.9], F),
            np.array([1, 1, 2, 1.3], F),
        ],
        {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"},
    ),
]


def label(case: tuple[str, int, list[np.ndarray | None], dict[str, object]]) -> str:
    return "-".join([case[0], str(case[1]), *(f"{k}={v}" for k, v in case[3].items())])


RUNNABLE = {"RoiAlign": 21}
"""The newest version of an operator that the runtime has, where it lags behind."""


def targets(op: str, opset: int) -> list[int]:
    """The versions that change an operator, some others, and the newest."""
    newest = RUNNABLE.get(op, NEWEST)
    steps = {version for name, version in CHANGES if name == op} | {13, 17, 21, newest}
    return sorted(version for version in steps if opset < version <= newest)


@pytest.mark.parametrize("case", CASES, ids=label)
def test_numbers_stay(case) -> None:
    op, opset, inputs, attrs = case
    feed = feed_of(inputs, attrs.get("fixed", ()))
    for to in targets(op, opset):
        assert_same(one(op, opset, inputs, **attrs), feed, to)


@pytest.mark.parametrize("case", CASES, ids=label)
def test_numbers_stay_in_a_body(case) -> None:
    op, opset, inputs, attrs = case
    feed = feed_of(inputs, attrs.get("fixed", ()))
    feed["yes"] = np.array(True)
    to = targets(op, opset)[-1]
    assert_same(one(op, opset, inputs, in_body=True, **attrs), feed, to)


def test_every_conversion_has_a_case() -> None:
    met = {(op, v) for op, opset, *_ in CASES for v in targets(op, opset)}
    renamed = {("Resize", 11), ("Resize", 13)}
    assert CONVERSIONS.keys() <= met | renamed


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_flattened_axes_of_unknown_sizes(op, axis) -> None:
    for to in (13, 14, NEWEST):
        model = assert_same(one(op, 11, [X], free=True, axis=axis), {"i0": X}, to)
        assert {n.op for n in model.nodes()} == (
            {op} if axis == 3 else {op, "Shape", "Flatten", "Reshape"}
        )


def test_a_single_long_axis_needs_no_reshaping() -> None:
    for shape, axis in (((2, 3, 1, 1), 1), ((2, 1, 3, 1), 1), ((2, 3), 0 + 1), ((4, 1), 0)):
        model = Model.load(one("Softmax", 11, [floats(*shape)], axis=axis))
        raise_opset(model, 13)
        assert [n.op for n in model.nodes()] == ["Softmax"]


def test_every_pixel_of_the_lost_coordinates() -> None:
    how = {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"}
    for old, new in itertools.product((1, 2, 3, 7, 24, 97), (1, 2, 5, 13, 64, 100, 331)):
        x = np.arange(old, dtype=F).reshape(1, 1, 1, old)
        proto = one("Resize", 11, [x, EMPTY, EMPTY, ints(1, 1, 1, new)], fixed=[1, 2, 3], **how)
        assert_same(proto, {"i0": x}, 13)


POOLS = [
    {"kernel_shape": k, "strides": s, "pads": p, "ceil_mode": c}
    for k, s, p, c in itertools.product(
        ([2, 2], [3, 3]), ([2, 2], [3, 2]), ([0, 0, 0, 0], [1, 1, 1, 1]), (0, 1)
    )
] + [
    {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": pad}
    for pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
]
ROUNDING = 1e-6
"""The runtime adds up the windows of an AveragePool in another order from opset 19 on."""


@pytest.mark.parametrize("attrs", POOLS, ids=str)
def test_pooling(attrs) -> None:
    assert_same(one("MaxPool", 10, [IMAGE], outputs=2, **attrs), {"i0": IMAGE}, NEWEST)
    for counted in (0, 1):
        proto = one("AveragePool", 10, [IMAGE], count_include_pad=counted, **attrs)
        assert_same(proto, {"i0": IMAGE}, 18)
        assert_same(proto, {"i0": IMAGE}, NEWEST, ROUNDING)
    old = {name: value for name, value in attrs.items() if name != "ceil_mode"}
    if not attrs.get("ceil_mode"):
        assert_same(one("LpPool", 7, [IMAGE], **old), {"i0": IMAGE}, NEWEST)


SEQUENCE = floats(5, 2, 3)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}

KEPT: list[tuple[str, int, list[np.ndarray | None], dict[str, object]]] = [
    *(
        (op, 7, [IMAGE, floats(*shape)], {"strides": [2, 2], **attrs})
        for op, shape in (("Conv", (4, 2, 3, 2)), ("ConvTranspose", (2, 4, 3, 2)))
        for attrs in ({}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"})
    ),
    (
        "ConvTranspose",
        7,
        [IMAGE, floats(2, 4, 3, 3)],
        {"strides": [2, 2], "output_shape": [14, 16]},
    ),
    *(
        (op, 7, [SEQUENCE, floats(2, 4 * n, 3), floats(2, 4 * n, 4)], attrs)
        for op, n in GATES.items()
        for attrs in [{"hidden_size": 4, "direction": "bidirectional", "outputs": 2}]
    ),
    ("OneHot", 9, [ints(0, -1, 3, 5, -7, 2), ints(4), np.array([0, 1], F)], {}),
    ("Gather", 7, [X, np.array([[0, 2], [1, 1]])], {"axis": 1}),
    ("Gemm", 7, [floats(2, 3), floats(4, 3), floats(4)], {"transB": 1, "alpha": 0.5}),
    ("ArgMax", 7, [TIES], {"axis": 1}),
    ("MeanVarianceNormalization", 9, [X], {}),
    ("DepthToSpace", 7, [floats(1, 8, 2, 3)], {"blocksize": 2}),
    ("Cast", 7, [WILD[1]], {"to": int(T.INT32)}),
    ("Pow", 7, [np.abs(X), X], {}),
    ("Mod", 10, [floats(9), floats(9, seed=1)], {"fmod": 1}),
    ("Shape", 7, [X], {}),
    ("Reshape", 7, [X, ints(0, -1)], {}),
    ("Flatten", 7, [X], {"axis": 2}),
    ("QuantizeLinear", 10, [X, np.array(0.1, F), np.array(7, np.uint8)], {}),
    ("DequantizeLinear", 10, [ints(*range(9)).astype(np.uint8), np.array(0.1, F)], {}),
    (
        "NonMaxSuppression",
        10,
        [np.abs(floats(1, 20, 4)), np.abs(floats(1, 2, 20)), ints(5), np.array([0.4], F)],
        {},
    ),
    ("LRN", 7, [IMAGE], {"size": 3}),
    ("InstanceNormalization", 7, [X, floats(3), floats(3)], {}),
]


@pytest.mark.parametrize("case", KEPT, ids=label)
def test_widenings_keep_numbers(case) -> None:
    op, opset, inputs, attrs = case
    proto = one(op, opset, inputs, **attrs)
    model = assert_same(proto, feed_of(inputs, ()), NEWEST)
    before, after = Model.load(proto).graph.nodes, model.graph.nodes
    assert [(n.op, n.attrs) for n in before] == [(n.op, n.attrs) for n in after]


@pytest.mark.parametrize("to", [13, 17, 21])
@pytest.mark.parametrize(
    ("file", "height"),
    [
        ("ch_PP-OCRv4_det_infer.onnx", 64),
        ("ch_PP-OCRv4_rec_infer.onnx", 48),
        ("ch_ppocr_mobile_v2.0_cls_infer.onnx", 48),
    ],
)
def test_models_in_use(file, height, to) -> None:
    path = CACHE / file
    if not path.exists():
        pytest.skip("the benchmark models are not on this machine")
    proto = onnx.load(path)
    feed = {proto.graph.input[0].name: floats(1, 3, height, 64)}
    assert_same(proto, feed, to, ROUNDING if to > 18 else 0)
