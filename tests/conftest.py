from __future__ import annotations

import pytest

from graphopt.runtime.native import Native


@pytest.fixture(scope="session")
def native():
    with Native(seconds=30.0) as process:
        yield process
