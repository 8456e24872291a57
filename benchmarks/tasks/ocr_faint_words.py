"""Reading words that are hard to read: ``ocr_words``, smaller, paler and noisier, for PP-OCRv4 rec.

    python -m benchmarks.fetch rapidocr-onnxruntime
    graphopt optimize benchmarks/cache/rapidocr-onnxruntime/ch_PP-OCRv4_rec_infer.onnx \
        --data benchmarks/tasks/ocr_faint_words.py:samples --labels word \
        --metric 'word-accuracy:charset=@character,space=append' --pass quantize-weights

The recognizer reads nearly all of the plain words, with certainty. Here it reads some 94 of 100, so that
a model that has become less certain shows it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from benchmarks.tasks.ocr_words import HEIGHT, crop, seen, words

BATCH = 16


def samples() -> Iterator[dict[str, np.ndarray]]:
    """Batches of ``x``, float32 of shape ``(samples, 3, 48, 192)``, and ``word``, strings."""
    rng = np.random.default_rng(6)
    drawn = words()
    for start in range(0, len(drawn), BATCH):
        part = drawn[start : start + BATCH]
        images = [seen(_faint(crop(word, rng), rng)) for word in part]
        yield {"x": np.stack(images), "word": np.array(part)}


def _faint(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop as a distant camera takes it: few pixels, little contrast, noise."""
    small = int(rng.integers(12, 29))
    size = (round(pixels.shape[1] * small / HEIGHT), small)
    image = Image.fromarray(pixels.astype(np.uint8))
    reduced = np.asarray(image.resize(size, Image.Resampling.BILINEAR), np.float32)
    contrast = rng.uniform(0.2, 1.0)
    pale = reduced * contrast + rng.uniform(0, 255 * (1 - contrast))
    noisy = np.clip(pale + rng.normal(0, rng.uniform(0, 10), pale.shape), 0, 255)
    taken = Image.fromarray(noisy.astype(np.uint8))
    return np.asarray(
        taken.resize((pixels.shape[1], HEIGHT), Image.Resampling.BILINEAR), np.float32
    )
