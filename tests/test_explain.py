"""Which pass made, changed, removed or refused a node: from a report, and from a model's metadata."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import onnx
import pytest

from graphopt import cli
from graphopt.errors import UsageError
from graphopt.explain import METADATA_KEY, explain, load_steps, pack, unpack
from graphopt.outcome import undone
from graphopt.report import (
    EditInfo,
    HistogramInfo,
    QuantizedInfo,
    RangeInfo,
    SkipInfo,
    StepReport,
    StoredInfo,
)

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "models" / "digits_cnn" / "digits_cnn.onnx"

STEPS = [
    StepReport(
        "fold-batchnorm",
        "eased",
        True,
        {},
        edits=[EditInfo("conv", "took over the normalization")],
        skips=[SkipInfo("bn2", "a graph returns what it reads")],
        taken_back=[EditInfo("conv3", "took over the normalization: output 'y' is off")],
        made=["conv/new"],
        removed=["bn"],
    ),
    StepReport("idle", "unchanged", True, {}),
    StepReport("merge", "applied", True, {}, edits=[EditInfo("conv", "merged")], removed=["conv"]),
]


def events(node: str) -> list[tuple[str, str]]:
    return [(event.step, event.what) for event in explain(STEPS, node).events]


def test_everything_that_can_happen_to_a_node() -> None:
    assert events("conv") == [
        ("fold-batchnorm", "changed"),
        ("merge", "changed"),
        ("merge", "removed"),
    ]
    assert events("bn") == [("fold-batchnorm", "removed")]
    assert events("bn2") == [("fold-batchnorm", "refused")]
    assert events("conv3") == [("fold-batchnorm", "taken back")]
    assert events("conv/new") == [("fold-batchnorm", "made")]


def test_the_numbers_that_a_node_computes_in() -> None:
    given = RangeInfo("y", -1.0, 3.0, 4 / 255, 64, 256, -1.5, 4.5, 2 / 3, 0.01, 0.0, "auto")
    stored = [StoredInfo("w", 8, 0, "int8 per channel", 41.25)]
    row = QuantizedInfo(
        "conv", "Conv", "integers", "u8s8 int8 per channel", "it is faster on integers", "y", False,
        given, [], stored, 2e-5, 12e-6, 5e-6, 35.5,
    )  # fmt: skip
    step = StepReport("quantize-qdq", "applied", False, {}, quantized=[row])
    (event,) = explain([step], "conv").events
    assert (event.step, event.what) == ("quantize-qdq", "chosen")
    assert event.detail.startswith(
        "u8s8 int8 per channel: it is faster on integers; gives y from -1"
    )
    for said in (
        "zero point 64",
        "67 % of what was seen by auto",
        "1 % clipped",
        "w int8 per channel",
    ):
        assert said in event.detail
    for said in ("at 41.2 dB", "at 35.5 dB", "12 µs on floats", "5 µs on integers", "loss 2e-05"):
        assert said in event.detail
    with pytest.raises(UsageError, match="nearest names are: conv"):
        explain([step], "conw")


def test_a_name_that_nobody_speaks_of_gets_suggestions() -> None:
    with pytest.raises(UsageError, match=r"nearest names are: .*conv"):
        explain(STEPS, "convv")


def test_steps_survive_the_metadata() -> None:
    told = unpack(pack(STEPS))
    assert [step.name for step in told] == ["fold-batchnorm", "merge"]
    assert [explain(told, n).events for n in ("conv", "bn", "bn2", "conv3", "conv/new")] == [
        explain(STEPS, n).events for n in ("conv", "bn", "bn2", "conv3", "conv/new")
    ]
    assert pack(STEPS) == pack(STEPS)


@pytest.mark.parametrize(
    "text",
    [
        "no base64",
        base64.b64encode(b"not deflated").decode(),
        base64.b64encode(zlib.compress(b"{}]")).decode(),
        base64.b64encode(zlib.compress(b'[{"name": 1}]')).decode(),
        base64.b64encode(zlib.compress(b" " * (65 << 20))).decode(),
    ],
)
def test_damaged_or_hostile_metadata_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is damaged"):
        unpack(text)


def test_from_the_command_line(tmp_path, capsys) -> None:
    out, told = tmp_path / "o.onnx", tmp_path / "r.json"
    given = ["optimize", MODEL, "-o", out, "--json", told, "--provenance", "-q"]
    assert cli.run([str(entry) for entry in given]) == 0
    steps = load_steps(told)
    node = next(step.edits[0].node for step in steps if step.edits)
    for source in (out, told):
        assert cli.run(["explain", str(source), node, "--json", "-"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["node"] == node
        assert found["events"]
        assert cli.run(["explain", str(source)]) == 0
        assert "lift-constants" in capsys.readouterr().out
    entries = {e.key: e.value for e in onnx.load(out).metadata_props}
    assert METADATA_KEY in entries


def test_a_model_without_provenance_says_how_to_get_it(capsys) -> None:
    assert cli.run(["explain", str(MODEL), "x"]) == 1
    assert "--provenance" in capsys.readouterr().err


def test_provenance_is_written_once(tmp_path) -> None:
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for source, target in ((MODEL, first), (first, second)):
        given = [
            "optimize",
            source,
            "-o",
            target,
            "--provenance",
            "-q",
            "--pass",
            "quantize-weights",
        ]
        assert cli.run([str(entry) for entry in given]) == 0
    keys = [entry.key for entry in onnx.load(second).metadata_props]
    assert keys.count(METADATA_KEY) == 1


def rows() -> list[QuantizedInfo]:
    seen = HistogramInfo([0.0, 1.0], [3])
    grid = RangeInfo("y", 0.0, 1.0, 1 / 255, 0, 256, 0.0, 1.0, 1.0, 0.0, 0.0, "minmax", 1e-4, seen)
    weight = StoredInfo("w", 8, 0, "in int8", 40.0)
    return [
        QuantizedInfo("c", "Conv", "integers", "u8s8", "it is faster", "y", output=grid),
        QuantizedInfo("m", "MatMul", "stored", "float, stored in 8 bits", "why", weights=[weight]),
        QuantizedInfo("r", "Relu", "floats", "float", "nothing is gained"),
    ]


def test_the_metadata_tells_in_which_numbers_nodes_compute() -> None:
    step = StepReport("quantize-qdq", "applied", False, {}, quantized=rows())
    (found,) = unpack(pack([step]))
    assert [row.node for row in found.quantized] == ["c", "m", "r"]
    assert found.quantized[0].output is not None
    assert found.quantized[0].output.histogram is None
    assert found.quantized[1] == step.quantized[1]
    assert explain([found], "c").events == explain([step], "c").events


def test_rows_of_what_was_taken_back_say_so() -> None:
    first, second, third = (undone(row, "it is slower") for row in rows())
    assert (first.computes, first.precision, first.output) == ("floats", "float", None)
    assert first.why == "u8s8 was taken back: it is slower"
    assert (second.computes, second.weights) == ("floats", [])
    assert third == rows()[2]
