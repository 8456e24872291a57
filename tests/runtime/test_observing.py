"""What is observed in the child equals what numpy finds in the model's tensors."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from graphopt.errors import NativeDeathError, NativeError
from graphopt.ir.model import Model
from graphopt.numerics.streaming import (
    ConvRows,
    CrossSpec,
    FeatureRows,
    GramSpec,
    HistogramSpec,
    MomentsSpec,
    RangeSpec,
    Sampling,
)
from graphopt.runtime import exposing
from graphopt.runtime.native import Native
from graphopt.runtime.observing import Request, Stream, observe, observe_each
from graphopt.testing import parse

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
NETWORK = (
    HEAD
    + """g (float[N,3,8,8] x, float[4,3,3,3] w, float[4,5] v) => (float[N,5] y) {
    c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w)
    r = Relu(c)
    p = GlobalAveragePool(r)
    f = Flatten(p)
    y = MatMul(f, v)
}"""
)


@pytest.fixture(scope="module")
def network():
    return parse(NETWORK, ("w", "v"))


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((n, 3, 8, 8)).astype(np.float32)} for n in (4, 4, 1)]


def tensors(native, model, names, batches):
    """Whole tensors, by running the model with them as outputs."""
    proto = model.to_proto()
    known = {info.name for info in proto.graph.output}
    extra = [name for name in names if name not in known]
    proto.graph.output.extend(map(helper.make_empty_tensor_value_info, extra))
    native.call("open", "whole", proto.SerializeToString())
    runs = [native.call("run", "whole", feeds, names) for feeds in batches]
    native.call("close", "whole")
    return [np.concatenate(parts).astype(np.float64) for parts in zip(*runs, strict=True)]


class Watched(list):
    """A list of batches that counts how often it is read to its end."""

    read = 0

    def __iter__(self):
        yield from super().__iter__()
        self.read += 1


def one(native, model, batches, request, **options):
    (answer,) = observe(native, model, batches, [request], **options).values()
    return answer


def test_statistics_equal_those_of_the_whole_tensors(native, network, batches) -> None:
    names = ["x", "r", "f", "y"]
    asked = {
        name: (
            Request(name, RangeSpec(1)),
            Request(name, MomentsSpec(1)),
            Request(name, HistogramSpec()),
        )
        for name in names
    }
    watched = Watched(batches)
    answers = observe(native, network, watched, [r for rs in asked.values() for r in rs])
    assert watched.read == 1
    for name, whole in zip(names, tensors(native, network, names, batches), strict=True):
        extent, moments, histogram = (answers.of(request) for request in asked[name])
        axes = tuple(axis for axis in range(whole.ndim) if axis != 1)
        np.testing.assert_array_equal(extent.minimum, whole.min(axis=axes))
        np.testing.assert_array_equal(extent.maximum, whole.max(axis=axes))
        np.testing.assert_array_equal(extent.zeros, (whole == 0).sum(axis=axes))
        np.testing.assert_allclose(moments.mean, whole.mean(axis=axes), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(moments.variance, whole.var(axis=axes), rtol=1e-9)
        np.testing.assert_array_equal(histogram.counts, np.histogram(whole, histogram.edges)[0])


def test_a_layer_is_refitted_towards_another_model(native, network, batches) -> None:
    """The sliced network's next layer is fitted to what the original computes there."""
    original = network
    sliced = network.copy()
    weight = next(c for c in sliced.constants() if c.name == "w")
    weight.values = weight.values * np.float32(0.5) + np.float32(0.1)
    request = Request("f", CrossSpec(), target="y", target_in_other=True)
    found = observe(native, sliced, batches, [request], other=original).of(request)
    (x,) = tensors(native, sliced, ["f"], batches)
    (y,) = tensors(native, original, ["y"], batches)
    assert found.gram.rows == 9
    np.testing.assert_allclose(found.product(), x.T @ y, rtol=1e-5)
    np.testing.assert_allclose(found.gram.product(), x.T @ x, rtol=1e-5)
    weights = np.linalg.solve(found.gram.covariance(), found.covariance())
    bias = found.mean - found.gram.mean @ weights
    exact, *_ = np.linalg.lstsq(np.hstack([x, np.ones((9, 1))]), y, rcond=None)
    np.testing.assert_allclose(np.vstack([weights, bias]), exact, rtol=2e-2, atol=1e-3)


def test_a_convolution_is_found_again_from_its_moments(native, network, batches) -> None:
    rows = ConvRows((3, 3), (2, 2), (1, 1, 1, 1))
    request = Request("x", CrossSpec(rows, FeatureRows(1)), target="c")
    found = observe(native, network, batches, [request]).of(request)
    weights = np.linalg.solve(found.gram.covariance(), found.covariance())
    true = next(c for c in network.constants() if c.name == "w").values
    np.testing.assert_allclose(weights, true.reshape(4, -1).T, atol=1e-4)


def many(count=6):
    return [Request("x", GramSpec(ConvRows((k, k)))) for k in range(1, count + 1)]


@pytest.mark.parametrize("memory", [80_000, 150_000, 1 << 30])
def test_requests_that_do_not_fit_together_take_more_runs(native, network, batches, memory) -> None:
    requests = [*many(), Request("r", RangeSpec()), Request("y", GramSpec())]
    watched = Watched(batches)
    whole = observe(native, network, batches, requests)
    parts = observe(native, network, watched, requests, memory_bytes=memory)
    assert list(parts) != [] and parts.keys() == whole.keys()
    refused = {r for r, a in parts.items() if a.why}
    assert all("bytes" in parts[r].why and "blocks" in parts[r].why for r in refused)
    assert len(refused) == {80_000: 1, 150_000: 0, 1 << 30: 0}[memory]
    assert watched.read == {80_000: 2, 150_000: 2, 1 << 30: 1}[memory]
    for request in requests:
        if request not in refused:
            a, b = whole.of(request).state(), parts.of(request).state()
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])


def test_data_that_is_read_once_gives_what_fits_into_one_run(native, network, batches) -> None:
    requests = many()
    answers = observe(native, network, iter(batches), requests, memory_bytes=200_000)
    whole = observe(native, network, batches, requests)
    served = [request for request in requests if not answers[request].why]
    assert 0 < len(served) < len(requests)
    for request in served:
        np.testing.assert_array_equal(answers.of(request).product(), whole.of(request).product())
    for request in set(requests) - set(served):
        assert "read only once" in answers[request].why
    with pytest.raises(NativeError, match="'x' cannot be observed: it does not fit"):
        answers.of(requests[-1])
    stream = Stream(lambda: iter(batches))
    again = observe(native, network, stream, requests, memory_bytes=200_000)
    assert not any(answer.why for answer in again.values())


def test_answers_come_one_by_one_and_progress_is_told(native, network, batches) -> None:
    said = []
    requests = [Request("x", RangeSpec()), Request("y", RangeSpec())]
    each = observe_each(native, network, batches, requests, progress=said.append)
    request, answer = next(each)
    assert request == requests[0]
    assert answer.value is not None
    assert [request for request, _ in each] == requests[1:]
    assert said == [f"observing: run 1 of 1, batch {n}" for n in (1, 2, 3)]


def test_two_observations_at_once_do_not_meet(native, network, batches) -> None:
    request, other = Request("x", MomentsSpec()), Request("y", MomentsSpec())
    each = observe_each(native, network, batches, [request, other])
    next(each)
    inner = observe(native, network, batches[:1], [other]).of(other)
    assert int(inner.count) == 20
    assert int(next(each)[1].value.count) == 45


KINDS = (
    HEAD
    + """g (float[N] x, int64[M] i, bool b) => (float y) {
    s = SequenceConstruct(x, x)
    d = Cast<to=11>(x)
    h = Cast<to=10>(x)
    bf = Cast<to=16>(x)
    t = Cast<to=8>(x)
    u = Cast<to=2>(i)
    m = ReduceMean<keepdims=0>(x)
    k = Constant<value_ints=[3,0,-5]>()
    e = NonZero(x)
    one = Constant<value_float=1.0>()
    z = If(b) <
        then_branch = inner () => (float in_then) { in_then = Add(m, one) },
        else_branch = outer () => (float in_else) { in_else = Sub(m, one) }
    >
    y = Add(z, one)
}"""
)


@pytest.fixture(scope="module")
def kinds():
    return parse(KINDS)


def kind_feeds():
    values = np.array([1.0, 0.0, np.nan, -np.inf, 4.0], np.float32)
    return {"x": values, "i": np.array([7, 200]), "b": np.array(True)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x", (0, 4, 3, 1, 2)),
        ("d", (0, 4, 3, 1, 2)),
        ("h", (0, 4, 3, 1, 2)),
        ("i", (7, 200, 2, 0, 0)),
        ("u", (7, 200, 2, 0, 0)),
        ("b", (1, 1, 1, 0, 0)),
        ("k", (-5, 3, 3, 1, 0)),
        ("e", (0, 4, 4, 1, 0)),
        ("one", (1, 1, 1, 0, 0)),
    ],
)
def test_ranges_of_every_kind_of_tensor(native, kinds, name, expected) -> None:
    request = Request(name, RangeSpec())
    found = observe(native, kinds, [kind_feeds()], [request]).of(request)
    got = (found.minimum, found.maximum, found.count, found.zeros, found.rejected)
    assert tuple(map(int, got)) == expected


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (Request("nothing", RangeSpec()), "no tensor of this name"),
        (Request("", RangeSpec()), "no tensor of this name"),
        (Request("s", RangeSpec()), "not a tensor of numbers"),
        (Request("t", RangeSpec()), "not a tensor of numbers"),
        (Request("bf", RangeSpec()), "not a tensor of numbers"),
        (Request("i", MomentsSpec()), "only the range"),
        (Request("b", HistogramSpec()), "only the range"),
        (Request("k", HistogramSpec()), "only the range"),
        (Request("x", RangeSpec(1)), "no axis 1"),
        (Request("m", GramSpec()), "no axis -1"),
        (Request("one", RangeSpec(0)), "no axis 0"),
        (Request("x", GramSpec(ConvRows((3,)))), "cannot slide"),
        (Request("x", GramSpec(blocks=((0,),))), "exactly once"),
        (Request("x", CrossSpec(), target="m"), "no axis -1"),
        (Request("x", CrossSpec(), target="nothing"), "'nothing': the model has no tensor"),
        (Request("one", CrossSpec(), target="x"), "constant"),
        (Request("x", CrossSpec(), target="i"), "only the range"),
        (Request("x", CrossSpec(), target="x", target_in_other=True), "no other model"),
    ],
)
def test_what_cannot_be_observed_is_told_and_the_rest_is_observed(
    native, kinds, request_, why
) -> None:
    good = Request("m", RangeSpec())
    answers = observe(native, kinds, [kind_feeds()], [request_, good])
    assert answers[request_].value is None
    assert why in answers[request_].why
    assert int(answers.of(good).rejected) == 1


def test_a_request_names_as_many_tensors_as_it_takes() -> None:
    with pytest.raises(ValueError, match="takes 2 tensors"):
        Request("x", CrossSpec())
    with pytest.raises(ValueError, match="takes 1 tensors"):
        Request("x", RangeSpec(), target="y")


def test_no_batch_and_empty_batches(native, kinds, network) -> None:
    request = Request("x", RangeSpec())
    assert "no batch" in one(native, kinds, [], request).why
    empty = {"x": np.zeros((0, 3, 8, 8), np.float32)}
    for spec in (RangeSpec(1), MomentsSpec(1), HistogramSpec(), GramSpec(ConvRows((3, 3)))):
        found = one(native, network, [empty], Request("x", spec)).value
        assert int(np.sum(found.rows if isinstance(spec, GramSpec) else found.count)) == 0


def test_shapes_may_change_between_batches_where_it_does_not_matter(native) -> None:
    model = parse(HEAD + "g (float[A,B] x) => (float[A,B] y) { y = Relu(x) }")
    feeds = [{"x": np.ones(shape, np.float32)} for shape in ((2, 3), (4, 3), (1, 5))]
    whole, channel = Request("y", MomentsSpec()), Request("y", MomentsSpec(1))
    answers = observe(native, model, feeds, [whole, channel])
    assert int(answers.of(whole).count) == 23
    assert answers[channel].why == "it has 5 channels now, but had 3 before"


def test_a_tensor_of_dynamic_rank(native) -> None:
    model = parse(
        HEAD + "g (float[N] x, int64[R] s) => (float[M] y) { r = Reshape(x, s)\n y = Flatten(r) }"
    )
    feeds = [
        {"x": np.arange(6, dtype=np.float32), "s": np.array(shape)} for shape in ((2, 3), (1, 2, 3))
    ]
    moments, last = Request("r", MomentsSpec()), Request("r", GramSpec())
    answers = observe(native, model, feeds, [moments, last])
    assert int(answers.of(moments).count) == 12
    assert answers.of(last).rows == 4


def test_only_what_is_needed_is_run(native) -> None:
    """A division that kills its process does no harm where nothing asked for needs it."""
    model = parse(
        HEAD
        + """g (float[N] x, int32[N] i) => (int32[N] y) {
        z = Sub(i, i)
        one = Constant<value_ints=[-1]>()
        minus = Cast<to=6>(one)
        y = Div(i, minus)
        r = Relu(x)
    }"""
    )
    feeds = {"x": np.ones(3, np.float32), "i": np.full(3, -(1 << 31), np.int32)}
    assert int(one(native, model, [feeds], Request("r", RangeSpec())).value.maximum) == 1
    with Native(seconds=20) as mortal, pytest.raises(NativeDeathError, match="killed the process"):
        observe(mortal, model, [feeds], [Request("y", RangeSpec()), Request("r", RangeSpec())])


def test_a_branch_may_read_what_is_not_an_input_of_its_node(native, kinds) -> None:
    request = Request("z", RangeSpec())
    feeds = kind_feeds() | {"x": np.ones(3, np.float32)}
    assert float(observe(native, kinds, [feeds], [request]).of(request).maximum) == 2


def test_the_end_of_the_process_between_answers_is_an_error(network, batches) -> None:
    with Native(seconds=20) as mortal:
        requests = [Request("x", RangeSpec()), Request("y", RangeSpec())]
        each = observe_each(mortal, network, batches, requests)
        next(each)
        mortal.close()
        with pytest.raises(NativeDeathError, match="has ended"):
            next(each)
        assert observe(mortal, network, batches, requests).of(requests[0]).count == 9 * 192


def test_feeds_that_do_not_fit_are_one_clear_error(native, network) -> None:
    wrong = {"x": np.ones((1, 2, 8, 8), np.float32)}
    with pytest.raises(NativeError):
        observe(native, network, [wrong], [Request("y", RangeSpec())])


def test_an_input_with_a_default_is_observed_as_it_is(native) -> None:
    text = HEAD + "g (float[N] x, float[2] w = {1.0, 2.0}) => (float[N] y) { y = Add(x, w) }"
    model = Model.load(onnx.parser.parse_model(text))
    request = Request("w", RangeSpec())
    default = observe(native, model, [{"x": np.ones(2, np.float32)}], [request])
    assert float(default.of(request).maximum) == 2
    feeds = {"x": np.ones(2, np.float32), "w": np.array([5, 6], np.float32)}
    assert float(observe(native, model, [feeds], [request]).of(request).maximum) == 6


def test_names_like_ours_and_a_model_without_standard_operators(native, network) -> None:
    renamed = parse(HEAD + "g (float[N] shape0) => (float[N] shape1) { shape1 = Relu(shape0) }")
    feeds = {"shape0": np.ones(2, np.float32)}
    assert int(one(native, renamed, [feeds], Request("shape1", RangeSpec())).value.count) == 2
    scaler = helper.make_node(
        "Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[1.0], scale=[2.0]
    )
    graph = helper.make_graph(
        [scaler],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("ai.onnx.ml", 2)])
    proto.ir_version = 8
    model = Model.load(proto)
    feeds = {"x": np.full((3, 2), 4.0, np.float32)}
    assert float(one(native, model, [feeds], Request("y", RangeSpec())).value.maximum) == 6


def test_large_models_go_through_a_file(native, network, batches, monkeypatch, tmp_path) -> None:
    rng = np.random.default_rng(0)
    big = network.copy()
    weight = next(c for c in big.constants() if c.name == "v")
    weight.values = rng.standard_normal((4, 500)).astype(np.float32)
    requests = [Request("y", GramSpec(blocks=100)), Request("x", MomentsSpec())]
    sent = observe(native, big, batches, requests, memory_bytes=700_000)
    monkeypatch.setattr(exposing, "SEND_BYTES", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    written = observe(native, big, batches, requests, memory_bytes=700_000)
    for request in requests:
        a, b = sent.of(request).state(), written.of(request).state()
        for name in a:
            # weights that are not reordered are multiplied in another order
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-5)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert not any(a.why for a in observe(native, big, batches, requests).values())


def test_subsampling_is_the_same_in_the_child(native, network, batches) -> None:
    spec = GramSpec(ConvRows((3, 3)), sampling=Sampling(20, seed=1))
    found = one(native, network, batches, Request("x", spec)).value
    here = spec.start()
    for feeds in batches:
        here.add(feeds["x"])
    assert found.rows == 60
    np.testing.assert_array_equal(found.product(), here.product())


def test_sparse_weights_are_kept(native) -> None:
    dense = np.array([0, 2, 0, 3], np.float32)
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        sparse_initializer=[
            helper.make_sparse_tensor(
                numpy_helper.from_array(dense[[1, 3]], "w"),
                numpy_helper.from_array(np.array([1, 3]), "w_at"),
                [4],
            )
        ],
    )
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    model = Model.load(proto)
    feeds = {"x": np.ones(4, np.float32)}
    answers = observe(native, model, [feeds], [Request(n, RangeSpec()) for n in ("y", "w")])
    assert [float(answer.value.maximum) for answer in answers.values()] == [3, 3]
