"""Versions and hardware that figures depend on."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version


def environment() -> dict[str, str]:
    """Versions of what runs models, and what they run on."""
    found = {
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "cpus": str(os.cpu_count() or 0),
    }
    for package in ("numpy", "onnx", "onnx-graphsurgeon", "onnxruntime", "onnxruntime-gpu"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
