"""The machine and the versions that figures belong to.

Does not: measure.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CORES = len(os.sched_getaffinity(0))

FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
"""What decides int8's speed: whether the processor multiplies 8-bit numbers by itself."""

PACKAGES = (
    "numpy",
    "pillow",
    "onnxruntime",
    "fastapi",
    "uvicorn",
    "httptools",
    "uvloop",
    "python-multipart",
    "torch",
)


def machine() -> dict[str, object]:
    """``processor``, its ``flags`` of ``FLAGS``, the usable ``cores``, and the ``load_average`` of
    the last minute: what else it has to do."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    name = re.search(r"model name\s*:\s*(.+)", text)
    known = set(text.split())
    return {
        "processor": name[1] if name else platform.machine(),
        "flags": [flag for flag in FLAGS if flag in known],
        "cores": CORES,
        "load_average": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Of what computes and serves; and of wrk, where it is installed."""
    found = {"Python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    if wrk := shutil.which("wrk"):
        told = subprocess.run([wrk, "-v"], capture_output=True, text=True, check=False).stdout
        found["wrk"] = told.removeprefix("wrk ").split(" [")[0]
    return found


def commit() -> str | None:
    """The commit of this checkout, ``-dirty`` where files were changed; None outside of one."""
    git = shutil.which("git")
    if git is None:
        return None
    told = subprocess.run(
        [git, "describe", "--always", "--dirty", "--exclude=*"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or None
