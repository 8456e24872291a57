"""What can run on integers, and why other nodes cannot."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import helper, parser
from qdq_models import build, refusals_of, units_of

from graphopt.ir.model import Model
from graphopt.passes.quantization._qdq.targets import LINEAR, TARGETS
from graphopt.passes.quantization._qdq.units import Unit, bounds, quantized_tensors

IMAGE = "float[1,8,8,8] x"
ROWS = "float[4,16] x"

CONV = (f"{IMAGE}, float[8,8,3,3] w, float[8] b", "float[1,8,6,6] y")


def only(*model: str, target: str = "ort-cpu", **given: object) -> Unit:
    """The one unit of a model."""
    (unit,) = units_of(build(*model, **given), TARGETS[target])
    return unit


def refusal(*model: str, **given: object) -> str:
    """Why the one node that somebody would expect to be a unit is none."""
    built = build(*model, **given)
    (why,) = refusals_of(built).values()
    return why


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ((*CONV, "y = Conv(x, w, b)", "w b"), ("linear", (0,), 1, 2, 0)),
        ((*CONV, "y = Conv(x, w)", "w b"), ("linear", (0,), 1, None, 0)),
        (
            (f"{ROWS}, float[16,8] w, float[8] b", "float[4,8] y", "y = Gemm(x, w, b)", "w b"),
            ("linear", (0,), 1, 2, 1),
        ),
        (
            (f"{ROWS}, float[8,16] w", "float[4,8] y", "y = Gemm<transB = 1>(x, w)", "w"),
            ("linear", (0,), 1, None, 0),
        ),
        (
            (f"{ROWS}, float[16,8] w", "float[4,8] y", "y = MatMul(x, w)", "w"),
            ("linear", (0,), 1, None, 1),
        ),
        (
            (f"{ROWS}, float[8,4] w", "float[8,16] y", "y = MatMul(w, x)", "w"),
            ("linear", (1,), 0, None, None),
        ),
        (
            ("float[2,4,16] x, float[2,16,8] w", "float[2,4,8] y", "y = MatMul(x, w)", "w"),
            ("linear", (0,), 1, None, None),
        ),
        (
            (f"{ROWS}, float[16] w", "float[4] y", "y = MatMul(x, w)", "w"),
            ("linear", (0,), 1, None, None),
        ),
    ],
)
def test_what_is_multiplied_by_weights(model: tuple[str, ...], found: tuple[object, ...]) -> None:
    unit = only(*model)
    assert (unit.kind, unit.reads, unit.weight, unit.bias, unit.channel_axis()) == found


def test_a_product_of_activations_has_no_weights() -> None:
    unit = only(f"{ROWS}, float[16,8] z", "float[4,8] y", "y = MatMul(x, z)")
    assert (unit.kind, unit.reads, unit.weight, unit.bias) == ("linear", (0, 1), None, None)
    assert [tensor.name for tensor in unit.inputs] == ["x", "z"]
    same = only("float[4,4] x", "float[4,4] y", "y = MatMul(x, x)")
    assert [tensor.name for tensor in same.inputs] == ["x"]


@pytest.mark.parametrize(("group", "shape", "axis"), [(1, "8,6,3,3", 1), (2, "8,3,3,3", None)])
def test_transposed_convolutions_are_of_those_targets_that_have_a_kernel(
    group: int, shape: str, axis: int | None
) -> None:
    body = f"y = ConvTranspose<group = {group}>(x, w)"
    model = build(f"{IMAGE}, float[{shape}] w", "float[1,6,10,10] y", body, "w")
    assert units_of(model, TARGETS["ort-cpu"]) == []
    for name in ("tensorrt", "openvino", "qnn"):
        (unit,) = units_of(model, TARGETS[name])
        assert (unit.kind, unit.weight, unit.channel_axis()) == ("linear", 1, axis)


KINDS = [
    ("y = Add(x, z)", "arithmetic", (0, 1)),
    ("y = Add(x, x)", "arithmetic", (0, 1)),
    ("y = Add(c, x)", "arithmetic", (1,)),
    ("y = Mul(x, z)", "arithmetic", (0, 1)),
    ("y = Mul(x, c)", "arithmetic", (0,)),
    ("y = Concat<axis = 1>(x, z, x)", "arithmetic", (0, 1, 2)),
    ("y = Sigmoid(x)", "arithmetic", (0,)),
    ("y = LeakyRelu<alpha = 0.1>(x)", "arithmetic", (0,)),
    ("y = AveragePool<kernel_shape = [2,2]>(x)", "arithmetic", (0,)),
    ("y = GlobalAveragePool(x)", "arithmetic", (0,)),
    ("y = MaxPool<kernel_shape = [2,2]>(x)", "movement", (0,)),
    ("y = Reshape(x, s)", "movement", (0,)),
    ("y = Transpose<perm = [0,2,3,1]>(x)", "movement", (0,)),
    ("y = Flatten(x)", "movement", (0,)),
    ("y = Gather<axis = 1>(x, i)", "movement", (0,)),
    ('y = Resize<mode = "nearest">(x, , r)', "movement", (0,)),
    ("y = Slice(x, i, s2)", "movement", (0,)),
    ("y = Squeeze(x, zero)", "movement", (0,)),
    ("y = Unsqueeze(x, zero)", "movement", (0,)),
    ("y = Expand(x, e)", "movement", (0,)),
]


def body_of(body: str) -> Model:
    constants = {
        "c": 0.5, "s": [1, 512], "i": [0], "s2": [1], "r": [1, 1, 2, 2], "zero": [0], "e": [2, 8, 8, 8]
    }  # fmt: skip
    inputs = (
        f"{IMAGE}, float[1,8,8,8] z, float[8,1,1] c, int64[2] s, int64[1] i, int64[1] s2, "
        "float[4] r, int64[1] zero, int64[4] e"
    )
    return build(inputs, "float y", body, **constants)


@pytest.mark.parametrize(("body", "kind", "reads"), KINDS)
def test_what_else_runs_on_integers(body: str, kind: str, reads: tuple[int, ...]) -> None:
    model = body_of(body)
    for target in TARGETS.values():
        found = units_of(model, target)
        if not (target.arithmetic if kind == "arithmetic" else target.movement):
            assert found == []
            continue
        (unit,) = found
        assert (unit.kind, unit.reads, unit.weight, unit.bias) == (kind, reads, None, None)
        assert not unit.gives_floats


@pytest.mark.parametrize(
    "body",
    [
        "y = Tanh(x)",
        "y = Relu(x)",
        "y = Concat<axis = 1>(x, c4)",
        "y = Mul(x, x)",
        'y = Resize<mode = "linear">(x, , r)',
        "y = Cast<to = 1>(k)",
        "y = Add(c4, c4)",
        "y = MaxPool<kernel_shape = [2,2]>(k)",
        "h, n = Split<axis = 1, num_outputs = 2>(x) y = Neg(h)",
        "y, n = MaxPool<kernel_shape = [2,2]>(x)",
    ],
)
def test_what_nobody_expects_to_is_passed_over_in_silence(body: str) -> None:
    inputs = f"{IMAGE}, float[1,8,8,8] c4, uint8[1,8,8,8] k, float[4] r"
    model = build(inputs, "float y", body, "c4", r=[1, 1, 2, 2], opset=18)
    assert units_of(model) == []
    assert refusals_of(model) == {}


def test_a_product_of_weights_only_is_no_unit() -> None:
    model = build("float[4,16] v, float[16,8] w", "float[4,8] y", "y = MatMul(v, w)", "v w")
    assert (units_of(model), refusals_of(model)) == ([], {})


HALF = "float16[4,16] x, float16[16,8] w"


@pytest.mark.parametrize(
    ("model", "given", "why"),
    [
        ((HALF, "float16[4,8] y", "y = MatMul(x, w)", "w"), {}, "it computes float16"),
        (
            ("double[4,16] x, double[16,8] w", "double[4,8] y", "y = MatMul(x, w)", "w"),
            {},
            "it computes float64",
        ),
        (
            ("bfloat16[4,16] x, bfloat16[4,16] z", "bfloat16[4,16] y", "y = Add(x, z)"),
            {},
            "it computes bfloat16",
        ),
        ((*CONV, "y = Conv(x, w, b)", "b"), {}, "its weights are computed"),
        ((*CONV, "y = Conv(x, w, b)", "w"), {}, "its bias is computed"),
        (
            (f"{ROWS}, float[16,8] w", "float[4,8] y", "y = Gemm(x, w)"),
            {},
            "its weights are computed",
        ),
        (
            (f"{ROWS}, float[16,8] w, float[8] b", "float[4,8] y", "y = Gemm(x, w, b)", "w"),
            {},
            "its bias is computed",
        ),
        ((*CONV, "y = Conv(x, w, b)", "b"), {"w": np.nan}, "its weights hold NaN or infinity"),
        ((*CONV, "y = Conv(x, w, b)", "b"), {"w": -np.inf}, "its weights hold NaN or infinity"),
        (
            ("float[4,0] x, float[0,8] w", "float[4,8] y", "y = MatMul(x, w)", "w"),
            {},
            "its weights are empty",
        ),
        (
            (f"{ROWS}, float[16,8] w", "float[4,8] y", "y = Gemm<alpha = 0.5>(x, w)", "w"),
            {},
            "it scales or transposes what it reads",
        ),
        (
            (f"{ROWS}, float[4,8] w", "float[16,8] y", "y = Gemm<transA = 1>(x, w)", "w"),
            {},
            "it scales or transposes what it reads",
        ),
        (
            (f"{ROWS}, float[16,8] w, float[8] b", "float[4,8] y", "y = Gemm<beta = 2.0>(x, w, b)", "w b"),
            {},
            "it scales its bias",
        ),
        (
            (f"{ROWS}, float[16,8] w, float[4,1] b", "float[4,8] y", "y = Gemm(x, w, b)", "w b"),
            {},
            "its bias differs from row to row",
        ),
        (
            (f"{ROWS}, float[16,8] w, float[4,8] b", "float[4,8] y", "y = Gemm(x, w, b)", "w b"),
            {},
            "its bias differs from row to row",
        ),
        pytest.param(
            (f"{ROWS}, float[16,4] w, float[4,1] b", "float[4,4] y", "y = Gemm(x, w, b)", "w b"),
            {},
            "its bias differs from row to row",
            id="as many rows as units",
        ),
        pytest.param(
            (*CONV, "y = Conv(x, w, b)", "w"),
            {"b": np.inf},
            "its bias holds NaN or infinity",
            id="infinite bias",
        ),
        pytest.param(
            (f"{IMAGE}, float[8,1,1] c", "float[1,8,8,8] y", "s = Add(x, c) y = Relu(s)"),
            {"c": -np.inf},
            "it adds NaN or infinity",
            id="minus infinity is added",
        ),
    ],
)  # fmt: skip
def test_what_is_refused(model: tuple[str, ...], given: dict[str, object], why: str) -> None:
    assert refusal(*model, **given) == why


def test_a_unit_bias_of_gemm_may_be_a_row_or_a_scalar_for_one_unit() -> None:
    for shape, columns in (("8", 8), ("1,8", 8), ("", 1), ("1", 1)):
        bias = f"float[{shape}] b" if shape else "float b"
        model = (
            f"{ROWS}, float[16,{columns}] w, {bias}",
            f"float[4,{columns}] y",
            "y = Gemm(x, w, b)",
        )
        assert only(*model, "w b").bias == 2


QUANTIZED = {
    "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = MatMul(d, w)": (
        "it reads what is quantized already"
    ),
    "m = MatMul(x, w) q = QuantizeLinear(m, s, z) y = DequantizeLinear(q, s, z)": (
        "what it computes is quantized already"
    ),
}


@pytest.mark.parametrize(("body", "why"), QUANTIZED.items())
def test_what_is_quantized_already_is_left(body: str, why: str) -> None:
    inputs = f"{ROWS}, float[16,16] w, float s, uint8 z"
    model = build(inputs, "float[4,16] y", body, "w", s=0.1, z=128)
    assert units_of(model) == []
    assert list(refusals_of(model).values()) == [why]


def test_operators_of_integers_are_left() -> None:
    body = "y = QLinearMatMul(x, s, z, w, s, z, s, z)"
    inputs = "uint8[4,16] x, uint8[16,8] w, float s, uint8 z"
    model = build(inputs, "uint8[4,8] y", body, "w", s=0.1, z=128)
    assert (units_of(model), refusals_of(model)) == ([], {})


@pytest.mark.parametrize(
    "body", ["y = MatMul(x, d)", "y = Add(x, d)", "y = Concat<axis = 0>(x, d)"]
)
def test_weights_that_are_quantized_already_are_left(body: str) -> None:
    inputs = "float[16,16] x, int8[16,16] w, float s"
    model = build(inputs, "float y", f"d = DequantizeLinear(w, s) {body}", "w", s=0.1)
    assert units_of(model) == []


def test_weights_that_are_stored_in_few_bits_are_no_activations() -> None:
    body = "c = Cast<to = 1>(k) w = Mul(c, s) y = MatMul(x, w)"
    inputs = f"{ROWS}, int8[16,8] k, float[1,8] s"
    assert units_of(build(inputs, "float[4,8] y", body, "k s")) == []


DYNAMIC = """
  q, s, z = DynamicQuantizeLinear(x)
  p = MatMulInteger(q, w, z)
  f = Cast<to = 1>(p)
  t = Mul(s, ws)
  m = Mul(f, t)
  y = Add(m, b)
"""
"""What ONNX Runtime's dynamic quantization makes of a linear layer."""


def test_a_layer_that_is_quantized_dynamically_is_left() -> None:
    inputs = f"{ROWS}, int8[16,8] w, float ws, float[8] b"
    model = build(inputs, "float[4,8] y", DYNAMIC, "w b", ws=0.01)
    assert [unit.node.outputs[0].name for unit in units_of(model)] == []


def test_a_resize_that_brings_in_other_numbers_does_not_only_move() -> None:
    body = (
        'y = Resize<mode = "nearest", coordinate_transformation_mode = "tf_crop_and_resize", '
        "extrapolation_value = 100.0>(x, roi, , s)"
    )
    roi = [0, 0, -0.5, -0.5, 1, 1, 1.5, 1.5]
    model = build(f"{IMAGE}, float[8] roi, int64[4] s", "float y", body, roi=roi, s=[1, 8, 9, 9])
    assert units_of(model) == []


@pytest.mark.parametrize("dilation", [1, 2])
def test_an_average_over_dilated_windows_has_no_integer_kernel(dilation: int) -> None:
    body = f"y = AveragePool<kernel_shape = [2,2], dilations = [{dilation},{dilation}]>(x)"
    assert units_of(build(IMAGE, "float y", body, opset=19)) == []


ABSORBED = [
    ("y = Relu(c)", (0.0, math.inf)),
    ("y = Clip(c, zero, six)", (0.0, 6.0)),
    ("y = Clip(c, , six)", (-math.inf, 6.0)),
    ("y = Clip(c, zero)", (0.0, math.inf)),
    ("y = Clip(c)", (-math.inf, math.inf)),
    ("y = Clip(c, minus, six)", (-1.0, 6.0)),
]
ALONE = [
    "y = Clip(c, one, six)",  # 0 is not within
    "y = Clip(c, six, zero)",
    "y = Clip(c, nan, six)",
    "y = Clip(c, low, six)",  # not known
    "y = Relu(c) n = Neg(c)",  # something else reads it
    "y = Tanh(c)",
]
BOUNDS = {"zero": 0, "one": 1, "six": 6, "minus": -1, "nan": np.nan}


def clipped(body: str, outputs: str = "float y", opset: int = 17) -> Model:
    inputs = f"{CONV[0]}, float low, " + ", ".join(f"float {name}" for name in BOUNDS)
    return build(inputs, outputs, f"c = Conv(x, w, b) {body}", "w b", opset=opset, **BOUNDS)


@pytest.mark.parametrize(("body", "wanted"), ABSORBED)
def test_an_activation_function_that_alone_reads_a_unit_belongs_to_it(
    body: str, wanted: tuple[float, float]
) -> None:
    (unit,) = units_of(clipped(body))
    assert unit.absorbed is not None
    assert unit.absorbed.op == body.split()[2].split("(")[0]
    assert unit.output.name == "y"
    assert [node.op for node in unit.nodes] == ["Conv", unit.absorbed.op]
    assert bounds(unit) == wanted


@pytest.mark.parametrize("body", ALONE)
def test_other_functions_do_not(body: str) -> None:
    (unit,) = units_of(clipped(body))
    assert unit.absorbed is None
    assert unit.output.name == "c"
    assert bounds(unit) == (-math.inf, math.inf)


def test_nor_does_one_whose_input_the_model_returns() -> None:
    (unit,) = units_of(clipped("y = Relu(c)", "float y, float[1,8,6,6] c"))
    assert unit.absorbed is None


def test_bounds_of_older_operator_sets_are_attributes() -> None:
    (unit,) = units_of(clipped("y = Clip<min = 0.0, max = 6.0>(c)", opset=10))
    assert bounds(unit) == (0.0, 6.0)


def test_where_outputs_are_not_quantized_nothing_is_absorbed() -> None:
    (unit,) = units_of(clipped("y = Relu(c)"), TARGETS["tensorrt"])
    assert unit.absorbed is None
    assert unit.gives_floats


def test_sums_absorb_and_concatenations_do_not() -> None:
    inputs = f"{IMAGE}, float[1,8,8,8] z"
    for body, absorbs in (("s = Add(x, z)", True), ("s = Concat<axis = 1>(x, z)", False)):
        (unit,) = units_of(build(inputs, "float y", f"{body} y = Relu(s)"))
        assert (unit.absorbed is not None) == absorbs


def test_what_is_rounded_when_units_run_on_integers() -> None:
    body = """
      c = Conv(x, w, b)
      r = Relu(c)
      p = MaxPool<kernel_shape = [2,2]>(r)
      f = Flatten(p)
      m = MatMul(f, v)
      t = Tanh(m)
      n = MatMul(m, u)
      y = MatMul(t, u)
    """
    inputs = f"{CONV[0]}, float[72,4] v, float[4,4] u"
    model = build(inputs, "float[1,4] y, float[1,4] n", body, "w b v u")
    units = units_of(model)
    assert [unit.node.op for unit in units] == ["Conv", "MaxPool", "Flatten", *["MatMul"] * 3]
    # p and f are on the grid of r; y and n are given as floats; m is read by integers
    assert [tensor.name for tensor in quantized_tensors(units)] == ["x", "r", "m", "t"]
    assert [tensor.name for tensor in quantized_tensors(units[:1])] == ["x", "r"]
    assert [tensor.name for tensor in quantized_tensors(units[3:4])] == ["f"]


BRANCHES = """
  h = Conv(x, w)
  y = If(k) <
    then_branch = t () => (float[1,8,8,8] p) { {NAME} = Conv(h, w) p = Relu({NAME}) },
    else_branch = e () => (float[1,8,8,8] q) { m = Conv(h, w) q = Neg(m) }
  >
"""


def test_bodies_have_units_too() -> None:
    inputs = f"{IMAGE}, float[8,8,1,1] w, bool k"
    units = units_of(build(inputs, "float[1,8,8,8] y", BRANCHES.replace("{NAME}", "c"), "w"))
    assert [unit.output.name for unit in units] == ["h", "p", "m"]


def test_bodies_that_share_names_have_none() -> None:
    inputs = f"{IMAGE}, float[8,8,1,1] w, bool k"
    model = build(inputs, "float[1,8,8,8] y", BRANCHES.replace("{NAME}", "m"), "w")
    assert [unit.output.name for unit in units_of(model)] == ["h"]
    assert all("several bodies" in why for why in refusals_of(model).values())
    assert len(refusals_of(model)) == 1  # both have the same label


def test_operators_of_other_domains_are_none() -> None:
    proto = parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "other" : 1]>
        g (float[4,16] x, float[16,8] w) => (float[4,8] y) { y = other.MatMul(x, w) }
        <domain: "other", opset_import: ["" : 17]>
        MatMul (a, b) => (c) { c = MatMul(a, b) }"""
    )
    assert units_of(Model.load(proto)) == []


def test_movement_needs_a_known_shape() -> None:
    body = "f = Flatten(x) y = Reshape(f, s)"
    model = build("float[N,8,8] x, int64[K] s", "float y", body)
    assert [unit.node.op for unit in units_of(model)] == ["Flatten"]


def test_tensors_of_unknown_type_are_passed_over() -> None:
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Mystery", ["x"], ["m"], domain="nobody"),
                helper.make_node("Add", ["m", "m"], ["y"]),
            ],
            "g",
            [helper.make_tensor_value_info("x", 1, [4])],
            [helper.make_tensor_value_info("y", 1, [4])],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("nobody", 1)],
        ir_version=8,
    )
    model = Model.load(proto)
    assert (units_of(model), refusals_of(model)) == ([], {})


@pytest.mark.parametrize("op", ["Cast", "Mul"])
def test_operators_of_others_may_have_the_same_names(op: str) -> None:
    proto = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(op, [], ["m"], domain="nobody"),
                helper.make_node("Add", ["x", "m"], ["y"]),
            ],
            "g",
            [helper.make_tensor_value_info("x", 1, [4])],
            [helper.make_tensor_value_info("y", 1, [4])],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("nobody", 1)],
        ir_version=8,
    )
    (unit,) = units_of(Model.load(proto))
    assert unit.node.op == "Add"


def test_every_target_knows_operators_and_one_of_them_is_timed() -> None:
    assert [name for name, target in TARGETS.items() if target.timed] == ["ort-cpu"]
    for name, target in TARGETS.items():
        assert target.name == name
        assert set(LINEAR) <= set(target.linear)
        assert target.activations.steps == 255
