"""File types: the files of this Python installation, labelled by their extensions, for magika.

    python -m benchmarks.fetch magika
    graphopt optimize benchmarks/cache/magika/magika_standard_v3_3.onnx \
        --data benchmarks/tasks/file_types.py:samples --labels label --pass quantize-weights

The model looks at the first and the last 1,024 bytes of a file, each without white space at its outer end
and filled up with the number 256 (its ``config.min.json``, which ``benchmarks.fetch`` keeps beside the
model).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

CACHE = Path(__file__).parent.parent / "cache" / "magika"

MOST_PER_LABEL = 150
"""Files of one type: a Python installation holds little but Python."""

BATCH = 32


def samples() -> Iterator[dict[str, np.ndarray]]:
    """Batches of ``bytes``, int32 of shape ``(samples, 2048)``, and ``label``, int64."""
    config, extensions = _config(), _extensions()
    batch: list[tuple[np.ndarray, int]] = []
    for path, label in _files(extensions):
        batch.append((_features(path, config), label))
        if len(batch) == BATCH:
            yield _stacked(batch)
            batch = []
    if batch:
        yield _stacked(batch)


def _stacked(batch: list[tuple[np.ndarray, int]]) -> dict[str, np.ndarray]:
    features, labels = zip(*batch, strict=True)
    return {"bytes": np.stack(features), "label": np.array(labels)}


def _config() -> dict[str, int]:
    found: dict[str, int] = json.loads((CACHE / "magika_config.json").read_text())
    return found


def _extensions() -> dict[str, int]:
    """Extensions that stand for one type only, with the number of its class."""
    space: list[str] = json.loads((CACHE / "magika_config.json").read_text())["target_labels_space"]
    known = json.loads((CACHE / "magika_types.json").read_text())
    found: dict[str, set[str]] = {}
    for label, facts in known.items():
        for extension in facts["extensions"]:
            found.setdefault(extension.lower(), set()).add(label)
    single = {extension: labels.pop() for extension, labels in found.items() if len(labels) == 1}
    return {extension: space.index(label) for extension, label in single.items() if label in space}


def _files(extensions: dict[str, int]) -> Iterator[tuple[Path, int]]:
    """Files with a known extension, in the order of their paths."""
    counts: Counter[int] = Counter()
    for path in sorted(Path(sys.base_prefix).rglob("*")):
        label = extensions.get(path.suffix[1:].lower())
        if label is None or counts[label] >= MOST_PER_LABEL:
            continue
        if path.is_file() and path.stat().st_size >= _config()["min_file_size_for_dl"]:
            counts[label] += 1
            yield path, label


def _features(path: Path, config: dict[str, int]) -> np.ndarray:
    block = config["block_size"]
    with path.open("rb") as file:
        first = file.read(block)
        file.seek(max(path.stat().st_size - block, 0))
        last = file.read(block)
    begin = np.frombuffer(first.lstrip()[: config["beg_size"]], np.uint8)
    end = np.frombuffer(last.rstrip()[-config["end_size"] :], np.uint8)
    features = np.full(config["beg_size"] + config["end_size"], config["padding_token"], np.int32)
    features[: len(begin)] = begin
    features[len(features) - len(end) :] = end
    return features
