from pathlib import Path

import pytest
from pydantic import ValidationError

from chestxray.errors import ConfigError
from chestxray.inference import BUNDLED, Population, read_bundle
from chestxray.learning.config import TrainConfig, read_config

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted({*CONFIGS.glob("*.toml")} - {CONFIGS / "pacs.toml"})  # the node's
LEAST = 'name = "x"\n[[stages]]\nepochs = 2\nside_px = 64\n'
SAME_LABELS = """
[finding]
negative = "CLEAR"
positive = "Clear"
code = { value = "1", scheme = "SCT", meaning = "Nothing" }
"""


def config_file(tmp_path: Path, content: str | bytes) -> Path:
    file = tmp_path / "config.toml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_a_name_and_one_stage_are_enough(tmp_path):
    config = read_config(config_file(tmp_path, LEAST))
    assert (config.name, config.epochs, config.network) == ("x", 2, "resnet18")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("lerning_rate = 1\n" + LEAST, "lerning_rate"),
        (LEAST + 'frosen = ["layer1"]\n', "stages.0.frosen"),
        (LEAST + "[augmentation]\nflip = 1\n", "augmentation.flip"),
        (LEAST + "[augmentation]\ncontrast = 0.4\n", "augmentation.contrast"),
        (LEAST + "[evidence]\nboxes = -1\n", "evidence.boxes"),
        ('sampling = "groups"\n' + LEAST, "sampling"),
        ("heldout = 1.5\n" + LEAST, "heldout"),
        ("teacher_weight = 1.5\n" + LEAST, "teacher_weight"),
        ('teacher = "one"\n' + LEAST, "teacher"),
        ('network = "vit_s16"\nside_px = 100\n' + LEAST, "side_px: Value error, vit_s16"),
        ('network = "vit_s16"\n' + LEAST.replace("64", "72"), "stages: Value error, vit_s16"),
        ("learning_rate = nan\n" + LEAST, "learning_rate"),
        ('views = ["SIDEWAYS"]\n' + LEAST, "views"),
        ("modalities = []\n" + LEAST, "modalities"),
        (LEAST + '[finding]\nnegative = "a"\npositive = "b"\n', "finding.code"),
        (LEAST + SAME_LABELS, "finding: Value error, the two labels must differ"),
        (LEAST + SAME_LABELS.replace("Clear", "../clear"), "finding.positive"),
        ('network = "vgg"\n' + LEAST, "network"),
        ('name = "x"\nstages = []\n', "stages"),
        ('name = "x"\n', "stages"),
        (LEAST.replace("64", "16"), "stages.0.side_px"),
        ("name = \n", "not TOML"),
        (b"name = '\xff'\n", "not TOML"),
    ],
)
def test_an_unknown_key_or_a_wrong_value_is_an_error_of_one_line_that_names_it(
    tmp_path, content, said
):
    file = config_file(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        read_config(file)
    message = str(caught.value)
    assert said in message
    assert str(file) in message
    assert "\n" not in message


def test_a_config_that_names_no_finding_has_that_of_the_shipped_bundle(tmp_path):
    config = read_config(config_file(tmp_path, LEAST))
    assert config.finding == read_bundle(BUNDLED).manifest.finding


def test_a_config_names_its_finding_and_what_its_radiographs_are(tmp_path):
    named = (
        'age_years = [18, 90]\nmodalities = ["RG"]\nbody_parts = ["THORAX"]\nviews = ["PA"]\n'
        f'{LEAST}[finding]\nnegative = "CLEAR"\npositive = "EFFUSION"\n'
        'code = { value = "60046008", scheme = "SCT", meaning = "Pleural effusion" }\n'
    )
    config = read_config(config_file(tmp_path, named))
    assert config.finding.labels == ("CLEAR", "EFFUSION")
    assert config.population == Population(
        age_years=((18, 90),), modalities=("RG",), body_parts=("THORAX",), views=("PA",)
    )


def test_the_radiographs_are_frontal_chests_of_any_age_unless_a_config_says_more(tmp_path):
    assert read_config(config_file(tmp_path, LEAST)).population == Population(
        age_years=None, modalities=("CR", "DX"), body_parts=("CHEST",), views=("AP", "PA")
    )


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        read_config(tmp_path / "config.toml")


def test_every_epoch_belongs_to_the_stage_that_it_falls_into():
    config = TrainConfig.model_validate(
        {"name": "x", "stages": [{"epochs": 2, "side_px": 32}, {"epochs": 1, "side_px": 64}]}
    )
    assert [config.stage_of(epoch).side_px for epoch in range(3)] == [32, 32, 64]
    assert config.epochs == 3
    with pytest.raises(IndexError):
        config.stage_of(3)


def test_a_config_cannot_be_changed(tmp_path):
    config = read_config(config_file(tmp_path, LEAST))
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 1


def test_a_config_survives_being_written_as_json(tmp_path):
    config = read_config(config_file(tmp_path, LEAST))
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_config_is_valid(file):
    config = read_config(file)
    assert "finding" in config.model_fields_set
    assert config.stages[-1].side_px == config.side_px  # a network wants the size that it learned


def test_strata_can_be_alike_only_where_there_are_any(tiny_config):
    assert tiny_config(sampling="strata", strata_alike=0.1).strata_alike == 0.1
    with pytest.raises(ValidationError, match="strata_alike needs sampling"):
        tiny_config(strata_alike=0.1)
