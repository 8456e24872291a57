"""Models, arrays and small verbs that the tests of data sets share."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.errors import GraphoptError
from graphopt.ir.model import Model
from graphopt.quality.data import DataOptions, Dataset, open_dataset
from graphopt.testing import parse

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'


def model_of(inputs: str) -> Model:
    """A model with these inputs; it returns the first as it is."""
    kind, name = inputs.split(",  ")[0].rsplit(" ", 1)
    return parse(f"{HEAD} g ({inputs}) => ({kind} out) {{ out = Identity({name}) }}")


def simple() -> Model:
    """A model with one input of three floats a sample, any number of samples."""
    return parse(HEAD + "g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")


def samples(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    """Random floats, axis 0 = sample."""
    shape = shape or (3,)
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


def opened(source, model: Model, **more) -> Dataset:
    calibrates = more.pop("calibrates", True)
    return open_dataset(DataOptions(source, **more), model, calibrates=calibrates)


def rows_of(dataset: Dataset, part: str, name: str = "x", **more) -> np.ndarray:
    """All samples of a part."""
    return np.concatenate([batch.feeds[name] for batch in dataset.batches(part, **more)])


def labels_of(dataset: Dataset, part: str) -> np.ndarray:
    return np.concatenate([batch.labels for batch in dataset.batches(part)])


def refusal(source, model: Model, **more) -> str:
    """The one line that opening is refused with."""
    with pytest.raises(GraphoptError) as caught:
        opened(source, model, **more)
    text = str(caught.value)
    assert "\n" not in text
    assert caught.value.exit_code in (1, 5)
    return text
