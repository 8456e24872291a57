"""What a user says of the data: where it is, what the labels are, how it is divided."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.errors import UsageError, printable
from graphopt.quality.data.image_options import ImageOptions
from graphopt.quality.inputs import Feeds

DataSource = (
    str | os.PathLike[str] | Mapping[str, Any] | Sequence[Feeds] | Callable[[], Iterable[Any]]
)
"""A path, ``module:function``, ``file.py:function``, arrays by name, complete feeds, or a function."""


@dataclass(frozen=True)
class DataOptions:
    """Where the data is and how it is used.

    Attributes:
        source: all of the data; or, beside one of the next two, the other part.
        labels: the key of the labels, or the path of a ``.npy`` file or, for images, of a ``.csv`` file.
        calibration: the data that passes may look at, given apart.
        evaluation: the data that judges, given apart.
        split: the share of ``source`` that calibrates, between 0 and 1; a half where this is None.
        seed: of the split.
        image: the preprocessing of images.
    """

    source: DataSource | None = None
    labels: str | None = None
    calibration: DataSource | None = None
    evaluation: DataSource | None = None
    split: float | None = None
    seed: int = 0
    image: ImageOptions | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UsageError: nothing to read, one source too many, or a split that divides nothing.
        """
        apart = self.calibration is not None or self.evaluation is not None
        if self.source is None and not apart:
            raise UsageError("no data is given", "Name a file, a folder or a function")
        both = self.calibration is not None and self.evaluation is not None
        if both and self.source is not None:
            raise UsageError(
                "calibration and evaluation data are both given apart, so other data has no use",
                "Leave one of the three out",
            )
        if self.split is not None:
            if apart:
                raise UsageError(
                    "a split has nothing to divide where calibration or evaluation data is given apart",
                    "Leave the split out",
                )
            if not 0 < self.split < 1:
                raise UsageError(
                    f"the split {self.split:g} leaves a part without samples",
                    "Give a share between 0 and 1, as in 50%",
                )
        if self.seed < 0:
            raise UsageError(f"the seed {self.seed} is negative")


def parse_share(text: str) -> float:
    """Read a share such as ``50%`` or ``0.5``.

    Raises:
        UsageError: it is not a number.
    """
    number = text.strip()
    try:
        return float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError:
        raise UsageError(
            f"{printable(text)!r} is not a share", "Give one as in 50% or 0.5"
        ) from None
