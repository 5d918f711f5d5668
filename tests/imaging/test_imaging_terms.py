"""Words for modality, body part and view, as devices and people write them, and what they mean."""

import struct

import pytest

from chestxray.imaging import open_file
from chestxray.imaging.terms import body_part_of, is_frontal, modality_of, view_of
from factories.dicom_files import dicom, phantom

BODY_PARTS = {
    "CHEST": [
        *("CHEST", "port chest", "CHEST_PA", "W034Thorax", "Thorax p.a.", "CHESTABDOMEN", "LUNGS"),
        *("TÓRAX", "torace", "Toraks", "BRUST", "Brustkorb", "POITRINE", "Poumons", "PECHO"),
        *("PULMÓN", "pulmão", "POLMONI", "borstkas", "LONGEN", "Bröstkorg", "Brystkasse"),
        *("Klatka piersiowa", "płuca", "hrudník", "ГРУДНАЯ КЛЕТКА", "ОГК", "лёгкие", "Göğüs"),
        *("ΘΩΡΑΚΑΣ", "胸部", "肺", "흉부", "CXR", "RX TORAX", "Rö Thorax"),
    ],
    "SPINE": [
        "TSPINE",
        "Thoracic spine",
        "BWS",
        "Brustwirbelsäule",
        "BRÖSTRYGG",
        "COLUMNA DORSAL",
        "胸椎",
    ],
    "RIB": ["RIBS", "Gril costal", "Rippen"],
    "STERNUM": ["STERNUM", "Brustbein", "胸骨"],
    "KNEE": ["KNEE", "L KNEE", "Knie", "GENOU", "rodilla", "ginocchio", "колено"],
    "HAND": ["HANDS", "mano", "MAIN"],
    "WRIST": ["WRIST", "Handgelenk", "poignet"],
    "FOREARM": ["FOREARM", "предплечье"],
    "ABDOMEN": ["ABDOMEN", "ABD. ADDOME", "Bauch"],
    "SKULL": ["SKULL", "Schädel", "CRANIO"],
    None: ["", "UNKNOWN", "HEART", "Paula", "Hippolyte", "NORTHWESTERN", "ARMANDO", "4711", "?"],
}
VIEWS = {
    "AP": ["AP", "ap", "A.P. ERECT", "A-P", "antero-posterior", "ANTEROPOSTERIOR", "PA/AP"],
    "PA": ["PA", "CHEST PA", "P/A", "Thorax p.a.", "postero-anterior", "RÖ THORAX PA"],
    "LATERAL": [
        *(
            "LL",
            "RL",
            "THORAX LL",
            "L/L",
            "LAT",
            "L LAT",
            "RLAT",
            "CHESTLAT",
            "Lateral",
            "LATERALE",
        ),
        *("latéral", "PROFIL", "Profilo", "face et profil", "PERFIL", "SEITLICH", "Seitenbild"),
        *(
            "seitl.",
            "zijdelings",
            "boczne",
            "boční",
            "БОКОВАЯ",
            "側面",
            "侧位",
            "측면",
            "oldalirányú",
        ),
        *("PA AND LATERAL", "LATERO-LATERAL", "πλάγια"),
    ],
    "DECUBITUS": ["RLD", "DECUBITUS", "lateral decubitus"],
    "OBLIQUE": ["RLO", "LPO", "RO", "Schräg", "oblicua", "OBLIQUE"],
    "LORDOTIC": ["LORDOTIC", "apicolordotic"],
    None: ["", "ERECT", "FLAT PLATE", "repeat later", "SUPINE", "Paula", "FRONTAL"],
}


@pytest.mark.parametrize("term", BODY_PARTS)
def test_a_body_part_is_told_by_what_its_name_holds(term: str | None) -> None:
    assert {words: body_part_of(words) for words in BODY_PARTS[term]} == dict.fromkeys(
        BODY_PARTS[term], term
    )


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_told_by_what_its_name_holds(view: str | None) -> None:
    assert {words: view_of(words) for words in VIEWS[view]} == dict.fromkeys(VIEWS[view], view)


def test_a_frontal_view_may_not_say_from_which_side_it_is() -> None:
    assert all(map(is_frontal, ["AP", "PA", "FRONTAL", "de face", "FRENTE"]))
    assert not any(map(is_frontal, ["", "LL", "PROFIL", "ERECT"]))


def test_digital_and_film_radiographs_are_radiographs_and_only_known_others_are_others() -> None:
    said = {"CR": "CR", "dx ": "DX", "DR": "DX", "RG": "CR", "CT": "CT", "US": "US", "PR": "PR"}
    assert {word: modality_of(word) for word in said} == said
    assert [modality_of(word) for word in ("", "OT", "SC", "X-RAY", "Paula")] == [None] * 5


@pytest.mark.parametrize(
    ("charset", "words", "encoding"),
    [
        (None, "TÓRAX", "latin-1"),
        (None, "TÓRAX", "utf-8"),
        ("ISO_IR 192", "грудная клетка", "utf-8"),
        ("ISO_IR 144", "ГРУДНАЯ", "iso8859-5"),
        ("ISO_IR 100", "ГРУДНАЯ", "utf-8"),
        ("ISO_IR 126", "ΘΩΡΑΚΑΣ", "iso8859-7"),
        ("GB18030", "胸部", "gb18030"),
        ("\\ISO 2022 IR 87", "胸部", "iso2022_jp"),
        ("nonsense", "TÓRAX", "latin-1"),
    ],
)
def test_words_are_read_in_the_files_character_set_and_in_what_it_has_instead(
    charset: str | None, words: str, encoding: str
) -> None:
    said = words.encode(encoding)
    said += b" " * (len(said) % 2)
    placeholder = "X" * len(said)
    file = dicom(phantom(12, 64), BodyPartExamined=placeholder)
    file = file.replace(placeholder.encode(), said)
    if charset is not None:  # the first element of all
        named = charset.encode() + b" " * (len(charset) % 2)
        element = b"\x08\0\x05\0CS" + struct.pack("<H", len(named)) + named
        file = file.replace(b"\x08\0\x16\0UI", element + b"\x08\0\x16\0UI", 1)
    assert open_file(file).acquisition.body_part == "CHEST"
