"""Inputs to run a model with: a table for the known models, a guess for all others.

A feed maps every input's name to an array. The first feed of a model is its usual size and is
the one that latency is measured on; the others change the batch, the image size or the length.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Feed = dict[str, NDArray[Any]]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Known:
    """How to feed a known model.

    Attributes:
        shapes: for each feed, the shape of every input by name.
        fixed: for each feed or for all (one entry), the inputs with a given scalar value.
        low: the smallest value of the random inputs.
        high: the largest value of the random inputs (integers: exclusive).
        page: whether the inputs are images of a page with rows of strokes, as text detectors
            expect; on noise such a model answers with nearly nothing, and then the rounding
            errors of float32 are as large as the answer.
    """

    shapes: tuple[Mapping[str, Shape], ...]
    fixed: tuple[Mapping[str, float], ...] = field(default=({},))
    low: float = -1.0
    high: float = 1.0
    page: bool = False


def _images(*shapes: Shape, name: str = "x", page: bool = False) -> Known:
    return Known(tuple({name: shape} for shape in shapes), page=page)


def _voice(*sizes: tuple[int, int], rate: bool) -> Known:
    """Feeds of silero-vad: ``(batch, samples)`` with the state, with or without the rate."""
    rates: tuple[Mapping[str, float], ...] = tuple(
        {"sr": 8000 if samples < 512 else 16000} for _, samples in sizes
    )
    return Known(
        tuple({"input": size, "state": (2, size[0], 128)} for size in sizes),
        rates if rate else ({},),
    )


def _tokens(name: str, words: int) -> Known:
    return Known(({name: (1, 64)}, {name: (3, 17)}), low=1, high=words)


_PITCH = {"fmin": 46.875, "fmax": 2093.75}
KNOWN: dict[str, Known] = {
    "ch_PP-OCRv4_det_infer": _images((1, 3, 160, 160), (2, 3, 64, 96), (1, 3, 96, 128), page=True),
    "ch_PP-OCRv4_rec_infer": _images((1, 3, 48, 160), (3, 3, 48, 96), page=True),
    "ch_ppocr_mobile_v2.0_cls_infer": _images(
        (1, 3, 48, 192), (4, 3, 48, 192), (2, 3, 32, 96), page=True
    ),
    "magika_standard_v3_3": Known(({"bytes": (1, 2048)}, {"bytes": (5, 2048)}), low=0, high=257),
    "silero_vad": _voice((1, 576), (3, 576), (1, 288), (2, 288), rate=True),
    "silero_vad_16k_op15": _voice((1, 576), (3, 576), rate=True),
    "silero_vad_half": _voice((1, 576), (3, 576), rate=False),
    "silero_vad_op18_ifless": _voice((1, 576), (3, 576), (1, 288), (2, 288), rate=True),
    "silero_vad_openvino_16k": _voice((1, 576), rate=False),
    "silero_vad_16k_sequence": Known(
        tuple({"input": (t, 576), "h": (1, 1, 128), "c": (1, 1, 128)} for t in (8, 1, 3))
    ),
    "basic_pitch_nmp": _images((1, 43844, 1), (2, 43844, 1), name="serving_default_input_2:0"),
    "nudenet_320n": _images((1, 3, 320, 320), (2, 3, 96, 160), name="images"),
    "swift_f0": Known(({"audio": (1, 16000)}, {"audio": (1, 5000)}), (_PITCH,)),
    "tashkeel_bilstm_int8": _tokens("input_ids", 54),
    "tashkeel_rawi_int8": _tokens("input", 302),
    "tashkeel_ensemble_int8": _tokens("input", 236),
    "digits_cnn": Known(({"x": (1, 1, 8, 8)}, {"x": (16, 1, 8, 8)}), low=0),
    "digits_mlp": Known(({"x": (1, 1, 8, 8)}, {"x": (16, 1, 8, 8)}), low=0),
}
_GUESSES = (
    {"batch": 1, "large": 32},
    {"batch": 2, "large": 64},
    {"batch": 1, "large": 224},
    {"batch": 1, "large": 16},
    {"batch": 1, "large": 1},
)


def _dtype(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _random(
    rng: np.random.Generator, shape: Shape, dtype: np.dtype[Any], low: float, high: float
) -> NDArray[Any]:
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    if np.issubdtype(dtype, np.integer):
        return rng.integers(int(max(low, 0)), max(int(high), 2), shape).astype(dtype)
    if dtype == np.object_:
        return np.full(shape, "text", dtype=object)
    return rng.uniform(low, high, shape).astype(dtype)


def _page(rng: np.random.Generator, shape: Shape) -> NDArray[np.float32]:
    """Return images float32 [N, C, H, W] in -1..1: dark strokes in rows on a light ground."""
    count, _, height, width = shape
    page = np.full(shape, 0.8, np.float32)
    for image in range(count):
        for top in range(8, height - 18, 28):
            left = 6
            while left < width - 14:
                long = bool(rng.integers(0, 2))
                rows = slice(top, top + (16 if long else 3))
                page[image, :, rows, left : left + (3 if long else 8)] = -0.8
                left += int(rng.integers(5, 12))
    noise = rng.uniform(-0.1, 0.1, shape).astype(np.float32)
    return page + noise


def _known(known: Known, inputs: list[onnx.ValueInfoProto], rng: np.random.Generator) -> list[Feed]:
    feeds = []
    for i, shapes in enumerate(known.shapes):
        fixed = known.fixed[i if len(known.fixed) > 1 else 0]
        feed: Feed = {}
        for value in inputs:
            dtype = _dtype(value)
            if value.name in fixed:
                feed[value.name] = np.array(fixed[value.name], dtype)
            elif known.page:
                feed[value.name] = _page(rng, shapes[value.name])
            else:
                feed[value.name] = _random(rng, shapes[value.name], dtype, known.low, known.high)
        feeds.append(feed)
    return feeds


def _guessed_shape(value: onnx.ValueInfoProto, guess: Mapping[str, int]) -> Shape:
    shape = []
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        fixed = dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else 0
        shape.append(fixed or guess["batch" if axis == 0 else "large"])
    return tuple(shape)


def make(name: str, model: onnx.ModelProto) -> list[Feed]:
    """Return the feeds of a model, the one for latency first.

    Args:
        name: the file's name without its ending, looked up in the table.
        model: read for the names, types and shapes of its inputs.

    Returns:
        For a known model its feeds; for another guesses, of which some may not suit the model:
        the caller drops those on which the original fails. The values depend only on ``name``.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    known = KNOWN.get(name)
    names = {value.name for value in inputs}
    if known is not None and names == {*known.shapes[0], *known.fixed[0]}:
        return _known(known, inputs, rng)
    return [
        {
            value.name: _random(rng, _guessed_shape(value, guess), _dtype(value), -1.0, 1.0)
            for value in inputs
        }
        for guess in _GUESSES
    ]
