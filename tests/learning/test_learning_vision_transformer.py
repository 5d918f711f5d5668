import hashlib

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from chestxray import imaging
from chestxray.errors import WeightsError
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference import OnnxNetwork, Predictor, write_bundle
from chestxray.inference.bundle import ReferenceAnswer
from chestxray.learning.export import export
from chestxray.learning.graph import quantise, to_onnx
from chestxray.learning.initialise import initialise, read_weights
from chestxray.learning.networks import VisionTransformer, vit_s16
from chestxray.learning.training import Run, train

WIDTH, DEPTH, HEADS, PATCH_PX = 384, 12, 6, 16


def timm_shapes(*, channels: int, class_token: bool) -> dict[str, tuple[int, ...]]:
    """The body of timm's ``vit_small_patch16_224`` as names and shapes."""
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, WIDTH)} if class_token else {}
    shapes["pos_embed"] = (1, 14 * 14 + class_token, WIDTH)
    shapes["patch_embed.proj.weight"] = (WIDTH, channels, PATCH_PX, PATCH_PX)
    shapes["patch_embed.proj.bias"] = (WIDTH,)

    def linear(prefix: str, out: int, into: int) -> None:
        shapes[f"{prefix}.weight"], shapes[f"{prefix}.bias"] = (out, into), (out,)

    def norm(prefix: str) -> None:
        shapes[f"{prefix}.weight"] = shapes[f"{prefix}.bias"] = (WIDTH,)

    for block in range(DEPTH):
        norm(f"blocks.{block}.norm1")
        linear(f"blocks.{block}.attn.qkv", 3 * WIDTH, WIDTH)
        linear(f"blocks.{block}.attn.proj", WIDTH, WIDTH)
        norm(f"blocks.{block}.norm2")
        linear(f"blocks.{block}.mlp.fc1", 4 * WIDTH, WIDTH)
        linear(f"blocks.{block}.mlp.fc2", WIDTH, 4 * WIDTH)
    norm("norm")
    return shapes


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """A state as timm and DeiT publish it: three channels, a class token, 1,000 classes."""
    torch.manual_seed(5)
    shapes = timm_shapes(channels=3, class_token=True)
    state = {
        name: 0.05 * torch.randn(shape) + ("norm" in name and name.endswith("weight"))
        for name, shape in shapes.items()
    }
    return state | {"head.weight": torch.randn(1000, WIDTH), "head.bias": torch.randn(1000)}


def reference_tokens(state: dict[str, Tensor], coloured: Tensor) -> Tensor:
    """The patches after the last norm, (B, 196, 384), as the paper writes it: head by head, and
    without the class token."""

    def linear(x: Tensor, prefix: str) -> Tensor:
        return x @ state[f"{prefix}.weight"].T + state[f"{prefix}.bias"]

    def norm(x: Tensor, prefix: str) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        return x * state[f"{prefix}.weight"] + state[f"{prefix}.bias"]

    patches = functional.unfold(coloured, PATCH_PX, stride=PATCH_PX).transpose(1, 2)
    x = patches @ state["patch_embed.proj.weight"].flatten(1).T + state["patch_embed.proj.bias"]
    x = x + state["pos_embed"][:, 1:]
    for block in (f"blocks.{number}" for number in range(DEPTH)):
        query, key, value = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, dim=2)
        heads = []
        for q, k, v in zip(*(t.chunk(HEADS, dim=2) for t in (query, key, value)), strict=True):
            attention = (q @ k.transpose(1, 2) / (WIDTH / HEADS) ** 0.5).softmax(dim=2)
            heads.append(attention @ v)
        x = x + linear(torch.cat(heads, dim=2), f"{block}.attn.proj")
        hidden = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        x = x + linear(hidden, f"{block}.mlp.fc2")
    return norm(x, "norm")


@pytest.fixture(scope="module")
def network(published: dict[str, Tensor]) -> VisionTransformer:
    """A network in eval mode with published weights, and a head that is not near zero."""
    network = vit_s16().eval()
    initialise(network, published)
    torch.manual_seed(6)
    nn.init.normal_(network.fc.weight, std=0.1)
    nn.init.constant_(network.fc.bias, 0.7)
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def graph(network: VisionTransformer) -> bytes:
    """Of the network at 64 px."""
    return to_onnx(network, 64)


# The network.


def test_the_names_and_shapes_are_timms_with_one_channel_and_one_linear_layer():
    state = vit_s16().state_dict()
    expected = timm_shapes(channels=1, class_token=False)
    expected |= {"fc.weight": (1, WIDTH), "fc.bias": (1,)}
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


def test_the_parameters_are_timms_but_for_two_channels_the_class_token_and_999_classes():
    n = sum(p.numel() for p in vit_s16().parameters())
    assert n == 22_050_664 - WIDTH * 2 * PATCH_PX**2 - 2 * WIDTH - 999 * (WIDTH + 1)


def test_evidence_is_grad_cam_of_the_normalised_patches_up_to_their_number(network):
    torch.manual_seed(7)
    kept: list[Tensor] = []

    def keep(module: nn.Module, into: tuple[Tensor], out: Tensor) -> Tensor:
        kept.append(out.requires_grad_())
        return out

    handle = network.norm.register_forward_hook(keep)
    out = network(torch.randn(3, 1, 64, 64))
    handle.remove()
    (gradient,) = torch.autograd.grad(out.logit.sum(), kept[0])
    share = out.evidence.flatten(1).softmax(1)
    torch.testing.assert_close(gradient, share[:, :, None] * network.fc.weight)
    weights = gradient.mean(1, keepdim=True)
    signed = (weights * kept[0]).sum(2).unflatten(1, (4, 4)).detach()
    assert out.evidence.shape == (3, 4, 4)
    torch.testing.assert_close(signed * 16, out.evidence.detach(), rtol=1e-4, atol=1e-4)
    assert out.evidence.min() < 0 < out.evidence.max()


def test_the_logit_is_the_log_of_the_mean_exponential_of_the_evidence_plus_the_bias(network):
    out = network(torch.randn(2, 1, 96, 96))
    pooled = out.evidence.exp().mean((1, 2)).log()
    torch.testing.assert_close(out.logit, pooled + network.fc.bias)


def test_the_features_are_the_patches_halfway_in_four_by_four_cells(network):
    kept: list[Tensor] = []
    half = len(network.blocks) // 2
    network.blocks[half - 1].register_forward_hook(lambda _, __, out: kept.append(out))
    features = network(torch.randn(2, 1, 128, 128)).features  # 8 × 8 patches
    patches = kept[0].transpose(1, 2).unflatten(2, (4, 2, 4, 2))
    torch.testing.assert_close(features, patches.mean((3, 5)).flatten(1))
    assert features.shape == (2, WIDTH * 16)


def test_a_cell_of_the_evidence_is_the_patch_at_its_place():
    """Without blocks, a patch knows of itself alone."""
    network = VisionTransformer(width=32, depth=0, heads=1).eval()
    inputs = torch.randn(1, 1, 64, 64)
    changed = inputs.clone()
    changed[..., 16:32, 48:64] = changed[..., 16:32, 48:64].flip(3)  # standardised as before
    with torch.no_grad():
        moved = (network(changed).evidence - network(inputs).evidence).abs()
    assert moved[0, 1, 3] > 1e-3
    moved[0, 1, 3] = 0
    assert moved.max() < 1e-5


def test_evidence_has_fourteen_by_fourteen_cells_at_224(network):
    out = network(torch.zeros(1, 1, 224, 224))
    assert (out.logit.shape, out.evidence.shape) == ((1,), (1, 14, 14))


def test_a_side_that_patches_do_not_fill_is_an_error(network):
    with pytest.raises(ValueError, match=r"100 px: no multiple of 16"):
        network(torch.zeros(1, 1, 100, 100))


def test_brightness_and_contrast_of_the_whole_picture_change_nothing(network):
    inputs = torch.randn(2, 1, 64, 64)
    plain, changed = network(inputs), network(0.4 * inputs - 1.3)
    torch.testing.assert_close(plain.evidence, changed.evidence, rtol=1e-3, atol=1e-3)


# Positions.


def test_positions_start_as_sines_and_cosines_of_x_and_of_y():
    positions = vit_s16().pos_embed.detach().unflatten(1, (14, 14))[0]  # (y, x, 384)
    sine_x, _, sine_y, cosine_y = positions.chunk(4, dim=2)
    at = torch.arange(14.0)
    torch.testing.assert_close(sine_x[3, :, 0], at.sin())  # the highest frequency is 1 …
    torch.testing.assert_close(cosine_y[:, 5, 0], at.cos())
    torch.testing.assert_close(sine_y[:, 2, -1], (at / 10_000).sin())  # … the lowest 1/10,000
    assert torch.equal(sine_x[0], sine_x[13])
    assert torch.equal(cosine_y[:, 0], cosine_y[:, 13])


def test_positions_are_interpolated_to_the_patches_there_are():
    network = VisionTransformer(width=32, depth=1, heads=1)
    assert network.positions(14) is network.pos_embed
    row = torch.linspace(-1, 1, 14)
    with torch.no_grad():  # one channel rises with x, the other with y
        network.pos_embed.zero_()
        network.pos_embed[0, :, 0] = row.repeat(14)
        network.pos_embed[0, :, 1] = row.repeat_interleave(14)
    for cells in (4, 20):
        x, y = network.positions(cells).detach()[0, :, :2].T.reshape(2, cells, cells)
        torch.testing.assert_close(x, y.T)
        steps = x.diff(dim=1)[:, cells // 4 : -(cells // 4)]  # beyond the border is nothing
        wanted = torch.full_like(steps, 2 / 13 * 14 / cells)
        torch.testing.assert_close(steps, wanted, rtol=0.05, atol=0)
        assert x.diff(dim=0).abs().max() < 1e-5


def test_positions_learn_at_other_sizes_too():
    network = VisionTransformer(width=32, depth=1, heads=2)
    network(torch.randn(2, 1, 64, 64)).logit.sum().backward()
    assert network.pos_embed.grad is not None
    assert network.pos_embed.grad.abs().max() > 0


# Published weights.


def test_published_weights_compute_the_same_as_on_the_grey_image_shown_three_times(
    network, published
):
    torch.manual_seed(8)
    grey = torch.randn(2, 1, 224, 224)
    grey = (grey - grey.mean((2, 3), keepdim=True)) / grey.std((2, 3), correction=0, keepdim=True)
    expected = reference_tokens(published, grey.expand(-1, 3, -1, -1))
    got = network.feature_maps(grey)[1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def test_what_of_published_weights_has_no_place_here_is_listed(published):
    report = initialise(vit_s16(), published)
    assert report.left_over == ("cls_token", "head.weight", "head.bias")
    assert report.missing == ("fc.weight", "fc.bias")


def test_positions_of_another_number_of_patches_are_left_over(published):
    network = vit_s16()
    before = network.pos_embed.clone()
    report = initialise(network, published | {"pos_embed": torch.zeros(1, 577, WIDTH)})
    assert "pos_embed" in report.left_over
    assert "pos_embed" in report.missing
    assert torch.equal(network.pos_embed, before)


def test_a_file_as_deit_publishes_it_is_read(tmp_path, published):
    torch.save({"model": published}, tmp_path / "deit.pth")
    got = read_weights(tmp_path / "deit.pth")
    assert got.keys() == published.keys()
    torch.save({"model": {"epoch": 3}}, tmp_path / "deit.pth")
    with pytest.raises(WeightsError, match="named tensors"):
        read_weights(tmp_path / "deit.pth")


# The graphs.


def test_the_fp32_graph_says_what_pytorch_says_however_many_inputs(network, graph, graph_outputs):
    torch.manual_seed(9)
    inputs = torch.randn(5, 1, 64, 64)
    for n in (1, 5):
        wanted = network(inputs[:n])
        for got, expected in zip(graph_outputs(graph, inputs[:n].numpy()), wanted, strict=True):
            np.testing.assert_allclose(got, expected.numpy(), atol=1e-3, rtol=1e-3)


def test_int8_computes_the_products_with_weights_and_nothing_else(graph):
    inputs = np.random.default_rng(0).normal(size=(4, 1, 64, 64)).astype(np.float32)
    model = quantise(graph, inputs)
    assert len(model) < 0.3 * len(graph)
    arrays = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(model).graph.initializer
    }
    rounded = [a for a in arrays.values() if a.dtype == np.int8 and a.ndim > 1]
    assert len(rounded) == 4 * DEPTH
    assert max(int(np.abs(a.astype(int)).max()) for a in rounded) <= 64
    exact = ("patch_embed.proj.weight", "pos_embed", "norm.weight", "fc.bias")
    assert {arrays[name].dtype for name in exact} == {np.dtype(np.float32)}


# A bundle.


@pytest.fixture(scope="module")
def run(tiny_config, samples, tmp_path_factory) -> Run:
    """A transformer that tells the tiny data set's truths apart."""
    config = tiny_config(
        network="vit_s16",
        learning_rate=3e-4,
        stages=[{"epochs": 1, "side_px": 32}, {"epochs": 4, "side_px": 64}],
    )
    folder = tmp_path_factory.mktemp("vit")
    return train(config, samples, folder, say=print)


@pytest.fixture(scope="module")
def bundle(run: Run, tmp_path_factory):
    """Its int8 bundle: that there is one says that parity was kept."""
    folder = tmp_path_factory.mktemp("vit_exported") / "bundle"
    export(run, folder)
    return folder


def test_a_transformers_bundle_tells_the_truths_apart(bundle, run):
    predictor = Predictor.load(bundle)
    assert predictor.manifest.evidence.shape == (4, 4)
    assert len(predictor.manifest.input_check.mean) == WIDTH
    assert predictor.manifest.input_check.n_features == WIDTH * 16
    assert predictor.manifest.training["parity"]["int8_same_labels"] >= 0.99
    predictions = predictor.predict([imaging.read_file(s.file) for s in run.split.heldout])
    right = [p.label == s.truth for p, s in zip(predictions, run.split.heldout, strict=True)]
    assert np.mean(right) > 0.9


def test_the_head_is_exact_in_a_transformers_int8_too(bundle, run, graph_outputs):
    model = (bundle / "model.onnx").read_bytes()
    inputs = np.random.default_rng(1).normal(size=(6, 1, 64, 64)).astype(np.float32)
    got = graph_outputs(model, inputs)
    initializers = onnx.load_from_string(model).graph.initializer
    (bias,) = [numpy_helper.to_array(t).item() for t in initializers if t.name == "fc.bias"]
    cells = got.evidence.astype(np.float64)
    pooled = np.log(np.exp(cells).mean((1, 2)))
    np.testing.assert_allclose(got.logit, pooled + bias, atol=1e-4)
    alone = graph_outputs(model, inputs[:1])
    np.testing.assert_allclose(alone.logit[0], got.logit[0], atol=1e-4)


def test_at_224_px_it_answers_with_fourteen_by_fourteen_cells(bundle, run, tmp_path):
    model = to_onnx(run.network, 224)
    manifest = Predictor.load(bundle).manifest
    side = manifest.preprocessing.model_copy(update={"side_px": 224})
    levels = [synthetic_radiograph(answer.seed, 224) for answer in manifest.reference_answers]
    inputs = [imaging.to_input(i, side_px=224, mean=side.mean, std=side.std) for i in levels]
    logits = OnnxNetwork(model)(np.stack(inputs)).logit
    changes = {
        "model_sha256": hashlib.sha256(model).hexdigest(),
        "precision": "fp32",
        "preprocessing": side,
        "evidence": manifest.evidence.model_copy(update={"shape": (14, 14)}),
        "reference_answers": [
            ReferenceAnswer(seed=seed, logit=float(logit)) for seed, logit in enumerate(logits)
        ],
    }
    write_bundle(tmp_path, manifest.model_copy(update=changes), model)
    predictor = Predictor.load(tmp_path)
    (prediction,) = predictor.predict([imaging.read_file(run.split.heldout[0].file)])
    assert prediction.evidence.shape == (14, 14)
    with torch.inference_mode():
        pixels = imaging.read_file(run.split.heldout[0].file).pixels
        x = imaging.to_input(pixels, side_px=224, mean=side.mean, std=side.std)
        wanted = run.network(torch.from_numpy(x)[None]).evidence[0].numpy()
    np.testing.assert_allclose(prediction.evidence, wanted, atol=1e-2)
