"""Metrics as a user writes them.

    NAME[:option=value,...][@output]            one of the table below
    module:function[,better=lower]              a function of the user's own
    path/to/file.py:function[,better=lower]

A colon followed by an identifier without ``=`` makes a function; everything else is looked up in the
table. The output is what follows the first ``@`` behind which the name of an output stands; an ``@``
after ``=`` is part of an option.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

from graphopt.errors import UsageError, printable
from graphopt.ir.model import Model
from graphopt.quality.metrics.base import Metric
from graphopt.quality.metrics.classification import ElementAccuracy, Top1, TopK
from graphopt.quality.metrics.custom import custom_metric
from graphopt.quality.metrics.decisions import ElementAgreement
from graphopt.quality.metrics.entries import entries
from graphopt.quality.metrics.f1 import F1
from graphopt.quality.metrics.fidelity import Agreement, Cosine, Equal
from graphopt.quality.metrics.kl import KL
from graphopt.quality.metrics.masks import SoftIoU
from graphopt.quality.metrics.noise import SQNR, WorstDifference
from graphopt.quality.metrics.regression import MAE, MSE
from graphopt.quality.metrics.scores import thresholds
from graphopt.quality.metrics.sequences import CER, WER, WordAccuracy
from graphopt.quality.metrics.transcripts import Spelling
from graphopt.quality.metrics.variation import TotalVariation

FUNCTION = re.compile(
    r"(?P<where>[^\W\d]\w*(?:\.[^\W\d]\w*)*|.+\.py):(?P<name>[^\W\d]\w*)(?P<rest>(?:,.*)?)",
    re.DOTALL,
)
"""A dotted module name or a path that ends with ``.py``, and an identifier."""

Reader = Callable[[str, Model], Any]
"""Reads the value of an option; a ValueError says what it must be."""


def _whole(low: int, wanted: str) -> Reader:
    def read(text: str, model: Model) -> int:
        value = int(text) if re.fullmatch(r"[+-]?\d{1,9}", text) else low - 1
        if value < low:
            raise ValueError(wanted)
        return value

    return read


def _one_of(*words: str) -> Reader:
    def read(text: str, model: Model) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return read


def _number(text: str, model: Model) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise ValueError("a number")
    return value


def _distinct(text: str, model: Model) -> tuple[str, ...]:
    found = entries(text, model)
    if len(set(found)) < len(found):
        twice = next(entry for entry in found if found.count(entry) > 1)
        raise UsageError(f"{printable(text)!r} has the class {printable(twice, 80)!r} twice")
    return found


def _space(text: str, model: Model) -> Any:
    return text if text == "append" else _whole(0, "the number of a class, or append")(text, model)


_MOST = -(10**9)
_CLASS: dict[str, Reader] = {"classes": _distinct, "threshold": _number}
_SPELLING: dict[str, Reader] = {
    "blank": _whole(_MOST, "the number of a class, negative from the last"),
    "charset": entries,
    "space": _space,
    "layout": _one_of("ntc", "tnc"),
    "decode": _one_of("greedy", "none"),
}
_AXIS = _whole(_MOST, "a whole number")
_NATURAL = _whole(0, "the number of a class")


@dataclass(frozen=True)
class Kind:
    """A metric of the table: its class, and how its options are read."""

    metric: Any
    options: dict[str, Reader]


KINDS: dict[str, Kind] = {
    "agreement": Kind(Agreement, {}),
    "cer": Kind(CER, _SPELLING),
    "cosine": Kind(Cosine, {}),
    "element-accuracy": Kind(
        ElementAccuracy,
        {"axis": _AXIS, "ignore": _whole(_MOST, "a whole number"), "threshold": _number},
    ),
    "element-agreement": Kind(ElementAgreement, {}),
    "equal": Kind(Equal, {}),
    "f1": Kind(
        F1, {"average": _one_of("macro", "micro", "binary"), "positive": _NATURAL, **_CLASS}
    ),
    "kl": Kind(KL, {"axis": _AXIS, "scores": _one_of("auto", "probabilities", "logits")}),
    "mae": Kind(MAE, {}),
    "mse": Kind(MSE, {}),
    "soft-iou": Kind(SoftIoU, {}),
    "sqnr": Kind(SQNR, {}),
    "top1": Kind(Top1, _CLASS),
    "topk": Kind(TopK, {"k": _whole(1, "a whole number from 1"), "classes": _distinct}),
    "tv": Kind(TotalVariation, {}),
    "wer": Kind(WER, _SPELLING),
    "word-accuracy": Kind(WordAccuracy, _SPELLING),
    "worst": Kind(WorstDifference, {}),
}
"""The metrics by name, in alphabetical order."""


OTHER_NAMES = {
    **dict.fromkeys(("acc", "accuracy", "top-1"), "top1"),
    **dict.fromkeys(("top5", "top-5"), "topk:k=5"),
    **dict.fromkeys(("top-k", "topn"), "topk:k=K"),
    **dict.fromkeys(("f1-score", "fscore"), "f1"),
    **dict.fromkeys(("l2", "rmse"), "mse"),
    **dict.fromkeys(("iou", "miou", "jaccard", "dice"), "soft-iou"),
    **dict.fromkeys(("snr", "psnr"), "sqnr"),
    **dict.fromkeys(("exact-match", "sequence-accuracy"), "word-accuracy"),
    **dict.fromkeys(("pixel-accuracy", "token-accuracy"), "element-accuracy"),
    **dict.fromkeys(("max-diff", "linf"), "worst"),
    "l1": "mae",
}
"""What people call metrics elsewhere, and the nearest one of the table."""


def parse_metric(text: str, model: Model) -> Metric:
    """The metric that a user wrote.

    Args:
        text: as on the command line.
        model: the original: its outputs, metadata and operators are looked at.

    Raises:
        UsageError: the metric, an option or the output is not known, or a value does not fit.
    """
    text = text.strip()
    outputs = [str(tensor.name) for tensor in model.graph.outputs]
    head, output = _split(text, outputs)
    name, _, rest = head.partition(":")
    kind = KINDS.get(name)
    function = FUNCTION.fullmatch(text)
    if function is not None and (kind is None or output is None):
        return _custom(text, function)
    if kind is None:
        raise _unknown(name)
    if output is not None and output not in outputs:
        raise UsageError(
            f"the model has no output {printable(output)!r}",
            _near(output, outputs) or f"It has: {_some(outputs)}",
        )
    values = _options(name, kind, rest, model)
    return _build(kind, head, output or "", values, model)


def _custom(text: str, function: re.Match[str]) -> Metric:
    where, rest = function["where"], function["rest"]
    if rest not in ("", ",better=lower", ",better=higher"):
        raise UsageError(
            f"cannot read {printable(rest[1:])!r} of the metric {printable(text)!r}",
            "After a function only better=lower or better=higher may follow",
        )
    try:
        return custom_metric(
            f"{where}:{function['name']}", rest == ",better=lower", printable(text)
        )
    except UsageError as error:
        if where in KINDS and not error.hint.startswith("Did"):
            hint = f"An option of {where} is written {where}:OPTION=VALUE"
            raise UsageError(error.what, hint) from None
        raise


def _split(text: str, outputs: list[str]) -> tuple[str, str | None]:
    """The metric with its options, and the output, known or not; None where none is named."""
    places = [found.start() for found in re.finditer(r"(?<!=)@", text)]
    if not places:
        return text, None
    place = next((p for p in places if text[p + 1 :] in outputs), places[0])
    return text[:place], text[place + 1 :]


def _options(name: str, kind: Kind, rest: str, model: Model) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key:
            raise UsageError(
                f"cannot read the option {printable(part)!r} of the metric {name!r}",
                f"Write {name}:option=value,option=value",
            )
        if key not in kind.options:
            has = ", ".join(sorted(kind.options))
            raise UsageError(
                f"the metric {name!r} has no option {printable(key)!r}",
                _near(key, kind.options) or (f"It has: {has}" if has else "It has none"),
            )
        if key in values:
            raise UsageError(f"the metric {name!r} is given the option {key!r} twice")
        try:
            values[key] = kind.options[key](value, model)
        except ValueError as error:
            raise UsageError(
                f"option {key!r} of the metric {name!r} cannot be {printable(value)!r}",
                f"It wants {error}",
            ) from None
    return values


def _build(kind: Kind, head: str, output: str, values: dict[str, Any], model: Model) -> Metric:
    known = {field.name for field in fields(kind.metric)}
    if "spelling" in known:
        if values.get("space") == "append" and "charset" not in values:
            raise UsageError(
                "space=append adds to a charset, and none is given", "Add charset=FILE"
            )
        values = {"spelling": Spelling(**values)}
    if "known" in known:
        values["known"] = thresholds(model)
    made: Metric = kind.metric(name=printable(head), output=output, **values)
    return made


def _unknown(name: str) -> UsageError:
    other = difflib.get_close_matches(name.lower(), OTHER_NAMES, 1, 0.9)
    hint = f"Did you mean {OTHER_NAMES[other[0]]}?" if other else _near(name, KINDS)
    if "/" in name or "." in name:
        hint = "A function of your own is written module:function or file.py:function"
    return UsageError(
        f"there is no metric {printable(name)!r}", hint or f"Metrics: {', '.join(KINDS)}"
    )


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), 3, 0.5)
    return f"Did you mean {' or '.join(printable(n, 80) for n in near)}?" if near else ""


def _some(names: list[str]) -> str:
    shown = [printable(name, 80) for name in names[:8]]
    return ", ".join(shown + ([f"{len(names) - 8} more"] if len(names) > 8 else [])) or "none"
