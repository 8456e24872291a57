"""What is kept comes back as it was, or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from graphopt.ir.model import Model
from graphopt.numerics.streaming import CrossSpec, GramSpec, HistogramSpec, MomentsSpec, RangeSpec
from graphopt.runtime import cache as cache_module
from graphopt.runtime.cache import Cache, default_folder, model_hash
from graphopt.runtime.observing import Request, observe
from graphopt.testing import parse

KEY = Cache.key("a")

ARRAYS = {
    "floats": np.linspace(0, 1, 7).reshape(7, 1),
    "none": np.zeros((0, 3), np.float32),
    "scalar": np.asarray(np.int64(-5)),
    "flags": np.array([True, False]),
    "turned": np.arange(6, dtype=np.uint16).reshape(2, 3).T,
    "": np.array([np.nan, np.inf], np.float16),
}


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "made" / "later")


def entry_of(cache):
    (path,) = cache.folder.glob("entries/??/*.entry")
    return path


def test_what_is_kept_comes_back(cache) -> None:
    assert cache.get(KEY) is None
    assert cache.put(KEY, ARRAYS, {"why": "é\n", "n": [1, 2.5, None]})
    found = cache.get(KEY)
    assert found.facts == {"why": "é\n", "n": [1, 2.5, None]}
    assert list(found.arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found.arrays[name], array)
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].shape == array.shape
        assert not found.arrays[name].flags.writeable
    assert cache.put(KEY, {"x": np.ones(2)})
    assert list(cache.get(KEY).arrays) == ["x"]
    assert cache.size() == entry_of(cache).stat().st_size


def test_parts_of_a_key_do_not_run_into_each_other() -> None:
    keys = [("ab", "c"), ("a", "bc"), ("abc",), (b"abc",), ("1",), (1,), (), ("",), ("2", ":x")]
    assert len({Cache.key(*parts) for parts in keys}) == len(keys)


@pytest.mark.parametrize("key", ["../../x", "", "A" * 64, KEY + "/", KEY[:-1]])
def test_only_keys_name_files(cache, key) -> None:
    for use in (cache.get, cache.journal, lambda k: cache.put(k, {})):
        with pytest.raises(ValueError, match="not a key"):
            use(key)


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a"], object),
        np.ones(2, ml_dtypes.bfloat16),
        np.ones(2, ml_dtypes.float8_e5m2),
        np.array(["2020"], "M8[Y]"),
    ],
)
def test_arrays_that_would_need_pickle_are_refused(cache, array) -> None:
    with pytest.raises(ValueError, match="cannot be kept"):
        cache.put(KEY, {"x": array})
    assert not list(cache.folder.rglob("*.entry"))


def test_every_damage_is_noticed(cache) -> None:
    cache.put(KEY, {"x": np.arange(3)}, {"n": 1})
    path = entry_of(cache)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place])
        assert cache.get(KEY) is None, f"cut at {place}"
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cache.get(KEY) is None, f"changed at {place}"
    for other in (b"", b"\0" * 100, whole + b"x", b"{}\n" + bytes(40)):
        path.write_bytes(other)
        assert cache.get(KEY) is None
    path.unlink()
    path.mkdir()
    assert cache.get(KEY) is None
    assert not cache.put(KEY, {"x": np.arange(3)})
    path.rmdir()
    assert cache.put(KEY, {"x": np.arange(3)})
    assert cache.get(KEY) is not None


def test_a_folder_that_cannot_be_written_keeps_nothing(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    blocked = Cache(tmp_path / "file" / "cache")
    assert not blocked.put(KEY, ARRAYS)
    assert blocked.get(KEY) is None
    assert blocked.size() == 0
    blocked.clear()
    journal = blocked.journal(KEY)
    journal.append({"n": 1})
    assert journal.read() == [{"n": 1}]


def test_the_least_recently_used_goes_first(cache) -> None:
    keys = [Cache.key(n) for n in range(4)]
    for age, key in enumerate(keys):
        cache.put(key, {"x": np.zeros(1000)})
        os.utime(cache._path(key), (1000 + age, 1000 + age))
    cache.journal(KEY).append({"n": 1})
    cache.get(keys[0])
    one = cache._path(keys[0]).stat().st_size
    cache.gc(2 * one)
    assert [cache.get(key) is not None for key in keys] == [True, False, False, True]
    assert cache.journal(KEY).read() == [{"n": 1}]
    cache.clear()
    assert cache.size() == 0
    assert cache.journal(KEY).read() == []


def test_a_cache_stays_within_its_limit(tmp_path) -> None:
    small = Cache(tmp_path, most_bytes=20_000)
    assert not small.put(Cache.key("large"), {"x": np.zeros(5000)})
    for number in range(6):
        assert small.put(Cache.key(number), {"x": np.zeros(1000)})
        os.utime(small._path(Cache.key(number)), (number, number))
        assert small.get(Cache.key(number)) is not None
        os.utime(small._path(Cache.key(number)), (number, number))
    assert small.size() <= 20_000
    assert [small.get(Cache.key(n)) is not None for n in range(6)] == [False] * 4 + [True] * 2


def test_files_that_nobody_finished_are_removed_when_they_are_old(cache) -> None:
    cache.put(KEY, {})
    fresh, stale = (entry_of(cache).parent / name for name in (".fresh.tmp", ".stale.tmp"))
    for path in (fresh, stale):
        path.write_text("x")
    os.utime(stale, (0, 0))
    cache.gc(1 << 20)
    assert fresh.exists()
    assert not stale.exists()


def test_writers_at_once_leave_a_whole_entry(cache) -> None:
    wrong = []

    def work(number):
        for _ in range(10):
            cache.put(KEY, {"x": np.full(5000, number)})
            found = cache.get(KEY)
            if found is None or len(set(found.arrays["x"].tolist())) != 1:
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(list(cache.folder.rglob("*.*"))) == 1


def test_the_default_folder_is_the_users() -> None:
    assert "graphopt" in default_folder().parts[-1]
    assert default_folder().is_absolute()


def test_the_journal_remembers_in_order(cache) -> None:
    journal = cache.journal(KEY)
    assert journal.read() == []
    records = [{"layer": "a", "loss": 0.1 + 0.2}, {}, {"é\n": [None, True, {"b": 1, "a": 2}]}]
    for record in records:
        journal.append(record)
    assert cache.journal(KEY).read() == records
    assert all(json.loads(line) for line in journal.path.read_text().splitlines())
    journal.remove()
    assert cache.journal(KEY).read() == []


def test_a_record_cut_short_is_as_if_it_had_not_been_written(cache) -> None:
    journal = cache.journal(KEY)
    for number in range(3):
        journal.append({"n": number})
    whole = journal.path.read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    for place in range(last, len(whole)):
        journal.path.write_bytes(whole[:place])
        complete = place == len(whole) - 1
        assert len(journal.read()) == 2 + complete
        journal.append({"n": "next"})
        assert journal.read()[-1] == {"n": "next"}
        assert len(journal.read()) == 3 + complete


def test_a_record_that_was_changed_is_left_out(cache) -> None:
    journal = cache.journal(KEY)
    for number in range(3):
        journal.append({"n": number})
    lines = journal.path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"n": 1', b'"n": 7')
    journal.path.write_bytes(b"".join(lines) + b"[]\n{}\nnull\n\xff\n" + b'{"record": 1}\n')
    assert journal.read() == [{"n": 0}, {"n": 2}]


def test_a_journal_refuses_what_json_cannot_hold(cache) -> None:
    with pytest.raises(TypeError):
        cache.journal(KEY).append({"x": object()})
    assert cache.journal(KEY).read() == []


KILLED = """
import sys
from graphopt.runtime.cache import Cache
journal = Cache(sys.argv[1]).journal(sys.argv[2])
for number in range(10**9):
    journal.append({"number": number, "text": "x" * 5000})
    print(number, flush=True)
"""


def test_a_study_that_is_killed_loses_nothing_it_was_told_is_kept(cache) -> None:
    arguments = [sys.executable, "-c", KILLED, str(cache.folder), KEY]
    root = Path(cache_module.__file__).parents[2]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, text=True, cwd=root, stderr=subprocess.DEVNULL
    ) as process:
        said = -1
        while said < 20:
            said = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split()
        said = int(rest[-1]) if rest else said
    found = [record["number"] for record in cache.journal(KEY).read()]
    assert found == list(range(len(found)))
    assert len(found) >= said + 1
    cache.journal(KEY).append({"number": len(found)})
    assert len(cache.journal(KEY).read()) == len(found) + 1


TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,4] x, float[4,300] w) => (float[N,300] y) {
    h = MatMul(x, w)
    y = Relu(h)
}"""


@pytest.fixture
def model():
    return parse(TEXT, ("w",))


def test_a_models_hash_is_that_of_its_contents(model, tmp_path) -> None:
    known = model_hash(model)
    assert model_hash(model.copy()) == known
    assert model_hash(Model.load(model.to_bytes())) == known
    model.external = True
    model.save(tmp_path / "m.onnx")
    assert model_hash(Model.load(tmp_path / "m.onnx")) == known
    seen = {known}
    for change in (
        lambda m: setattr(m.constants()[0], "values", m.constants()[0].values * 2),
        lambda m: setattr(m.constants()[0], "values", m.constants()[0].values.reshape(300, 4)),
        lambda m: setattr(m.graph.nodes[1], "op", "Sigmoid"),
        lambda m: setattr(m.graph.nodes[0].outputs[0], "name", "other"),
    ):
        changed = model.copy()
        change(changed)
        seen.add(model_hash(changed))
    assert len(seen) == 5


def test_a_hash_of_exotic_weights() -> None:
    def hashed(*initializers, sparse=()):
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", 1, [1])],
            [helper.make_tensor_value_info("y", 1, [1])],
            initializers,
            sparse_initializer=sparse,
        )
        proto = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
        return model_hash(Model.load(proto))

    tensors = [
        numpy_helper.from_array(np.array(["a", "bc"], object), "w"),
        numpy_helper.from_array(np.array(["ab", "c"], object), "w"),
        helper.make_tensor("w", onnx.TensorProto.INT4, [3], [1, 2, -3]),
        helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [2], [1.0, 2.0]),
        helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [1.0, 2.0]),
        helper.make_tensor("w", onnx.TensorProto.FLOAT, [0], []),
    ]
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float32), "w"),
        numpy_helper.from_array(np.array([1]), "w_at"),
        [4],
    )
    found = [hashed(tensor) for tensor in tensors] + [hashed(sparse=[sparse])]
    assert len(set(found)) == 7
    raw = numpy_helper.from_array(np.array([1.0, 2.0], np.float32), "w")
    assert hashed(raw) == found[4]


class Forbidden:
    """A process that must not be asked for anything."""

    alive = False

    def call(self, *args, **kwargs):
        raise AssertionError("the model was run")


REQUESTS = [
    Request("h", RangeSpec(1)),
    Request("h", MomentsSpec()),
    Request("x", HistogramSpec()),
    Request("x", GramSpec()),
    Request("x", CrossSpec(blocks=2), target="h"),
]


def feeds():
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((5, 4)).astype(np.float32)} for _ in range(2)]


def equal(one, two):
    for request in REQUESTS:
        a, b = one.of(request).state(), two.of(request).state()
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_what_was_observed_once_is_not_run_again(native, model, cache) -> None:
    first = observe(native, model, feeds(), REQUESTS, cache=cache, digest="d")
    again = observe(Forbidden(), model, feeds(), REQUESTS, cache=cache, digest="d")
    equal(first, again)
    again.of(REQUESTS[3]).add(np.ones((2, 4), np.float32))  # what comes back may be added to
    for changed in ({"digest": "e"}, {"provider": "cuda"}, {"digest": ""}, {"cache": None}):
        options = {"cache": cache, "digest": "d"} | changed
        with pytest.raises(AssertionError, match="was run"):
            observe(Forbidden(), model, feeds(), REQUESTS[:1], **options)
    other = model.copy()
    other.graph.nodes[1].op = "Sigmoid"
    with pytest.raises(AssertionError, match="was run"):
        observe(Forbidden(), other, feeds(), REQUESTS[:1], cache=cache, digest="d")
    with pytest.raises(AssertionError, match="was run"):
        request = Request("h", RangeSpec(0))
        observe(Forbidden(), model, feeds(), [request], cache=cache, digest="d")


def test_the_other_model_is_part_of_the_key(native, model, cache) -> None:
    request = Request("x", CrossSpec(), target="h", target_in_other=True)
    other = model.copy()
    weight = other.constants()[0]
    weight.values = weight.values * 2
    options = {"cache": cache, "digest": "d"}
    one = observe(native, model, feeds(), [request], other=model, **options).of(request)
    two = observe(native, model, feeds(), [request], other=other, **options).of(request)
    np.testing.assert_allclose(two.product(), 2 * one.product(), rtol=1e-5)


def test_an_entry_that_is_damaged_is_observed_again(native, model, cache) -> None:
    options = {"cache": cache, "digest": "d"}
    first = observe(native, model, feeds(), REQUESTS, **options)
    for path in cache.folder.rglob("*.entry"):
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
    equal(first, observe(native, model, feeds(), REQUESTS, **options))
    equal(first, observe(Forbidden(), model, feeds(), REQUESTS, **options))


def test_refusals_and_failures_are_not_kept(native, model, cache) -> None:
    options = {"cache": cache, "digest": "d"}
    missing = Request("missing", RangeSpec())
    assert observe(native, model, feeds(), [missing], **options)[missing].why
    assert observe(native, model, [], REQUESTS, **options)[REQUESTS[0]].why
    wrong = [*feeds(), {"x": np.ones((5, 3), np.float32)}]
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        observe(native, model, wrong, REQUESTS, **options)
    assert cache.size() == 0


def test_an_entry_that_is_used_is_young(native, model, cache) -> None:
    options = {"cache": cache, "digest": "d"}
    observe(native, model, feeds(), REQUESTS[:1], **options)
    os.utime(entry_of(cache), (1000, 1000))
    observe(Forbidden(), model, feeds(), REQUESTS[:1], **options)
    assert entry_of(cache).stat().st_mtime > time.time() - 3600
