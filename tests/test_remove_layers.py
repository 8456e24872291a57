"""Taking whole layers out: which blocks there are, which of them go, and what is left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from graphopt.errors import UsageError
from graphopt.ir.blocks import Block, find_blocks
from graphopt.ir.bypassing import bypass_blocks
from graphopt.ir.costs import bytes_in_use, count_macs
from graphopt.ir.dominators import dominator_tree, post_dominator_tree
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.optimizer import Result, optimize
from graphopt.passes.pruning.remove_layers import Objective, Removal, RemoveLayers, choose
from graphopt.quality.data import DataOptions
from graphopt.quality.gate import Budget
from graphopt.recipe import Recipe
from graphopt.runtime.observer import Observer
from graphopt.runtime.observing import Stream
from graphopt.stage import Stage, StageRun
from graphopt.testing import parse

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'

RESIDUAL = f"""{HEAD}
g (float[N,8] x, float[8,8] w1, float[8,8] v1, float[8,8] w2, float[8,8] v2, float[8,8] w3, float[8,8] v3,
   float[8,4] o) => (float[N,4] y) {{
  a1 = MatMul(x, w1)  r1 = Relu(a1)  b1 = MatMul(r1, v1)  s1 = Add(x, b1)
  a2 = MatMul(s1, w2)  r2 = Relu(a2)  b2 = MatMul(r2, v2)  s2 = Add(s1, b2)
  a3 = MatMul(s2, w3)  r3 = Relu(a3)  b3 = MatMul(r3, v3)  s3 = Add(s2, b3)
  y = MatMul(s3, o)
}}"""
RESIDUAL_WEIGHTS = ("w1", "v1", "w2", "v2", "w3", "v3", "o")

TWO = f"""{HEAD}
g (float[N,2,8] x, float[8,9] w1, float[9,8] v1, float[8,9] w2, float[9,8] v2, float[8,4] o)
  => (float[N,2,4] y) {{
  a1 = MatMul(x, w1)  r1 = Relu(a1)  b1 = MatMul(r1, v1)  s1 = Add(x, b1)
  a2 = MatMul(s1, w2)  r2 = Relu(a2)  b2 = MatMul(r2, v2)  s2 = Add(s1, b2)
  y = MatMul(s2, o)
}}"""
TWO_WEIGHTS = ("w1", "v1", "w2", "v2", "o")

ATTENTION = f"""{HEAD}
g (float[N,T,8] x, float[N,1,T] mask, float[8] g1, float[8] h1, float[8,8] q, float[8,8] k, float[8,8] v,
   float[8,8] p, float[8] g2, float[8] h2, float[8,16] up, float[16,8] down, float[8,3] o)
  => (float[N,T,3] y) {{
  n1 = LayerNormalization(x, g1, h1)
  qs = MatMul(n1, q)  ks = MatMul(n1, k)  vs = MatMul(n1, v)
  kt = Transpose<perm = [0, 2, 1]>(ks)
  raw = MatMul(qs, kt)  masked = Add(raw, mask)  share = Softmax(masked)
  mixed = MatMul(share, vs)  projected = MatMul(mixed, p)
  attended = Add(x, projected)
  n2 = LayerNormalization(attended, g2, h2)
  wide = MatMul(n2, up)  gate = Sigmoid(wide)  lit = Mul(wide, gate)  narrow = MatMul(lit, down)
  fed = Add(attended, narrow)
  y = MatMul(fed, o)
}}"""
ATTENTION_WEIGHTS = ("g1", "h1", "q", "k", "v", "p", "g2", "h2", "up", "down", "o")


def scaled(text: str, random: Sequence[str], factors: dict[str, float]) -> Model:
    """A model with random weights of which some are made smaller."""
    model = parse(text, tuple(random))
    for tensor in model.constants():
        if tensor.dtype.kind == "f":
            tensor.values = (tensor.values * factors.get(tensor.name, 0.3)).astype(tensor.dtype)
    return model


def samples(count: int = 64, *shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, *(shape or (8,)))).astype(np.float32)


def remove(model: Model, options: RemoveLayers, native, feeds: dict[str, np.ndarray]) -> StageRun:
    observe = Observer(native, Stream(lambda: [feeds]))
    return Stage([options], observe=observe).run(model)


def removed(run: StageRun) -> list[str]:
    return [edit.node for edit in run.edits if "taken out" in edit.what]


def outputs(model: Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    proto = model.to_proto()
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)[0]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a - b) ** 2).mean() / b.var())


def spans(text: str, random: Sequence[str]) -> set[tuple[str, str]]:
    """What is read instead of what, over all blocks and alternatives."""
    model = parse(text, tuple(random))
    found = find_blocks(model, infer(model.graph, model.functions)).found
    return {(block.source, block.where) for alternatives in found for block in alternatives}


def refusals(text: str, random: Sequence[str]) -> dict[str, str]:
    model = parse(text, tuple(random))
    return find_blocks(model, infer(model.graph, model.functions)).refused


# --- which blocks there are


def test_dominators_of_random_graphs_are_those_of_their_definition() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        count = int(rng.integers(2, 14))
        drawn = [rng.integers(0, vertex, rng.integers(1, 4)).tolist() for vertex in range(1, count)]
        before: list[list[int]] = [[], *(sorted(set(sources)) for sources in drawn)]
        after = [[w for w in range(count) if v in before[w]] for v in range(count)]
        tree, post = dominator_tree(before), post_dominator_tree(after)
        ends = [v for v in range(1, count) if not after[v]]
        for v in range(1, count):
            for w in range(1, count):
                assert tree.dominates(v, w) == (v == w or not _reaches(after, [0], [w], v))
                assert post.dominates(v, w) == (v == w or not _reaches(after, [w], ends, v))


def _reaches(after: list[list[int]], starts: list[int], ends: list[int], without: int) -> bool:
    stack, seen = [v for v in starts if v != without], set()
    while stack:
        vertex = stack.pop()
        if vertex in ends:
            return True
        if vertex not in seen:
            seen.add(vertex)
            stack += [w for w in after[vertex] if w not in (without, 0)]
    return False


def test_branches_of_sums_and_layers_inside_of_them_are_blocks() -> None:
    found = spans(RESIDUAL, RESIDUAL_WEIGHTS)
    assert {("x", "s1"), ("s1", "s2"), ("s2", "s3")} <= found
    assert {("x", "a1"), ("r1", "b1")} <= found
    assert all(where != "y" for _, where in found)


def test_attention_and_feed_forward_are_branches_each_though_a_mask_enters() -> None:
    model = parse(ATTENTION, ATTENTION_WEIGHTS)
    found = find_blocks(model, infer(model.graph)).found
    branches = {(b.source, b.where): b for bs in found for b in bs if b.kind == "branch"}
    assert set(branches) == {("x", "attended"), ("attended", "fed")}
    assert branches["x", "attended"].nodes == 11
    assert branches["attended", "fed"].nodes == 6
    assert not branches["x", "attended"].overlaps(branches["attended", "fed"])


def test_a_gated_branch_and_one_under_a_norm_are_branches() -> None:
    text = f"""{HEAD}
g (float[1,8] x, float[8,8] w, float[8] s, float[8] m, float[8,2] o) => (float[1,2] y) {{
  a = MatMul(x, w)  b = Mul(s, a)  t = Add(x, b)  n = LayerNormalization(t, m)  y = MatMul(n, o)
}}"""
    assert ("x", "t") in spans(text, ("w", "s", "m", "o"))


def test_recurrent_layers_of_one_width_and_chains_with_activations() -> None:
    text = f"""{HEAD}
g (float[T,N,8] x, float[1,32,8] w, float[1,32,8] r, float[8,8] v, float[8,2] o) => (float[T,N,2] y) {{
  h = LSTM<hidden_size = 8>(x, w, r)  s = Squeeze(h, axes)
  a = MatMul(s, v)  e = Elu(a)  y = MatMul(e, o)
}}""".replace("g (", "g (", 1).replace(
        "=> (float[T,N,2] y) {", "=> (float[T,N,2] y) <int64[1] axes = {1}> {", 1
    )
    found = spans(text, ("w", "r", "v", "o"))
    assert {("x", "s"), ("s", "a"), ("s", "e")} <= found
    assert all(where != "h" for _, where in found)


def test_layers_that_change_the_shape_are_left_out_together() -> None:
    text = f"""{HEAD}
g (float[N,8,6,6] x, float[16,8,1,1] u, float[16,1,3,3] d, float[8,16,1,1] p, float[2,8,1,1] o)
  => (float[N,2,6,6] y) {{
  a = Conv(x, u)  b = Relu(a)  c = Conv<group = 16, pads = [1, 1, 1, 1]>(b, d)  e = Conv(c, p)  y = Conv(e, o)
}}"""
    assert spans(text, ("u", "d", "p", "o")) == {("x", "e"), ("b", "c"), ("a", "c")}


def test_the_shapes_of_tensors_do_not_count_as_what_they_hold() -> None:
    text = f"""{HEAD}
g (float[N,8] x, float[8,8] w, float[8,2] o) => (float[N,2] y) {{
  a = MatMul(x, w)  s = Shape(x)  b = Reshape(a, s)  y = MatMul(b, o)
}}"""
    assert ("x", "b") in spans(text, ("w", "o"))


@pytest.mark.parametrize("which", ["residual", "attention", "shaped"])
def test_what_a_block_says_it_takes_out_is_what_goes(which: str) -> None:
    text, weights = {
        "residual": (RESIDUAL, RESIDUAL_WEIGHTS),
        "attention": (ATTENTION, ATTENTION_WEIGHTS),
        "shaped": (SHAPED.replace("SOURCE", "b"), ("u", "w", "o")),
    }[which]
    model = parse(text, weights)
    blocks = find_blocks(model, infer(model.graph))
    layers = {node.uid: 1.0 for node in model.graph.nodes if node.op in ("Conv", "MatMul")}
    for alternatives, expected in zip(blocks.found, blocks.sums(layers), strict=True):
        for block in alternatives:
            left = model.copy()
            bypass_blocks(left, {block.where: block.source})
            kept = {node.uid for node in left.graph.nodes}
            assert len(layers.keys() - kept) == expected
            onnx.checker.check_model(left.to_proto(), full_check=True)


SHAPED = f"""{HEAD}
g (float[N,4,6,6] x, float[4,4,1,1] u, float[4,4,1,1] w, float[2,4,1,1] o) => (float[N,2,6,6] y)
<int64[3] rows = {{0, 2, -1}}, float[2] one = {{1, 1}}, float[2] none = {{0, 0}}> {{
  a = Conv(x, u)  b = Conv(a, w)
  r = Reshape(b, rows)  n = InstanceNormalization(r, one, none)  s = Shape(SOURCE)  t = Reshape(n, s)
  y = Conv(t, o)
}}"""


def test_a_shape_that_is_read_again_belongs_to_the_block_or_forbids_it() -> None:
    own = SHAPED.replace("SOURCE", "b")
    assert {("a", "t"), ("a", "b"), ("x", "a")} <= spans(own, ("u", "w", "o"))
    model = parse(own, ("u", "w", "o"))
    found = find_blocks(model, infer(model.graph))
    (norm,) = [b for bs in found.found for b in bs if (b.source, b.where) == ("a", "t")]
    assert norm.nodes == 4  # Conv, Reshape, InstanceNormalization, Reshape
    macs = found.sums({node.uid: 1.0 for node in model.graph.nodes if node.op == "Conv"})
    assert macs == [1.0] * len(macs)
    other = SHAPED.replace("SOURCE", "a")
    assert ("x", "a") in spans(other, ("u", "w", "o"))  # its exit has the shape of its source
    late = other.replace("o) => (float[N,2,6,6] y)", "o) => (float[N,2,6,6] y, int64[4] z)")
    late = late.replace("y = Conv", "z = Shape(b)  y = Conv")
    assert ("a", "t") not in spans(late, ("u", "w", "o"))
    assert ("a", "b") in spans(late, ("u", "w", "o"))


def test_refused_the_shape_of_an_inner_tensor_is_read_elsewhere() -> None:
    text = f"""{HEAD}
g (float[N,8] x, float[8,16] w, float[16,8] v, float[8,2] o) => (float[N,2] y, int64[2] z) {{
  a = MatMul(x, w)  b = MatMul(a, v)  z = Shape(a)  y = MatMul(b, o)
}}"""
    assert "the shape of 'a', which it makes, is read" in refusals(text, ("w", "v", "o"))["b"]


def test_overlapping_is_symmetric_and_follows_the_nodes() -> None:
    found = [b for bs in blocks_of_residual() for b in bs]
    by_name = {(b.source, b.where): b for b in found}
    outer, first, second = (by_name[key] for key in (("x", "s1"), ("x", "a1"), ("r1", "b1")))
    assert outer.overlaps(first)
    assert first.overlaps(outer)
    assert not first.overlaps(second)
    assert not outer.overlaps(by_name["s1", "s2"])


def blocks_of_residual() -> list[list[Block]]:
    model = parse(RESIDUAL, RESIDUAL_WEIGHTS)
    return find_blocks(model, infer(model.graph)).found


def test_a_long_model_is_looked_through_in_no_time_to_speak_of() -> None:
    count = 400
    lines = [f"a{i} = MatMul(x{i}, w)  x{i + 1} = Add(x{i}, a{i})" for i in range(count)]
    text = f"{HEAD}g (float[1,4] x0, float[4,4] w) => (float[1,4] x{count}) {{ {' '.join(lines)} }}"
    found = spans(text, ("w",))
    assert len(found) == 2 * count  # each branch, and the product in it


# --- which are refused


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (", float[N,8] b1", "'b1', which it makes, is an output"),
        (", float[N,8] a1", "'a1', which it makes, is an output"),
    ],
)
def test_refused_an_inner_tensor_is_an_output(more: str, why: str) -> None:
    text = RESIDUAL.replace("(float[N,4] y)", f"(float[N,4] y{more})")
    assert why in refusals(text, RESIDUAL_WEIGHTS)["s1"]
    assert ("x", "s1") not in spans(text, RESIDUAL_WEIGHTS)


def test_refused_a_shape_that_is_not_proven_equal() -> None:
    text = f"""{HEAD}
g (float[N,1,8] x, float[M,T,8] z, float[8,8] u, float[8,8] w, float[8,2] o) => (float[A,B,2] y) {{
  b = MatMul(x, u)  a = MatMul(z, w)  s = Add(b, a)  y = MatMul(s, o)
}}"""
    assert "'b', whose shape is not proven equal" in refusals(text, ("u", "w", "o"))["s"]
    same = text.replace("float[M,T,8]", "float[N,1,8]")
    assert "s" not in refusals(same, ("u", "w", "o"))
    assert {("b", "s"), ("a", "s")} <= spans(same, ("u", "w", "o"))


def test_refused_random_numbers() -> None:
    text = f"""{HEAD}
g (float[1,8] x, float[8,16] w, float[16,8] v, float[8,2] o) => (float[1,2] y) {{
  a = MatMul(x, w)  n = RandomNormalLike(a)  b = Add(a, n)  c = MatMul(b, v)  s = Add(x, c)  y = MatMul(s, o)
}}"""
    assert "draws random numbers" in refusals(text, ("w", "v", "o"))["s"]
    assert not spans(text, ("w", "v", "o"))


def test_refused_what_a_body_captures() -> None:
    text = f"""{HEAD}
g (float[1,8] x, bool c, float[8,16] w, float[16,8] v, float[16,8] u) => (float[1,8] y) {{
  a = MatMul(x, w)  b = MatMul(a, v)  s = Add(x, b)
  i = If (c) <then_branch = t () => (float[1,8] p) {{ p = MatMul(a, u) }},
              else_branch = e () => (float[1,8] q) {{ q = Identity(x) }}>
  y = Add(s, i)
}}"""
    assert "a body captures 'a'" in refusals(text, ("w", "v", "u"))["s"]
    assert ("x", "s") not in spans(text, ("w", "v", "u"))


def test_a_sum_inside_of_a_gemm_is_a_branch() -> None:
    text = f"""{HEAD}
g (float[N,8] x, float[N,3] z, float[8,16] w, float[3,16] p, float[16,8] v, float[8,2] o) => (float[N,2] y) {{
  a = MatMul(x, w)  q = MatMul(z, p)  b = Add(a, q)  s = Gemm(b, v, x)  y = MatMul(s, o)
}}"""
    weights = ("w", "p", "v", "o")
    assert ("x", "s") in spans(text, weights)
    assert ("x", "s") not in spans(text.replace("Gemm(", "Gemm<beta = 0.5>("), weights)


# --- which go


def test_the_branch_that_does_next_to_nothing_goes(native) -> None:
    model = scaled(RESIDUAL, RESIDUAL_WEIGHTS, {"v2": 1e-3})
    feeds = {"x": samples()}
    run = remove(model, RemoveLayers(amount=0.25, refit=False), native, feeds)
    assert removed(run) == ["s2"]
    assert [edit.what for edit in run.edits] == [
        "a branch of 4 nodes, 30.8 % of the macs, was taken out"
    ]
    assert distance(outputs(run.model, feeds), outputs(model, feeds)) < 1e-4
    left = {tensor.name for tensor in run.model.constants()}
    assert not {"w2", "v2"} & left


def test_a_chain_that_is_next_to_the_identity_goes(native) -> None:
    text = f"""{HEAD}
g (float[N,8] x, float[8,8] w, float[8,8] v, float[8,4] o) => (float[N,4] y) {{
  a = MatMul(x, w)  b = Tanh(a)  c = MatMul(b, v)  y = MatMul(c, o)
}}"""
    model = scaled(text, ("w", "v", "o"), {})
    for tensor in model.constants():
        if tensor.name == "v":
            noise = np.random.default_rng(3).standard_normal((8, 8))
            tensor.values = (np.eye(8) + 1e-3 * noise).astype(np.float32)
    feeds = {"x": samples()}
    run = remove(model, RemoveLayers(amount=0.2, refit=False), native, feeds)
    assert removed(run) == ["c"]
    assert distance(outputs(run.model, feeds), outputs(model, feeds)) < 1e-4


def test_attention_goes_where_it_does_nothing_and_the_feed_forward_stays(native) -> None:
    model = scaled(ATTENTION, ATTENTION_WEIGHTS, {"p": 1e-3})
    feeds = {"x": samples(8, 5, 8), "mask": np.zeros((8, 1, 5), np.float32)}
    run = remove(model, RemoveLayers(amount=0.3, objective="params"), native, feeds)
    assert removed(run) == ["attended"]
    assert distance(outputs(run.model, feeds), outputs(model, feeds)) < 1e-3


@pytest.mark.parametrize("amount", [0.1, 0.3, 0.5, 0.7, 0.85])
def test_blocks_that_overlap_never_go_together(native, amount: float) -> None:
    model = scaled(RESIDUAL, RESIDUAL_WEIGHTS, {})
    run = remove(model, RemoveLayers(amount=amount, refit=False), native, {"x": samples()})
    by_name = {b.where: b for bs in blocks_of_residual() for b in bs}
    gone = [by_name[name] for name in removed(run)]
    assert gone
    assert not any(a.overlaps(b) for a in gone for b in gone if a is not b)
    assert -run.changes["remove-layers"].macs >= amount * 7 * 64 * 0.93  # o is half as wide
    outputs(run.model, {"x": samples()})


def test_blocks_in_a_row_all_go(native) -> None:
    model = scaled(RESIDUAL, RESIDUAL_WEIGHTS, {})
    run = remove(model, RemoveLayers(amount=0.95, refit=False), native, {"x": samples()})
    assert removed(run) == ["s1", "s2", "s3"]
    assert [node.op for node in run.model.graph.nodes] == ["MatMul"]
    assert run.skips["remove-layers"] == {"the model": "only 92.3 % of its macs can be saved"}


def test_what_leaves_the_last_block_keeps_the_name_of_the_output(native) -> None:
    text = f"""{HEAD}
g (float[N,8] x, float[8,8] w, float[8,8] v) => (float[N,8] y) {{
  a = MatMul(x, w)  t = Tanh(a)  b = MatMul(t, v)  y = Add(t, b)
}}"""
    model = scaled(text, ("w", "v"), {"v": 1e-4})
    feeds = {"x": samples()}
    run = remove(model, RemoveLayers(amount=0.4), native, feeds)
    assert removed(run) == ["y"]
    assert [t.name for t in run.model.graph.outputs] == ["y"]
    assert distance(outputs(run.model, feeds), outputs(model, feeds)) < 1e-4


def test_refit_gives_back_what_was_taken(native) -> None:
    model = scaled(RESIDUAL, RESIDUAL_WEIGHTS, {"v2": 0.15})
    feeds = {"x": samples(256)}
    whole = outputs(model, feeds)
    lost = {
        refit: distance(
            outputs(
                remove(model, RemoveLayers(amount=0.28, refit=refit), native, feeds).model, feeds
            ),
            whole,
        )
        for refit in (True, False)
    }
    assert lost[True] < 0.6 * lost[False]


def test_the_same_data_give_the_same_bytes(native) -> None:
    model = scaled(RESIDUAL, RESIDUAL_WEIGHTS, {})
    first, second = (
        remove(model, RemoveLayers(amount=0.5), native, {"x": samples()}).model.to_bytes()
        for _ in range(2)
    )
    assert first == second


def test_a_model_without_blocks_says_so(native) -> None:
    text = f"{HEAD}g (float[N,8] x, float[8,4] w) => (float[N,4] y) {{ y = MatMul(x, w) }}"
    run = remove(parse(text, ("w",)), RemoveLayers(), native, {"x": samples()})
    assert not run.edits
    assert run.skips["remove-layers"] == {
        "the model": "it has no block of layers that may be taken out"
    }


# --- how blocks are chosen


def test_an_outer_block_takes_the_place_of_its_parts_where_these_do_not_suffice() -> None:
    losses, savings = np.array([0.1, 0.1, 1.0]), np.array([1.0, 1.0, 4.0])
    overlaps = np.eye(3, dtype=bool)
    overlaps[2, :] = overlaps[:, 2] = True
    assert choose(losses, savings, overlaps, 1.0) == [0]
    assert choose(losses, savings, overlaps, 2.0) == [0, 1]
    assert choose(losses, savings, overlaps, 3.0) == [2]
    assert choose(losses, savings, overlaps, 9.0) == [2]


def test_what_is_not_needed_is_given_back() -> None:
    losses, savings = np.array([0.1, 5.0]), np.array([1.0, 10.0])
    assert choose(losses, savings, np.eye(2, dtype=bool), 10.0) == [1]


def test_choices_are_sound_and_near_the_best_of_all() -> None:
    rng = np.random.default_rng(5)
    ratios = []
    for _ in range(25):
        losses, savings = rng.random(9), rng.random(9) + 0.1
        overlaps = rng.random((9, 9)) < 0.2
        overlaps |= overlaps.T | np.eye(9, dtype=bool)
        sets = (np.arange(512)[:, None] >> np.arange(9) & 1).astype(bool)
        sound = [
            s for s in sets if not (overlaps[np.ix_(s, s)] & ~np.eye(s.sum(), dtype=bool)).any()
        ]
        target = 0.6 * max(float(savings[s].sum()) for s in sound)
        best = min(float(losses[s].sum()) for s in sound if savings[s].sum() >= target)
        found = choose(losses, savings, overlaps, target)
        assert not (overlaps[np.ix_(found, found)] & ~np.eye(len(found), dtype=bool)).any()
        if savings[found].sum() >= target:
            ratios.append(float(losses[found].sum()) / best)
    assert len(ratios) >= 22
    assert np.median(ratios) < 1.2


# --- what they save


LOOPED = f"""{HEAD}
g (float[N,8] x, bool c, float[8,8] w, float[8,8] e, float[8,8] u, float[8,8] t, float[8,8] v, float[8,4] o)
  => (float[N,4] y) <int64 five = {{5}}, bool go = {{1}}> {{
  a = MatMul(x, w)
  b = MatMul(a, e)
  d = Loop (five, go, b) <body = step (int64 i, bool k, float[N,8] p) => (bool l, float[N,8] q) {{
    l = Identity(k)  q = MatMul(p, u)
  }}>
  f = If (c) <then_branch = yes () => (float[8,8] m) {{ m = MatMul(t, t) }},
              else_branch = no () => (float[8,8] n) {{ n = Identity(t) }}>
  h = MatMul(d, f)  r = MatMul(h, v)  s = Add(a, r)
  y = MatMul(s, o)
}}"""
LOOPED_WEIGHTS = ("w", "e", "u", "t", "v", "o")


@pytest.mark.parametrize("objective", ["macs", "params", "size"])
def test_what_runs_in_a_node_goes_with_it(native, objective: Objective) -> None:
    model = scaled(LOOPED, LOOPED_WEIGHTS, {"v": 1e-3})
    feeds = {"x": samples(), "c": np.array(True)}
    run = remove(model, RemoveLayers(objective, amount=0.6, refit=False), native, feeds)
    assert removed(run) == ["s"]
    found = {choice.where: choice.saving for choice in proposed(model, objective, native, feeds)}
    cost = {"macs": macs, "params": elements, "size": stored}[objective]
    assert found["s"] == cost(model) - cost(run.model)
    share = f"{100 * found['s'] / cost(model):.3g} % of the {objective}"
    assert share in run.edits[0].what


def proposed(model: Model, objective: Objective, native, feeds) -> list[Removal]:
    context = Stage([], observe=Observer(native, Stream(lambda: [feeds]))).context(model)
    entries = RemoveLayers(objective, amount=0.6).propose(context)
    return [entry for entry in entries if isinstance(entry, Removal)]


def macs(model: Model) -> int:
    found = count_macs(model, infer(model.graph, model.functions))
    assert found is not None
    return found


def elements(model: Model) -> int:
    return sum(tensor.values.size for tensor in model.constants())


def stored(model: Model) -> int:
    return bytes_in_use(model.scopes())


UNPROVEN = f"""{HEAD}
g (float[N,8] x, float[8,8] w, float[8,8] v, float[2,3] p, float[3,3] r, float[8,4] o)
  => (float[N,4] y, float z) {{
  a = MatMul(x, w)  t = Tanh(a)  b = MatMul(t, v)  s = Add(a, b)  y = MatMul(s, o)
  n = NonZero(x)  k = Transpose(n)  f = Cast<to = 1>(k)
  first = MatMul(f, p)  second = MatMul(first, r)  z = ReduceSum<keepdims = 0>(second)
}}"""


def test_macs_that_are_not_proven_are_named(native) -> None:
    model = scaled(UNPROVEN, ("w", "v", "p", "r", "o"), {"v": 1e-3})
    feeds = {"x": samples()}
    run = remove(model, RemoveLayers(amount=0.3, refit=False), native, feeds)
    assert removed(run) == ["s"]
    (said,) = [why for why in run.skips["remove-layers"].values() if "proven" in why]
    assert run.skips["remove-layers"]["MatMul→first"] == said
    assert said.startswith("its macs, and those of 1 more node, count only as far as they are")
    assert said.endswith(": its shape is not known before a run")
    other = remove(model, RemoveLayers("params", amount=0.2), native, feeds)
    assert "MatMul→first" not in other.skips["remove-layers"]


# --- the pass among the others


def run_whole(tmp_path: Path, model: Model, drop: float | None, options: str) -> Result:
    path, data = tmp_path / "m.onnx", tmp_path / "d.npz"
    model.save(path)
    np.savez(data, x=samples(256, 2, 8))
    return optimize(
        path,
        passes=[f"remove-layers:{options}"],
        data=DataOptions(source=str(data)),
        budget=Budget(drop),
        metric="cosine",
    )


def test_the_gate_eases_the_amount(tmp_path: Path) -> None:
    found = run_whole(tmp_path, scaled(TWO, TWO_WEIGHTS, {"v2": 1e-3}), 0.01, "amount=0.8")
    step = found.report.steps[-1]
    assert step.status == "eased"
    assert step.eased.endswith("of its strength")
    assert [edit.node for edit in step.edits if "taken out" in edit.what] == ["s2"]


def test_the_report_names_what_went(tmp_path: Path) -> None:
    found = run_whole(tmp_path, scaled(TWO, TWO_WEIGHTS, {"v2": 1e-3}), None, "amount=0.2")
    step = found.report.steps[-1]
    assert step.status == "applied"
    assert any("a branch of 4 nodes" in edit.what for edit in step.edits)
    assert found.report.output.macs is not None
    assert found.report.input.macs is not None
    assert found.report.output.macs < found.report.input.macs


def test_without_data_it_is_refused() -> None:
    with pytest.raises(UsageError, match="needs data"):
        optimize(scaled(RESIDUAL, RESIDUAL_WEIGHTS, {}).to_proto(), passes=["remove-layers"])


@pytest.mark.parametrize("wrong", ["amount=1", "amount=-0.1", "objective=x", "amount=nan"])
def test_options_that_make_no_sense(wrong: str) -> None:
    with pytest.raises(UsageError):
        Recipe.parse([f"remove-layers:{wrong}"])


def test_choices_name_where_they_are_and_what_they_save(native) -> None:
    observe = Observer(native, Stream(lambda: [{"x": samples()}]))
    model = scaled(RESIDUAL, RESIDUAL_WEIGHTS, {"v2": 1e-3})
    stage = Stage([RemoveLayers(amount=0.5)], observe=observe)
    found = [
        c for c in RemoveLayers(amount=0.5).propose(stage.context(model)) if isinstance(c, Removal)
    ]
    assert "s2" in {choice.where for choice in found}
    branch = next(choice for choice in found if choice.where == "s2")
    assert (branch.source, branch.saving, branch.level) == ("s1", 128.0, 1.0)
    assert 0 <= branch.loss < 1e-4
