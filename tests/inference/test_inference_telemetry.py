"""ONNX Runtime reports to nobody."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("room", ["chestxray.inference", "chestxray.learning.graph"])
def test_onnx_runtime_keeps_no_telemetry(room: str, tmp_path: Path) -> None:
    """Its telemetry would leave a session and an identity of the device in these folders."""
    subprocess.run(
        [sys.executable, "-c", f"import {room}"],
        check=True,
        timeout=120,
        env={"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": ""},
    )
    assert list(tmp_path.iterdir()) == []
