"""Metrics of classification against plain loops, and what they refuse."""

from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.errors import UsageError
from graphopt.quality.metrics import Metric, Observed
from graphopt.quality.metrics.classification import ElementAccuracy, Top1, TopK
from graphopt.quality.metrics.f1 import F1
from graphopt.quality.metrics.scores import thresholds
from graphopt.testing import parse


def seen(labels, size: int | None = None, **outputs: np.ndarray) -> Observed:
    labels = None if labels is None else np.asarray(labels)
    count = size if size is not None else len(labels)
    return Observed(dict(outputs), dict(outputs), labels, count)


def right(metric: Metric, batch: Observed) -> list[int]:
    return metric.rows(batch)[:, 0].astype(int).tolist()


def refused(metric: Metric, batch: Observed) -> str:
    with pytest.raises(UsageError) as caught:
        metric.rows(batch)
    assert "\n" not in str(caught.value)
    return str(caught.value)


SCORES = np.array([[1, 3, 2], [5, 5, 0], [0, 5, 5], [2, 2, 2]], np.float32)


def test_top1_takes_the_first_of_equals() -> None:
    assert right(Top1(), seen([1, 0, 1, 0], y=SCORES)) == [1, 1, 1, 1]
    assert right(Top1(), seen([1, 1, 2, 2], y=SCORES)) == [1, 0, 0, 0]


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.uint16])
def test_scores_of_any_type(dtype) -> None:
    assert right(Top1(), seen([1, 0, 1, 0], y=SCORES.astype(dtype))) == [1, 1, 1, 1]
    assert right(TopK(k=2), seen([2, 1, 2, 2], y=SCORES.astype(dtype))) == [1, 1, 1, 0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_topk_is_the_stable_sort(data) -> None:
    classes = data.draw(st.integers(2, 7))
    k = data.draw(st.integers(1, classes - 1))
    row = st.lists(st.integers(0, 3), min_size=classes, max_size=classes)
    scores = np.array(data.draw(st.lists(row, min_size=1, max_size=5)), np.float32)
    labels = np.array(
        data.draw(st.lists(st.integers(0, classes - 1), min_size=len(scores), max_size=len(scores)))
    )
    expected = [
        int(label in sorted(range(classes), key=lambda c: (-values[c], c))[:k])
        for values, label in zip(scores, labels, strict=True)
    ]
    assert right(TopK(k=k), seen(labels, y=scores)) == expected
    if k == 1:
        assert right(Top1(), seen(labels, y=scores)) == expected


def test_a_nan_predicts_nothing_and_infinity_wins() -> None:
    scores = np.array([[np.nan, 0, 0], [0, np.inf, 1], [0, -np.inf, 1]])
    for label in range(3):
        assert right(Top1(), seen([label] * 3, y=scores))[0] == 0
        assert right(TopK(k=2), seen([label] * 3, y=scores))[0] == 0
    assert right(Top1(), seen([0, 1, 2], y=scores)) == [0, 1, 1]


def test_forms_of_labels() -> None:
    one_hot = np.eye(3)[[1, 0, 1, 0]]
    soft = one_hot * 0.8 + 0.2 / 3
    names = np.array(["b", "a", "b", "a"])
    forms = [
        *([1, 0, 1, 0], [[1], [0], [1], [0]], np.array([1, 0, 1, 0], np.uint8)),
        *(np.array([1.0, 0, 1, 0]), np.array([1, 0, 1, 0]) == 1),
        np.array([1, 0, 1, 0]).astype(ml_dtypes.int4),
        *(one_hot, one_hot.astype(int), soft.astype(np.float32), soft.astype(ml_dtypes.bfloat16)),
    ]
    for labels in forms:
        assert right(Top1(), seen(labels, y=SCORES)) == [1, 1, 1, 1]
    for words in (names, names.astype(object), names.astype("S")):
        assert right(Top1(classes=("a", "b", "c")), seen(words, y=SCORES)) == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (None, "the data has none"),
        ([1, 2], "int64[2] for 4 samples"),
        ([0, 1, 2, 3], "a label is 3, and the output has 3 classes. Labels must lie from 0 to 2"),
        ([0, 1, 2, -1], "a label is -1"),
        ([0.5, 1, 2, 1], "not whole numbers"),
        ([1e300, 1, 2, 1], "not whole numbers"),
        ([np.nan, 1, 2, 1], "not whole numbers"),
        ([[1, 0, 1]] * 4, "neither one-hot nor probabilities"),
        ([[0.2, np.nan, 0.8]] * 4, "neither one-hot nor probabilities"),
        (np.eye(3, dtype=complex)[[0, 1, 2, 0]], "wants one class per sample"),
        ([[0, 1]] * 4, "wants one class per sample; the labels are int64[4,2]"),
        ([1j, 1, 1, 1], "cannot read labels of the type complex128"),
        (np.zeros(4, [("a", int)]), "cannot read labels of the type void64"),
        (np.zeros(4, "datetime64[s]"), "cannot read labels of the type datetime64[s]"),
        (np.array([None] * 4), "the order of the classes is not known"),
        (["a", "b", "a", "a"], "the order of the classes is not known"),
    ],
)
def test_labels_that_are_refused(labels, said: str) -> None:
    assert said in refused(Top1(), seen(labels, 4, y=SCORES))


def test_names_that_are_refused() -> None:
    known = Top1(classes=("cat", "dog", "eel"))
    assert "Did you mean cat?" in refused(known, seen(["cat", "dog", "cats", "eel"], y=SCORES))
    mixed = np.array(["cat", "dog", 3.0, "eel"], object)
    assert "neither a number nor a string" in refused(known, seen(mixed, y=SCORES))
    assert "2 names" in refused(Top1(classes=("a", "b")), seen([0, 0, 0, 0], y=SCORES))


def test_one_column_is_cut_where_the_graph_says() -> None:
    column = np.array([[0.2], [0.5], [0.7], [np.nan]], np.float32)
    for shaped in (column, column[:, 0], column[:, :, np.newaxis]):
        assert right(Top1(known={"y": 0.5}), seen([0, 0, 1, 0], y=shaped)) == [1, 1, 1, 0]
        assert right(Top1(known={"y": 0.0}), seen([1, 1, 1, 0], y=shaped)) == [1, 1, 1, 0]
        given = Top1(threshold=0.6, known={"y": 0.0})
        assert right(given, seen([0, 0, 1, 1], y=shaped)) == [1, 1, 1, 0]
    assert "threshold=0.5 or threshold=0" in refused(Top1(), seen([0, 0, 1, 1], y=column))
    assert "2 classes" in refused(Top1(known={"y": 0.5}), seen([0, 2, 1, 1], y=column))


@pytest.mark.parametrize(
    ("body", "cut"),
    [
        ("y = Sigmoid(x)", 0.5),
        ("a = Softmax(x) b = Cast<to = 10>(a) y = Reshape(b, s)", 0.5),
        ("y = Gemm(x, w)", 0.0),
        ("a = MatMul(x, w) b = Add(a, c) y = Squeeze(b)", 0.0),
        ("a = Sigmoid(x) y = Add(a, c)", None),
        ("a = Tanh(x) y = Add(a, c)", None),
        ("y = Add(x, x)", None),
        ("y = Identity(x)", None),
        ("a = MatMul(x, w) y = Add(a, x)", None),
        ("a = Mul(x, x) y = Relu(a)", None),
    ],
)
def test_the_graph_tells_probabilities_from_logits(body: str, cut: float | None) -> None:
    model = parse(
        f'<ir_version: 8, opset_import: ["" : 17]>\ng (float[N,1] x) => (float[N,1] y) '
        "<float[1,1] w = {2}, float[1] c = {1}, int64[2] s = {-1, 1}> "
        f"{{ {body} }}"
    )
    assert thresholds(model) == ({} if cut is None else {"y": cut})


def test_outputs_that_are_classes_already() -> None:
    assert right(Top1(), seen([7, 2], y=np.array([7, 3]))) == [1, 0]
    words = np.array(["b", "?"], object)
    assert right(Top1(classes=("a", "b")), seen(["b", "a"], y=words)) == [1, 0]
    assert "Name them" in refused(Top1(), seen(["b", "a"], y=words))


def test_which_output_is_meant() -> None:
    wide, column = np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32)
    both = seen([0, 0, 0, 0], a=wide, b=column, c=np.zeros((4, 3, 5), np.float32))
    assert (
        "fits several outputs: a float32[4,3], b float32[4,2]. Name one, as in top1@a"
        in refused(Top1(), both)
    )
    assert right(Top1(output="b"), both) == [1, 1, 1, 1]
    assert "the output 'c' is float32[4,3,5]" in refused(Top1(output="c"), both)
    assert "'d' is no tensor. Outputs: a float32[4,3]" in refused(Top1(output="d"), both)
    assert "no output is that" in refused(Top1(), seen([0] * 4, c=np.zeros((4, 0), np.float32)))
    assert "no output is that" in refused(Top1(), seen([0] * 4, c=np.zeros((4, 3), bool)))
    many = {f"o{i}": wide for i in range(30)}
    assert "22 more" in refused(Top1(), Observed(many, many, np.zeros(4, int), 4))


def test_outputs_without_a_batch_axis() -> None:
    assert right(Top1(), seen([2], y=np.array([0.0, 1, 3]))) == [1]
    assert right(Top1(known={"y": 0.5}), seen([1], y=np.array(0.9))) == [1]
    assert right(Top1(), seen([1, 2], y=SCORES[:2, :, np.newaxis, np.newaxis])) == [1, 0]
    assert "no output is that" in refused(Top1(), seen([1, 2], y=np.array([0.0, 1, 3])))


def test_k_must_leave_something_out() -> None:
    assert "3 classes have no other 3 highest" in refused(TopK(k=3), seen([0] * 4, y=SCORES))
    assert "wants scores" in refused(TopK(), seen([0] * 4, y=np.zeros((4, 1), np.float32)))


def test_elements() -> None:
    scores = np.zeros((2, 3, 2, 2), np.float32)
    scores[0, 1], scores[1, 2] = 1, 1
    labels = np.array([[[1, 1], [1, 0]], [[2, -1], [255, 0]]])
    metric = ElementAccuracy(ignore=255)
    assert metric.rows(seen(labels, y=scores)).tolist() == [[3, 4], [1, 2]]
    assert metric.value(metric.rows(seen(labels, y=scores))) == pytest.approx(4 / 6)
    last = np.moveaxis(scores, 1, -1)
    assert metric.rows(seen(labels, y=last)).tolist() == [[3, 4], [1, 2]]
    assert metric.rows(seen(labels, y=scores.argmax(axis=1))).tolist() == [[3, 4], [1, 2]]
    assert "ignore=NUMBER" in refused(ElementAccuracy(), seen(labels, y=scores))
    assert "wants a class for each" in refused(metric, seen(labels[:, 0], y=scores))
    assert "wants a class for each" in refused(metric, seen([0, 1], y=scores))
    square = np.zeros((2, 3, 3), np.float32)
    square[:, 1, :] = 1
    assert "axes 1 and 2" in refused(metric, seen(np.zeros((2, 3), int), y=square))
    chosen = ElementAccuracy(axis=-2).rows(seen(np.ones((2, 3), int), y=square))
    assert chosen.tolist() == [[3, 3], [3, 3]]
    nothing = metric.rows(seen(np.full((2, 2, 2), -1), y=scores))
    assert metric.value(nothing) == 0


def test_elements_of_one_number() -> None:
    labels = np.array([[0, 1, 1], [1, -1, 0]])
    p = np.array([[0.4, 0.6, 0.5], [np.nan, 0.9, 0.7]], np.float32)
    told = ElementAccuracy(known={"y": 0.5})
    assert told.rows(seen(labels, y=p)).tolist() == [[2, 3], [0, 2]]
    given = ElementAccuracy(threshold=0.8, known={"y": 0.5})
    assert given.rows(seen(labels, y=p)).tolist() == [[1, 3], [1, 2]]
    assert told.rows(seen(labels, y=p[..., np.newaxis])).tolist() == [[2, 3], [0, 2]]
    assert "threshold=0.5" in refused(ElementAccuracy(output="y"), seen(labels, y=p))
    assert "no output is that" in refused(ElementAccuracy(), seen(labels, y=p))
    assert "2 classes" in refused(told, seen(2 * labels, y=p))


def plain_f1(pairs: list[tuple[int, int]], average: str) -> float:
    hits = Counter(a for a, b in pairs if a == b)
    both = Counter(a for a, _ in pairs) + Counter(b for _, b in pairs)
    if average == "binary":
        return 2 * hits[1] / both[1] if both[1] else 1.0
    if average == "micro":
        return 2 * sum(hits.values()) / sum(both.values())
    scores = []
    for c in both:
        precision = hits[c] / max(sum(b == c for _, b in pairs), 1)
        recall = hits[c] / max(sum(a == c for a, _ in pairs), 1)
        scores.append(2 * precision * recall / (precision + recall) if hits[c] else 0.0)
    return sum(scores) / len(scores)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30),
    st.sampled_from(["macro", "micro", "binary"]),
)
def test_f1_is_the_textbook_formula(pairs: list[tuple[int, int]], average) -> None:
    labels, predicted = np.array(pairs).T
    metric = F1(average=average, positive=1)
    batch = seen(labels, y=np.eye(5, dtype=np.float32)[predicted])
    assert metric.value(metric.rows(batch)) == pytest.approx(plain_f1(pairs, average))


def test_f1_special_cases() -> None:
    two = seen([0, 1, 1], y=np.array([[1, 0], [0, 1], [1, 0]], np.float32))
    assert F1(average="binary").value(F1(average="binary").rows(two)) == pytest.approx(2 / 3)
    assert "positive=NUMBER" in refused(F1(average="binary"), seen([0] * 4, y=SCORES))
    assert "no class 3" in refused(F1(average="binary", positive=3), seen([0] * 4, y=SCORES))
    broken = np.where([[True], [False], [False]], np.nan, np.eye(3)).astype(np.float32)
    rows = F1().rows(seen([0, 1, 2], y=broken))
    assert rows[0].tolist() == [0, -1]
    assert F1().value(rows) == pytest.approx(2 / 3)
    assert F1(average="micro").value(rows) == pytest.approx(2 / 3)
    large = np.array([[10**15, 10**15], [3, 10**15]], np.float64)
    assert F1().value(large) == pytest.approx((2 / 3 + 0) / 2)
