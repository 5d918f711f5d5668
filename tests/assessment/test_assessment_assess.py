"""One file or many, one bundle or several: each assessment is what it would be alone."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from chestxray.assessment import (
    Assessment,
    Choices,
    MemoryBudget,
    Registry,
    assess,
    assess_all,
    named,
    read_bundles,
)
from chestxray.assessment.assess import AHEAD
from chestxray.errors import ConfigError, DamagedFileError, TooManyBytesError, UnknownModelError
from chestxray.imaging import Limits, Radiograph, open_file, resize
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference import BUNDLED, read_bundle
from factories import images
from factories.bundles import write_tiny_bundle
from factories.dicom_files import dicom, phantom
from factories.servers import wait_until

CHEST = dicom(phantom(12, 64))
TEXT = b"Dear colleague,"
KNEE = dicom(phantom(12, 64), BodyPartExamined="KNEE")


def radiographs(n: int) -> list[bytes]:
    levels = (np.uint8(np.round(synthetic_radiograph(seed, 96) * 255)) for seed in range(n))
    return [images.png(of) for of in levels]


def both(_: object, assessments: list[Assessment]) -> list[Assessment]:
    return assessments


def said(assessment: Assessment) -> tuple:
    prediction = assessment.prediction
    return (
        assessment.assessor.name,
        assessment.outcome,
        None if assessment.error is None else assessment.error.code,
        None if prediction is None else (prediction.label, prediction.logit),
        None if prediction is None else prediction.evidence.tobytes(),
        assessment.warnings,
    )


def test_a_file_is_answered_refused_or_unreadable(registry: Registry) -> None:
    outcomes = [assess(data, [registry.assessor()])[0] for data in (CHEST, KNEE, TEXT, b"")]
    assert [(a.outcome, a.error and a.error.code) for a in outcomes] == [
        ("answered", None),
        ("refused", "wrong_body_part"),
        ("unreadable", "unsupported_format"),
        ("unreadable", "empty_file"),
    ]


def test_several_bundles_answer_as_each_alone(registry: Registry) -> None:
    for data in (*radiographs(6), CHEST, KNEE, TEXT):
        together = assess(data, registry.assessors())
        alone = [assess(data, [registry.assessor(name)])[0] for name in ("first", "second")]
        assert [said(one) for one in together] == [said(one) for one in alone]
    labels = {assessment.prediction.label for assessment in assess(CHEST, registry.assessors())}
    assert labels <= {"NORMAL", "PNEUMONIA", "DRY", "EFFUSION"}
    assert len(labels) == 2


def test_many_files_are_assessed_in_their_order_as_each_alone(registry: Registry) -> None:
    files = [*radiographs(20), TEXT, CHEST]
    together = list(assess_all(files, registry.assessors(), both, threads=4))
    alone = [assess(data, registry.assessors()) for data in files]
    assert [list(map(said, one)) for one in together] == [list(map(said, one)) for one in alone]


def test_a_file_may_be_opened_already_or_be_loaded_when_it_is_its_turn(registry: Registry) -> None:
    whole, opened, loaded = assess_all(
        [CHEST, open_file(CHEST), lambda: CHEST], [registry.assessor()], both
    )
    assert said(whole[0]) == said(opened[0]) == said(loaded[0])


def test_what_loading_a_file_finds_wrong_is_its_assessment(registry: Registry) -> None:
    def damaged() -> bytes:
        raise DamagedFileError("a hole in the zip")

    (assessment,) = assess(damaged, [registry.assessor()])
    assert (assessment.outcome, assessment.error.code) == ("unreadable", "damaged_file")

    def broken_disk() -> bytes:
        raise OSError("input/output error")

    with pytest.raises(OSError, match="input/output"):
        assess(broken_disk, [registry.assessor()])


def test_no_more_files_are_loaded_ahead_than_are_kept_busy(registry: Registry) -> None:
    loaded = 0
    lock = threading.Lock()

    def load() -> bytes:
        nonlocal loaded
        with lock:
            loaded += 1
        return CHEST

    answers = assess_all([load] * 100, [registry.assessor()], both, threads=2)
    next(answers)
    assert loaded <= 2 * AHEAD + 2
    answers.close()
    assert loaded < 100


def live_radiographs() -> int:
    gc.collect()
    return sum(type(thing) is Radiograph for thing in gc.get_objects())


def test_pictures_do_not_wait_for_the_files_before_them(registry: Registry) -> None:
    first = threading.Event()

    def slow() -> bytes:
        first.wait(30)
        return CHEST

    def labels(_: object, assessments: list[Assessment]) -> list[str]:
        return [assessment.answer[1].label for assessment in assessments]

    before = live_radiographs()
    done: list[bytes] = []
    files = [slow, *(lambda: done.append(b"") or CHEST for _ in range(8))]
    answers = assess_all(files, registry.assessors(), labels, threads=2)
    reader = threading.Thread(target=lambda: list(answers))
    reader.start()
    wait_until(lambda: len(done) == 8)
    wait_until(lambda: live_radiographs() == before)
    first.set()
    reader.join()


def test_what_is_left_of_an_assessment_holds_no_picture(registry: Registry) -> None:
    before = live_radiographs()
    (kept,) = assess(CHEST, [registry.assessor()])
    kept = kept.without_pixels()
    assert live_radiographs() == before
    assert kept.outcome == "answered"
    (again,) = assess(kept.source, [registry.assessor("second")])
    (alone,) = assess(CHEST, [registry.assessor("second")])
    assert said(again) == said(alone)


def test_a_file_that_cannot_be_decoded_is_tried_once_for_all_bundles(registry: Registry) -> None:
    tries = []
    opened = open_file(CHEST)

    def broken(px: int | None) -> Radiograph:
        tries.append(px)
        raise DamagedFileError("no picture")

    object.__setattr__(opened, "decode", broken)
    assessments = assess(opened, registry.assessors())
    assert [assessment.error.code for assessment in assessments] == ["damaged_file"] * 2
    assert tries == [448]


def test_files_that_are_assessed_at_the_same_time_share_a_budget(registry: Registry) -> None:
    held: list[int] = []

    class Watched(MemoryBudget):
        @contextmanager
        def share(self, n_bytes: int) -> Iterator[None]:
            with super().share(n_bytes):
                held.append(n_bytes)
                yield

    file = open_file(CHEST)
    (alone,) = assess(CHEST, [registry.assessor()])
    (with_others,) = assess(CHEST, [registry.assessor()], budget=Watched(1))
    assert said(with_others) == said(alone)
    assert held == [file.memory_bytes]


def test_limits_hold(registry: Registry) -> None:
    (assessment,) = assess(CHEST, [registry.assessor()], limits=Limits(max_bytes=100))
    assert type(assessment.error) is TooManyBytesError


def test_a_picture_is_decoded_once_for_bundles_that_want_it_alike(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    opened = open_file(CHEST)
    object.__setattr__(opened, "decode", lambda px, of=opened.decode: sizes.append(px) or of(px))
    assess(opened, registry.assessors())
    assert sizes == [448]


def test_the_first_bundle_is_the_default_and_others_are_asked_by_name(registry: Registry) -> None:
    assert registry.assessor().name == registry.default == "first"
    assert registry.assessor("second").name == "second"
    with pytest.raises(UnknownModelError, match="first, second"):
        registry.assessor("third")


def test_bundles_are_named_as_asked_or_as_they_call_themselves(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path)
    assert list(read_bundles([(None, folder), ("again", folder)])) == ["tiny", "again"]
    with pytest.raises(ConfigError, match="two bundles have the name tiny"):
        read_bundles([(None, folder), ("tiny", folder)])
    assert list(read_bundles([]).values()) == [read_bundle(BUNDLED)]


def test_choices_reach_every_bundle(registry: Registry) -> None:
    asked = registry.assessors(choices=Choices(operating_point="rule_in"))
    assert [a.prediction.operating_point for a in assess(CHEST, asked)] == ["rule_in", "rule_in"]


@pytest.mark.parametrize(
    ("option", "taken"),
    [
        ("a=/x", ("a", Path("/x"))),
        (" a.b-c_1=x/y ", ("a.b-c_1", Path("x/y"))),
        ("/srv/a=b", (None, Path("/srv/a=b"))),
        ("./a=b", (None, Path("a=b"))),
        ("bundle", (None, Path("bundle"))),
    ],
)
def test_an_option_is_a_folder_with_or_without_a_name(option: str, taken: tuple) -> None:
    assert named(option) == taken


@pytest.mark.parametrize("option", ["", " ", "a=", "=/x", "my bundle=/x", "-a=/x", "é=/x"])
def test_an_option_that_is_neither_is_an_error(option: str) -> None:
    with pytest.raises(ConfigError):
        named(option)


@pytest.mark.parametrize("side_px", [64, 224, 384, 768])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "DICOM"])
def test_an_input_is_made_of_as_many_real_pixels_as_it_has(
    tmp_path: Path, side_px: int, kind: str
) -> None:
    folder = write_tiny_bundle(tmp_path, side_px=side_px)
    registry = Registry.of(read_bundles([(None, folder)]))
    levels = phantom(8, 1900)
    data = {
        "JPEG": lambda: images.jpeg(levels.astype(np.uint8)),
        "PNG": lambda: images.png(levels.astype(np.uint8)),
        "DICOM": lambda: dicom(levels, bits=8),
    }[kind]()
    (assessment,) = assess(data, [registry.assessor(choices=Choices(input_check="warn"))])
    radiograph, _ = assessment.answer
    assert min(radiograph.pixels.shape) >= side_px
    full = open_file(data).decode(None).pixels
    difference = resize(radiograph.pixels, side_px) - resize(full, side_px)
    assert np.abs(difference).mean() * 255 < 0.6
