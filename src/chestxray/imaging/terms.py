"""What the words for modality, body part and view mean, in DICOM's terms: the one table.

Devices and people write all of them freely, in their own language ("PORT CHEST", "W034Thorax",
"BRUST PA", "PROFIL"), so they are told by what they contain. What no line here names means nothing:
it is for a picture's looks to tell what it shows, and no reason to refuse it.

Sources: PS3.3 C.7.3.1.1.1 (modalities) and C.8.1.1 (views), PS3.16 annex L and CID 4009 (body
parts and their codes) and CID 4010 (views). Does not: read a data set (``dicom.acquisition``), or
judge what it says (``assessment``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import TypeVar

from chestxray.imaging.radiograph import View

CHEST = "CHEST"

T = TypeVar("T", bound=str)

# DR is no term of DICOM's, but what many call DX; RG is a film, whose scan is stored as a CR.
_RADIOGRAPHS = {"CR": "CR", "RG": "CR", "DX": "DX", "DR": "DX"}

# Not OT (other) nor SC: they do not say what it is.
_OTHER_MODALITIES = (
    "AR ASMT AU BDUS BI BMD CT CTPROTOCOL DG DMS DOC ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL "
    "IVOCT IVUS KER KO LEN LP LS M3D MA MG MR MS NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF OPV OSS "
    "PLAN POS PR PT PX REG RESP RF RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN "
    "RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA VF XA XAPROTOCOL XC"
)

_PLAIN_CHEST = "CHEST|THORA|TORAX|TORAC|LUNG"

_CHEST = (
    "CXR CHST THX TORAKS "
    "BRUST POITRINE POUMON PECHO PULMON PULMAO PULMOE PEITO POLMON PETTO BORST LONGEN BRYST "
    "BROST RINTA KEUHKO PIERSI PLUCA PLUCN PŁUC HRUDN GRUDN ГРУД ЛЕГК ОГК LEGKIE ЛЕГЕН MELLKAS "
    "PLAMAN GOGUS AKCIGER ΘΩΡΑ ΠΝΕΥΜ NGUC PHOI DADA PARU 胸 肺 흉부 가슴 صدر חזה ทรวงอก ปอด"
)

# Named with the chest, or by words that hold one of its own ("BRUSTBEIN").
_BESIDE_THE_CHEST = {
    "SPINE": "SPINE SPINAL VERTEB LUMBA LUMBO LOMBA LOMBO LUMB CERVIC SACRUM SACRAL SACRO COCCY "
    "WIRBEL HWS BWS LWS RACHIS COLUMNA COLUNA COLONNA COLONNE WERVEL HVIRVEL RYGG RYGGRAD "
    "BROSTRYGG LANDRYGG HALSRYGG KREGO POZVON ПОЗВОН OMURGA 椎 척추 흉추 요추 경추",
    "RIB": "RIB RIPPE COTES COSTAL COSTILLA COSTELA COSTOLE RIBBEN REVBEN ZEBRA РЕБР 肋 늑골",
    "STERNUM": "STERNUM STERNO STERNAL BRUSTBEIN BORSTBEEN MOSTEK ГРУДИН 胸骨 흉골",
    "CLAVICLE": "CLAVIC SCHLUSSELBEIN SCHLUESSELBEIN SLEUTELBEEN OBOJCZYK КЛЮЧИЦ 鎖骨 锁骨 쇄골",
    "SCAPULA": "SCAPUL SCHULTERBLATT OMOPLAT ЛОПАТК 肩甲 肩胛 견갑",
    "BREAST": "BREAST MAMMA MAMMO MAMA MAMARI SEIN BRUSTDRUSE 乳 유방",
    "BONE": "BONE",
}

# What holds another's word stands before it.
_ELSEWHERE = {
    "ABDOMEN": "ABDOM ADDOM BAUCH VENTRE BUIK BRZUCH BRICH KUB ЖИВОТ БРЮШ 腹 복부",
    "PELVIS": "PELVI BECKEN BASSIN BACINO BACIA BEKKEN BACKEN MIEDNIC PANEV ТАЗ 骨盤 骨盆 골반",
    "HIP": "HIP HUFT HUFTE HUEFT HANCHE CADERA QUADRIL ANCA HEUP BIODR KYCEL 股関節 髋 고관절",
    "SKULL": "SKULL SCHADEL SCHAEDEL CRANI SCHEDEL CZASZK LEBKA ЧЕРЕП 頭蓋 头颅 颅骨 두개골",
    "JAW": "JAW MANDIB MAXILL KIEFER DENTAL TEETH TOOTH ZAHN",
    "HEAD": "HEAD KOPF TETE CABEZA CABECA TESTA HOOFD HLAVA ГОЛОВ BRAIN SINUS FACIAL ORBIT NASAL "
    "頭 头 머리",
    "NECK": "NECK HALS COU CUELLO COLLO PESCOCO SZYJA 頸部 颈 목",
    "WRIST": "WRIST HANDGELENK POIGNET MUNECA PUNHO POLSO NADGARST ZAPEST ЗАПЯСТ 手関節 腕 손목",
    "FOREARM": "FOREARM UNTERARM ANTEBR AVAMBR ONDERARM ПРЕДПЛЕЧ 前腕 前臂",
    "SHOULDER": "SHOULDER SCHULTER EPAULE HOMBRO OMBRO SPALLA SCHOUDER RAMENO ПЛЕЧ 肩 어깨",
    "ARM": "ARM OBERARM HUMER BRAS BRAZO BRACO BRACCI",
    "ELBOW": "ELBOW ELLBOG ELLENBOG COUDE CODO COTOVELO GOMITO ELLEBOOG LOKIEC LOKET ЛОКТ 肘 "
    "팔꿈치",
    "HAND": "HAND MAIN MANO MAO MANUS КИСТ 手 손",
    "FINGER": "FINGER THUMB DAUMEN DOIGT POUCE DEDO VINGER ПАЛЕЦ 指",
    "FEMUR": "FEMUR THIGH OBERSCHENKEL CUISSE MUSLO COXA COSCIA БЕДР 大腿",
    "KNEE": "KNEE KNIE GENOU RODILLA JOELHO GINOCCHI KOLANO KOLENO КОЛЕН PATELL 膝 무릎",
    "ANKLE": "ANKLE SPRUNGGELENK CHEVILLE TOBILLO TORNOZELO CAVIGLIA ENKEL KOTNIK ГОЛЕНОСТ "
    "CALCAN HEEL 足関節 踝 발목",
    "LEG": "LEG TIBIA FIBULA UNTERSCHENKEL BEIN JAMBE PIERNA PERNA GAMBA ГОЛЕН 下腿 小腿 하지",
    "FOOT": "FOOT FEET FUSS PIED PIEDE PIE VOET STOPA СТОП TOE ZEHE ORTEIL 足 발",
    "EXTREMITY": "EXTREMIT LIMB 下肢 上肢",
    "WHOLEBODY": "WHOLEBODY GANZKORPER",
}

# SNOMED CT, and what it was called in the years of SNOMED RT.
_CHEST_CODES = (
    "51185008 816094009 T-D3000 39607008 T-28000 43799004 T-D3200 416550000 416775004 417437006 "
    "416152001 416319003 86598002 72410000"
)
_OTHER_CODES = {
    "ABDOMEN": "113345001 818981001 818983003 T-D4000 818982008",
    "PELVIS": "12921003 816092008 T-D6000",
    "SPINE": "421060004 T-D04FF 122494005 T-11501 122495006 T-11502 122496007 T-11503 "
    "1217253001 1217254007 1217256009 1217257000 54735007 64688005",
    "RIB": "113197003 T-11300",
    "STERNUM": "56873002 T-11210",
    "CLAVICLE": "51299004 T-12310",
    "SCAPULA": "79601000 T-12280",
    "BREAST": "76752008 T-04000",
    "SKULL": "89546000 T-11100",
    "HEAD": "69536005 T-D1100 774007 2095001 363654007 91397008",
    "JAW": "661005 T-D1213 91609006 70925003",
    "NECK": "45048000 T-D1600",
    "SHOULDER": "16982005 T-D2220 85856004 7844006",
    "ARM": "40983000 T-D8200 85050009 T-12410 53120007",
    "ELBOW": "16953009 T-15430",
    "FOREARM": "14975008 T-D8500",
    "WRIST": "74670003 T-15460",
    "HAND": "85562004 T-D8700",
    "FINGER": "7569003 T-D8800 76505004 T-D8810",
    "HIP": "24136001 T-15710 29836001 T-D2500",
    "FEMUR": "71341001 T-12710 68367000 T-D9100",
    "KNEE": "72696002 T-D9200 64234005",
    "LEG": "30021000 T-D9400 61685007 87342007",
    "ANKLE": "70258002 T-15750 80144004",
    "FOOT": "56459004 T-D9700 29707007 T-D9800",
    "EXTREMITY": "66019005 T-D0300",
    "WHOLEBODY": "38266002 T-D0010",
}

_NOT_FRONTAL: dict[View, str] = {
    "DECUBITUS": "DECUB LLD RLD",
    "OBLIQUE": "OBLI OBLIQ OBLIC OBL SCHRAG SCHRAEG SKOSN SIKM КОСАЯ КОСОИ LAO RAO LPO RPO LLO RLO",
    "LORDOTIC": "LORDO LORD",
    "AXIAL": "AXIAL",
    "SAGITTAL": "SAGITTAL SAGITAL",
    "TANGENTIAL": "TANGENTIAL TANGENCIAL",
    "LATERAL": "LL RL PROFIL PERFIL PROF SEITE SEIT SEITL SIDE ZIJDEL ZIJWAART ZIJ DWARS "
    "SIDOBILD SIDEBILD BOCZN BOCNI BOCNY BOK BOKU БОК БІЧН BOKOV STRANSK "
    "SIVUKUVA SIVU OLDAL YAN SAMPING NGHIENG ΠΛΑΓΙ ΠΡΟΦΙΛ 側 侧 측면 جانب",
}
_LATERAL = r"\bLAT(?!E\b|ER\b)|LATER[AO]|(?<!F)LAT\b|\b[LR] L\b"  # "flat" and "later" are none
_OBLIQUE = r"^[LR]O$"  # within others, "RO" may be short for an X-ray
_FRONTAL: dict[View, re.Pattern[str]] = {
    "AP": re.compile(r"\bA ?P\b|ANTERO ?POSTERIOR|ANTERIOR POSTERIOR"),
    "PA": re.compile(r"\bP ?A\b|POSTERO ?ANTERIOR|POSTERIOR ANTERIOR"),
}
_AP_OR_PA = "FRONTAL FACE FRENTE"


def modality_of(word: str) -> str | None:
    """DICOM's term for what a modality is called; DR is ``DX``, and RG ``CR``."""
    word = word.strip().upper()
    return _RADIOGRAPHS.get(word, word if word in _OTHER_MODALITIES.split() else None)


def is_plainly_the_chest(words: str) -> bool:
    """Whether words for a body part name the chest in English or Latin, for nothing else."""
    return bool(re.search(_PLAIN_CHEST, words.upper())) and body_part_of(words) == CHEST


def body_part_of(words: str) -> str | None:
    """DICOM's term for what a body part is called; the chest with its neighbours is the chest."""
    return _term(_folded(words), _BODY_PARTS)


def coded_body_part(code: str) -> str | None:
    """DICOM's term for a body part's code in SNOMED CT or RT."""
    return _BODY_PART_CODES.get(code)


def view_of(words: str) -> View | None:
    """The view that words name; what is not frontal comes first ("PA and lateral")."""
    folded = _folded(words)
    term = _term(folded, _VIEWS)
    return term or next((of for of, way in _FRONTAL.items() if way.search(folded)), None)


def is_frontal(words: str) -> bool:
    """Whether words say that a view is from the front or back, be it without saying from which."""
    return view_of(words) in _FRONTAL or bool(_AP_OR_PA_WORDS.search(_folded(words)))


def _folded(words: str) -> str:
    """In capitals, without accents, digits and punctuation."""
    plain = unicodedata.normalize("NFKD", words.casefold().upper())
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return " ".join(re.findall(r"[^\W\d_]+", letters))


def _any_of(words: str, *ways: str) -> re.Pattern[str]:
    """Matches any of the words: short ones alone or as a plural, long ones within others too."""
    return re.compile("|".join([*ways, *(_way(_folded(word)) for word in words.split())]))


def _way(word: str) -> str:
    return word if len(word) > 4 or not word.isascii() else rf"\b{word}S?\b"


def _term(folded: str, terms: Iterable[tuple[T, re.Pattern[str]]]) -> T | None:
    return next((term for term, words in terms if words.search(folded)), None)


_BODY_PARTS = [
    *((term, _any_of(words)) for term, words in _BESIDE_THE_CHEST.items()),
    (CHEST, _any_of(_CHEST, _PLAIN_CHEST)),
    *((term, _any_of(words)) for term, words in _ELSEWHERE.items()),
]
_BODY_PART_CODES = {
    code: term
    for term, codes in (_OTHER_CODES | {CHEST: _CHEST_CODES}).items()
    for code in codes.split()
}
_MORE: dict[View, tuple[str, ...]] = {"OBLIQUE": (_OBLIQUE,), "LATERAL": (_LATERAL,)}
_VIEWS = [(view, _any_of(words, *_MORE.get(view, ()))) for view, words in _NOT_FRONTAL.items()]
_AP_OR_PA_WORDS = _any_of(_AP_OR_PA)
