"""Options that several commands share, each group gathered into one value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from graphopt.errors import UsageError

if TYPE_CHECKING:
    from graphopt.quality.data import DataOptions
    from graphopt.quality.gate import Budget
    from graphopt.runtime.cache import Cache

Command = Callable[..., Any]


def _gathered(
    options: list[Callable[[Command], Command]],
    names: list[str],
    gather: Callable[..., Any],
    as_: str,
) -> Callable[[Command], Command]:
    """A decorator that adds options to a command and hands it one value made of them."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def called(**values: Any) -> Any:
            gathered = gather(*[values.pop(name) for name in names])
            return command(**values, **{as_: gathered})

        decorated: Command = called
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def _data(
    source: str | None,
    labels: str | None,
    calibration: str | None,
    evaluation: str | None,
    split: str | None,
    image: str | None,
    seed: int,
) -> DataOptions | None:
    from graphopt.quality.data import DataOptions, ImageOptions, parse_share

    if source is None and calibration is None and evaluation is None:
        given = [n for n, v in (("--labels", labels), ("--split", split), ("--image", image)) if v]
        if given:
            raise UsageError(f"{given[0]} needs data", "Give some with --data")
        return None
    return DataOptions(
        source=source,
        labels=labels,
        calibration=calibration,
        evaluation=evaluation,
        split=None if split is None else parse_share(split),
        seed=seed,
        image=None if image is None else ImageOptions.parse(image),
    )


DATA = _gathered(
    [
        click.option(
            "--data",
            "source",
            metavar="SOURCE",
            help="Inputs: .npz, .npy or .safetensors (one array per input, axis 0 = sample), a folder "
            "of those, of test_data_set_* or of images, or module:function.",
        ),
        click.option("--labels", metavar="KEY", help="The array that holds the labels."),
        click.option(
            "--calibration", metavar="SOURCE", help="Data that passes may look at, given apart."
        ),
        click.option("--evaluation", metavar="SOURCE", help="Data that judges, given apart."),
        click.option(
            "--split", metavar="SHARE", help="The share of --data that calibrates. Default: 50%."
        ),
        click.option(
            "--image",
            metavar="KEY=VALUE,...",
            help="How images become inputs: size=HxW, layout=nchw|nhwc, mean=A+B+C, std=A+B+C, "
            "channels=rgb|bgr|gray, resize=stretch|crop|pad.",
        ),
        click.option(
            "--seed",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Of the split and of everything else that is random.",
        ),
    ],
    ["source", "labels", "calibration", "evaluation", "split", "image", "seed"],
    _data,
    "data",
)
"""The data and how it is divided, as ``data``."""

METRIC = click.option(
    "--metric",
    metavar="NAME[:OPTION=VALUE,...][@OUTPUT]",
    help="What quality is measured in, as in top1 or cosine, or module:function. "
    "Chosen from the data by default.",
)


def _budget(max_drop: str | None, floor: str | None, confidence: str | None) -> Budget | None:
    from graphopt.quality.gate import DEFAULT_CONFIDENCE, DEFAULT_DROP, Budget, fraction

    if max_drop is None and floor is None and confidence is None:
        return None
    if max_drop is not None:
        drop = None if max_drop.lower() == "none" else fraction(max_drop)
    else:
        drop = DEFAULT_DROP if floor is None else None
    sure = DEFAULT_CONFIDENCE if confidence is None else fraction(confidence)
    return Budget(drop, None if floor is None else _value(floor), sure)


def _value(text: str) -> float:
    """A value of a metric: a percentage, or a plain number of any size."""
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise UsageError(
            f"cannot read {text!r}", "Write a number, or a percentage as 97%"
        ) from None


BUDGET = _gathered(
    [
        click.option(
            "--max-drop",
            metavar="DROP",
            help="The most that the metric may drop, as in 0.5%; none for no limit. Default: 1%.",
        ),
        click.option("--floor", metavar="VALUE", help="The least that the metric may come to."),
        click.option(
            "--confidence",
            metavar="SHARE",
            help="That nothing passes that loses more. Default: 95%.",
        ),
    ],
    ["max_drop", "floor", "confidence"],
    _budget,
    "budget",
)
"""What may be lost, as ``budget``; None where the user named neither a drop nor a floor."""

PROVIDER = click.option(
    "--provider",
    metavar="cpu|cuda[:N]",
    default="cpu",
    show_default=True,
    help="What runs models while they are judged, observed and timed.",
)

THREADS = click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads for one operator. Default: all cores for judging, 1 for timing.",
)


def _cache(wanted: bool) -> Cache | None:
    from graphopt.runtime.cache import Cache, default_folder

    return Cache(default_folder()) if wanted else None


CACHE = _gathered(
    [
        click.option(
            "--cache/--no-cache",
            "wanted",
            default=True,
            show_default=True,
            help="Keep results between runs in the user's cache folder.",
        )
    ],
    ["wanted"],
    _cache,
    "cache",
)
"""Where results are kept between runs, as ``cache``; None for nowhere."""


def said_budget(budget: Budget | None) -> Budget:
    """The budget given, or the usual one."""
    from graphopt.quality.gate import Budget

    return budget or Budget()
