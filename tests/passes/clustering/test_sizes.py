"""Sizes as they are written in an option."""

from __future__ import annotations

import pytest

from graphopt.passes.clustering._levels import bytes_of


def test_a_share_or_bytes() -> None:
    assert bytes_of("25%", 400) == 100
    assert bytes_of("1234", 400) == 1234


@pytest.mark.parametrize("size", ["abc", "", "%", "-5%", "0", "nan", "inf"])
def test_what_is_no_size_is_told(size: str) -> None:
    with pytest.raises(ValueError, match="as in 25%"):
        bytes_of(size, 400)
