"""The report's parts that judge: data, budget, metrics, gates, sensitivity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class VerdictInfo:
    """The judgement of the result against the original, as equal or not.

    Attributes:
        verdict: equal; different; or unproven, when nothing could run the original.
        why: what differs or why nothing is proven.
        largest_difference: the largest absolute difference of any output.
        relative_difference: the same in units of the output's size.
        outputs: the largest absolute difference by output.
        samples: sets of inputs compared.
        runtime: what ran the models.
    """

    verdict: Literal["equal", "different", "unproven"]
    why: str
    largest_difference: float
    relative_difference: float
    outputs: dict[str, float]
    samples: int
    runtime: str


@dataclass(frozen=True)
class DataInfo:
    """The data that the run used.

    Attributes:
        source: the path or ``module:function`` as given.
        digest: a hash of all samples and labels, whatever file they came in.
        samples: in all.
        calibration: samples that passes could look at.
        evaluation: samples that the gate judged with; no sample is in both parts.
        labels: the name of the labels; empty where there are none.
        seed: of the split.
    """

    source: str
    digest: str
    samples: int
    calibration: int
    evaluation: int
    labels: str = ""
    seed: int = 0


@dataclass(frozen=True)
class BudgetInfo:
    """What the run was allowed to lose.

    Attributes:
        metric: the metric that was judged with.
        chosen: why this metric, where the user named none.
        max_drop: the largest drop allowed, in the metric's units; None: no limit.
        floor: the lowest value allowed; None: none.
        confidence: of the verdicts, over all candidates of the run together.
        higher_is_better: whether larger values of the metric are better.
    """

    metric: str
    chosen: str
    max_drop: float | None
    floor: float | None
    confidence: float
    higher_is_better: bool = True


@dataclass(frozen=True)
class GateInfo:
    """The judgement of one candidate on the evaluation data; None stands for numbers that are not finite.

    Attributes:
        step: the pass that made the candidate; empty for the result as a whole.
        what: what about the pass was tried, as in ``at full strength`` or ``without 3 of 17 places``.
        verdict: pass; fail; or unsure, where there are too few samples to tell.
        accepted: whether the manager went on with the candidate.
        metric: the metric judged with.
        before: its value for the original.
        after: its value for the candidate.
        drop: how much worse the candidate is, in the units of the limit; negative: better.
        low: lower end of the drop's confidence interval.
        high: upper end.
        limit: the largest drop allowed; None: no limit.
        confidence: of the interval's ends, each taken alone.
        samples: compared.
        more: how many more samples would decide; None where it is decided.
        why: the verdict in words.
        weight_bytes: bytes of the candidate's constants.
        macs: of the candidate; None where not proven.
    """

    step: str
    what: str
    verdict: Literal["pass", "fail", "unsure"]
    accepted: bool
    metric: str
    before: float | None
    after: float | None
    drop: float | None
    low: float | None
    high: float | None
    limit: float | None
    confidence: float
    samples: int
    more: int | None = None
    why: str = ""
    weight_bytes: int = 0
    macs: int | None = None


@dataclass(frozen=True)
class MeasureInfo:
    """One metric of one output for the original and the result, on the evaluation data.

    Attributes:
        metric: its name.
        output: the output it is of; empty where it is of all.
        before: the original's value; of a fidelity metric the perfect value.
        after: the result's value; None where it is not finite.
        higher_is_better: whether larger is better.
        unit: of the values, as in ``dB``; empty for plain numbers.
    """

    metric: str
    output: str
    before: float | None
    after: float | None
    higher_is_better: bool = True
    unit: str = ""


@dataclass(frozen=True)
class SensitivityInfo:
    """The loss that one layer causes alone, at one strength.

    Attributes:
        layer: the name of the node, or of the weight where the node has none.
        op: its operator.
        kind: what was done: to its weights, to the activations that it reads, or to both.
        strength: the share of weights set to zero, the bits of weights or of activations, or the number of
            values.
        drop: of the metric, in the units of a budget.
        low: lower end of its 95 % interval.
        high: upper end.
        sqnr_db: of the model's outputs against the original's, in dB; None where nothing differs.
        parameters: weights of the layer.
        activations: bits of the activations that it reads, where these are rounded as well as the weights.
        ranges: how the ranges of activations were chosen; empty where none is rounded.
    """

    layer: str
    op: str
    kind: Literal["sparsity", "bits", "clusters", "activations", "both"]
    strength: float
    drop: float
    low: float
    high: float
    sqnr_db: float | None
    parameters: int = 0
    activations: int | None = None
    ranges: str = ""


@dataclass(frozen=True)
class SensitivityReport:
    """What ``graphopt sensitivity`` found.

    Attributes:
        schema: the form of this report.
        tool: name and version.
        command: the command line.
        model: path of the model.
        sha256: of its file.
        data: the data measured with.
        metric: the metric of the drops.
        chosen: why this metric.
        before: its value for the original.
        samples: evaluated.
        rows: one for each layer, kind and strength.
        environment: versions.
        warnings: what else to know.
    """

    schema: str
    tool: dict[str, str]
    command: list[str]
    model: str
    sha256: str
    data: DataInfo
    metric: str
    chosen: str
    before: float
    samples: int
    rows: list[SensitivityInfo] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
