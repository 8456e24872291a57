"""Times of nodes: how a profile is read back, and what is worked out of several."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from qdq_models import CPU, build, feeds_of, quantized, run, scales_for, units_of

from graphopt.ir.model import Model
from graphopt.ir.surgery import tidy
from graphopt.passes.quantization._qdq.choice import Problem
from graphopt.passes.quantization._qdq.insertion import Insertion
from graphopt.passes.quantization._qdq.table import Form, Table
from graphopt.passes.quantization._qdq.timing import Profile, marked, read_profile
from graphopt.passes.quantization._qdq.units import Unit
from graphopt.runtime.native import Native
from graphopt.runtime.node_times import NodeTimes
from graphopt.runtime.profiling import NodeSeconds

US = 1e-6


def rows(*entries: tuple[str, str, float]) -> list[NodeSeconds]:
    return [NodeSeconds(name, op, seconds * US) for name, op, seconds in entries]


def test_rows_go_to_the_nodes_that_they_were_made_of() -> None:
    found = read_profile(
        rows(
            ("g17:_token_3", "QLinearConv", 5),
            ("g4:0_nchwc", "Conv", 7),
            ("g4:0_nchwc_token_9", "Relu", 1),
            ("g17:0", "DequantizeLinear", 2),
            ("ReorderInput_token_9", "ReorderInput", 3),
            ("Transpose_2", "Transpose", 0.5),
            ("", "Cast", 0.25),
            ("MatMul_fused_g123:_g7:", "Gemm", 4),
        )
    )
    assert found.seconds == pytest.approx({17: 7 * US, 4: 8 * US, 123: 4 * US})
    assert found.ops[17] == {"QLinearConv", "DequantizeLinear"}
    assert found.ops[4] == {"Conv", "Relu"}
    assert found.layout == pytest.approx(3.75 * US)
    assert found.total == pytest.approx(22.75 * US)


def test_a_profile_may_be_empty() -> None:
    found = read_profile([])
    assert (found.seconds, found.ops, found.layout, found.total) == ({}, {}, 0, 0)
    assert not found.integer(1)


@pytest.mark.parametrize(
    ("op", "integer"),
    [
        ("QLinearConv", True),
        ("QLinearMatMul", True),
        ("QLinearAdd", True),
        ("QLinearSigmoid", True),
        ("QGemm", True),
        ("MatMulIntegerToFloat", True),
        ("MatMulInteger", True),
        ("NhwcMaxPool", True),
        ("DynamicQuantizeMatMul", True),
        ("Conv", False),
        ("FusedConv", False),
        ("QuantizeLinear", False),
        ("DequantizeLinear", False),
        ("MatMul", False),
        ("MaxPool", False),
        ("Sigmoid", False),
    ],
)
def test_which_kernels_are_of_integers(op: str, integer: bool) -> None:
    assert read_profile(rows(("g3:", op, 1))).integer(3) == integer


BODY = """
  c = Conv<pads = [1,1,1,1]>(x, w, b)
  r = Relu(c)
  d = Conv<pads = [1,1,1,1]>(r, v)
  s = Add(d, r)
  t = Tanh(s)
  y = MatMul(t, u)
"""
INPUTS = "float[1,4,6,6] x, float[4,4,3,3] w, float[4] b, float[4,4,3,3] v, float[6,5] u"
OUTPUTS = "float[1,4,6,5] y, float[1,4,6,6] r"


def block() -> Model:
    return build(INPUTS, OUTPUTS, BODY, "w b v u")


def test_marking_keeps_what_the_caller_sees_and_what_is_computed() -> None:
    model = block()
    before = model.to_bytes()
    found = marked(model)
    assert model.to_bytes() == before
    old, new = model.to_proto(), found.to_proto()
    onnx.checker.check_model(new, full_check=True)
    assert list(new.graph.input) == list(old.graph.input)
    assert list(new.graph.output) == list(old.graph.output)
    uids = [node.uid for node in model.graph.nodes]
    assert [node.name for node in new.graph.node] == [f"g{uid}:" for uid in uids]
    for uid, node in zip(uids, new.graph.node, strict=True):
        assert node.output[0] in ("y", "r", f"g{uid}:0")
    feeds = feeds_of(model)
    for one, two in zip(run(old, feeds)[0], run(new, feeds)[0], strict=True):
        assert (one == two).all()


def test_marking_reaches_what_bodies_read() -> None:
    body = """
      h = Neg(x)
      y = If(k) <
        then_branch = t () => (float[4] p) { p = Exp(h) },
        else_branch = e () => (float[4] q) { q = Abs(h) }
      >
    """
    model = build("float[4] x, bool k", "float[4] y", body)
    feeds = {"x": np.array([-1, 0, 1, 2], np.float32), "k": np.array(False)}
    assert (run(marked(model).to_proto(), feeds)[0][0] == np.abs(feeds["x"])).all()


def test_a_profile_of_onnx_runtime_says_what_became_integers(native: Native) -> None:
    model = block()
    feeds = feeds_of(model)
    made, _, _ = quantized(model, feeds, CPU)
    plain, integers = (
        read_profile(times) for times in NodeTimes(native, feeds)([marked(model), marked(made)])
    )
    units = units_of(model)
    assert [unit.node.op for unit in units] == ["Conv", "Conv", "Add", "MatMul"]
    assert [plain.integer(unit.uid) for unit in units] == [False] * 4
    assert [integers.integer(unit.uid) for unit in units] == [True] * 4
    nodes = {node.uid for node in (*model.graph.nodes, *made.graph.nodes)}
    assert {*plain.seconds, *integers.seconds} <= nodes
    for profile in (plain, integers):
        assert 0 < sum(profile.seconds.values()) <= profile.total


def test_what_bodies_take_is_no_change_of_layout(native: Native) -> None:
    body = """
      h = Neg(x)
      y = If(k) <
        then_branch = t () => (float[64,64] p) { p = Exp(h) },
        else_branch = e () => (float[64,64] q) { q = Abs(h) }
      >
    """
    model = build("float[64,64] x, bool k", "float[64,64] y", body)
    feeds = {"x": np.ones((64, 64), np.float32), "k": np.array(True)}
    (times,) = NodeTimes(native, feeds)([marked(model)])
    assert {row.op for row in times} == {"Neg", "If", "Exp"}
    assert read_profile(times).layout == 0


class Forms:
    """Forms of the block with times that are given."""

    def __init__(self) -> None:
        self.model = block()
        self.feeds = feeds_of(self.model)
        self.units = units_of(self.model)
        self.scales = scales_for(self.model, self.units, self.feeds, CPU)
        self.uids = {node.outputs[0].name: node.uid for node in self.model.graph.nodes}
        self.elements = dict.fromkeys(["x", "c", "r", "d", "s", "t"], 144) | {"y": 120}

    def form(
        self,
        chosen: str,
        seconds: Mapping[str, float],
        pairs: Mapping[str, float],
        layout: float = 0.0,
    ) -> Form:
        """A form with some units on integers.

        Args:
            chosen: the first outputs of their nodes.
            seconds: of nodes of the model, by first output.
            pairs: of what is inserted: ``+x`` to quantize x, ``-x`` to dequantize it.
            layout: of nobody.
        """
        made = self.model.copy()
        wanted = {self.uids[name] for name in chosen.split()}
        inserting = Insertion(made, CPU, self.scales)
        inserting.quantize([unit for unit in units_of(made) if unit.uid in wanted])
        tidy(made.graph)
        taken = {self.uids[name]: value * US for name, value in seconds.items()}
        for uid, role in inserting.roles.items():
            value = pairs.get(("+" if role.quantizes else "-") + role.tensor)
            if value is not None:
                taken[uid] = value * US
        return Form(frozenset(wanted), Profile(taken, {}, layout * US), inserting.roles)

    def unit(self, name: str) -> Unit:
        return next(unit for unit in self.units if unit.uid == self.uids[name])

    def tensor(self, problem: Problem, name: str):
        return next(tensor for tensor in problem.tensors if tensor.name == name)

    def three(self) -> list[Form]:
        """On floats; what is multiplied on integers; all on integers."""
        return [
            self.form("", {"c": 10, "r": 1, "d": 8, "t": 5, "y": 4}, {}, layout=6),
            # the Add, fused on floats, runs alone now
            self.form(
                "c d y",
                {"c": 4, "d": 3, "s": 2, "t": 5, "y": 1.5},
                {"+x": 0.5, "-r": 0.7, "-d": 0.8, "+t": 0.6},
            ),
            self.form(
                "c d s y",
                {"c": 4.5, "d": 3.5, "s": 1, "t": 5, "y": 1.25},
                {"+x": 0.55, "-r": 0.9, "-s": 0.4, "+t": 0.65},
            ),
        ]


@pytest.fixture
def forms() -> Forms:
    return Forms()


def test_units_take_what_they_take_in_the_last_form_that_has_them(forms: Forms) -> None:
    problem = Table(forms.units, forms.three(), forms.elements).problem({})
    uids = [forms.uids[name] for name in ("c", "d", "s", "y")]
    # layout, 6 us, by elements: 144 + 144 + 120 of what is multiplied; c, with what it absorbed, has r
    share = 6 / 408
    wanted = [11 + 144 * share, 8 + 144 * share, 0.0, 4 + 120 * share]
    assert [problem.floats[uid] / US for uid in uids] == pytest.approx(wanted)
    assert [problem.integers[uid] / US for uid in uids] == pytest.approx([4.5, 3.5, 1, 1.25])
    assert problem.total / US == pytest.approx(34)


def test_tensors_know_who_makes_and_who_reads_them(forms: Forms) -> None:
    problem = Table(forms.units, forms.three(), forms.elements).problem(
        {"r": 0.25, forms.uids["d"]: 0.5}
    )
    c, d, s, y = (forms.uids[name] for name in ("c", "d", "s", "y"))
    found = {
        tensor.name: (tensor.maker, tensor.readers, tensor.read_by_floats)
        for tensor in problem.tensors
    }
    assert found == {
        "x": (None, (c,), False),
        "r": (c, (d, s), True),
        "d": (d, (s,), False),
        "s": (s, (), True),
        "t": (None, (y,), False),
        "y": (None, (), True),
    }
    assert {tensor.name: tensor.loss for tensor in problem.tensors if tensor.loss} == {"r": 0.25}
    assert problem.losses == {d: 0.5}


def test_what_it_takes_to_quantize_is_read_off_or_estimated(forms: Forms) -> None:
    problem = Table(forms.units, forms.three(), forms.elements).problem({})
    taken = {t.name: (t.quantize / US, t.dequantize / US) for t in problem.tensors}
    assert taken["x"][0] == pytest.approx(0.55)  # the last that is known
    assert taken["t"][0] == pytest.approx(0.65)
    assert taken["r"][1] == pytest.approx(0.9)
    assert taken["d"][1] == pytest.approx(0.8)
    # by elements: of all that was seen, as one line through 0 where all have as many
    assert taken["r"][0] == pytest.approx((0.5 + 0.6 + 0.55 + 0.65) / 4)
    assert taken["y"][1] == pytest.approx(120 / 144 * (0.7 + 0.8 + 0.9 + 0.4) / 4)


def test_a_call_has_a_part_that_does_not_grow_with_the_elements(forms: Forms) -> None:
    timed = forms.three()
    elements = forms.elements | {"x": 100, "t": 300, "r": 200}
    timed[1] = forms.form("c d y", {}, {"+x": 0.3, "+t": 0.5})
    timed[2] = forms.form("c d s y", {}, {})
    problem = Table(forms.units, timed, elements).problem({})
    assert forms.tensor(problem, "r").quantize / US == pytest.approx(0.4)
    assert forms.tensor(problem, "s").quantize / US == pytest.approx(0.2 + 144 * 0.001)


def test_what_is_fused_on_floats_is_paid_for_beside_integers(forms: Forms) -> None:
    problem = Table(forms.units, forms.three(), forms.elements).problem({})
    d, s = forms.uids["d"], forms.uids["s"]
    assert forms.tensor(problem, "d").unfused[s] / US == pytest.approx(2)
    assert forms.tensor(problem, "r").unfused.get(d) is None
    assert forms.tensor(problem, "s").rest == 0  # Tanh takes as long as before
    timed = forms.three()
    timed[1] = forms.form("c d y", {"t": 9}, {})
    problem = Table(forms.units, timed, forms.elements).problem({})
    assert forms.tensor(problem, "s").rest / US == pytest.approx(4)


def test_movement_takes_what_its_pair_takes() -> None:
    body = "p = MaxPool<kernel_shape = [2,2]>(x) y = Conv(p, w)"
    model = build("float[1,4,6,6] x, float[4,4,1,1] w", "float[1,4,5,5] y", body, "w")
    units = units_of(model)
    pool, conv = units
    made = model.copy()
    inserting = Insertion(made, CPU, scales_for(model, units, feeds_of(model), CPU))
    inserting.quantize(units_of(made))
    taken = {pool.uid: 1 * US, conv.uid: 2 * US}
    for uid, role in inserting.roles.items():
        taken[uid] = {"x": 0.5, "p": 0.25, "y": 0.125}[role.tensor] * US
    floats = Form(frozenset(), Profile({pool.uid: 3 * US, conv.uid: 4 * US}, {}, 0.0), {})
    every = Form(frozenset((pool.uid, conv.uid)), Profile(taken, {}, 0.0), inserting.roles)
    problem = Table(units, [floats, every], {"x": 144, "p": 100, "y": 100}).problem({})
    assert problem.floats[pool.uid] / US == pytest.approx(3)
    assert problem.integers[pool.uid] / US == pytest.approx(1 + 2 * 0.25)
    assert problem.integers[conv.uid] / US == pytest.approx(2)
    found = {tensor.name: tensor for tensor in problem.tensors}
    assert (found["p"].maker, found["p"].moved) == (pool.uid, True)
    assert not found["x"].moved
    assert not found["y"].moved


def test_the_prediction_of_what_was_measured_is_what_was_measured(forms: Forms) -> None:
    """Where every unit takes the same in all forms that have it on integers."""
    nodes = {"c": 4, "d": 3, "t": 5, "y": 1.5}
    timed = [
        forms.form("", {"c": 10, "r": 1, "d": 8, "s": 1, "t": 5, "y": 4}, {}, layout=6),
        forms.form("c d y", {**nodes, "s": 1}, {"+x": 0.5, "-r": 0.7, "-d": 0.8, "+t": 0.6}),
        forms.form("c d s y", {**nodes, "s": 0.5}, {"+x": 0.5, "-r": 0.7, "-s": 0.4, "+t": 0.6}),
    ]
    problem = Table(forms.units, timed, forms.elements).problem({})
    for form in timed:
        wanted = form.profile.total - timed[0].profile.total
        assert problem.seconds(form.chosen) == pytest.approx(wanted)


def test_without_times_nothing_costs_anything(forms: Forms) -> None:
    problem = Table(forms.units, [], forms.elements).problem({"r": 0.5})
    assert set(problem.floats.values()) == set(problem.integers.values()) == {0.0}
    assert all(t.quantize == t.dequantize == t.rest == 0 for t in problem.tensors)
    every = frozenset(unit.uid for unit in forms.units)
    assert problem.choose(0.0) == every
    assert problem.path()[0] == every
    assert problem.path()[-1] == frozenset()


def test_the_choice_by_such_a_table(forms: Forms) -> None:
    """The second convolution and the sum behind it are slow on integers."""
    timed = forms.three()
    timed[2] = forms.form(
        "c d s y",
        {"c": 4.5, "d": 30, "s": 3, "t": 5, "y": 1.25},
        {"+x": 0.5, "-r": 0.9, "-s": 0.4, "+t": 0.6},
    )
    problem = Table(forms.units, timed, forms.elements).problem({})
    assert problem.choose(0.0) == {forms.uids["c"], forms.uids["y"]}
    dear = Table(forms.units, timed, forms.elements).problem({"r": 100.0})
    assert dear.path()[1] == {forms.uids["y"]}
