"""From an image file to an array, by the preprocessing that the user declared."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graphopt.errors import ResourceError, UsageError, printable
from graphopt.quality.data.image_options import ImageOptions
from graphopt.quality.data.reading import open_file, show
from graphopt.quality.inputs import InputSpec

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is read, as Pillow calls it; none of these formats can name another file or run a program."""

LARGEST_IMAGE = 1 << 26
"""Pixels of an image file beyond which it is refused; 64 million."""

_NOWHERE = logging.NullHandler()
"""Where Pillow's log goes unless the application wants it; what is wrong comes back as an error."""

_DEEP = ("I", "F")
"""Beginnings of Pillow's names for more than 8 bits a channel, which it would cut off without a word."""


@dataclass(frozen=True)
class Preparation:
    """A preprocessing that is bound to an input.

    Attributes:
        options: what the user declared.
        height: of the prepared image.
        width: of it.
        dtype: of the array.
    """

    options: ImageOptions
    height: int
    width: int
    dtype: np.dtype

    def read(self, path: Path) -> np.ndarray:
        """The array of an image: ``(C, H, W)`` or ``(H, W, C)``.

        Raises:
            UsageError: it is broken, or of a kind that is not read.
            ResourceError: it has too many pixels.
        """
        pixels = self._pixels(path)
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if self.options.channels == "bgr":
            pixels = pixels[..., ::-1]
        values = pixels if self.options.raw and self.dtype.kind in "iu" else self._scaled(pixels)
        if self.options.layout == "nchw":
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values, self.dtype)

    def _scaled(self, pixels: np.ndarray) -> np.ndarray:
        options = self.options
        factor = 1 / 255 if options.scale is None else options.scale
        mean, std = np.array(options.mean, np.float32), np.array(options.std, np.float32)
        scaled: np.ndarray = (pixels.astype(np.float32) * np.float32(factor) - mean) / std
        return scaled

    def _pixels(self, path: Path) -> np.ndarray:
        from PIL import Image

        shown = show(path)
        try:
            with warnings.catch_warnings(), open_file(path) as file:
                warnings.simplefilter("ignore")  # oddities that Pillow copes with
                with Image.open(file, formats=FORMATS) as image:
                    if image.width * image.height > LARGEST_IMAGE:
                        raise ResourceError(
                            f"the image {shown} has {image.width}x{image.height} pixels, "
                            f"the most is {LARGEST_IMAGE}"
                        )
                    if image.mode.startswith(_DEEP):
                        raise UsageError(
                            f"the image {shown} has more than 8 bits a channel (mode {image.mode})",
                            "Convert it to 8 bits, or give arrays",
                        )
                    mode = "L" if self.options.channels == "gray" else "RGB"
                    return np.asarray(self._resized(image.convert(mode)))
        except (UsageError, ResourceError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - decoders raise whatever they like
            why = printable(f"{type(error).__name__}: {error}", 200).rstrip(".")
            raise UsageError(
                f"cannot read the image {shown}: {why}", "Mend it or take it out"
            ) from None

    def _resized(self, image: Image) -> Image:
        """The image at the size wanted; antialiased bilinear where pixels must be made up."""
        from PIL import Image as Pillow

        size, bilinear = (self.width, self.height), Pillow.Resampling.BILINEAR
        if self.options.resize == "stretch":
            return image.resize(size, bilinear)
        if self.options.resize == "crop":
            ratio = max(self.height / image.height, self.width / image.width)
            kept = min(self.width / ratio, image.width), min(self.height / ratio, image.height)
            left, top = (image.width - kept[0]) / 2, (image.height - kept[1]) / 2
            box = (left, top, image.width - left, image.height - top)
            return image.resize(size, bilinear, box=box)
        ratio = min(self.height / image.height, self.width / image.width)
        fitted = max(1, round(image.width * ratio)), max(1, round(image.height * ratio))
        left, top = (size[0] - fitted[0]) // 2, (size[1] - fitted[1]) // 2
        padded = Pillow.new(image.mode, size)
        padded.paste(image.resize(fitted, bilinear), (left, top))
        return padded


def preparation(options: ImageOptions, spec: InputSpec) -> Preparation:
    """Bind a preprocessing to a model's input.

    Raises:
        UsageError: Pillow is missing, the size is not known, or the input takes no such numbers.
    """
    _require_pillow()
    name, dtype = printable(spec.name), spec.dtype
    if dtype is None or dtype.kind not in "fiu":
        raise UsageError(f"the input {name!r} is {dtype}, which images cannot fill")
    if dtype.kind in "iu" and not (options.raw and dtype.itemsize + (dtype.kind == "u") > 1):
        raise UsageError(
            f"the input {name!r} is {dtype}, so pixels stay whole numbers from 0 to 255",
            "Leave mean, std and scale out, or give arrays",
        )
    if options.size is not None:
        return Preparation(options, *options.size, dtype)
    first = -2 if options.layout == "nchw" else -3
    shape = spec.shape if spec.shape is not None and len(spec.shape) >= 3 else ("", "", "")
    height, width = shape[first], shape[first + 1]
    if not isinstance(height, int) or not isinstance(width, int):
        raise UsageError(
            f"the size of the images is not known: the input {name!r} does not fix it",
            "Give it, as in size=224x224",
        )
    return Preparation(options, height, width, dtype)


def _require_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise UsageError(
            "images cannot be read without the package pillow",
            'Run: pip install "graphopt[images]"',
        ) from None
    logging.getLogger("PIL").addHandler(_NOWHERE)
