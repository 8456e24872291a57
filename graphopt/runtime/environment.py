"""Versions and hardware that figures depend on."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from graphopt.errors import printable

PACKAGES = ("numpy", "onnx", "onnx-graphsurgeon", "onnxruntime", "onnxruntime-gpu")


def environment(device: str = "", threads: int | None = None) -> dict[str, str]:
    """Versions of what runs models, and what they run on.

    Args:
        device: the name of the accelerator that models ran on, as ``require`` returns it; empty for none.
        threads: threads for one operator, where they were chosen.
    """
    found = {
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "cpu": _cpu(),
        "cpus": str(os.cpu_count() or 0),
        "memory": _memory(),
        "device": device,
        "threads": "" if threads is None else str(threads),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {name: value for name, value in found.items() if value}


def _cpu() -> str:
    """The processor's name; empty where the system does not tell it."""
    for key in ("model name", "Model Name", "cpu model", "Hardware"):
        named = _entry("/proc/cpuinfo", key)
        if named:
            return named
    return printable(platform.processor(), 80)


def _memory() -> str:
    """The machine's memory, as in ``15.6 GiB``; empty where the system does not tell it."""
    kibibytes = _entry("/proc/meminfo", "MemTotal").partition(" ")[0]
    return f"{int(kibibytes) / (1 << 20):.1f} GiB" if kibibytes.isdecimal() else ""


def _entry(path: str, key: str) -> str:
    """The value of the first line ``key: value`` of a file; empty where there is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        name, colon, value = line.partition(":")
        if colon and name.strip() == key:
            return printable(value.strip(), 80)
    return ""
