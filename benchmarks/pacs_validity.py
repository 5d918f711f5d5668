"""What dciodvfy (dicom3tools) says of the report and the overlay of radiographs of every kind.

Does not: run by itself (``pacs`` runs it).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pacs_partners import CALLING
from pydicom import uid

from chestxray.assessment import Registry, read_bundles
from chestxray.imaging import Limits
from chestxray.pacs.config import Route
from chestxray.pacs.judging import Answer, judge
from factories.dicom_files import COMPRESSED, DX, compressed, data_set, dicom, part10, phantom
from factories.pacs import REPORT, program

SIDE_PX = 300

IODS = {"report": "Comprehensive3DSR", "overlay": "SCImage"}
"""What dciodvfy calls what it has recognised, and then checks."""

LACKING = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
    *("AcquisitionDate", "AcquisitionTime", "Modality", "BodyPartExamined", "ViewPosition"),
    *("SeriesInstanceUID", "SeriesNumber", "InstanceNumber", "PatientOrientation", "Manufacturer"),
)

ODD: dict[str, dict[str, Any]] = {
    "DX": {"SOPClassUID": DX, "Modality": "DX", "PresentationIntentType": "FOR PRESENTATION"},
    "for processing": {"PresentationIntentType": "FOR PROCESSING"},
    "window": {"WindowCenter": "2000", "WindowWidth": "3000"},
    "empty attributes": dict.fromkeys(("PatientName", "PatientBirthDate", "StudyDate"), ""),
    "Latin-1": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müßig^Änne"},
    "UTF-8": {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Иванова^Анна=山田^花子"},
    "Japanese": {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Hanako=山田^花子",
    },
    "burned in": {"BurnedInAnnotation": "YES"},
    "no patient and no dates": dict.fromkeys(LACKING[:12]),
    "old": {"PatientAge": "093Y"},
    "rotated": {"PatientOrientation": ["F", "R"]},
}


def sources(data: Path) -> Iterator[tuple[str, bytes]]:
    """Radiographs made here, and those in ``data`` if there are any; and what each is."""
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        for bits in (8, 10, 12, 14, 16):
            stored = phantom(bits, SIDE_PX)
            stored = stored.astype(np.uint8) if bits == 8 else stored
            yield (
                f"{photometric}, {bits} bit",
                dicom(stored, bits=bits, PhotometricInterpretation=photometric),
            )
    signed = (phantom(12, SIDE_PX).astype(np.int32) - 2048).astype(np.int16)
    yield "signed", dicom(signed, bits=12)
    wide = phantom(12, SIDE_PX)[: SIDE_PX // 2]
    yield "wide", dicom(wide)
    for syntax in COMPRESSED:
        bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
        stored = phantom(bits, SIDE_PX)
        stored = stored.astype(np.uint8) if bits == 8 else stored
        yield uid.UID(syntax).name, compressed(stored, syntax, bits=bits)
    for syntax in (uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian):
        yield uid.UID(syntax).name, part10(data_set(phantom(12, SIDE_PX)), syntax)
    for name, attributes in ODD.items():
        yield name, dicom(phantom(12, SIDE_PX), **attributes)
    for keyword in LACKING:
        yield f"no {keyword}", dicom(phantom(12, SIDE_PX), **{keyword: None})
    for file in sorted(data.glob("*.dcm")):
        yield file.name, file.read_bytes()


def measured(data: Path) -> dict[str, Any]:
    """Judge every source, whatever the patient's age, and have its answers checked."""
    dciodvfy = program("dciodvfy")
    shipped = Registry.of(read_bundles([]))
    routes = [
        Route(
            destination="archive",
            input_check="warn",
            population="warn",
            unvalidated_heatmaps=True,
        )
    ]
    errors, warnings, refused = Counter[str](), Counter[str](), dict[str, str]()
    errors_of: dict[str, list[str]] = {}
    n = n_real = n_answers = recognised = 0
    for name, content in sources(data):
        found = judge(content, CALLING, shipped, routes, Limits())
        if not isinstance(found, Answer):
            refused[name] = found.reason
            continue
        n += 1
        n_real += name.endswith(".dcm")
        for ds in found.data_sets:
            n_answers += 1
            kind = "report" if ds.SOPClassUID == REPORT else "overlay"
            with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
                ds.save_as(file.name, enforce_file_format=True)
                lines = _said(dciodvfy, file.name)
            recognised += IODS[kind] in lines
            for line in lines:
                about = f"{kind}: {line}"
                if line.startswith("Error"):
                    errors[about] += 1
                    errors_of.setdefault(about, []).append(name)
                elif line.startswith("Warning"):
                    warnings[about] += 1
    return {
        "sources": n,
        "of_these_published": n_real,
        "answers": n_answers,
        "recognised": recognised,
        "errors": dict(errors.most_common()),
        "errors_of": {about: names[:10] for about, names in errors_of.items()},
        "warnings": dict(warnings.most_common()),
        "refused": refused,
    }


def _said(dciodvfy: str, file: str) -> list[str]:
    told = subprocess.run(
        [dciodvfy, file], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    ).stdout.decode(errors="replace")
    # Neither which of several items it is nor the value: the text is to be counted and published.
    return [re.sub(r"\[\d+\]|<\d+>| = <.*?>", "", line).strip() for line in told.splitlines()]
