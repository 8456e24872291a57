"""Every case of the corpus through the command line, in a process with limits.

What is checked: the exit code; one readable line on refusal; no control characters on the terminal;
nothing written but the output; time and memory. Where a case must succeed: the interface and all that
the file says beside its graph are kept, and the result computes the same numbers.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import corpus_external  # noqa: F401 - the modules register their cases
import corpus_files  # noqa: F401
import corpus_folding  # noqa: F401
import corpus_graphs  # noqa: F401
import corpus_models  # noqa: F401
import corpus_names  # noqa: F401
import corpus_requests  # noqa: F401
import corpus_scale  # noqa: F401
import corpus_values  # noqa: F401
import onnx
import pytest
from command import Ended, graphopt_command, snapshot
from corpus import CASES, SECRET, Case, place

from graphopt.errors import NativeError
from graphopt.ir.model import Model
from graphopt.quality.equivalence import compare_any
from graphopt.quality.inputs import Plan, draw, specs

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")

OLD = b"the output of an earlier run"


def parameters(group: str) -> list[Any]:
    return [
        pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else [])
        for case in CASES
        if case.group == group
    ]


@dataclasses.dataclass
class Trial:
    """A case that was run.

    Attributes:
        case: the case.
        source: the input.
        target: where the output was asked for.
        ended: how the run ended.
        changed: the files that came, went or changed, without the output.
    """

    case: Case
    source: Path
    target: Path
    ended: Ended
    changed: set[str]


def trial(case: Case, root: Path, old: bytes | None = None) -> Trial:
    folder, out = root / "in", root / "out"
    for made in (folder, out, root / "tmp"):
        made.mkdir()
    source, target = place(case, folder), out / "out.onnx"
    arguments = [argument.replace("{}", str(folder)) for argument in case.arguments]
    if "-o" not in arguments:
        arguments += ["-o", str(target)]
    if old is not None:
        target.write_bytes(old)
    before = snapshot(root, [target])
    ended = graphopt_command(["optimize", str(source), *arguments], root, case.seconds)
    after = snapshot(root, [target])
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return Trial(case, source, target, ended, changed)


def check_manners(found: Trial) -> None:
    """What holds for every run whatever it was given."""
    case, ended = found.case, found.ended
    assert ended.code is not None, f"still running after {ended.seconds:.0f} s"
    assert ended.code >= 0, f"killed by signal {-ended.code}"
    assert "Traceback" not in ended.err + ended.out, ended.err
    assert ended.code in case.codes, (ended.code, ended.err)
    for stream in (ended.out, ended.err):
        assert not CONTROL.search(stream), repr(stream)
    assert not found.changed
    assert ended.mebibytes < case.mebibytes
    assert SECRET.decode() not in ended.out + ended.err
    if ended.code:
        check_refusal(ended)
    if found.target.exists():
        assert SECRET not in found.target.read_bytes()


def check_refusal(ended: Ended) -> None:
    """One line that says what is wrong."""
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert len(lines) == 1, ended.err
    assert lines[0].startswith("graphopt: error: ")
    assert 20 < len(lines[0]) < 3500
    assert not re.search(
        r"<[\w.]+ object at|\bNone\b|^graphopt: error: \.|0x[0-9a-f]{6}", lines[0]
    ), lines[0]
    assert "internal error" not in lines[0]


@pytest.mark.parametrize("case", parameters("accept"))
def test_accept(case: Case, tmp_path: Path, native) -> None:
    found = trial(case, tmp_path)
    check_manners(found)
    before = onnx.load(found.source, load_external_data=False)
    after = onnx.load(found.target, load_external_data=False)
    check_kept(before, after)
    operators = [node.op for node in Model.load(found.target).nodes()]
    for op in case.keeps:
        assert op in operators
    for op in case.gone:
        assert op not in operators
    if case.runs:
        check_numbers(case, found.source, found.target, native)


def check_kept(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """What the file says beside its nodes is still there."""
    for name in ("ir_version", "producer_name", "domain", "model_version", "doc_string"):
        assert getattr(before, name) == getattr(after, name)
    for name in ("metadata_props", "training_info"):
        assert list(getattr(before, name)) == list(getattr(after, name))
    assert all(entry in before.opset_import for entry in after.opset_import)
    for name in ("name", "doc_string", "quantization_annotation", "metadata_props"):
        assert getattr(before.graph, name) == getattr(after.graph, name)
    assert list(before.graph.output) == list(after.graph.output)
    if before.ir_version >= 4:
        assert list(before.graph.input) == list(after.graph.input)


def check_numbers(case: Case, before: Path, after: Path, native) -> None:
    """Both compute the same from the same inputs, by ONNX Runtime or the reference evaluator."""
    backend = "ort"
    try:
        native.call("open", "before", str(before), backend)
    except NativeError:
        backend = "reference"
    for key, path in (("before", before), ("after", after)):
        native.call("open", key, str(path), backend)
    feeds = case.feeds or drawn(before)
    expected = native.call("run", "before", feeds)
    result = native.call("run", "after", feeds)
    for old, new in zip(expected, result, strict=True):
        assert compare_any(old, new).equal


def drawn(path: Path) -> dict[str, Any]:
    inputs = specs(Model.load(path))
    dynamic = {dim: 3 for spec in inputs for dim in spec.shape or () if isinstance(dim, str)}
    feeds = draw(inputs, Plan(sizes=dynamic), 7)
    assert feeds is not None
    return feeds


@pytest.mark.parametrize("case", parameters("refuse"))
def test_refuse(case: Case, tmp_path: Path) -> None:
    found = trial(case, tmp_path, OLD)
    check_manners(found)
    assert found.target.read_bytes() == OLD
    assert case.says in found.ended.err


@pytest.mark.parametrize("case", parameters("either"))
def test_either(case: Case, tmp_path: Path) -> None:
    found = trial(case, tmp_path)
    check_manners(found)
    if found.ended.code == 0:
        onnx.load(found.target)
    else:
        assert not found.target.exists()


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
