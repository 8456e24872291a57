"""What a sample is: ranks, types, fixed dimensions, batches."""

from __future__ import annotations

import numpy as np
import pytest
from data_models import (
    HEAD,
    labels_of,
    model_of,
    opened,
    refusal,
    rows_of,
    samples,
    simple,
)

from graphopt.testing import parse

X = samples(30)


def sizes(dataset, part="evaluation", **more) -> list[int]:
    return [batch.size for batch in dataset.batches(part, **more)]


def all_of(source, model, **more):
    return opened(source, model, calibrates=False, **more)


def test_an_array_of_the_inputs_rank_is_joined_along_its_first_axis() -> None:
    dataset = all_of({"x": samples(150)}, simple())
    assert sizes(dataset) == [64, 64, 22]
    assert sizes(dataset, size=4)[:3] == [4, 4, 4]
    assert sizes(dataset, most=70) == [64, 6]
    assert sizes(dataset, most=0) == []


def test_the_batch_size_follows_from_the_bytes_of_a_sample() -> None:
    model = model_of("float[N,W] x")
    assert sizes(all_of({"x": samples(9, 1 << 18)}, model)) == [4, 4, 1]  # 1 MiB a sample
    assert sizes(all_of({"x": samples(2, (1 << 20) + 1)}, model)) == [1, 1]


def test_an_array_of_one_axis_more_holds_whole_inputs() -> None:
    model = model_of("float[N,3] x,  float[2,B,4] state")
    state = samples(30, 2, 1, 4)
    dataset = all_of({"x": X, "state": state}, model)
    batches = list(dataset.batches("evaluation"))
    assert [batch.size for batch in batches] == [1] * 30
    for number, batch in enumerate(batches):
        np.testing.assert_array_equal(batch.feeds["x"], X[number : number + 1])
        np.testing.assert_array_equal(batch.feeds["state"], state[number])


def test_scalars_are_one_value_a_sample_or_one_for_all() -> None:
    model = model_of("float[N,3] x,  int64 rate")
    same = all_of({"x": X, "rate": np.full(30, 16000)}, model)
    assert sizes(same) == [30]
    feeds = next(same.batches("evaluation")).feeds
    assert feeds["rate"].shape == () and feeds["rate"] == 16000
    assert all_of({"x": X, "rate": np.array(16000)}, model).digest == same.digest
    mixed = all_of({"x": X, "rate": np.repeat([8000, 16000, 8000], 10)}, model)
    assert sizes(mixed) == [10, 10, 10]
    assert [int(b.feeds["rate"]) for b in mixed.batches("evaluation")] == [8000, 16000, 8000]
    alone = model_of("float rate")
    assert sizes(all_of({"rate": np.arange(3, dtype=np.float32)}, alone)) == [1, 1, 1]


def test_a_scalar_is_not_taken_for_an_input_with_axes() -> None:
    assert "samples of shape none" in refusal({"x": X, "k": np.float32(1)}, OPTIONAL_K)
    assert "no array has an axis to count" in refusal({"x": np.float32(1)}, simple())


def test_an_unknown_rank_is_joined() -> None:
    model = parse(HEAD + "g (float x) => (float y) { y = Relu(x) }")
    model.graph.inputs[0].shape = None
    assert sizes(all_of({"x": X}, model)) == [30]
    assert [b.size for b in all_of([{"x": X[0]}], model).batches("evaluation")] == [3]
    feeds = next(all_of([{"x": X[0, 0]}], model).batches("evaluation")).feeds
    assert feeds["x"].shape == ()


def test_a_fixed_first_dimension_takes_groups_and_leaves_the_rest_out() -> None:
    model = model_of("float[4,3] x")
    dataset = all_of({"x": X, "y": np.arange(30)}, model, labels="y")
    assert sizes(dataset) == [4] * 7
    assert dataset.samples == 28
    assert dataset.warnings == [
        "2 samples of a dict of arrays fill no run of the model and are left out"
    ]
    np.testing.assert_array_equal(labels_of(dataset, "evaluation"), np.arange(28))
    assert sizes(dataset, most=5) == [4, 4]
    assert "holds 3 samples, one run of the model takes 4" in refusal({"x": X[:3]}, model)


@pytest.mark.parametrize("piece", [1, 3, 4, 7, 30])
def test_groups_do_not_depend_on_the_pieces_that_samples_come_in(piece) -> None:
    def batches():
        for at in range(0, 30, piece):
            yield X[at : at + piece]

    dataset = opened(batches, model_of("float[4,3] x"))
    whole = opened({"x": X}, model_of("float[4,3] x"))
    for part in ("calibration", "evaluation"):
        np.testing.assert_array_equal(rows_of(dataset, part), rows_of(whole, part))
    assert dataset.digest == whole.digest


def test_samples_of_unequal_shape_never_share_a_run() -> None:
    widths = [5, 5, 5, 8, 8, 5, 9, 9, 9]

    def batches():
        for number, width in enumerate(widths):
            yield np.full((1, 2, width), number, np.float32)

    dataset = all_of(batches, model_of("float[N,2,W] x"))
    found = [batch.feeds["x"] for batch in dataset.batches("evaluation")]
    assert [each.shape for each in found] == [(3, 2, 5), (2, 2, 8), (1, 2, 5), (3, 2, 9)]
    assert np.concatenate([each[:, 0, 0] for each in found]).tolist() == list(range(9))
    pairs = all_of(batches, model_of("float[2,2,W] x"))
    assert sizes(pairs) == [2, 2, 2]
    assert "3 samples of" in pairs.warnings[0]


def test_inputs_that_take_different_numbers_of_rows() -> None:
    model = model_of("float[4,3] x,  float[2,3] z")
    said = refusal({"x": X, "z": X}, model)
    assert "takes 4 rows of 'x' and another number" in said
    assert sizes(all_of({"x": samples(5, 4, 3), "z": samples(5, 2, 3)}, model)) == [1] * 5
    said = refusal({"x": samples(20), "z": samples(5, 2, 3)}, model)
    assert "20 samples of 'x' and 5 of 'z'" in said


def test_exact_conversions_only() -> None:
    ids = model_of("int32[N,3] x")
    whole = np.arange(30).reshape(10, 3)
    for dtype in ("uint8", "int8", "uint16", "int64", "uint64", ">i8"):
        assert rows_of(all_of({"x": whole.astype(dtype)}, ids), "evaluation").dtype == np.int32
    same = all_of({"x": whole.astype(np.uint8)}, ids).digest
    assert all_of({"x": whole}, ids).digest == same
    whole[7, 1] = 1 << 31
    assert "int32 does not hold all of its values" in refusal({"x": whole}, ids)
    narrow = X.astype(np.float16)
    np.testing.assert_array_equal(rows_of(all_of({"x": narrow}, simple()), "evaluation"), narrow)
    for wrong in (X.astype(np.float64), X.astype(np.int64), X > 0, X.astype(np.complex64)):
        said = refusal({"x": wrong}, simple())
        assert f"is {wrong.dtype}, the model wants float32. Convert it: array.astype" in said
    assert "wants bool" in refusal({"x": whole}, model_of("bool[N,3] x"))


def test_text_inputs_and_labels() -> None:
    words = np.array([["a", "längst"], ["b", "x"]])
    model = parse(HEAD + "g (string[N,2] x) => (string[N,2] y) { y = Identity(x) }")
    dataset = all_of({"x": words, "y": np.array([b"one", b"two"])}, model, labels="y")
    batch = next(dataset.batches("evaluation"))
    assert batch.feeds["x"].dtype == object and batch.feeds["x"].tolist() == words.tolist()
    assert batch.labels.tolist() == ["one", "two"]
    assert all_of({"x": words.astype(object), "y": ["one", "two"]}, model, labels="y").digest == (
        dataset.digest
    )
    objects = np.array([[{}, 1], [2, 3]], dtype=object)
    assert "holds objects" in refusal({"x": objects}, model)
    assert "is <U6, the model wants float32" in refusal({"x": words}, model_of("float[N,2] x"))
    assert "wants text" in refusal({"x": X[:, :2]}, model)


def test_shapes_that_do_not_fit() -> None:
    for wrong, shape in ((X[:, :2], "(2,)"), (X[:, 0], "()"), (X[None, None], "(1, 30, 3)")):
        said = refusal({"x": wrong}, simple())
        assert f"samples of shape {shape}, the model wants (N, 3) with the batch first" in said
    assert "holds no samples" in refusal({"x": X[:0]}, simple())
    assert "are empty" in refusal({"x": samples(5, 0)}, model_of("float[N,W] x"))


def test_an_empty_cache_beside_other_inputs_is_fine() -> None:
    model = model_of("float[N,3] x,  float[N,P,4] past")
    dataset = all_of({"x": X, "past": np.zeros((30, 0, 4), np.float32)}, model)
    assert next(dataset.batches("evaluation")).feeds["past"].shape == (30, 0, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_must_be_finite(value) -> None:
    wrong = X.copy()
    wrong[21, 1] = value
    said = refusal({"x": wrong}, simple())
    assert "the array 'x' of a dict of arrays holds NaN or infinity, first in sample 21" in said
    labels = np.zeros(30)
    labels[13] = value
    said = refusal({"x": X, "y": labels}, simple(), labels="y")
    assert "the labels of a dict of arrays hold NaN or infinity, first in sample 13" in said


def test_labels_of_any_width_and_shape() -> None:
    for labels in (np.arange(30, dtype=np.uint8), np.zeros((30, 4), np.int16), X > 0):
        dataset = all_of({"x": X, "y": labels}, simple(), labels="y")
        np.testing.assert_array_equal(labels_of(dataset, "evaluation"), labels)
    for wrong in (np.zeros(30, "M8[s]"), np.array([{}] * 30), X.astype(np.complex64)):
        assert "the labels of a dict of arrays are" in refusal(
            {"x": X, "y": wrong}, simple(), labels="y"
        )
    assert "30 samples of 'x' and 29 of 'y'" in refusal({"x": X, "y": X[:29]}, simple(), labels="y")
    assert "have no axis" in refusal({"x": X, "y": 3}, simple(), labels="y")


OPTIONAL_K = parse(
    HEAD + "g (float[N,3] x, float[1] k) => (float[N,3] y) <float[1] k = {2}> { y = Mul(x, k) }"
)


def test_inputs_with_a_default_may_be_left_out() -> None:
    assert set(next(all_of({"x": X}, OPTIONAL_K).batches("evaluation")).feeds) == {"x"}
    given = all_of({"x": X, "k": samples(30, 1)}, OPTIONAL_K)
    batch = next(given.batches("evaluation"))
    assert batch.size == 1 and batch.feeds["k"].shape == (1,)
