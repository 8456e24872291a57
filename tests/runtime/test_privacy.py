"""Nothing about a run leaves the machine or is left in the user's folders by what graphopt loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
MODEL = ROOT / "models" / "digits_mlp" / "digits_mlp.onnx"


def test_the_runtime_writes_no_device_id_and_no_events(tmp_path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    for name in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED", "CI"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "graphopt", "optimize", MODEL, "-o", tmp_path / "o.onnx", "-q"]
    environment["PYTHONPATH"] = str(ROOT)
    subprocess.run([str(part) for part in command], check=True, env=environment)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.onnx"]
