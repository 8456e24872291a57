"""Execution providers: what runs the models, chosen by name, never replaced in silence.

ONNX Runtime goes on with the CPU where a provider is missing, where its libraries do not load and where a
run of it fails. Here each of these is a ``ProviderError`` that says what is missing and how to mend it.
"""

from __future__ import annotations

import ctypes
import functools
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from graphopt.errors import ProviderError, UsageError, printable

if TYPE_CHECKING:
    from graphopt.runtime.native import Native

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

INSTALL = 'pip install "graphopt[gpu]"'
SHADOWED = "pip install --force-reinstall --no-deps onnxruntime-gpu"
LIBRARIES = 'pip install "onnxruntime-gpu[cuda,cudnn]"'

_FORM = re.compile(r"cpu|cuda(?::(\d{1,3}))?", re.ASCII)


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime and the device that it runs on.

    Attributes:
        kind: ``cpu`` or ``cuda``.
        device: the number of the device, from 0.
    """

    kind: Literal["cpu", "cuda"] = "cpu"
    device: int = 0

    @classmethod
    def parse(cls, text: str) -> Provider:
        """Read ``cpu``, ``cuda`` or ``cuda:N``.

        Raises:
            UsageError: it is none of these.
        """
        found = _FORM.fullmatch(text.strip().lower())
        if found is None:
            raise UsageError(
                f"there is no provider {printable(text, 40)!r}",
                "Give cpu, cuda or cuda:N, as in cuda:1",
            )
        if found[0] == "cpu":
            return cls()
        return cls("cuda", int(found[1] or 0))

    def __str__(self) -> str:
        """The form that ``parse`` reads."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.device}"

    @property
    def name(self) -> str:
        """What ONNX Runtime calls it."""
        return CPU if self.kind == "cpu" else CUDA

    @property
    def chain(self) -> list[Any]:
        """What a session is opened with: behind CUDA, the CPU for operators that CUDA has no kernel for."""
        return [CPU] if self.kind == "cpu" else [(CUDA, {"device_id": str(self.device)}), CPU]

    def address_space(self, memory_bytes: int | None) -> int | None:
        """The limit on address space that a process may have; CUDA reserves more than any limit allows."""
        return memory_bytes if self.kind == "cpu" else None


def require(native: Native, provider: Provider) -> str:
    """Make sure that a provider is there and starts.

    Args:
        native: the process that is to use it; for CUDA one without a limit on memory.
        provider: the provider.

    Returns:
        The name of its device; empty for the CPU.

    Raises:
        ProviderError: it is missing or does not start.
    """
    if provider.kind == "cpu":
        return ""
    device: str = native.call("provide", str(provider))
    return device


def check_available(provider: Provider) -> None:
    """Refuse a provider that the installed ONNX Runtime is built without.

    Raises:
        ProviderError: it is not there; says what to install.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if provider.name in available:
        return
    raise ProviderError(
        f"{provider.name} is missing: the installed ONNX Runtime {onnxruntime.__version__} offers only "
        f"{', '.join(available)}",
        _how_to_install(),
    )


def _how_to_install() -> str:
    both = _installed("onnxruntime-gpu") and _installed("onnxruntime")
    if both:
        return f"onnxruntime lies over the installed onnxruntime-gpu; run '{SHADOWED}'"
    if _installed("onnxruntime-gpu"):
        return f"Reinstall ONNX Runtime with '{SHADOWED}'"
    return f"Run '{INSTALL}'"


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def refusal(provider: Provider, why: str) -> ProviderError:
    """The error for a provider that is there but does not start.

    Args:
        provider: the provider.
        why: what ONNX Runtime says of it.
    """
    if "invalid device ordinal" in why or "device_id" in why:
        hint = "Devices are numbered from 0; nvidia-smi lists them"
    else:
        hint = f"See that nvidia-smi works here, and install the CUDA libraries with '{LIBRARIES}'"
    return ProviderError(f"{provider.name} does not start on device {provider.device}: {why}", hint)


@functools.cache
def device_name(provider: Provider) -> str:
    """The name of a provider's device as its driver tells it; empty for the CPU or where it does not tell."""
    if provider.kind == "cpu":
        return ""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ""
    handle, text = ctypes.c_int(), ctypes.create_string_buffer(256)
    failed = (
        driver.cuInit(0)
        or driver.cuDeviceGet(ctypes.byref(handle), provider.device)
        or driver.cuDeviceGetName(text, len(text), handle)
    )
    return "" if failed else printable(text.value.decode(errors="replace"), 80)
