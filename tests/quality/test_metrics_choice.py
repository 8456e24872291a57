"""The metric that is chosen where none is named, and those that a report shows."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from graphopt.errors import UsageError
from graphopt.ir.model import Model
from graphopt.quality.metrics import Observed, choose_metric, fidelity_metrics, parse_metric
from graphopt.testing import parse

RNG = np.random.default_rng(0)
SIZE = 16


def model(*names: str, op: str = "Sigmoid", **metadata: str) -> Model:
    proto = parse(
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        "g (float[N,K] x) => (float[N,K] unused) { unused = Relu(x) }"
    ).to_proto()
    del proto.graph.output[:], proto.graph.node[:]
    for name in names:
        proto.graph.node.append(onnx.helper.make_node(op, ["x"], [name]))
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    onnx.helper.set_model_props(proto, metadata)
    return Model.load(proto)


def chosen(labels, samples: int = 10_000, max_drop: float | None = 0.01, given=None, **outputs):
    given = given or model(*outputs)
    labels = None if labels is None else np.asarray(labels)
    metric, why = choose_metric(given, samples, labels, outputs, max_drop)
    assert "\n" not in why and len(why) > 20
    assert str(parse_metric(str(metric), given)) == str(metric)
    if labels is not None:
        metric.rows(Observed(outputs, outputs, labels, len(labels)))
    return str(metric)


def logits(classes: int = 5, labels: np.ndarray | None = None) -> np.ndarray:
    scores = RNG.standard_normal((SIZE, classes)).astype(np.float32)
    if labels is not None:
        scores[np.arange(SIZE), labels] += 5
    return scores


STRUCTURED = np.zeros(SIZE, [("a", int)])
LABELS = RNG.integers(0, 5, SIZE)


def test_numbers_of_classes() -> None:
    y = logits(5, LABELS)
    for labels in (LABELS, LABELS[:, np.newaxis], LABELS.astype(np.float32), np.eye(5)[LABELS]):
        assert chosen(labels, y=y) == "top1@y"
    assert chosen(LABELS, a=logits(9), y=y, ids=LABELS[::-1].copy()) == "top1@y"
    assert chosen(LABELS, a=logits(9), y=y.astype(ml_dtypes.bfloat16)) == "top1@y"
    assert chosen(LABELS, ids=LABELS, words=np.array(["a"] * SIZE, object)) == "top1@ids"


def test_one_column() -> None:
    labels = np.arange(SIZE) % 2
    p = np.where(labels, 0.8, 0.3).astype(np.float32)[:, np.newaxis]
    assert chosen(labels, y=p) == "top1@y"
    assert chosen(labels, y=p, given=model("y", op="Neg")) == "top1:threshold=0.5@y"
    assert chosen(labels, y=4 * p - 2, given=model("y", op="Neg")) == "top1:threshold=0@y"
    assert chosen(labels == 1, y=p[:, 0]) == "top1@y"
    assert chosen(labels + 3, y=p) == "mse@y"
    assert chosen(RNG.random((SIZE, 1)), y=p) == "mse@y"


def test_numbers_of_an_outputs_shape() -> None:
    boxes = RNG.random((SIZE, 4)).astype(np.float32)
    near = boxes + 0.1 * RNG.random((SIZE, 4))
    assert chosen(near, y=boxes) == "mse@y"
    assert chosen(near, a=RNG.random((SIZE, 4)), y=boxes, b=logits(9)) == "mse@y"
    assert chosen(boxes, y=boxes) == "sqnr@y"
    assert chosen(boxes * (1 + 1e-5), y=boxes) == "sqnr@y"
    several = np.eye(4)[LABELS % 4] + np.eye(4)[(LABELS + 1) % 4]
    assert chosen(several, y=boxes) == "mse@y"  # between 0 and 1: the Brier score
    with pytest.raises(UsageError, match="no metric is known for labels float64"):
        chosen(several, y=4 * boxes - 2)


def spelled(steps: int = 7, classes: int = 6, blank: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of steps, and the labels that they spell."""
    paths = RNG.integers(0, classes, (SIZE, steps))
    labels = np.full((SIZE, steps - 2), -1)
    for row, path in zip(labels, paths, strict=True):
        path[3:] = blank
        kept = [c for i, c in enumerate(path) if c != blank and (i == 0 or path[i - 1] != c)]
        row[: len(kept)] = kept
    return np.eye(classes, dtype=np.float32)[paths], labels


def test_sequences_of_numbers() -> None:
    scores, labels = spelled()
    assert chosen(labels, y=scores) == "cer:layout=ntc@y"
    assert chosen(labels, y=scores.swapaxes(0, 1)) == "cer:layout=tnc@y"
    square, labels = spelled(SIZE)
    assert chosen(labels, y=square) == "cer:layout=ntc@y"
    assert chosen(labels, y=square.swapaxes(0, 1).copy()) == "cer:layout=tnc@y"
    scores, labels = spelled(blank=5)
    assert chosen(labels, a=RNG.random((SIZE, 3)), y=scores) == "cer:layout=ntc,blank=-1@y"
    scores, labels = spelled()
    assert chosen(labels, y=scores.argmax(2)) == "cer:decode=greedy@y"
    assert chosen(labels, y=np.pad(labels, ((0, 0), (0, 3)), constant_values=-1)) == (
        "cer:decode=none@y"
    )


def test_texts_and_names() -> None:
    scores, labels = spelled()
    words = np.array(["".join("?abcd "[c] for c in row if c >= 0) for row in labels])
    given = model("y", character="a\nb\nc\nd", author="x\ny")
    assert (
        chosen(words, y=scores, given=given) == "cer:charset=@character,space=append,layout=ntc@y"
    )
    exact = model("y", character="a\nb\nc\nd\n ")
    assert chosen(words.astype(object), y=scores, given=exact) == (
        "cer:charset=@character,layout=ntc@y"
    )
    names = np.array(list("abcde"))[LABELS]
    listed = model("y", names="a\nb\nc\nd\ne")
    assert chosen(names, y=logits(5, LABELS), given=listed) == "top1:classes=@names@y"
    with pytest.raises(UsageError, match="no metric is known for labels string"):
        chosen(names, y=logits(5, LABELS))


def test_elements() -> None:
    classes = RNG.integers(0, 3, (SIZE, 4, 5))
    scores = np.moveaxis(np.eye(3, dtype=np.float32)[classes], -1, 1)
    classes[0, 0, 0] = -1
    assert chosen(classes, y=scores) == "element-accuracy@y"
    tokens = RNG.integers(0, 3, (SIZE, 7))
    assert chosen(tokens, y=np.eye(3, dtype=np.float32)[tokens]) == "element-accuracy@y"


def test_a_number_for_every_frame() -> None:
    """As of voice activity: a probability for each frame, beside the state of a recurrent layer."""
    frames = RNG.integers(0, 2, (SIZE, 9))
    p = np.where(frames, 0.8, 0.3).astype(np.float32)
    state = RNG.standard_normal((SIZE, 1, 12)).astype(np.float32)
    assert chosen(frames, p=p, h=state) == "element-accuracy@p"
    assert chosen(frames == 1, h=state, p=p[..., np.newaxis]) == "element-accuracy@p"
    named = model("p", "h", op="Neg")
    assert chosen(frames, given=named, p=p, h=state) == "element-accuracy:threshold=0.5@p"
    wrong = np.where(frames, 0.3, 0.8).astype(np.float32)  # a poor model is no other one
    assert chosen(frames, p=wrong, h=state) == "element-accuracy@p"
    one = {"p": p[0], "h": RNG.standard_normal((1, 1, 12)).astype(np.float32)}
    metric, _ = choose_metric(model(*one), 100, frames[:1], one, 0.01, 1)
    assert str(metric) == "element-accuracy@p"
    assert metric.value(metric.rows(Observed(one, one, frames[:1], 1))) == 1.0


def test_labels_that_fit_nothing() -> None:
    for labels in (
        np.zeros((SIZE, 3, 3)),
        np.zeros(0),
        np.array(3),
        np.zeros((SIZE, 2), complex),
        STRUCTURED,
    ):
        with pytest.raises(UsageError, match="no metric is known for labels") as caught:
            chosen(labels, y=logits())
        assert "--metric cosine" in str(caught.value)


def ending(*nodes: str) -> Model:
    """A model that ends in some nodes, behind a MatMul."""
    body = "\n".join(nodes)
    return parse(
        '<ir_version: 10, opset_import: ["" : 17]>\n'
        f"g (float[N,4,6] x, float[6,8] w, float[8] s) => (float[N,8] y) {{ t = MatMul(x, w) {body} }}"
    )


LINEAR = ending("m = ReduceMean<axes = [1], keepdims = 0>(t)", "y = Add(m, s)")

LENGTH = "n = ReduceL2<axes = [1], keepdims = 1>(r)"


@pytest.mark.parametrize(
    "nodes",
    [
        ["n = LayerNormalization(t, s, s)", "y = ReduceMean<axes = [1], keepdims = 0>(n)"],
        ["r = ReduceMean<axes = [1], keepdims = 0>(t)", "y = Tanh(r)"],
        ["r = ReduceMax<axes = [1], keepdims = 0>(t)", LENGTH, "y = Div(r, n)"],
        [
            *("r = ReduceMax<axes = [1], keepdims = 0>(t)", LENGTH, "c = Max(n, s)"),
            "y = Div(r, c)",
        ],
    ],
)
def test_embeddings_are_no_scores(nodes: list[str]) -> None:
    """What a graph normalizes at its end is compared by its direction, however it is scaled."""
    assert chosen(None, y=logits(8), given=ending(*nodes)) == "cosine@y"


def test_layers_behind_a_normalization_give_scores() -> None:
    nodes = ["n = LayerNormalization(t, s, s)", "r = ReduceMean<axes = [1], keepdims = 0>(n)"]
    assert chosen(None, y=logits(8), given=ending(*nodes, "y = MatMul(r, w)")) == "agreement@y"
    divided = ending("r = ReduceMax<axes = [1], keepdims = 0>(t)", "y = Div(r, s)")
    assert chosen(None, y=logits(8), given=divided) == "agreement@y"


def test_rows_of_length_1_are_embeddings() -> None:
    y = logits(8)
    unit = y / np.linalg.norm(y, axis=1, keepdims=True)
    assert chosen(None, y=unit) == "cosine@y"
    assert chosen(None, y=unit * np.linspace(1, 1.1, SIZE)[:, None]) == "agreement@y"
    sure = np.full((SIZE, 8), 1e-12)
    sure[np.arange(SIZE), np.arange(SIZE) % 8] = 1.0  # a softmax that is certain
    assert chosen(None, p=sure.astype(np.float32)) == "agreement@p"


def test_without_labels() -> None:
    y = logits()
    assert chosen(None, y=y, given=LINEAR) == chosen(None, y=y) == "agreement@y"
    assert chosen(None, samples=599, y=y) == "cosine@y"
    assert chosen(None, samples=600, y=y) == "agreement@y"
    assert chosen(None, samples=600, max_drop=0.001, y=y) == "cosine@y"
    assert chosen(None, samples=10**9, max_drop=0.0, y=y) == "cosine@y"
    assert chosen(None, samples=1, max_drop=None, y=y) == "agreement@y"
    assert chosen(None, y=y, ids=LABELS) == "agreement@y"
    assert chosen(None, y=y, boxes=logits(4)) == "cosine"
    softmax = np.exp(y) / np.exp(y).sum(1, keepdims=True)
    assert chosen(None, p=softmax, q=softmax) == "agreement"
    assert chosen(None, p=softmax, boxes=logits(4)) == "cosine"
    assert chosen(None, steps=RNG.standard_normal((SIZE, 3, 4))) == "cosine@steps"
    assert chosen(None, y=RNG.standard_normal((SIZE, 1))) == "sqnr@y"
    assert chosen(None, y=RNG.random(SIZE), z=logits()) == "sqnr"
    assert chosen(None, y=np.array(1.5)) == "sqnr@y"
    assert chosen(None, ids=LABELS) == "equal"
    boxes = {"boxes": RNG.random((9, 4))}
    metric, _ = choose_metric(model("boxes"), 10_000, None, boxes, 0.01, size=2)
    assert str(metric) == "cosine@boxes"
    assert chosen(RNG.random((SIZE, 2)), y=np.full((SIZE, 2), 1e200)) == "mse@y"
    for outputs in ({}, {"words": np.array(["a"], object)}):
        with pytest.raises(UsageError, match="no output can be compared"):
            chosen(None, **outputs)


def test_probabilities_without_labels_are_compared_as_such() -> None:
    likely = logits()
    likely = np.exp(likely) / np.exp(likely).sum(1, keepdims=True)
    assert chosen(None, samples=9, p=likely) == "tv@p"
    assert chosen(None, samples=9, p=likely, q=likely) == "tv"
    assert chosen(None, samples=9, p=likely, boxes=logits(4)) == "cosine"
    assert chosen(None, steps=np.stack([likely] * 3, axis=1)) == "tv@steps"
    one = RNG.random(SIZE)
    sigmoid = model("y", op="Sigmoid")
    assert chosen(None, given=sigmoid, y=one) == "tv@y"
    assert chosen(None, given=sigmoid, y=one.reshape(-1, 1)) == "tv@y"
    assert chosen(None, given=model("y", op="Relu"), y=one) == "sqnr@y"
    some = RNG.random((SIZE, 3, 4))
    assert chosen(None, given=sigmoid, y=some) == "soft-iou@y"
    assert chosen(None, given=sigmoid, y=0.4 * some) == "cosine@y"  # no mask
    assert chosen(None, given=model("y", op="Relu"), y=some) == "cosine@y"
    carried = model("y", "h", op="Sigmoid")
    carried.graph.inputs[0].shape = (2, 7)
    assert chosen(None, given=carried, y=one, h=RNG.standard_normal((2, 7))) == "tv@y"
    assert chosen(None, given=carried, y=one, h=RNG.standard_normal((2, 8))) == "sqnr"


def test_decisions_of_steps_are_counted() -> None:
    sigmoid = model("y", "h", op="Sigmoid")
    sigmoid.graph.inputs[0].shape = (2, 7)
    steps = {"y": RNG.random(64), "h": RNG.standard_normal((2, 7))}

    def of(samples: int, drop: float | None = 0.01, given: Any = sigmoid, **outputs: Any) -> str:
        return str(choose_metric(given, samples, None, {**steps, **outputs}, drop, size=1)[0])

    assert of(10) == of(1, None) == "element-agreement@y"
    assert of(9) == of(10, 0.005) == "tv@y"  # fewer than six decisions may differ
    assert of(10, y=0.4 * steps["y"]) == "tv@y"  # all of them are decided alike
    assert of(10, given=model("y", "h", op="Relu")) == "sqnr"
    assert of(10, y=RNG.random((8, 8, 8))) == "soft-iou@y"  # a map


def test_reasons_are_said() -> None:
    y = logits()
    for samples, labels, expected in (
        (10_000, None, "no labels; the outputs are scores of classes"),
        (9, None, "9 samples are too few to prove so small a drop"),
        (9, LABELS, "the labels are numbers of classes, the output 'y' predicts classes"),
    ):
        _, why = choose_metric(model("y"), samples, labels, {"y": y}, 0.01)
        assert expected in why
    _, why = choose_metric(model("y", "z"), 9, LABELS, {"y": y, "z": logits(5, LABELS)}, 0.01)
    assert "of 2 readings that fit" in why


def test_measures_worth_a_report() -> None:
    y = logits()
    softmax = np.exp(y) / np.exp(y).sum(1, keepdims=True)
    outputs = {
        "y": y,
        "p": softmax.astype(ml_dtypes.bfloat16).astype(np.float32),
        "q": softmax,
        "steps": np.full((SIZE, 3, 4), 0.25, np.float16),
        "one": y[:, :1],
        "map": np.full((SIZE, 1, 3, 2), 0.25),
        "scalar": np.array(1.0),
        "ids": LABELS,
        "words": np.array(["a"] * SIZE, object),
        "list": [y],
    }
    found: dict[str, list[str]] = {}
    for metric in fidelity_metrics(outputs):
        found.setdefault(metric.output, []).append(metric.name)
        if metric.output != "scalar":
            metric.rows(Observed(outputs, outputs, None, SIZE))
    assert found["y"] == ["agreement", "cosine", "sqnr", "worst"]
    assert found["q"] == ["agreement", "cosine", "sqnr", "worst", "kl", "tv"]
    assert found["steps"] == ["cosine", "sqnr", "worst", "kl", "tv"]
    assert found["map"] == ["cosine", "sqnr", "worst"]
    assert found["one"] == found["scalar"] == ["sqnr", "worst"]
    assert found["ids"] == ["equal"]
    of_boxes = [m.name for m in fidelity_metrics({"boxes": np.ones((9, 4))}, size=2)]
    assert of_boxes == ["cosine", "sqnr", "worst"]
    assert set(found) == {"y", "p", "q", "steps", "one", "map", "scalar", "ids"}
