"""A bundle is used whole or not at all, and says in one line why not."""

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from chestxray.errors import BundleDamagedError, BundleMissingError, BundleVersionError
from chestxray.imaging import Radiograph
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference import OnnxNetwork, Population, Predictor, read_bundle, write_bundle
from chestxray.inference.onnx_file import _WITHIN, check_self_contained
from factories.bundles import (
    FINDING,
    POPULATION,
    VALIDATION,
    as_format_1,
    tiny_manifest,
    tiny_model,
    write_tiny_bundle,
)

CODE = FINDING["code"]


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def change_manifest(bundle: Path, **changes: object) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(bundle: Path, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        Predictor.load(bundle)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_bundle_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    model = tiny_model()
    manifest = tiny_manifest(model)
    sha256 = write_bundle(tmp_path, manifest, model)
    bundle = read_bundle(tmp_path)
    assert (bundle.manifest, bundle.model, bundle.sha256) == (manifest, model, sha256)


def test_a_bundle_of_format_1_is_read_as_what_it_left_unsaid(bundle: Path) -> None:
    before = read_bundle(bundle).manifest
    as_format_1(bundle)
    after = read_bundle(bundle).manifest
    assert after.format == 1
    assert after.model_copy(update={"format": 2}) == before


def test_a_bundle_of_format_1_without_a_population_knows_no_ages(bundle: Path) -> None:
    as_format_1(bundle)
    for population in (None, {"age_years": [0, 17]}):
        change_manifest(bundle, population=population)
        found = read_bundle(bundle).manifest.population
        assert found.age_years == (None if population is None else ((0, 17),))
        assert found.views == ("AP", "PA")


@pytest.mark.parametrize(("side_px", "shrink_to_px"), [(64, 448), (224, 448), (384, 768)])
def test_a_bundle_of_format_1_gets_as_many_real_pixels_as_its_input_has(
    tmp_path: Path, side_px: int, shrink_to_px: int
) -> None:
    bundle = write_tiny_bundle(tmp_path, side_px=side_px)
    as_format_1(bundle)
    assert read_bundle(bundle).manifest.preprocessing.shrink_to_px == shrink_to_px


def test_a_bundle_of_either_format_gives_the_same_answers_to_the_bit(bundle: Path) -> None:
    radiographs = [Radiograph(synthetic_radiograph(seed, 80), "PNG", 80, 80) for seed in range(20)]

    def answers() -> list[tuple[float, float, bytes]]:
        predictions = Predictor.load(bundle).predict(radiographs)
        return [(p.logit, p.probability, p.evidence.tobytes()) for p in predictions]

    of_format_2 = answers()
    as_format_1(bundle)
    assert answers() == of_format_2


def test_what_is_written_has_the_newest_format(bundle: Path, tmp_path: Path) -> None:
    as_format_1(bundle)
    read = read_bundle(bundle)
    write_bundle(tmp_path / "again", read.manifest, read.model)
    assert json.loads((tmp_path / "again" / "manifest.json").read_text())["format"] == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"population": []},
        {"population": 0},
        {"population": {"age_years": [1, 5], "views": ["AP"]}},
        {"finding": FINDING},
        {"preprocessing": {"side_px": 64, "mean": 0.5, "std": 0.25, "shrink_to_px": 64}},
        {"preprocessing": {"side_px": "small", "mean": 0.5, "std": 0.25}},
    ],
)
def test_a_manifest_of_format_1_with_facts_that_it_cannot_have_is_damage(
    bundle: Path, changes: dict
) -> None:
    as_format_1(bundle)
    change_manifest(bundle, **changes)
    refusal(bundle, BundleDamagedError)


@pytest.mark.parametrize("version", [1, 2])
def test_evidence_of_which_the_manifest_does_not_say_that_it_is_validated_is_not(
    bundle: Path, version: int
) -> None:
    facts = json.loads((bundle / "manifest.json").read_text())
    change_manifest(bundle, evidence={key: facts["evidence"][key] for key in ("shape", "scale")})
    if version == 1:
        as_format_1(bundle)
    evidence = read_bundle(bundle).manifest.evidence
    assert (evidence.validated, evidence.validation) == (False, None)


def test_evidence_is_validated_by_figures_that_the_manifest_names(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, validated=True)
    evidence = read_bundle(tmp_path).manifest.evidence
    assert evidence.validated
    assert evidence.validation
    assert evidence.validation.model_dump() == VALIDATION


def test_figures_that_do_not_validate_the_evidence_may_stand_in_the_manifest(bundle: Path) -> None:
    failed = VALIDATION | {"pointing": 0.02}
    change_manifest(bundle, evidence={"shape": [8, 8], "scale": 1, "validation": failed})
    assert not read_bundle(bundle).manifest.evidence.validated


@pytest.mark.parametrize(
    ("validation", "reason"),
    [
        (None, "validated evidence needs the figures of its validation"),
        (
            VALIDATION | {"pointing": 0.7},
            "validated evidence must point better than the best fixed point",
        ),
        ({"dataset": "adults", "n": 61}, "evidence.validation.pointing: Field required"),
        (VALIDATION | {"auprc": 1.2}, "evidence.validation.auprc: "),
    ],
)
def test_evidence_said_to_be_validated_without_figures_that_show_it_is_damage(
    bundle: Path, validation: dict[str, Any] | None, reason: str
) -> None:
    said = {"shape": [8, 8], "scale": 1, "validated": True, "validation": validation}
    change_manifest(bundle, evidence=said)
    assert reason in refusal(bundle, BundleDamagedError)


def test_a_manifest_nested_without_end_is_damage(bundle: Path) -> None:
    (bundle / "manifest.json").write_text("[" * 200_000)
    refusal(bundle, BundleDamagedError)


def field_of(number: int, value: bytes, *, key_bytes: int | None = None) -> bytes:
    """A length-delimited field; its key in so many bytes, cut to 32 bits by who reads it so."""
    key = number << 3 | 2
    if key_bytes is not None:
        key |= 1 << 32
    return varint(key) + varint(len(value)) + value


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


EXTERNAL = field_of(13, field_of(1, b"location") + field_of(2, b"weights.bin"))
TENSOR = {
    "external data": EXTERNAL,
    "a location alone": varint(14 << 3) + varint(1),
    "a location in many bits": varint(14 << 3) + varint((1 << 40) + 1),
}
WAYS = {
    "an initializer": (7, 5),
    "a sparse initializer": (7, 15, 1),
    "indices of a sparse one": (7, 15, 2),
    "a constant": (7, 1, 5, 5),
    "constants": (7, 1, 5, 10),
    "a sparse constant": (7, 1, 5, 22, 1),
    "a subgraph": (7, 1, 5, 6, 5),
    "subgraphs": (7, 1, 5, 11, 1, 5, 5),
    "a function": (25, 7, 5, 5),
    "a function's default": (25, 11, 5),
    "training": (20, 1, 5),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("tensor", TENSOR)
def test_weights_elsewhere_are_found_wherever_they_are_named(way: str, tensor: str) -> None:
    model = TENSOR[tensor]
    for number in reversed(WAYS[way]):
        model = field_of(number, model)
    with pytest.raises(BundleDamagedError, match="another file"):
        check_self_contained(varint(1 << 3) + varint(10) + model)


def test_a_key_that_others_would_cut_is_no_key(bundle: Path) -> None:
    hidden = field_of(7, field_of(5, field_of(13, b"", key_bytes=5)))
    for model in (hidden, field_of(7, b"", key_bytes=5), b"\x02\x00", b"\x0b\x0c", b"ORTM"):
        with pytest.raises(BundleDamagedError, match="no ONNX"):
            check_self_contained(model)


def with_weights_elsewhere(model: bytes, where: Path, location: str) -> bytes:
    """The model with one of its tensors moved to a file."""
    proto = onnx.load_from_string(model)
    tensor = next(t for t in proto.graph.initializer if t.name == "kernels")
    (where / "weights.bin").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    return bytes(proto.SerializeToString())


def test_weights_that_lie_in_another_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would find them
    for location in ("weights.bin", "./weights.bin", str(tmp_path / "weights.bin")):
        model = with_weights_elsewhere(tiny_model(), tmp_path, location)
        manifest = tiny_manifest(tiny_model(), model_sha256=sha256_of(model))
        write_bundle(tmp_path / "bundle", manifest, model)
        assert "another file" in refusal(tmp_path / "bundle", BundleDamagedError)
        with pytest.raises(BundleDamagedError, match="another file"):
            OnnxNetwork(model)


def test_the_walk_knows_every_field_in_which_a_tensor_can_lie() -> None:
    reached = set()
    for message in _WITHIN:
        kind = getattr(onnx, f"{message}Proto").DESCRIPTOR
        for number, inner in _WITHIN[message].items():
            field = kind.fields_by_number[number]
            assert field.message_type.name == f"{inner}Proto"
            reached.add((kind.name, field.name))
    expected = set()
    for message in _WITHIN:
        kind = getattr(onnx, f"{message}Proto").DESCRIPTOR
        for field in kind.fields:
            if field.message_type is not None and holds_tensors(field.message_type, set()):
                expected.add((kind.name, field.name))
    assert reached == expected
    tensor = onnx.TensorProto.DESCRIPTOR.fields_by_name
    assert (tensor["external_data"].number, tensor["data_location"].number) == (13, 14)


def holds_tensors(kind: Any, seen: set[str]) -> bool:
    if kind.name == "TensorProto":
        return True
    if kind.name in seen:
        return False
    inner = [field.message_type for field in kind.fields if field.message_type is not None]
    return any(holds_tensors(one, seen | {kind.name}) for one in inner)


def test_the_identity_is_another_when_any_fact_of_the_manifest_is_another(bundle: Path) -> None:
    before = read_bundle(bundle).sha256
    change_manifest(bundle, name="another")
    assert read_bundle(bundle).sha256 != before


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_bundle_without_one_of_its_files_is_missing(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert str(bundle) in refusal(bundle, BundleMissingError)


def test_a_folder_that_does_not_exist_holds_no_bundle(tmp_path: Path) -> None:
    refusal(tmp_path / "nowhere", BundleMissingError)


@pytest.mark.parametrize("version", [3, True, 2.0, "2", None])
def test_a_bundle_of_another_format_is_refused_for_its_version(
    bundle: Path, version: object
) -> None:
    change_manifest(bundle, format=version, invented_later=True)
    assert f"format {version!r}" in refusal(bundle, BundleVersionError)


def test_another_models_weights_under_this_manifest_are_refused(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(tiny_model(seed=1))
    refusal(bundle, BundleDamagedError)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b'{"format": 1}', b'{"format": 2}']
)
def test_a_manifest_that_is_none_is_damage(bundle: Path, content: bytes) -> None:
    (bundle / "manifest.json").write_bytes(content)
    refusal(bundle, BundleDamagedError)


@pytest.mark.parametrize(
    "changes",
    [
        {"default_operating_point": "unheard_of"},
        {"calibration": {"temperature": -1}},
        {"unknown_fact": 1},
        {"finding": {"negative": "CLEAR", "positive": "clear", "code": CODE}},
        {"finding": {"negative": "../CLEAR", "positive": "OPACITY", "code": CODE}},
        {"population": POPULATION | {"views": ["SIDEWAYS"]}},
        {"population": POPULATION | {"modalities": []}},
        {"population": POPULATION | {"modalities": ["cr"]}},
        {"population": POPULATION | {"age_years": [18, 1]}},
        {"population": POPULATION | {"age_years": [-1, 5]}},
        {"population": POPULATION | {"age_years": []}},
        {"population": POPULATION | {"age_years": [[18, 90], [1, 5]]}},
        {"population": POPULATION | {"age_years": [[1, 18], [18, 90]]}},
        {"finding": FINDING | {"code": CODE | {"scheme": "a\\b"}}},
        {"finding": FINDING | {"code": CODE | {"meaning": "two\nlines"}}},
        {"finding": FINDING | {"code": CODE | {"value": "  "}}},
        {"finding": FINDING | {"positive": "refused"}},
        {"training": {"of": "\ud800"}},
        {
            "operating_points": {'a,b\n"c': {"threshold": 0.5, "rule": ""}},
            "default_operating_point": 'a,b\n"c',
        },
        {"name": ""},
        {"name": "two\nlines"},
        {"reference_answers": [{"seed": -1, "logit": 0.0}]},
        {"preprocessing": {"side_px": 64, "shrink_to_px": 63, "mean": 0.5, "std": 0.25}},
        {"reference_answers": [{"seed": 0, "logit": float("nan")}]},
        {
            "operating_points": {
                "screening": {"threshold": 0.9, "rule": ""},
                "balanced": {"threshold": 0.5, "rule": ""},
            }
        },
    ],
)
def test_a_manifest_with_facts_that_cannot_be_is_damage(bundle: Path, changes: dict) -> None:
    change_manifest(bundle, **changes)
    refusal(bundle, BundleDamagedError)


@pytest.mark.parametrize("part", ["mean", "std", "variances", "components"])
def test_input_check_statistics_of_unequal_length_are_damage(bundle: Path, part: str) -> None:
    check = json.loads((bundle / "manifest.json").read_text())["input_check"]
    change_manifest(bundle, input_check=check | {part: check[part][:-1] or [[1.0]]})
    if part == "components":
        assert "variance" in refusal(bundle, BundleDamagedError)
    else:
        refusal(bundle, BundleDamagedError)


def test_a_model_that_is_no_onnx_is_damage(tmp_path: Path) -> None:
    model = b"not a graph"
    write_bundle(tmp_path, tiny_manifest(tiny_model(), model_sha256=sha256_of(model)), model)
    assert "does not run" in refusal(tmp_path, BundleDamagedError)


def test_a_model_that_does_not_answer_each_input_is_damage(tmp_path: Path) -> None:
    proto = onnx.load_from_string(tiny_model())
    (mean,) = [node for node in proto.graph.node if node.output[0] == "mean_evidence"]
    mean.input[1] = "everything"
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 1, 2]), "everything"))
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    model = bytes(proto.SerializeToString())
    manifest = tiny_manifest(tiny_model(), model_sha256=sha256_of(model))
    write_bundle(tmp_path, manifest, model)
    refusal(tmp_path, BundleDamagedError)


def test_whatever_byte_of_a_model_is_wrong_is_damage_or_nothing(tmp_path: Path) -> None:
    model = tiny_model()
    random = np.random.default_rng(0)
    for _ in range(150):
        broken = bytearray(model)
        broken[random.integers(len(broken) // 10)] ^= int(random.integers(1, 256))
        manifest = tiny_manifest(model, model_sha256=sha256_of(bytes(broken)))
        write_bundle(tmp_path, manifest, bytes(broken))
        with suppress(BundleDamagedError):
            Predictor.load(tmp_path)


def test_a_model_for_another_input_size_is_damage(tmp_path: Path) -> None:
    other = tiny_model(side_px=96)
    write_bundle(tmp_path, tiny_manifest(tiny_model(), model_sha256=sha256_of(other)), other)
    assert "inputs" in refusal(tmp_path, BundleDamagedError)


def test_a_model_with_other_evidence_than_the_manifest_says_is_damage(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, evidence={"shape": [7, 7], "scale": 1})
    assert "shapes" in refusal(tmp_path, BundleDamagedError)


def test_a_reference_answer_that_this_machine_computes_otherwise_is_damage(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, reference_answers=[{"seed": 7, "logit": 40.0}])
    assert "reference input 7" in refusal(tmp_path, BundleDamagedError)


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("ranges", "said"),
    [([1, 5], "1 to 5 years"), ([[1, 5], [18, 90]], "1 to 5 or 18 to 90 years"), (None, None)],
)
def test_one_range_of_ages_or_several_are_known(ranges, said) -> None:
    population = Population.model_validate(POPULATION | {"age_years": ranges})
    assert population.ages == said
    assert Population.model_validate_json(population.model_dump_json()) == population


def test_what_lies_between_two_ranges_of_ages_is_not_known() -> None:
    population = Population.model_validate(POPULATION | {"age_years": [[1, 5], [18, 90]]})
    ages = (0.9, 1, 5.9, 6, 17.9, 18, 90.9, 91)
    known = [age for age in ages if population.knows_age(age)]
    assert known == [1, 5.9, 18, 90.9]
