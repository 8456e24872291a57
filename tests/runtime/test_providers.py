from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from graphopt.bench import measure_latency
from graphopt.errors import NativeError, ProviderError, UsageError
from graphopt.runtime import providers, sessions
from graphopt.runtime.environment import environment
from graphopt.runtime.native import Native
from graphopt.runtime.providers import CUDA, Provider, check_available, refusal, require
from graphopt.testing import parse

ON_GPU = CUDA in onnxruntime.get_available_providers()
needs_gpu = pytest.mark.skipif(not ON_GPU, reason=f"ONNX Runtime has no {CUDA} here")
without_gpu = pytest.mark.skipif(ON_GPU, reason=f"ONNX Runtime has a {CUDA} here")

MODEL = parse("""<ir_version: 8, opset_import: ["" : 17]>
g (float[64, 64] x, float[64, 64] w) => (float[64, 64] y) { h = MatMul (x, w) y = Relu (h) }""")
FEEDS = {name: np.full((64, 64), 0.5, np.float32) for name in "xw"}


@pytest.mark.parametrize(
    ("text", "kind", "device", "shown"),
    [
        ("cpu", "cpu", 0, "cpu"),
        ("cuda", "cuda", 0, "cuda:0"),
        (" CUDA:3 ", "cuda", 3, "cuda:3"),
    ],
)
def test_what_can_be_asked_for(text, kind, device, shown) -> None:
    provider = Provider.parse(text)
    assert (provider.kind, provider.device, str(provider)) == (kind, device, shown)
    assert Provider.parse(str(provider)) == provider


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpu",
        "cpu:0",
        "cuda:",
        "cuda:-1",
        "cuda:x",
        "cuda:1000",
        "cuda:\u0661",
        "cpu\ncuda",
        "rocm",
    ],
)
def test_nonsense_is_refused(text) -> None:
    with pytest.raises(UsageError, match="there is no provider") as caught:
        Provider.parse(text)
    assert "\n" not in str(caught.value)
    assert "cuda:N" in caught.value.hint


def test_a_limit_on_memory_is_not_for_cuda() -> None:
    assert Provider().address_space(1 << 30) == 1 << 30
    assert Provider("cuda").address_space(1 << 30) is None


def test_the_cpu_stands_behind_cuda_for_single_operators() -> None:
    assert Provider("cuda", 2).chain == [(CUDA, {"device_id": "2"}), "CPUExecutionProvider"]


def test_the_cpu_is_always_there(native) -> None:
    assert require(native, Provider()) == ""


@without_gpu
def test_a_missing_provider_is_an_error_with_a_way_out(native) -> None:
    with pytest.raises(ProviderError, match=f"{CUDA} is missing") as caught:
        require(native, Provider.parse("cuda"))
    assert 'pip install "graphopt[gpu]"' in caught.value.hint
    assert caught.value.exit_code == 6
    assert native.alive


@without_gpu
def test_no_session_falls_back_in_silence(native) -> None:
    with pytest.raises(ProviderError, match="is missing"):
        native.call("open", "a", MODEL.to_bytes(), "ort", True, 1, "cuda:1")
    with pytest.raises(ProviderError, match="is missing"):
        measure_latency(MODEL, MODEL, FEEDS, provider="cuda")


@pytest.mark.parametrize(
    ("installed", "hint"),
    [
        ({"onnxruntime"}, providers.INSTALL),
        ({"onnxruntime", "onnxruntime-gpu"}, "lies over the installed onnxruntime-gpu"),
        ({"onnxruntime-gpu"}, providers.SHADOWED),
    ],
)
def test_the_hint_fits_what_is_installed(monkeypatch, installed, hint) -> None:
    monkeypatch.setattr(providers, "_installed", lambda name: name in installed)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError) as caught:
        check_available(Provider("cuda"))
    assert hint in caught.value.hint


def test_why_a_provider_does_not_start_is_told() -> None:
    wrong = refusal(Provider("cuda", 9), "CUDA failure 101: invalid device ordinal")
    assert "device 9" in wrong.what
    assert "numbered from 0" in wrong.hint
    assert "onnxruntime-gpu[cuda,cudnn]" in refusal(Provider("cuda"), "libcudnn.so.9").hint


class _Elsewhere:
    """A session of ONNX Runtime whose CUDA libraries did not load."""

    def __init__(self, *_: object, **given: object) -> None:
        assert given["enable_fallback"] == 0

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


def test_a_session_that_runs_elsewhere_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", _Elsewhere)
    sessions.start.cache_clear()
    with pytest.raises(ProviderError, match="would use the CPU"):
        sessions.open_session(b"", provider=Provider("cuda"))
    monkeypatch.setattr(sessions, "start", lambda provider: None)
    with pytest.raises(NativeError, match="runs on CPUExecutionProvider, not"):
        sessions.open_session(b"", provider=Provider("cuda"))


def test_a_model_that_does_not_open_is_not_the_providers_fault(native) -> None:
    with pytest.raises(NativeError, match=r"InvalidProtobuf|InvalidGraph|Fail"):
        native.call("open", "a", b"no model", "ort", True, 1, "cpu")


def test_the_environment_names_the_machine_but_no_path() -> None:
    found = environment("Some GPU", 3)
    assert (found["device"], found["threads"]) == ("Some GPU", "3")
    assert {"python", "cpus", "onnxruntime", "numpy"} <= found.keys()
    assert not any("/" in value and value.startswith("/") for value in found.values())
    assert "device" not in environment()


@needs_gpu
def test_models_run_on_the_gpu_and_say_so() -> None:
    with Native(None, 120) as native:
        assert require(native, Provider("cuda"))
        native.call("open", "a", MODEL.to_bytes(), "ort", False, 1, "cuda:0")
        (found,) = native.call("run", "a", FEEDS)
    assert np.allclose(found, 16, rtol=1e-2)


@needs_gpu
def test_timing_on_the_gpu() -> None:
    found = measure_latency(MODEL, MODEL, FEEDS, provider="cuda", rounds=12, seconds=10)
    assert found.provider == "cuda:0"
    assert found.claim == "no difference beyond noise"
    assert found.operators_before


@needs_gpu
def test_a_device_that_is_not_there_is_an_error() -> None:
    with Native(None, 120) as native, pytest.raises(ProviderError, match="device 99"):
        require(native, Provider("cuda", 99))
