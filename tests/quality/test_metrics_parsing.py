"""Metrics as users write them: names, options, outputs, lists; every error one line."""

from __future__ import annotations

import onnx
import pytest

from graphopt.errors import UsageError
from graphopt.ir.model import Model
from graphopt.quality.metrics import KINDS, parse_metric
from graphopt.quality.metrics.entries import LARGEST, lines
from graphopt.quality.metrics.f1 import F1
from graphopt.quality.metrics.kl import KL
from graphopt.quality.metrics.sequences import CER
from graphopt.testing import parse


def model(*outputs: str, **metadata: str) -> Model:
    """A model with outputs of these names and this metadata."""
    proto = parse(
        '<ir_version: 8, opset_import: ["" : 17]>\ng (float[N,1] x) => (float[N,1] y) { y = Sigmoid(x) }'
    ).to_proto()
    for name in outputs:
        proto.graph.node.append(onnx.helper.make_node("Relu", ["x"], [name]))
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, ["N", 1]))
    onnx.helper.set_model_props(proto, metadata)
    return Model.load(proto)


def said(text: str, given: Model | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        parse_metric(text, given or model())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_metric_by_its_name() -> None:
    for name in KINDS:
        metric = parse_metric(f" {name} ", model())
        assert (metric.name, metric.output, str(metric)) == (name, "", name)
        bound = parse_metric(f"{name}@y", model())
        assert (bound.name, bound.output, str(bound)) == (name, "y", f"{name}@y")
    assert list(KINDS) == sorted(KINDS)


def test_options() -> None:
    kl = parse_metric("kl:axis=-2, scores=logits@y", model())
    assert kl == KL(name="kl:axis=-2, scores=logits", output="y", axis=-2, scores="logits")
    f1 = parse_metric("f1:average=binary,positive=0,threshold=1e-1", model())
    assert isinstance(f1, F1)
    assert (f1.average, f1.positive, f1.threshold, f1.known) == ("binary", 0, 0.1, {"y": 0.5})
    cer = parse_metric("cer:blank=-1,space=3,layout=tnc,decode=greedy", model())
    assert isinstance(cer, CER)
    assert (cer.spelling.blank, cer.spelling.space) == (-1, 3)
    assert (cer.spelling.layout, cer.spelling.decode) == ("tnc", "greedy")
    assert hash(f1) == hash(parse_metric("f1:average=binary,positive=0,threshold=1e-1", model()))


def test_lists_from_metadata_and_files(tmp_path) -> None:
    given = model("a@b", character="'\nx\n \n\u2028", names="cat\r\ndog\r\n")
    cer = parse_metric("cer:charset=@character,space=append@y", given)
    assert isinstance(cer, CER)
    assert cer.spelling.symbols == ("'", "x", " ", "\u2028", " ")
    assert cer.output == "y"
    assert parse_metric("cer:charset=@character", given).output == ""
    assert parse_metric("cer:charset=@character@a@b", given).output == "a@b"
    assert parse_metric("top1:classes=@names", given).classes == ("cat", "dog")  # type: ignore[attr-defined]
    folder = tmp_path / "me@work"
    folder.mkdir()
    file = folder / "list.txt"
    file.write_bytes("\ufeffä\nb\n".encode())
    assert parse_metric(f"top1:classes={file}@y", given).classes == ("ä", "b")  # type: ignore[attr-defined]


def test_lines() -> None:
    assert lines("") == ()
    assert lines("a") == ("a",)
    assert lines("a\n\nb\n") == ("a", "", "b")
    assert lines("a\n ") == ("a", " ")


@pytest.mark.parametrize("name", ["Identity:0", "scope/a:out", "a,b", "x=1", "f:g", "m.py:f"])
def test_outputs_of_any_name(name: str) -> None:
    for text in ("top1", "f1:average=macro", "cosine"):
        assert parse_metric(f"{text}@{name}", model(name)).output == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "there is no metric ''"),
        ("top", "there is no metric 'top'. Did you mean topk or top1?"),
        ("Accuracy", "there is no metric 'Accuracy'. Did you mean top1?"),
        ("acuracy", "Did you mean top1?"),
        ("pixel_accuracy", "Did you mean element-accuracy?"),
        ("top5", "Did you mean topk:k=5?"),
        ("cosin@y", "Did you mean cosine?"),
        ("zzz", "Metrics: agreement, cer, "),
        ("a/b.txt", "module:function or file.py:function"),
        ("topk:5", "cannot read the option '5' of the metric 'topk'. Write topk:option=value"),
        ("topk:k=5,k=6", "given the option 'k' twice"),
        ("topk:k=0", "cannot be '0'. It wants a whole number from 1"),
        ("topk:k=x", "cannot be 'x'"),
        ("topk:k=99999999999999999999", "cannot be"),
        ("topk:kk=1", "has no option 'kk'. Did you mean k?"),
        ("topk:zebra=1", "It has: classes, k"),
        ("cosine:k=1", "has no option 'k'. It has none"),
        ("f1:average=mean", "It wants one of macro, micro, binary"),
        ("f1:positive=-1", "It wants the number of a class"),
        ("top1:threshold=nan", "It wants a number"),
        ("top1:threshold=inf", "It wants a number"),
        ("top1@z", "the model has no output 'z'"),
        ("top1@yy", "Did you mean y?"),
        ("top1@", "the model has no output ''. It has: y"),
        ("cer:charset=@nothing", "no key 'nothing'. It has: none"),
        ("cer:charset=nowhere.txt", "there is no file 'nowhere.txt'"),
        ("cer:charset=", "there is no file ''"),
        ("cer:charset=.", "there is no file '.'"),
        ("cer:charset=a\0b", "u0000b"),
        ("cer:space=append", "space=append adds to a charset"),
        ("cer:space=-1", "the number of a class, or append"),
        ("top1\nx", "there is no metric 'top1\\\\u000ax'"),
        ("nomodule_here:f", "there is no module 'nomodule_here'"),
        ("topk:k", "An option of topk is written topk:OPTION=VALUE"),
        ("nofile.py:f", "cannot read nofile.py:f: no such file"),
        ("json:lodas", "json has no function 'lodas'. Did you mean loads"),
        ("math:pow,lower", "only better=lower or better=higher may follow"),
        ("xml.nothing:f", "there is no module 'xml.nothing'"),
    ],
)
def test_errors_say_what_to_do(text: str, expected: str) -> None:
    assert expected in said(text)


def test_lists_that_are_refused(tmp_path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(b"\xff\xfe\xfd")
    assert "it is not UTF-8" in said(f"top1:classes={file}")
    file.write_text("")
    assert "holds no entries" in said(f"top1:classes={file}")
    file.write_text("a\nb\na\n")
    assert "has the class 'a' twice" in said(f"top1:classes={file}")
    assert parse_metric(f"cer:charset={file}", model())
    with file.open("wb") as handle:
        handle.truncate(LARGEST + 1)
    assert "larger than 16 MiB" in said(f"top1:classes={file}")
    assert "Did you mean names?" in said("top1:classes=@name", model(names="a\nb"))
