"""An answer's UIDs, dates and patient are functions of its source and its author."""

import re
import warnings
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from chestxray.errors import DamagedFileError
from chestxray.pacs.identity import (
    Author,
    author_of,
    begin_answer,
    derived_uid,
    series_instance_uid,
    sop_instance_uid,
    text_of,
    timestamp,
)
from factories.dicom_files import CHEST, data_set, dicom
from factories.pacs import tiny_predictor

BUNDLE = "a" * 64
AUTHOR = Author("tiny", "2026-01-01T00:00:00Z", BUNDLE)

WITHOUT_DATES: dict[str, Any] = {keyword: None for keyword in CHEST if keyword[-4:] in "DateTime"}


def source(**attributes: Any) -> Dataset:
    """As it comes from a file: nothing is converted, and pydicom complains of what is wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(BytesIO(dicom(**attributes)))


def answer(ds: Dataset) -> Dataset:
    """What an archive reads of an answer."""
    with BytesIO() as buffer:
        begin_answer("report", "1.2.3", ds, AUTHOR).save_as(buffer, enforce_file_format=True)
        return dcmread(BytesIO(buffer.getvalue()))


def test_uids_are_valid_and_change_with_kind_source_and_bundle_alone() -> None:
    one, other = data_set(), data_set(SOPInstanceUID="1.2.3", SeriesInstanceUID="1.2.4")
    cases = [
        (kind, ds, bundle)
        for kind in ("report", "overlay")
        for ds in (one, other)
        for bundle in (BUNDLE, "b" * 64)
    ]
    uids = [make(*case) for case in cases for make in (sop_instance_uid, series_instance_uid)]
    assert len(set(uids)) == 16
    assert all(uid.is_valid and uid.startswith("2.25.") for uid in uids)
    assert uids == [
        make(kind, data_set(**{"PatientName": "Other", **uids_of(ds)}), bundle)
        for kind, ds, bundle in cases
        for make in (sop_instance_uid, series_instance_uid)
    ]


def uids_of(ds: Dataset) -> dict[str, str]:
    return {keyword: ds[keyword].value for keyword in ("SOPInstanceUID", "SeriesInstanceUID")}


def test_a_uid_never_changes_between_versions() -> None:
    assert derived_uid("report", "1.2.3", BUNDLE) == (
        "2.25.166985212723576117133591386950209468445"
    )


def test_a_bundle_is_an_author_and_several_in_one_order_are_another() -> None:
    one = tiny_predictor(BUNDLE)
    two = tiny_predictor("b" * 64, name="zwölf", created="2020-01-01T00:00:00Z")
    assert author_of([one]) == AUTHOR
    both, reverse = author_of([one, two]), author_of([two, one])
    assert (both.name, both.created) == ("tiny + zw?lf", AUTHOR.created)
    assert len({AUTHOR.sha256, author_of([two]).sha256, both.sha256, reverse.sha256}) == 4
    assert re.fullmatch("[0-9a-f]{64}", both.sha256)


def test_what_is_answered_from_one_series_is_one_series() -> None:
    first, second = (data_set(SOPInstanceUID=f"1.2.{n}", InstanceNumber=n) for n in (1, 2))
    answers = [answer(first), answer(second)]
    assert answers[0].SeriesInstanceUID == answers[1].SeriesInstanceUID
    assert [ds.InstanceNumber for ds in answers] == [1, 2]
    assert answers[0].SOPInstanceUID != answers[1].SOPInstanceUID


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"])
@pytest.mark.parametrize("value", [None, "", "Doe^Jane"])
def test_a_source_without_an_identity_has_no_answer(keyword: str, value: str | None) -> None:
    ds = data_set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        setattr(ds, keyword, value)
    with pytest.raises(DamagedFileError) as caught:
        begin_answer("report", "1.2.3", ds, AUTHOR)
    assert keyword in str(caught.value)
    assert "Doe" not in str(caught.value)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"ContentDate": "20250101", "ContentTime": "0102"}, ("20250101", "0102")),
        ({"AcquisitionDateTime": "20250102030405.5+0100"}, ("20250102", "030405.5")),
        ({"AcquisitionDateTime": "202501"}, ("20260101", "000000")),
        ({"AcquisitionDate": "20250103", "AcquisitionTime": ""}, ("20250103", "000000")),
        ({"InstanceCreationDate": "20250104", "InstanceCreationTime": "10"}, ("20250104", "10")),
        ({"SeriesDate": "20250105", "SeriesTime": "101112"}, ("20250105", "101112")),
        ({"StudyDate": "20250106", "StudyTime": "101112.25"}, ("20250106", "101112.25")),
        ({"ContentDate": "20250230", "StudyDate": "20250107"}, ("20250107", "000000")),
        ({"ContentDate": "2025.01.08", "StudyDate": "20250108"}, ("20250108", "000000")),
        (
            {"ContentDate": "20250109", "ContentTime": "25:61", "StudyDate": "20250110"},
            ("20250110", "000000"),
        ),
        ({}, ("20260101", "000000")),
    ],
)
def test_an_answer_is_dated_by_the_first_date_that_is_one(
    attributes: dict[str, str], expected: tuple[str, str]
) -> None:
    assert timestamp(source(**WITHOUT_DATES | attributes), AUTHOR) == expected


def test_every_date_of_an_answer_is_its_sources() -> None:
    ds = answer(data_set())
    for what in ("InstanceCreation", "Series", "Content"):
        assert (ds[f"{what}Date"].value, ds[f"{what}Time"].value) == ("20260102", "101500.5")


@pytest.mark.parametrize(
    ("character_set", "name"),
    [
        (None, "Phantom^Paula"),
        ("ISO_IR 100", "Buc^Jérôme"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小東"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ],
)
def test_a_name_arrives_byte_by_byte(character_set: str | list[str] | None, name: str) -> None:
    ds = source(SpecificCharacterSet=character_set, PatientName=name)
    sent = ds.get_item("PatientName").value
    received = answer(ds)
    assert received.get_item("PatientName").value == sent
    assert received.PatientName == name


def test_a_name_in_a_misspelt_character_set_arrives_as_it_was_read() -> None:
    received = answer(source(SpecificCharacterSet="ISO-IR 100", PatientName="Buc^Jérôme"))
    assert (received.SpecificCharacterSet, received.PatientName) == ("ISO_IR 192", "Buc^Jérôme")


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), ("", ""), ("12", "12"), (" 12 ", "12"), (["12", "13"], "12")]
)
@pytest.mark.parametrize("keyword", ["InstanceNumber", "PatientOrientation", "SeriesInstanceUID"])
def test_a_text_is_the_first_value_whether_pydicom_has_converted_it_or_not(
    keyword: str, value: str | list[str] | None, text: str
) -> None:
    stored, converted = (source(**{keyword: value}) for _ in range(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted.get(keyword)
    assert text_of(stored, keyword) == text_of(converted, keyword) == text


def test_what_is_wrong_or_missing_is_empty() -> None:
    wrong = {
        "PatientName": "A" * 65,
        "PatientBirthDate": "4f2a19zz",
        "PatientSex": "female",
        "StudyDate": "20261399",
        "StudyTime": "25:61",
        "ReferringPhysicianName": ["One", "Two"],
        "StudyID": "S" * 17,
        "AccessionNumber": "A" * 17,
    }
    for attributes in (wrong, dict.fromkeys(wrong)):
        received = answer(source(**attributes))
        for keyword in wrong:
            assert keyword in received
            assert not received[keyword].value


@pytest.mark.parametrize("patient_id", ["P-1", "P" * 80, ["A", "B"], ""])
def test_a_patient_id_is_handed_on_even_if_it_is_wrong(patient_id: str | list[str]) -> None:
    ds = source(PatientID=patient_id)
    sent = ds.get_item("PatientID").value
    assert answer(ds).get_item("PatientID").value == sent


def test_of_the_patient_only_what_files_the_answer_is_copied() -> None:
    received = answer(source(PatientAddress="Street 1", OtherPatientIDs="X", PatientComments="C"))
    patient = {element.keyword for element in received.group_dataset(0x0010)}
    assert patient == {"PatientName", "PatientID", "PatientBirthDate", "PatientSex"}


def test_a_source_that_breaks_pydicom_is_answered() -> None:
    ds = source()
    for keyword, junk in (("InstanceNumber", b"one "), ("PatientAge", b"62"), ("StudyID", b"\xff")):
        raw = ds.get_item(keyword)
        ds[keyword] = raw._replace(value=junk, length=len(junk))
    received = answer(ds)
    assert received.InstanceNumber == 1
    assert re.fullmatch(r"2\.25\.\d+", received.SOPInstanceUID)


def test_what_is_wrong_is_never_warned_of_nor_logged(caplog: pytest.LogCaptureFixture) -> None:
    ds = source(PatientID="P" * 80, StudyTime="Doe", PatientBirthDate="Doe", PatientName="D" * 65)
    caplog.clear()
    begin_answer("report", "1.2.3", ds, AUTHOR)
    assert not caplog.records
