"""Reading words: words of Python's own documentation, drawn and disturbed, for PP-OCRv4 rec.

    python -m benchmarks.fetch rapidocr-onnxruntime
    graphopt optimize benchmarks/cache/rapidocr-onnxruntime/ch_PP-OCRv4_rec_infer.onnx \
        --data benchmarks/tasks/ocr_words.py:samples --labels word \
        --metric 'word-accuracy:charset=@character,space=append' --pass quantize-weights

Each word is drawn with Pillow's own font, turned a little, blurred, and laid under noise, all by a fixed
seed. The model wants 48 rows, the blue channel first, and numbers from -1 to 1.
"""

from __future__ import annotations

import importlib
import pydoc
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

HEIGHT, WIDTH = 48, 192
BATCH = 16
WORDS = 1200
SOURCES = ("argparse", "decimal", "difflib", "email", "inspect", "logging", "random", "statistics")


def samples() -> Iterator[dict[str, np.ndarray]]:
    """Batches of ``x``, float32 of shape ``(samples, 3, 48, 192)``, and ``word``, strings."""
    rng = np.random.default_rng(0)
    drawn = words()
    for start in range(0, len(drawn), BATCH):
        part = drawn[start : start + BATCH]
        yield {"x": np.stack([seen(crop(word, rng)) for word in part]), "word": np.array(part)}


def words() -> list[str]:
    """Different words of three to twelve letters and digits, some of them capitalized."""
    text = " ".join(pydoc.getdoc(importlib.import_module(name)) for name in SOURCES)
    text += " ".join(
        pydoc.getdoc(value)
        for name in SOURCES
        for _, value in sorted(vars(importlib.import_module(name)).items())
    )
    found = dict.fromkeys(re.findall(r"\b[A-Za-z0-9]{3,12}\b", text))
    rng = np.random.default_rng(1)
    picked = rng.permutation(list(found))[:WORDS]
    return [str(word) for word in picked]


def crop(word: str, rng: np.random.Generator) -> np.ndarray:
    """One drawn word: float32 of shape ``(48, width, 3)``, red first, from 0 to 255."""
    font = ImageFont.load_default(float(rng.integers(26, 38)))
    paper, ink = int(rng.integers(170, 256)), int(rng.integers(0, 90))
    left, top, right, bottom = (int(edge) for edge in font.getbbox(word))
    image = Image.new("RGB", (right - left + 4, bottom - top + 8), (paper,) * 3)
    ImageDraw.Draw(image).text((2 - left, 4 - top), word, fill=(ink,) * 3, font=font)
    image = image.rotate(rng.uniform(-2.5, 2.5), Image.Resampling.BICUBIC, fillcolor=(paper,) * 3)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 1.2)))
    width = min(round(image.width * HEIGHT / image.height), WIDTH)
    pixels = np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)
    return np.clip(pixels + rng.normal(0, rng.uniform(0, 12), pixels.shape), 0, 255)


def seen(pixels: np.ndarray) -> np.ndarray:
    """A crop as the model sees it: float32 of shape ``(3, 48, 192)``, filled up with zeros."""
    made = np.zeros((3, HEIGHT, WIDTH), np.float32)
    made[:, :, : pixels.shape[1]] = (pixels / 255 - 0.5).transpose(2, 0, 1)[::-1] / 0.5
    return made
