"""Functions of the user's own: called anew for each pass, blamed by name and line."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from data_models import labels_of, model_of, opened, refusal, rows_of, samples, simple

from graphopt.quality.data.function import is_function

X = samples(20)


def test_what_names_a_function() -> None:
    for text in ("module:batches", "pack.age.module:Class.make", "a/b/mine.py:f", "C:\\a\\m.py:f"):
        assert is_function(text)
    for text in ("data.npz", "C:\\data\\x.npz", "C:/data/x", "a b:f", "mine.py", ":f", "m:", "m:3"):
        assert not is_function(text)


def test_an_existing_file_wins_over_a_function(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine:batches").write_bytes(b"")
    assert "mine:batches: it is no kind of file" in refusal("mine:batches", simple())


def test_a_module_is_found_in_the_working_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "neighbour_of_data.py").write_text("COUNT = 20\n")
    (tmp_path / "module_of_data.py").write_text(
        "import numpy as np\n"
        "class Sets:\n"
        "    @staticmethod\n"
        "    def all():\n"
        "        from neighbour_of_data import COUNT\n"
        "        yield np.ones((COUNT, 3), np.float32)\n"
    )
    before = list(sys.path)
    assert opened("module_of_data:Sets.all", simple()).samples == 20
    assert sys.path == before


def test_bare_arrays_tuples_and_dicts_mean_the_same() -> None:
    labels = np.arange(20)

    def bare():
        yield from (X[:5], X[5:])

    def tuples():
        yield X[:5], labels[:5]
        yield {"x": X[5:]}, labels[5:].tolist()

    assert opened(bare, simple(), calibrates=False).labels == ""
    dataset = opened(tuples, simple(), calibrates=False)
    assert dataset.labels == "labels"
    np.testing.assert_array_equal(rows_of(dataset, "evaluation"), X)
    np.testing.assert_array_equal(labels_of(dataset, "evaluation"), labels)
    assert opened(lambda: [X, X[:0], X], simple()).samples == 40


def test_a_buffer_that_is_filled_again_and_again() -> None:
    def batches():
        buffer = np.empty((1, 3), np.float32)
        for row in X:
            buffer[:] = row
            yield buffer

    np.testing.assert_array_equal(
        rows_of(opened(batches, simple(), calibrates=False), "evaluation"), X
    )


@pytest.mark.parametrize("change", ["other", "more", "fewer", "shape", "labels"])
def test_other_data_at_a_later_pass(change) -> None:
    calls = []

    def batches():
        calls.append(1)
        x, y = X.copy(), np.arange(20)
        if len(calls) > 1:
            if change == "other":
                x[19, 2] += 1
            elif change == "more":
                x, y = np.concatenate([x, x]), np.concatenate([y, y])
            elif change == "fewer":
                x, y = x[:-1], y[:-1]
            elif change == "labels":
                y[3] = 7
            else:
                x = np.concatenate([x, x], axis=1)
        yield x, y

    dataset = opened(batches, model_of("float[N,W] x"))
    with pytest.raises(Exception, match="gives other data than when it was opened") as caught:
        list(dataset.batches("evaluation"))
    assert "test_other_data_at_a_later_pass" in str(caught.value)
    assert "Seed it" in str(caught.value)


def test_a_change_in_the_middle_is_found_before_its_samples_are_used() -> None:
    calls = []
    large = samples(40, 3000)  # 12 KB a sample

    def batches():
        calls.append(1)
        for number, row in enumerate(large):
            yield row[None] + (number == 20 and len(calls) > 1)

    dataset = opened(batches, model_of("float[N,W] x"), calibrates=False)
    seen = 0
    with pytest.raises(Exception, match="gives other data"):
        for batch in dataset.batches("evaluation", size=1):
            seen += batch.size
    assert 18 <= seen <= 22


def test_a_seed_that_is_not_set_is_found() -> None:
    generator = np.random.default_rng()

    def batches():
        yield generator.random((50, 300), np.float32)

    dataset = opened(batches, model_of("float[N,W] x"))
    with pytest.raises(Exception, match="Seed it"):
        next(dataset.batches("calibration", most=1))


FAULTS = {
    "raises": ("raise ValueError('no\\x1bdisk')", "ValueError: no\\u001bdisk (line 3 of mine.py)"),
    "later": ("yield X\n    1 / 0", "ZeroDivisionError: division by zero (line 4 of mine.py)"),
    "deep": ("yield from np.load('/none.npy')", "(line 3 of mine.py)"),
    "exits": ("raise SystemExit('done')", "SystemExit: done (line 3 of mine.py)"),
    "stops": ("yield X\n    raise StopIteration", "StopIteration"),
    "returns": ("return 3", "returns a int, not batches"),
    "nothing": ("return", "returns a NoneType, not batches"),
    "array": ("return X", "returns a ndarray, not batches"),
    "empty": ("return []", "holds no samples"),
    "none": ("yield None", "yields a NoneType"),
    "text": ("yield 'abc'", "yields a str"),
    "objects": ("yield np.array([{}])", "object"),
    "ragged": ("yield {'x': [[1.0], [1.0, 2.0]]}", "cannot be made an array"),
    "double": (
        "yield X.astype(float)",
        "batch of {}/mine.py:f is float64, the model wants float32",
    ),
    "lengths": ("yield X, [1]", "batch of {}/mine.py:f has 5 samples and 1 labels"),
    "names": ("yield {'z': X, 3: X}", "no array for the input 'x'. It has: 3, z"),
    "mixed": ("yield X, [1] * 5\n    yield X", "some have none"),
    "arguments": ("pass\ndef f(a): pass", "missing 1 required positional argument"),
    "class": ("pass\nf = 3", "mine.py has no function 'f'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_get_one_line_with_name_and_place(fault, tmp_path) -> None:
    body, says = FAULTS[fault]
    path = tmp_path / "mine.py"
    start = "import numpy as np; X = np.ones((5, 3), np.float32)\ndef f():\n    "
    path.write_text(f"{start}{body}\n")
    said = refusal(f"{path}:f", simple())
    assert "mine.py:f" in said or "mine.py has" in said
    assert says.replace("{}", str(tmp_path)) in said


def test_a_file_that_cannot_be_imported(tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import numpy\ndef f(:\n")
    said = refusal(f"{path}:f", simple())
    assert "failed with SyntaxError" in said and "(line 2 of mine.py)" in said
    path.write_text("\n\nimport no_such_module\n")
    assert "No module named 'no_such_module' (line 3 of mine.py)" in refusal(f"{path}:f", simple())
    path.write_text("")
    assert "has no function 'f'" in refusal(f"{path}:f", simple())
    assert "no such file" in refusal(f"{tmp_path}/none.py:f", simple())
    said = refusal("no_such_module_anywhere:f", simple())
    assert said.startswith("there is no module 'no_such_module_anywhere'")


def test_a_tuple_for_a_model_of_several_inputs_is_explained() -> None:
    said = refusal(lambda: [(X, X)], model_of("float[N,3] x,  float[N,3] z"))
    assert "is a single array, and the model takes 2 inputs: x, z" in said


def test_the_function_is_closed_when_the_reader_stops() -> None:
    closed = []

    def batches():
        try:
            while len(closed) < 2:
                yield X
                if not closed:
                    return
        finally:
            closed.append(1)

    dataset = opened(batches, simple(), calibrates=False)
    assert closed == [1]
    stream = dataset.batches("evaluation", most=1)
    next(stream)
    stream.close()
    assert closed == [1, 1]
