"""How images become arrays: size, channels, scale, mean and standard deviation, layout.

    value = (pixel * scale - mean) / std

with pixels 0..255, ``mean`` and ``std`` one number for all channels or one for each, in the order of the
channels, and in the units after ``scale``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from graphopt.errors import UsageError, printable

Layout = Literal["nchw", "nhwc"]
Channels = Literal["rgb", "bgr", "gray"]
Resize = Literal["stretch", "crop", "pad"]

LARGEST_SIDE = 1 << 14
"""Pixels of a side of the prepared image beyond which a size is refused."""


@dataclass(frozen=True)
class ImageOptions:
    """The preprocessing of a folder of images.

    Attributes:
        size: height and width in pixels; those that the model declares where this is None.
        layout: the order of the axes of the model's input.
        mean: subtracted after scaling; one number, or one for each channel.
        std: divided by; one number, or one for each channel.
        channels: the order of the channels, or one channel of luminance.
        scale: multiplies the pixels; where this is None, 1/255 for a float input and 1 for an integer one.
        resize: ``stretch`` to the size; ``crop``: scale until the size is covered, then cut out the
            middle; ``pad``: scale until it fits, then surround it with black.
    """

    size: tuple[int, int] | None = None
    layout: Layout = "nchw"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: Channels = "rgb"
    scale: float | None = None
    resize: Resize = "stretch"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: a value out of range.
        """
        for name, kind in (("layout", Layout), ("channels", Channels), ("resize", Resize)):
            _one_of(name, getattr(self, name), get_args(kind))
        depth = 1 if self.channels == "gray" else 3
        for name in ("mean", "std"):
            given = getattr(self, name)
            if len(given) not in (1, depth) or not all(map(math.isfinite, given)):
                raise _wrong(name, "+".join(map(str, given)), f"1 or {depth} finite numbers")
        if 0.0 in self.std:
            raise _wrong("std", "0", "numbers other than 0")
        if self.scale is not None and (not math.isfinite(self.scale) or self.scale == 0):
            raise _wrong("scale", str(self.scale), "a finite number other than 0")
        if self.size is not None and not all(0 < side <= LARGEST_SIDE for side in self.size):
            raise _wrong("size", "x".join(map(str, self.size)), f"sides of 1 to {LARGEST_SIDE}")

    @property
    def raw(self) -> bool:
        """Whether the pixels stay as they are."""
        return self.mean == (0.0,) and self.std == (1.0,) and self.scale in (None, 1.0)

    @classmethod
    def parse(cls, text: str) -> ImageOptions:
        """Read ``size=224x224,layout=nchw,mean=0.485+0.456+0.406,...``; all fields may be left out.

        Args:
            text: fields with a comma between them; a size is height x width, several numbers have a +
                between them.

        Raises:
            UsageError: an unknown field or a value that it does not take.
        """
        fields: dict[str, Any] = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            name, equals, value = (word.strip() for word in entry.partition("="))
            if not equals or name not in _READERS:
                raise UsageError(
                    f"the image options have no {printable(entry)!r}",
                    f"They are, as in size=224x224: {', '.join(_READERS)}",
                )
            if name in fields:
                raise UsageError(f"the image option {name!r} is given twice")
            fields[name] = _READERS[name](name, value)
        return cls(**fields)


def _size(name: str, text: str) -> tuple[int, int]:
    sides = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text, re.ASCII)
    if sides is None:
        raise _wrong(name, text, "HEIGHTxWIDTH, as in 224x224")
    return int(sides[1]), int(sides[2])


def _numbers(name: str, text: str) -> tuple[float, ...]:
    return tuple(_number(name, part) for part in re.split(r"(?<![eE])\+", text))


def _number(name: str, text: str) -> float:
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        raise _wrong(name, text, "a number, as in 0.5 or 1/255") from None


def _word(name: str, text: str) -> str:
    return text


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise _wrong(name, str(value), f"one of {', '.join(known)}")


def _wrong(name: str, value: str, wants: str) -> UsageError:
    return UsageError(
        f"the image option {name!r} does not take {printable(value)!r}", f"It takes {wants}"
    )


_READERS = cast(
    "dict[str, Any]",
    {
        "size": _size,
        "layout": _word,
        "mean": _numbers,
        "std": _numbers,
        "channels": _word,
        "scale": _number,
        "resize": _word,
    },
)
