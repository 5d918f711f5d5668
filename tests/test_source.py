"""The source knows no finding: what a bundle asks for is a fact of its manifest."""

from pathlib import Path

import chestxray

PACKAGE = Path(chestxray.__file__).parent
DATA = {".jpeg", ".onnx"}


def test_no_finding_is_named_outside_manifests() -> None:
    files = [
        file
        for file in PACKAGE.rglob("*")
        if file.is_file() and file.suffix not in DATA and "__pycache__" not in file.parts
    ]
    assert len(files) > 100
    named = [
        str(file.relative_to(PACKAGE))
        for file in files
        if "pneumonia" in file.read_text(encoding="utf-8").lower()
    ]
    assert sorted(named) == ["bundles/default/manifest.json", "bundles/format-1.json"]
