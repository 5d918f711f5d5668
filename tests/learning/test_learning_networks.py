import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from chestxray.learning.networks import NETWORKS, ResNet, standardise
from chestxray.learning.networks.network import NEGATIVE_LOGIT

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


def torchvision_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """torchvision's state dict as names and shapes, for 1 input channel and 1 class."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(prefix: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{prefix}.{part}"] = (channels,)
        shapes[f"{prefix}.num_batches_tracked"] = ()

    shapes["conv1.weight"] = (64, 1, 7, 7)
    norm("bn1", 64)
    bottleneck = name == "resnet50"
    incoming = 64
    for stage, depth in enumerate(DEPTHS[name], start=1):
        width = 64 * 2 ** (stage - 1)
        outgoing = 4 * width if bottleneck else width
        for block in range(depth):
            prefix = f"layer{stage}.{block}"
            if bottleneck:
                kernels = [(width, incoming, 1), (width, width, 3), (outgoing, width, 1)]
            else:
                kernels = [(width, incoming, 3), (width, width, 3)]
            for number, (out, into, side) in enumerate(kernels, start=1):
                shapes[f"{prefix}.conv{number}.weight"] = (out, into, side, side)
                norm(f"{prefix}.bn{number}", out)
            if incoming != outgoing:
                shapes[f"{prefix}.downsample.0.weight"] = (outgoing, incoming, 1, 1)
                norm(f"{prefix}.downsample.1", outgoing)
            incoming = outgoing
    shapes["fc.weight"], shapes["fc.bias"] = (1, incoming), (1,)
    return shapes


@pytest.mark.parametrize(
    ("name", "n_entries"), [("resnet18", 122), ("resnet34", 218), ("resnet50", 320)]
)
def test_the_names_and_shapes_are_torchvisions(name, n_entries):
    state = NETWORKS[name]().state_dict()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == torchvision_shapes(name)
    assert len(state) == n_entries  # as many as torchvision's own files have


@pytest.mark.parametrize(
    ("name", "with_1000_classes", "n_features"),
    [("resnet18", 11_689_512, 512), ("resnet34", 21_797_672, 512), ("resnet50", 25_557_032, 2048)],
)
def test_the_parameters_are_torchvisions_but_for_two_channels_and_999_classes(
    name, with_1000_classes, n_features
):
    n = sum(p.numel() for p in NETWORKS[name]().parameters())
    assert n == with_1000_classes - 2 * 64 * 7 * 7 - 999 * (n_features + 1)


def settled(name: str, seed: int) -> ResNet:
    """A network in eval mode whose statistics and head are not those of initialisation."""
    torch.manual_seed(seed)
    network = NETWORKS[name]()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.4, 1.0)
            torch.nn.init.normal_(module.bias, std=0.2)
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    torch.nn.init.normal_(network.fc.weight, std=0.1)
    torch.nn.init.constant_(network.fc.bias, 0.7)
    return network.eval()


def grad_cam(network: ResNet, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Grad-CAM by autograd at the output of layer4 (Selvaraju 2017): the map, and the sum in it."""
    kept: list[Tensor] = []
    handle = network.layer4.register_forward_hook(lambda _, __, out: kept.append(out))
    logit = network(inputs).logit
    handle.remove()
    (gradient,) = torch.autograd.grad(logit.sum(), kept[0])
    weights = gradient.mean((2, 3), keepdim=True)
    combined = (weights * kept[0]).sum(1)
    return functional.relu(combined).detach(), combined.detach()


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("side_px", [64, 96])
def test_evidence_is_grad_cam_of_layer4_up_to_the_number_of_cells(name, side_px):
    network = settled(name, seed=side_px)
    inputs = torch.randn(3, 1, side_px, side_px)
    with torch.no_grad():  # evidence of both signs, or the ReLU would not be tried
        _, last = network.feature_maps(inputs)
        usual = functional.normalize(last.mean((0, 2, 3))[None])
        network.fc.weight -= (network.fc.weight @ usual.T) * usual
    cam, signed = grad_cam(network, inputs)
    with torch.no_grad():
        evidence = network(inputs).evidence
    cells = evidence.shape[1] * evidence.shape[2]
    assert evidence.shape == (3, side_px // 32, side_px // 32)
    torch.testing.assert_close(signed * cells, evidence, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cam * cells, functional.relu(evidence), rtol=1e-4, atol=1e-4)
    assert evidence.min() < 0 < evidence.max()


@pytest.mark.parametrize("name", ["resnet18", "resnet18_os16"])
def test_the_logit_is_the_log_of_the_mean_exponential_of_the_evidence_plus_the_bias(name):
    network = settled(name, seed=0)
    with torch.no_grad():
        out = network(torch.randn(4, 1, 96, 96))
    pooled = out.evidence.exp().mean((1, 2)).log()
    torch.testing.assert_close(out.logit, pooled + network.fc.bias)


def test_strong_evidence_does_not_overflow():
    network = settled("resnet18", seed=0)
    feature_map = torch.zeros(1, 512, 3, 3)
    with torch.no_grad():
        feature_map[0, :, 1, 1] = 1000 * torch.sign(network.fc.weight[0])
        logit, evidence = network.head(feature_map)
    expected = evidence.max() - math.log(9) + network.fc.bias
    torch.testing.assert_close(logit, expected)


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 128), ("resnet50", 512)])
def test_the_features_are_the_end_of_layer2_in_four_by_four_cells(name, channels):
    network = settled(name, seed=0)
    kept: list[Tensor] = []
    network.layer2.register_forward_hook(lambda _, __, out: kept.append(out))
    with torch.no_grad():
        features = network(torch.randn(2, 1, 96, 96)).features
    assert kept[0].shape == (2, channels, 12, 12)
    cells = kept[0].unflatten(3, (4, 3)).unflatten(2, (4, 3)).mean((3, 5))
    torch.testing.assert_close(features, cells.flatten(1))


@pytest.mark.parametrize("name", ["resnet18", "vit_s16"])
def test_evidence_of_zero_is_a_negatives_before_anything_is_learned(name):
    assert NETWORKS[name]().fc.bias.item() == NEGATIVE_LOGIT < 0


def test_evidence_has_seven_by_seven_cells_at_224():
    with torch.no_grad():
        out = settled("resnet18", seed=0)(torch.zeros(1, 1, 224, 224))
    assert (out.logit.shape, out.evidence.shape) == ((1,), (1, 7, 7))


def test_at_an_output_stride_of_16_the_same_weights_answer_at_more_places():
    coarse, fine = (settled(name, seed=0) for name in ("resnet18", "resnet18_os16"))
    fine.load_state_dict(coarse.state_dict())
    x = torch.randn(2, 256, 10, 10)
    with torch.no_grad():
        torch.testing.assert_close(fine.layer4(x)[:, :, ::2, ::2], coarse.layer4(x))
        assert fine(torch.zeros(1, 1, 224, 224)).evidence.shape == (1, 14, 14)


def test_at_an_output_stride_of_16_a_cell_is_the_mean_of_those_that_answer_for_its_corners():
    network = settled("resnet18_os16", seed=0)
    inputs = torch.randn(1, 1, 96, 96)
    with torch.no_grad():
        at_corners = network.layer4(network.layer3(network.feature_maps(inputs)[0]))
        _, centred = network.feature_maps(inputs)
    torch.testing.assert_close(centred[..., 3, 4], at_corners[..., 2:4, 3:5].mean((2, 3)))
    torch.testing.assert_close(centred[..., 0, 0], at_corners[..., 0, 0])


def test_brightness_and_contrast_of_the_whole_picture_change_nothing():
    network = settled("resnet18", seed=0)
    inputs = torch.randn(2, 1, 96, 96)
    with torch.no_grad():
        plain, changed = network(inputs), network(0.4 * inputs - 1.3)
    torch.testing.assert_close(plain.logit, changed.logit, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(plain.evidence, changed.evidence, rtol=1e-3, atol=1e-3)


def test_an_empty_picture_does_not_become_noise():
    nearly_empty = 1e-4 * torch.randn(1, 1, 32, 32) + 0.7
    assert standardise(nearly_empty).abs().max() < 0.01
