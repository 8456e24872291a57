"""Every form of data gives the same samples in the same order, with the same digest."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from data_models import labels_of, model_of, opened, refusal, rows_of, samples, simple
from onnx import numpy_helper
from safetensors.numpy import save_file

from graphopt.quality.data import DataOptions, first_feeds, open_dataset

X = samples(30)
Y = np.arange(30) % 7
LABELS = {"labels": "y"}


def npz(folder):
    np.savez(folder / "d.npz", x=X, y=Y, more=np.zeros(2))
    return "d.npz", LABELS


def packed_npz(folder):
    np.savez_compressed(folder / "d.npz", x=X, y=Y)
    return "d.npz", LABELS


def npy(folder):
    np.save(folder / "d.npy", X)
    np.save(folder / "labels.npy", Y)
    return "d.npy", {"labels": str(folder / "labels.npy")}


def safetensors(folder):
    save_file({"y": Y, "x": X, "more": np.zeros(2)}, folder / "d.safetensors", {"made": "here"})
    return "d.safetensors", LABELS


def npz_shards(folder):
    for number, part in enumerate(np.array_split(np.arange(30), 4)):
        np.savez(folder / f"{number}.npz", x=X[part], y=Y[part])
    (folder / "README.md").write_text("about")
    return "", LABELS


def safetensors_shards(folder):
    for number, part in enumerate(np.array_split(np.arange(30), 4)):
        save_file({"x": X[part], "y": Y[part]}, folder / f"{number}.safetensors")
    return "", LABELS


def npy_folder(folder):
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", Y)
    return "", LABELS


def function(folder):
    np.savez(folder / "held.npz", x=X, y=Y)
    (folder / "mine.py").write_text(
        "import pathlib\nimport numpy as np\n"
        "HERE = pathlib.Path(__file__).parent\n"
        "def batches():\n"
        "    with np.load(HERE / 'held.npz') as held:\n"
        "        for at in range(0, 30, 8):\n"
        "            yield held['x'][at:at + 8], held['y'][at:at + 8]\n"
    )
    return "mine.py:batches", {}


def function_of_dicts(folder):
    function(folder)
    with (folder / "mine.py").open("a") as file:
        file.write("def dicts():\n    for x, y in batches():\n        yield {'x': x, 'y': y}\n")
    return "mine.py:dicts", LABELS


FORMS = [npz, packed_npz, npy, safetensors, npz_shards, safetensors_shards, npy_folder, function]
FORMS += [function_of_dicts]


@pytest.mark.parametrize("make", FORMS)
def test_every_form_gives_the_same_samples(make, tmp_path) -> None:
    name, more = make(tmp_path)
    given = f"{tmp_path}/{name}"
    dataset = opened(given, simple(), calibrates=False, **more)
    assert (dataset.samples, dataset.count("evaluation")) == (30, 30)
    np.testing.assert_array_equal(rows_of(dataset, "evaluation"), X)
    np.testing.assert_array_equal(labels_of(dataset, "evaluation"), Y)
    assert dataset.source == given
    assert dataset.labels == more.get("labels", "labels")
    held = opened({"x": X, "y": Y}, simple(), calibrates=False, labels="y")
    assert dataset.digest == held.digest


def test_the_digest_tells_samples_labels_and_order_apart() -> None:
    def digest(x, **more) -> str:
        more = {"labels": "y", **more} if "y" in more else more
        labels = more.pop("labels", None)
        return opened({"x": x, **more}, simple(), calibrates=False, labels=labels).digest

    changed = X.copy()
    changed[17, 2] += 1
    found = [digest(X), digest(changed), digest(X[::-1]), digest(X[:-1]), digest(X, y=Y)]
    found += [digest(X, y=Y + 1), digest(X, y=Y.astype(str))]
    assert len(set(found)) == len(found)
    assert digest(X) == digest(X.copy(order="F")) == digest(X.astype(">f4"))


def test_the_digest_does_not_depend_on_the_size_of_a_sample_or_of_a_chunk() -> None:
    model = model_of("float[N,A,B] x")
    large = samples(4, 700, 900)  # 2.5 MB a sample

    def in_batches(size):
        def batches():
            for at in range(0, 4, size):
                yield large[at : at + size]

        return opened(batches, model, calibrates=False)

    held = opened({"x": large}, model, calibrates=False)
    assert in_batches(1).digest == in_batches(3).digest == held.digest
    assert [batch.size for batch in held.batches("evaluation")] == [1, 1, 1, 1]


@pytest.mark.parametrize("make", FORMS)
def test_missing_labels_are_named_with_what_there_is(make, tmp_path) -> None:
    name, _ = make(tmp_path)
    if name.endswith("batches"):
        return  # its labels have no name
    said = refusal(f"{tmp_path}/{name}", simple(), labels="absent")
    assert "labels 'absent'" in said
    assert name.endswith(".npy") or "It has: " in said


@pytest.mark.parametrize("make", [npz, safetensors, npz_shards, npy_folder, function_of_dicts])
def test_a_missing_input_is_named_with_what_there_is(make, tmp_path) -> None:
    name, more = make(tmp_path)
    said = refusal(f"{tmp_path}/{name}", model_of("float[N,3] other"), **more)
    assert "no array for the input 'other'" in said
    assert ", x" in said or "It has: x" in said


def test_labels_in_a_file_of_their_own_must_be_as_many(tmp_path) -> None:
    np.savez(tmp_path / "d.npz", x=X)
    for count in (29, 31, 0):
        np.save(tmp_path / "l.npy", Y[:1].repeat(count))
        said = refusal(tmp_path / "d.npz", simple(), labels=str(tmp_path / "l.npy"))
        assert f"holds {count} labels" in said
        assert "samples" in said
    np.save(tmp_path / "l.npy", np.float32(1))
    assert "not one label" in refusal(tmp_path / "d.npz", simple(), labels=f"{tmp_path}/l.npy")
    assert "no such file" in refusal(tmp_path / "d.npz", simple(), labels=f"{tmp_path}/none.npy")
    assert "can label images" in refusal(tmp_path / "d.npz", simple(), labels=f"{tmp_path}/l.csv")


def test_shards_may_differ_in_dynamic_dimensions(tmp_path) -> None:
    model = model_of("float[N,3,W] x")
    for number, width in enumerate((5, 9, 5)):
        np.savez(tmp_path / f"{number}.npz", x=samples(4, 3, width))
    dataset = opened(tmp_path, model, calibrates=False)
    shapes = [batch.feeds["x"].shape for batch in dataset.batches("evaluation")]
    assert shapes == [(4, 3, 5), (4, 3, 9), (4, 3, 5)]


def test_names_that_no_file_can_have(tmp_path) -> None:
    model = model_of('float[N,3] "a/b:0"')
    np.save(tmp_path / "a_b_0.npy", X)
    assert opened(tmp_path, model).samples == 30
    both = model_of('float[N,3] "a/b:0",  float[N,3] "a/b/0"')
    assert "several inputs" in refusal(tmp_path, both)


def tensor(path, array, name="") -> None:
    path.write_bytes(numpy_helper.from_array(array, name).SerializeToString())


def sets(folder, count=3, size=2):
    for number in range(count):
        place = folder / f"test_data_set_{number}"
        place.mkdir()
        tensor(place / "input_0.pb", X[size * number : size * (number + 1)])
        tensor(place / "input_1.pb", np.full((2, 4), number, np.float32))
        tensor(place / "output_0.pb", Y[size * number : size * (number + 1)])


def test_test_data_sets_are_runs_as_they_stand(tmp_path) -> None:
    model = model_of("float[N,3] x,  float[2,4] h")
    sets(tmp_path)
    dataset = opened(tmp_path, model, calibrates=False, labels="output_0")
    batches = list(dataset.batches("evaluation"))
    assert [batch.size for batch in batches] == [2, 2, 2]
    for number, batch in enumerate(batches):
        np.testing.assert_array_equal(batch.feeds["x"], X[2 * number : 2 * number + 2])
        assert (batch.feeds["h"] == number).all() and batch.feeds["h"].shape == (2, 4)
        np.testing.assert_array_equal(batch.labels, Y[2 * number : 2 * number + 2])
    one = opened(tmp_path / "test_data_set_1", model, calibrates=False)
    assert (one.samples, one.labels) == (2, "")
    assert "none is called 'y'" in refusal(tmp_path, model, labels="y")
    assert "output_1.pb: no such file" in refusal(tmp_path, model, labels="output_1")


def test_a_test_data_set_without_a_common_axis_is_one_sample(tmp_path) -> None:
    model = model_of("float[N,3] x,  float[2,4] h")
    sets(tmp_path, size=5)
    batches = list(opened(tmp_path, model, labels="output_0").batches("evaluation"))
    assert [batch.size for batch in batches] == [1]
    assert batches[0].feeds["x"].shape == (5, 3)
    assert batches[0].labels.shape == (1, 5)


def test_test_data_that_does_not_fit(tmp_path) -> None:
    sets(tmp_path)
    assert "holds 2 inputs, the model takes 1" in refusal(tmp_path, simple())
    assert "holds 2 inputs, the model takes 3" in refusal(
        tmp_path, model_of("float[N,3] x,  float[2,4] h,  float[1] z")
    )
    fixed = model_of("float[4,3] x,  float[2,4] h")
    assert "test_data_set_0" in refusal(tmp_path, fixed)
    (tmp_path / "test_data_set_1" / "input_0.pb").write_bytes(b"\xff\x00nonsense")
    said = refusal(tmp_path, model_of("float[N,3] x,  float[2,4] h"))
    assert "test_data_set_1/input_0.pb: it is not a tensor" in said


def test_inputs_that_are_no_tensors_are_refused() -> None:
    sequence = onnx.helper.make_tensor_sequence_value_info("s", onnx.TensorProto.FLOAT, None)
    value = onnx.helper.make_tensor_value_info("n", onnx.TensorProto.INT64, [])
    node = onnx.helper.make_node("SequenceLength", ["s"], ["n"])
    graph = onnx.helper.make_graph([node], "g", [sequence], [value])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    from graphopt.ir.model import Model

    assert "'s' is a sequence" in refusal({"s": X}, Model.load(proto))


def test_a_model_without_inputs_takes_no_data() -> None:
    model = model_of("float[N,3] x")
    model.graph.inputs.clear()
    assert "takes no inputs" in refusal({"x": X}, model)


def test_complete_feeds_are_runs() -> None:
    model = model_of("float[N,3] x,  float[2,4] h,  int64 s")
    feeds = [
        {"x": X[:1], "h": np.ones((2, 4), np.float32), "s": np.array(n), "y": np.array([n])}
        for n in range(6)
    ]
    dataset = opened(feeds, model, labels="y")
    assert (dataset.count("calibration"), dataset.count("evaluation")) == (3, 3)
    batch = next(dataset.batches("evaluation"))
    assert batch.feeds["x"].shape == (1, 3) and batch.feeds["s"].shape == ()
    assert batch.labels.shape == (1,)
    assert "not a dict" in refusal([X], model)
    assert "set 0 of a list of feeds" in refusal([{"x": X}], model)
    assert "holds no samples" in refusal([], model)


def test_what_is_no_data() -> None:
    assert "cannot be of the type int" in refusal(3, simple())
    assert "no array for the input 'x'" in refusal({"z": X}, simple())
    assert "cannot be made an array" in refusal({"x": [[1.0], [1.0, 2.0]]}, simple())


def test_first_feeds_are_small_batches_of_the_evaluation_part() -> None:
    dataset = opened({"x": X}, simple())
    feeds = first_feeds(dataset)
    assert [len(each["x"]) for each in feeds] == [4, 4, 4, 3]
    np.testing.assert_array_equal(
        np.concatenate([each["x"] for each in feeds]), rows_of(dataset, "evaluation")
    )
    fixed = opened({"x": X}, model_of("float[6,3] x"), calibrates=False)
    assert [len(each["x"]) for each in first_feeds(fixed)] == [6, 6, 6, 6]


def test_bfloat16_and_narrow_floats_come_from_safetensors(tmp_path) -> None:
    import ml_dtypes

    narrow = X.astype(ml_dtypes.bfloat16)
    path = tmp_path / "d.safetensors"
    save_file({"x": narrow}, path)
    np.testing.assert_array_equal(
        rows_of(opened(path, simple(), calibrates=False), "evaluation"), narrow.astype(np.float32)
    )
    same = opened(path, model_of("bfloat16[N,3] x"), calibrates=False)
    assert rows_of(same, "evaluation").dtype == ml_dtypes.bfloat16
    narrow[3, 1] = np.nan
    save_file({"x": narrow}, path)
    assert "NaN or infinity, first in sample 3" in refusal(path, simple())


def test_options_contradict_themselves() -> None:
    for given, said in (
        ({}, "no data is given"),
        ({"source": "a", "calibration": "b", "evaluation": "c"}, "has no use"),
        ({"source": "a", "calibration": "b", "split": 0.5}, "nothing to divide"),
        ({"source": "a", "split": 0.0}, "leaves a part without"),
        ({"source": "a", "split": float("nan")}, "leaves a part without"),
        ({"source": "a", "seed": -1}, "negative"),
    ):
        with pytest.raises(Exception, match=said):
            DataOptions(**given)
    with pytest.raises(Exception, match="no evaluation data"):
        open_dataset(DataOptions(calibration={"x": X}), simple())
    with pytest.raises(Exception, match="no calibration data"):
        open_dataset(DataOptions(evaluation={"x": X}), simple())
    assert open_dataset(DataOptions(evaluation={"x": X}), simple(), calibrates=False).samples == 30
