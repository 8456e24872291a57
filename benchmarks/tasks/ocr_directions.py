"""The direction of a word: half of the drawn words stand on their heads, for ppocr's classifier.

    python -m benchmarks.fetch rapidocr-onnxruntime
    graphopt optimize benchmarks/cache/rapidocr-onnxruntime/ch_ppocr_mobile_v2.0_cls_infer.onnx \
        --data benchmarks/tasks/ocr_directions.py:samples --labels turned --pass quantize-weights

The words are those of ``ocr_words``, drawn anew with another seed, in what the classifier sees the same
way: 48 rows, the blue channel first, numbers from -1 to 1. A detector cuts words out roughly, so each
loses or gains a little at its edges, and some are dim or have little contrast.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.tasks.ocr_words import HEIGHT, crop, seen, words

BATCH = 16


def samples() -> Iterator[dict[str, np.ndarray]]:
    """Batches of ``x``, float32 ``(samples, 3, 48, 192)``, and ``turned``, int64: 1 for 180 degrees."""
    rng = np.random.default_rng(2)
    drawn = words()
    for start in range(0, len(drawn), BATCH):
        part = drawn[start : start + BATCH]
        turned = rng.integers(0, 2, len(part))
        crops = [_cut(crop(word, rng), rng) for word in part]
        images = [c[::-1, ::-1] if t else c for c, t in zip(crops, turned, strict=True)]
        yield {"x": np.stack([seen(image) for image in images]), "turned": turned}


def _cut(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop whose edges are up to ten pixels off, with less contrast."""
    top, bottom, left, right = rng.integers(0, 11, 4)
    cut = pixels[top : HEIGHT - bottom, left : pixels.shape[1] - right]
    space = ((top, bottom), (left, right), (0, 0))
    shift = rng.uniform(0.3, 1.0)
    return np.pad(cut, space, "edge") * shift + rng.uniform(0, 255 * (1 - shift))
