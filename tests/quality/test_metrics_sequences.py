"""Metrics of sequences: decoding, distances and rates against plain definitions."""

from __future__ import annotations

import functools
import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphopt.errors import UsageError
from graphopt.quality.metrics import Metric, Observed
from graphopt.quality.metrics.edit_distance import edit_distance
from graphopt.quality.metrics.sequences import CER, WER, WordAccuracy
from graphopt.quality.metrics.transcripts import LONGEST, Spelling

WORDS = st.text("abc ", max_size=12)


def seen(labels, output: np.ndarray, size: int | None = None) -> Observed:
    labels = None if labels is None else np.asarray(labels)
    count = size if size is not None else len(labels)
    return Observed({"y": output}, {"y": output}, labels, count)


def scores(paths: list[list[int]], classes: int) -> np.ndarray:
    """Scores ``(samples, steps, classes)`` whose best classes are the paths."""
    return np.eye(classes, dtype=np.float32)[np.array(paths)]


def refused(metric: Metric, batch: Observed) -> str:
    with pytest.raises(UsageError) as caught:
        metric.rows(batch)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def levenshtein(first, second) -> int:
    """The recursive definition."""

    @functools.cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        substituted = distance(i - 1, j - 1) + (first[i - 1] != second[j - 1])
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, substituted)

    return distance(len(first), len(second))


@settings(max_examples=200, deadline=None)
@given(WORDS, WORDS)
def test_edit_distance_is_the_definition(first: str, second: str) -> None:
    assert edit_distance(first, second) == levenshtein(first, second)
    assert edit_distance(first.split(), second.split()) == levenshtein(
        first.split(), second.split()
    )


def test_edit_distance_of_long_sequences() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 5, 300).tolist()
    second = rng.integers(0, 5, 257).tolist()
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        above, row = row, [i]
        for j, b in enumerate(second, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    assert edit_distance(first, second) == row[-1]
    assert edit_distance(first, [9] * 1000) == 1000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=4))
def test_greedy_decoding_collapses_and_drops_blanks(paths: list[list[int]]) -> None:
    for blank in (0, 3, -1):
        decoded = [[c for c, _ in itertools.groupby(path) if c != blank % 4] for path in paths]
        padded = np.array([row + [-7] * (6 - len(row)) for row in decoded])
        metric = CER(spelling=Spelling(blank=blank))
        assert metric.rows(seen(padded, scores(paths, 4))).tolist() == [
            [0, len(row)] for row in decoded
        ]


def test_layouts_and_types() -> None:
    output = scores([[1, 1, 0, 1], [0, 2, 2, 3]], 4)
    labels = [[1, 1, -1], [2, 3, 1]]
    expected = [[0, 2], [1, 3]]
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16, np.uint8):
        assert CER().rows(seen(labels, output.astype(dtype))).tolist() == expected
        assert CER().rows(seen(labels, output.astype(dtype).swapaxes(0, 1))).tolist() == expected
    assert CER().rows(seen(labels[:1], output[0])).tolist() == expected[:1]
    assert CER().rows(seen(labels[:1], output[:1].swapaxes(0, 1))).tolist() == expected[:1]
    square = output[:, :2]
    assert "Add layout=ntc for samples first" in refused(CER(), seen(labels, square))
    for layout, given_scores in (("ntc", square), ("tnc", square.swapaxes(0, 1))):
        found = CER(spelling=Spelling(layout=layout)).rows(seen(labels, given_scores))
        assert found.tolist() == [[1, 2], [2, 3]]
    assert "wants scores" in refused(CER(), seen(labels, np.zeros((3, 4, 5), np.float32)))
    tnc = CER(spelling=Spelling(layout="tnc"))
    assert "wants scores" in refused(tnc, seen(labels, output))


def test_steps_of_nan_spell_nothing_right() -> None:
    output = scores([[1, 2, 3]], 4)
    output[0, 1, 0] = np.nan
    assert CER().rows(seen([[1, 2, 3]], output)).tolist() == [[1, 3]]
    assert CER().rows(seen([[1, 2, 3]], np.full((1, 3, 4), np.nan))).tolist() == [[3, 3]]
    spelled = CER(spelling=Spelling(charset=("a", "b", "c")))
    assert spelled.rows(seen(["abc"], output)).tolist() == [[1, 3]]


def test_outputs_that_are_integers() -> None:
    paths = np.array([[1, 1, 0, 1], [2, 0, 3, -1]])
    greedy, plain = (CER(spelling=Spelling(decode=how)) for how in ("greedy", "none"))
    labels = [[1, 1, -1, -1], [2, 3, -1, -1]]
    assert greedy.rows(seen(labels, paths)).tolist() == [[0, 2], [0, 2]]
    assert plain.rows(seen(paths, paths)).tolist() == [[0, 4], [0, 3]]
    assert "decode=greedy where they are the best class" in refused(CER(), seen(labels, paths))
    last = CER(spelling=Spelling(decode="greedy", blank=-1))
    assert "does not tell how many classes" in refused(last, seen(labels, paths))
    assert "must be decoded" in refused(plain, seen(labels, scores([[1] * 3, [2] * 3], 3)))
    text = CER(spelling=Spelling(decode="greedy", charset=("a", "b", "c")))
    assert text.rows(seen(["aa", "bx"], paths)).tolist() == [[0, 2], [1, 2]]


@pytest.mark.parametrize(
    ("charset", "space", "blank", "path", "text"),
    [
        (("a", "b", "c"), None, 0, [1, 0, 1, 3], "aac"),
        (("a", "b", "c"), None, -1, [0, 3, 0, 2], "aac"),
        (("a", "b", "c"), None, 1, [0, 1, 0, 3], "aac"),
        (("a", "b"), "append", 0, [1, 3, 2, 2], "a b"),
        (("<blank>", "a", "b", "c"), None, 0, [1, 0, 1, 3], "aac"),
        (("a", "", "ch"), None, 0, [3, 2, 0, 1], "cha"),
        (("ä", "\u3000", "😀"), None, 0, [3, 2, 0, 1], "😀\u3000ä"),
    ],
)
def test_charsets(charset, space, blank, path, text: str) -> None:
    spelling = Spelling(charset=charset, space=space, blank=blank)
    batch = seen([text], scores([path], 4))
    assert CER(spelling=spelling).rows(batch).tolist() == [[0, len(text)]]
    assert WordAccuracy(spelling=spelling).rows(batch).tolist() == [[1]]
    wrong = seen([text + "!"], scores([path], 4))
    assert CER(spelling=spelling).rows(wrong).tolist() == [[1, len(text) + 1]]
    assert WordAccuracy(spelling=spelling).rows(wrong).tolist() == [[0]]


def test_integer_labels_and_a_charset_spell_too() -> None:
    spelling = Spelling(charset=("a", "b", " "))
    batch = seen([[1, 3, 2, 1], [2, 2, -1, -1]], scores([[1, 3, 2, 2], [2, 0, 2, 0]], 4))
    assert CER(spelling=spelling).rows(batch).tolist() == [[1, 4], [0, 2]]
    assert WER(spelling=spelling).rows(batch).tolist() == [[1, 2], [0, 1]]


def test_words() -> None:
    labels, output = [[1, 2, 3, 1, -1], [3, 3, 2, 3, 1]], [[1, 2, 3, 0, 2], [2, 3, 0, 1, 1]]
    metric = WER(spelling=Spelling(space=3))
    assert metric.rows(seen(labels, scores(output, 4))).tolist() == [[1, 2], [0, 2]]
    assert metric.value(metric.rows(seen(labels, scores(output, 4)))) == 0.25
    whole = WER().rows(seen(labels, scores(output, 4)))
    assert whole.tolist() == [[1, 1], [1, 1]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_rates_are_pooled(texts: list[tuple[str, str]]) -> None:
    spelling = Spelling(charset=("a", "b", "c", " "))
    numbers = [[" abc".index(c) or 4 for c in spelled] for spelled, _ in texts]
    paths = [[c for number in row for c in (number, 0)] + [0] * 24 for row in numbers]
    batch = seen([wanted for _, wanted in texts], scores([p[:24] for p in paths], 5))
    characters = sum(levenshtein(a, b) for a, b in texts)
    words = sum(levenshtein(a.split(), b.split()) for a, b in texts)
    cer, wer = CER(spelling=spelling), WER(spelling=spelling)
    assert cer.value(cer.rows(batch)) == characters / max(sum(len(b) for _, b in texts), 1)
    assert wer.value(wer.rows(batch)) == words / max(sum(len(b.split()) for _, b in texts), 1)
    right = WordAccuracy(spelling=spelling)
    assert right.value(right.rows(batch)) == sum(a == b for a, b in texts) / len(texts)


@pytest.mark.parametrize(
    ("metric", "labels", "said"),
    [
        (CER(), None, "the data has none"),
        (CER(), [[1], [2], [3]], "int64[3,1] for 2 samples"),
        (CER(), [1, 2], "padded with -1, or strings"),
        (CER(), ["a", "b"], "Add charset=FILE"),
        (CER(), [[1.5], [2]], "not whole numbers"),
        (CER(), np.zeros((2, LONGEST + 1), int), f"more than {LONGEST}"),
        (CER(spelling=Spelling(charset=("a", "b", "c"))), ["a" * (LONGEST + 1), ""], "lines"),
        (CER(spelling=Spelling(charset=("a", "b"))), ["a", "b"], "Add space=append"),
        (CER(spelling=Spelling(charset=("a",))), ["a", "b"], "1 entries, the output 4 classes"),
        (CER(spelling=Spelling(blank=4)), [[1], [2]], "blank=4 is none of them"),
        (CER(spelling=Spelling(blank=-5)), [[1], [2]], "blank=-5 is none of them"),
        (CER(spelling=Spelling(charset=tuple("abc"))), [["a", "b"]] * 2, "one string per sample"),
    ],
)
def test_what_is_refused(metric: Metric, labels, said: str) -> None:
    assert said in refused(metric, seen(labels, scores([[1, 1, 1], [2, 2, 2]], 4), 2))
