"""Statistics do not depend on the number of threads, and that number can be told."""

from __future__ import annotations

import ctypes
import importlib

import numpy as np
import pytest

from graphopt.numerics.streaming import GramSpec
from graphopt.runtime import blas
from graphopt.runtime.observing import Request, observe
from graphopt.testing import parse


def threads_now():
    library = ctypes.CDLL(importlib.import_module("numpy._core._multiarray_umath").__file__)
    name = "scipy_openblas_get_num_threads64_"
    return getattr(library, name)() if hasattr(library, name) else None


@pytest.fixture
def restored():
    before = threads_now()
    yield
    if before is not None:
        blas.use_threads(before)


@pytest.mark.skipif(threads_now() is None, reason="numpy multiplies with another library")
def test_openblas_is_told(restored) -> None:
    for count in (1, 2, 1):
        assert blas.use_threads(count)
        assert threads_now() == count
    assert blas.use_threads(0)
    assert threads_now() == 1


@pytest.mark.skipif(threads_now() is None, reason="numpy multiplies with another library")
def test_openblas_is_told_for_a_while(restored) -> None:
    blas.use_threads(2)
    with pytest.raises(KeyError), blas.threads(1):
        assert threads_now() == 1
        raise KeyError
    assert threads_now() == 2


def test_another_library_keeps_its_number(monkeypatch) -> None:
    before = threads_now()
    monkeypatch.setattr(blas, "NAMES", ("no_such_function",))
    assert not blas.use_threads(1)
    monkeypatch.setattr(blas, "MODULES", ("no.such.module", "json"))
    assert not blas.use_threads(1)
    assert threads_now() == before


def test_products_are_the_same_with_more_threads(native) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]>\ng (float[N,40] x) => (float[N,40] y) { y = Relu(x) }'
    feeds = [{"x": np.random.default_rng(0).standard_normal((9000, 40)).astype(np.float32)}]
    request = Request("y", GramSpec())
    one, two = (
        observe(native, parse(text), feeds, [request], threads=n).of(request) for n in (1, 2)
    )
    np.testing.assert_allclose(one.covariance(), two.covariance(), rtol=1e-6, atol=1e-7)
