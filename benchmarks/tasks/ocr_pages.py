"""Finding text: pages with words at random places, for PP-OCRv4 det.

    python -m benchmarks.fetch rapidocr-onnxruntime
    graphopt optimize benchmarks/cache/rapidocr-onnxruntime/ch_PP-OCRv4_det_infer.onnx \
        --data benchmarks/tasks/ocr_pages.py:samples --pass quantize-weights

A page is coloured paper with boxes and rules on it and lines of the words of ``ocr_words`` in many sizes
and colours, some of them turned; a slope of light lies on it, a blur and noise. The model wants the blue
channel first, 320 rows and columns, with PaddleOCR's means and deviations. There are no labels: a
model's text mask is compared with that of the original.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.tasks.ocr_words import words

SIZE = 320
PAGES = 96
BATCH = 8
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def samples() -> Iterator[dict[str, np.ndarray]]:
    """Batches of ``x``, float32 of shape ``(samples, 3, 320, 320)``."""
    rng = np.random.default_rng(3)
    vocabulary = words()
    for _ in range(0, PAGES, BATCH):
        yield {"x": np.stack([_seen(_page(vocabulary, rng), rng) for _ in range(BATCH)])}


def _page(vocabulary: list[str], rng: np.random.Generator) -> Image.Image:
    """A page with lines of text from top to bottom."""
    dark = rng.random() < 0.2
    paper = _colour(rng, 0, 90) if dark else _colour(rng, 160, 256)
    page = Image.new("RGB", (SIZE, SIZE), paper)
    _furnish(page, rng)
    y = int(rng.integers(0, 80))
    while y < SIZE - 20:
        text = " ".join(rng.choice(vocabulary, rng.integers(1, 5)))
        ink = _colour(rng, 150, 256) if dark else _colour(rng, 0, 110)
        line = _line(text, ink, rng)
        x = int(rng.integers(-20, max(SIZE - line.width, 20)))
        page.paste(line, (x, y), line)
        y += line.height + int(rng.integers(0, 80))
    return page.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 1.0)))


def _colour(rng: np.random.Generator, low: int, high: int) -> tuple[int, ...]:
    return tuple(int(part) for part in rng.integers(low, high, 3))


def _furnish(page: Image.Image, rng: np.random.Generator) -> None:
    """Boxes, ellipses and rules, which are no text."""
    draw = ImageDraw.Draw(page)
    for kind in rng.integers(0, 3, rng.integers(0, 5)):
        left, top = (int(edge) for edge in rng.integers(0, SIZE, 2))
        right, bottom = left + int(rng.integers(5, 150)), top + int(rng.integers(5, 150))
        if kind == 0:
            draw.rectangle((left, top, right, bottom), _colour(rng, 90, 256))
        elif kind == 1:
            draw.ellipse((left, top, right, bottom), _colour(rng, 90, 256))
        else:
            draw.line((left, top, right, top), _colour(rng, 0, 200), int(rng.integers(1, 4)))


def _line(text: str, ink: tuple[int, ...], rng: np.random.Generator) -> Image.Image:
    """A line of text on nothing, turned by up to six degrees."""
    font = ImageFont.load_default(float(rng.integers(12, 44)))
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    line = Image.new("RGBA", (right - left + 4, bottom - top + 4), (*ink, 0))
    ImageDraw.Draw(line).text((2 - left, 2 - top), text, fill=(*ink, 255), font=font)
    turn = float(np.clip(rng.normal(0, 2), -6, 6))
    return line.rotate(turn, Image.Resampling.BICUBIC, expand=True, fillcolor=(*ink, 0))


def _seen(page: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """A page under uneven light and noise as the model sees it."""
    pixels = np.asarray(page, np.float32)
    slope = np.linspace(1.0, rng.uniform(0.6, 1.0), SIZE)
    lit = pixels * (slope[:, None, None] if rng.random() < 0.5 else slope[None, :, None])
    noisy = np.clip(lit + rng.normal(0, rng.uniform(0, 15), lit.shape), 0, 255)
    made: np.ndarray = ((noisy[..., ::-1] / 255 - MEAN) / DEVIATION).astype(np.float32)
    return made.transpose(2, 0, 1)
