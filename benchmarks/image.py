"""How large the image is, and how long it takes to be ready where nothing can be written.

    .venv/bin/python benchmarks/image.py

Builds the Dockerfile with buildah and starts the service as tests/test_image.py does: without an
engine, as process 1 of a user without privileges. A start is timed from the first process to the
first 200 of /readyz, the mounts of its namespace included; its files are in memory. It should
have the machine to itself.

Here the base image is mostly a stand-in (``factories.image``), larger than the public one.

Does not: build the target ``train``, or fail where a figure falls short of what was wanted.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import image_page
from processes import cpu_s_of
from reliability import REPOSITORY, arguments, write_section

from factories.image import Builder, Container, builder, serving, what_is_missing

REPORT = REPOSITORY / "docs" / "reports" / "image.json"
TARGETS = ("serve", "pacs")

LISTED_MB = 2.0
"""Smaller packages are added up."""


def main() -> None:
    asked = arguments(__doc__, port=0)
    asked.set_defaults(out=REPORT)
    asked.add_argument("--starts", type=int, default=10, help="[10]")
    given = asked.parse_args()
    if missing := what_is_missing():
        sys.exit(f"image: {missing}")
    with builder() as building:
        begun = time.monotonic()
        images = {target: building.build(target) for target in TARGETS}
        with building.container(images["serve"]) as container:
            with building.container(images["pacs"]) as node:
                facts = sizes({"serve": container, "pacs": node})
            facts |= left_out(building, container)
            write_section(given.out, "size", facts, took_s=time.monotonic() - begun)
            begun = time.monotonic()
            facts = starts(container, given.starts)
            write_section(given.out, "start", facts, took_s=time.monotonic() - begun)
    report = json.loads(given.out.read_text(encoding="utf-8"))
    for section in image_page.SECTIONS:
        print(section(report))


def sizes(containers: Mapping[str, Container]) -> dict[str, Any]:
    """Of layers, of all that a container sees, and of the service's packages."""
    layers = {name: of.image.layers_bytes for name, of in containers.items()}
    return {
        "base_mb": _mb(layers["serve"][0]),
        "added_mb": {name: _mb(sum(added)) for name, (_, *added) in layers.items()},
        "layers_mb": {name: _mb(sum(all_of_them)) for name, all_of_them in layers.items()},
        "root_mb": {name: _mb(of.root_bytes()) for name, of in containers.items()},
        "parts_mb": _listed(_bytes_by_package(_packages(containers["serve"]))),
    }


def left_out(building: Builder, container: Container) -> dict[str, Any]:
    """What the installed packages have and the image has not, byte code apart."""
    with building.container(building.build("environment")) as everything:
        whole = _bytes_by_package(_packages(everything), byte_code=False)
    return {
        "left_out_mb": _listed(whole - _bytes_by_package(_packages(container), byte_code=False))
    }


def starts(container: Container, n: int) -> dict[str, Any]:
    """Seconds from the start of everything until /readyz answers 200, and of CPU time meanwhile."""
    took_s, cpu_s = [], []
    for _ in range(n):
        with serving(container) as server:
            took_s.append(server.ready_s)
            stat = Path(f"/proc/{server.pid}/stat").read_text(encoding="utf-8")
            cpu_s.append(cpu_s_of(stat))
            if code := server.end():
                sys.exit(f"image: the server ended with {code}")
    return {
        "n": n,
        "median_s": round(median(took_s), 3),
        "max_s": round(max(took_s), 3),
        "cpu_median_s": round(median(cpu_s), 3),
        "all_s": [round(s, 3) for s in took_s],
    }


def _packages(container: Container) -> Path:
    (folder,) = (container.root / "opt/chestxray/lib").glob("python3*/site-packages")
    return folder


def _bytes_by_package(folder: Path, *, byte_code: bool = True) -> Counter[str]:
    """Bytes of the files in ``folder`` by what is directly in it, ``numpy.libs`` with ``numpy``."""
    found: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and (byte_code or path.suffix != ".pyc"):
            name = path.relative_to(folder).parts[0].partition("-")[0].removesuffix(".libs")
            found[{"PIL": "pillow"}.get(name, name)] += path.stat().st_size
    return found


def _listed(found: Counter[str]) -> dict[str, float]:
    """In MB, the largest first and small ones together."""
    listed = {name: n for name, n in found.most_common() if n >= LISTED_MB * 1e6}
    others = found.total() - sum(listed.values())
    return {name: _mb(n) for name, n in (listed | {"others": others}).items() if n}


def _mb(n_bytes: int) -> float:
    return round(n_bytes / 1e6, 1)


if __name__ == "__main__":
    main()
