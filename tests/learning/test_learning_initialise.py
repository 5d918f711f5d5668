import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from chestxray.errors import WeightsError
from chestxray.learning.initialise import initialise, read_weights
from chestxray.learning.networks import ResNet, resnet18


@pytest.fixture
def network() -> ResNet:
    torch.manual_seed(1)
    return resnet18()


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """What a file of torchvision's holds: 3 input channels and 1,000 classes."""
    torch.manual_seed(2)
    state = resnet18().state_dict()
    state["conv1.weight"] = torch.randn(64, 3, 7, 7)
    state["fc.weight"], state["fc.bias"] = torch.randn(1000, 512), torch.randn(1000)
    return state


def test_three_input_channels_collapse_to_one_that_computes_the_same(network):
    torch.manual_seed(3)
    coloured = resnet18()
    coloured.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    initialise(network, coloured.state_dict())
    grey = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = coloured.eval()(grey.expand(-1, 3, -1, -1))
        got = network.eval()(grey)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_pth_of_torchvisions_loads_and_its_classifier_is_listed_as_left_over(
    tmp_path, network, weights
):
    torch.save(weights, tmp_path / "resnet18.pth")
    report = initialise(network, read_weights(tmp_path / "resnet18.pth"))
    assert report.left_over == ("fc.weight", "fc.bias")
    assert report.missing == ("fc.weight", "fc.bias")
    assert set(report.loaded) == set(weights) - {"fc.weight", "fc.bias"}
    assert torch.equal(network.layer4[1].conv2.weight, weights["layer4.1.conv2.weight"])


def test_a_safetensors_file_gives_the_same_as_the_pth(tmp_path, weights):
    torch.save(weights, tmp_path / "w.pth")
    save_file(weights, tmp_path / "w.safetensors")
    one, two = (read_weights(tmp_path / name) for name in ("w.pth", "w.safetensors"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_an_earlier_run_fits_without_remainder(run, network):
    report = initialise(network, read_weights(run.folder))
    assert (report.missing, report.left_over) == ((), ())
    for name, tensor in run.network.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_what_is_missing_and_what_is_left_over_is_listed_by_name(network, weights):
    changed = {name: t for name, t in weights.items() if not name.startswith("layer4.1.")}
    changed["layer5.0.conv1.weight"] = torch.zeros(3)
    changed["layer1.0.conv1.weight"] = torch.zeros(64, 64, 5, 5)
    before = network.layer1[0].conv1.weight.clone()
    report = initialise(network, changed)
    assert "layer4.1.conv1.weight" in report.missing
    assert "layer4.1.bn2.running_var" in report.missing
    assert "layer1.0.conv1.weight" in report.missing
    assert "layer1.0.conv1.weight" in report.left_over
    assert "layer5.0.conv1.weight" in report.left_over
    assert torch.equal(network.layer1[0].conv1.weight, before)
    for name in ("layer4.1.conv1.weight", "layer5.0.conv1.weight"):
        assert name in str(report)


def test_every_name_is_loaded_or_missing(network, weights):
    report = initialise(network, {n: t for n, t in weights.items() if "bn1" not in n})
    counted = {n for n in network.state_dict() if n.endswith("num_batches_tracked")}
    assert set(report.loaded) | set(report.missing) | counted == set(network.state_dict())
    assert not set(report.loaded) & set(report.missing)


@pytest.mark.parametrize(
    "weights", [{}, {"head.weight": torch.zeros(3)}, {"fc.bias": torch.zeros(9)}]
)
def test_weights_that_do_not_fit_at_all_are_an_error(network, weights):
    with pytest.raises(WeightsError, match="none of the weights"):
        initialise(network, weights)


class Malicious:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("by_torch", [True, False])
def test_a_malicious_pickle_is_refused_and_not_run(tmp_path, by_torch):
    file, mark = tmp_path / "weights.pth", tmp_path / "mark"
    state = {"conv1.weight": Malicious(mark)}
    if by_torch:
        torch.save(state, file)
    else:
        file.write_bytes(pickle.dumps(state, protocol=2))  # torch's own
    with pytest.raises(WeightsError):
        read_weights(file)
    assert not mark.exists()
    if not by_torch:  # the trap is a real one
        pickle.loads(file.read_bytes())  # noqa: S301
        assert mark.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"text", bytes(64), b"PK\x03\x04" + bytes(40)])
def test_a_file_that_holds_no_weights_is_an_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.(pth|safetensors)"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("held", [[torch.zeros(1)], {"epoch": 3}, 7])
def test_a_pth_of_something_else_than_named_tensors_is_an_error(tmp_path, held):
    torch.save(held, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="named tensors"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", ""])
def test_missing_weights_are_an_error(tmp_path, name):
    with pytest.raises(WeightsError, match="cannot read"):
        read_weights(tmp_path / name)


def test_the_imagenet_weights_in_shared_lack_layer4_and_the_head_and_nothing_else(
    shared_data, network
):
    file = shared_data.parent / "weights" / "imagenet_resnet18_conv1_to_layer3.safetensors"
    report = initialise(network, read_weights(file))
    absent = {
        name
        for name in network.state_dict()
        if name.startswith(("layer4.", "fc."))
        and not name.startswith("layer4.0.downsample.")
        and not name.endswith("num_batches_tracked")
    }
    assert set(report.missing) == absent
    assert report.left_over == ()
