import getpass
import hashlib
import json
import math
import re
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from chestxray import imaging
from chestxray.errors import ConfigError, ParityError
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference import Predictor
from chestxray.inference.bundle import Calibration, OperatingPoint, Preprocessing
from chestxray.learning.export import (
    check_parity,
    corrupted,
    export,
    metrics_entry,
)
from chestxray.learning.graph import fold_batch_norm, quantise, to_onnx
from chestxray.learning.inputs import decode, inputs_of
from chestxray.learning.networks import NETWORKS

LABEL_FROM_LOGIT_0 = OperatingPoint(threshold=0.5, rule="chosen for tests")
AS_IT_IS = Calibration(temperature=1, bias=0, fitted_on="nothing", n=0, prevalence=0.5)


@pytest.fixture(scope="module")
def heldout(run) -> np.ndarray:
    """The grey levels of the held-out radiographs, (104, 64, 64)."""
    return decode(run.split.heldout, run.config)


@pytest.fixture(scope="module")
def inputs(run, heldout) -> np.ndarray:
    """Held-out inputs, clean and corrupted."""
    return np.concatenate([inputs_of(heldout, run.config, 64), corrupted(heldout, run.config, 0)])


@pytest.fixture(scope="module")
def expected(run, inputs):
    """What the network itself says."""
    with torch.inference_mode():
        return [part.numpy() for part in run.network(torch.from_numpy(inputs))]


def shifted(model: bytes, logits: float, name: str = "fc.bias") -> bytes:
    """The graph of another network: one whose bias is greater."""
    graph = onnx.load_from_string(model)
    tensor = next(t for t in graph.graph.initializer if t.name == name)
    tensor.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(logits), name)
    )
    return graph.SerializeToString()


def bias_of(model: bytes) -> float:
    """The head's bias in a graph: the network's own, but for int8's correction."""
    initializers = onnx.load_from_string(model).graph.initializer
    (bias,) = [tensor for tensor in initializers if tensor.name == "fc.bias"]
    return float(numpy_helper.to_array(bias).item())


# The graphs.


def test_folding_batchnorm_leaves_every_output_as_it_was():
    for name in ("resnet18", "resnet18_os16", "resnet50"):
        torch.manual_seed(0)
        network = NETWORKS[name]()
        inputs = torch.randn(4, 1, 64, 64)
        network.train()(inputs)  # statistics that are not those of initialisation
        network.eval()
        folded = fold_batch_norm(network)
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
        with torch.no_grad():
            for got, wanted in zip(folded(inputs), network(inputs), strict=True):
                torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_the_fp32_graph_says_what_pytorch_says(fp32, inputs, expected, graph_outputs):
    got = graph_outputs(fp32, inputs)
    assert np.abs(got.logit - expected[0]).max() <= 1e-3
    np.testing.assert_allclose(got.evidence, expected[1], atol=1e-2, rtol=1e-3)
    np.testing.assert_allclose(got.features, expected[2], atol=1e-3, rtol=1e-3)


def test_the_int8_graph_is_close_to_the_fp32_one(exported, fp32, inputs, graph_outputs):
    rounded, exact = graph_outputs(exported.model, inputs), graph_outputs(fp32, inputs)
    difference = np.abs(rounded.logit - exact.logit)
    assert 0 < np.percentile(difference, 99) <= 0.5
    assert np.corrcoef(rounded.evidence.ravel(), exact.evidence.ravel())[0, 1] > 0.99


def test_int8_holds_weights_of_one_byte_in_seven_bits_and_a_head_of_floats(exported, fp32, run):
    assert len(exported.model) < 0.3 * len(fp32)
    initializers = onnx.load_from_string(exported.model).graph.initializer
    arrays = [numpy_helper.to_array(tensor) for tensor in initializers]
    kernels = [a for a in arrays if a.dtype == np.int8 and a.ndim == 4]
    assert len(kernels) == 20  # every convolution of a ResNet-18
    assert max(int(np.abs(k.astype(int)).max()) for k in kernels) <= 64
    head = run.network.fc.weight.detach().numpy().ravel()
    assert any(a.size == head.size and np.array_equal(a.ravel(), head) for a in arrays)


def test_the_head_is_exact_in_int8_too(exported, inputs, run, graph_outputs):
    got = graph_outputs(exported.model, inputs)
    bias = bias_of(exported.model)
    cells = got.evidence.astype(np.float64)
    pooled = np.log(np.exp(cells).mean((1, 2)))
    np.testing.assert_allclose(got.logit, pooled + bias, atol=1e-4)


def test_quantising_leaves_no_mean_error_on_the_inputs_it_was_shown(fp32, inputs, graph_outputs):
    rounded = graph_outputs(quantise(fp32, inputs), inputs)
    error = rounded.logit - graph_outputs(fp32, inputs).logit
    assert np.abs(error).max() > 0
    assert abs(error.mean()) < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_batch_is_answered_like_its_inputs_one_by_one(
    precision, fp32, exported, inputs, graph_outputs
):
    model = fp32 if precision == "fp32" else exported.model
    together = graph_outputs(model, inputs[:9])
    for i in range(9):
        alone = graph_outputs(model, inputs[i : i + 1])
        for part, whole in zip(alone, together, strict=True):
            np.testing.assert_allclose(part[0], whole[i], atol=1e-4, rtol=1e-4)


def test_a_resnet_with_bottlenecks_keeps_its_first_stages_in_floats():
    """All of it in int8 moved logits by more than parity allows."""
    torch.manual_seed(0)
    model = quantise(to_onnx(NETWORKS["resnet50"](), 64), np.zeros((1, 1, 64, 64), np.float32))
    kernels = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(model).graph.initializer
        if len(tensor.dims) == 4 and tensor.dims[0] > 1  # the head's is one row
    }
    floats = {name for name, kernel in kernels.items() if kernel.dtype == np.float32}
    first = {"conv1.weight"} | {f"layer{stage}.0.downsample.0.weight" for stage in (1, 2)}
    first |= {
        f"layer{stage}.{block}.conv{number}.weight"
        for stage, n_blocks in ((1, 3), (2, 4))
        for block in range(n_blocks)
        for number in (1, 2, 3)
    }
    assert floats == first
    assert sum(kernel.dtype == np.int8 for kernel in kernels.values()) == 53 - len(first)


@pytest.mark.parametrize(
    ("name", "n_channels", "n_cells"),
    [("resnet18_os16", 128, 4), ("resnet34", 128, 2), ("resnet50", 512, 2)],
)
def test_larger_networks_are_exported_and_loaded(
    name, n_channels, n_cells, run, tmp_path, graph_outputs
):
    torch.manual_seed(0)
    network, inputs = NETWORKS[name](), torch.randn(8, 1, 64, 64)
    network.train()(inputs)  # or what flows through so many blocks grows without bound
    network.eval()
    with torch.no_grad():
        wanted = network(inputs)
    few = replace(run.split, train=run.split.train[::4], heldout=run.split.heldout[::4])
    config = run.config.model_copy(update={"network": name})
    larger = replace(run, network=network, config=config, split=few)
    export(larger, tmp_path, precision="fp32")
    predictor = Predictor.load(tmp_path)
    assert predictor.manifest.evidence.shape == (n_cells, n_cells)
    assert len(predictor.manifest.input_check.mean) == n_channels
    fp32 = (tmp_path / "model.onnx").read_bytes()
    exact = graph_outputs(fp32, inputs.numpy())
    np.testing.assert_allclose(exact.logit, wanted.logit.numpy(), atol=1e-3)
    rounded = graph_outputs(quantise(fp32, inputs.numpy()), inputs.numpy())
    assert 0 < np.abs(rounded.logit - exact.logit).max() < 0.5


# Parity.


def parity(run, heldout, fp32, model, *, precision="int8", point=LABEL_FROM_LOGIT_0, external=None):
    return check_parity(
        run,
        fp32=fp32,
        model=model,
        precision=precision,
        heldout=heldout,
        calibration=AS_IT_IS,
        point=point,
        external=external or {},
    )


def test_parity_is_measured_on_heldout_and_on_external_radiographs(
    run, heldout, fp32, exported, few_samples
):
    measured = parity(run, heldout, fp32, exported.model, external={"elsewhere": few_samples})
    assert measured["n"] == len(heldout) + len(few_samples)
    assert measured["fp32_max"] < 1e-3
    assert 0 < measured["int8_p99"] < 0.5
    assert measured["int8_same_labels"] >= 0.99


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_fp32_graph_of_another_network_is_refused(run, heldout, fp32, precision):
    with pytest.raises(ParityError, match="fp32 differs"):
        parity(run, heldout, shifted(fp32, 0.002), fp32, precision=precision)


def test_an_int8_graph_of_another_network_is_refused(run, heldout, fp32):
    with pytest.raises(ParityError, match="int8 differs"):
        parity(run, heldout, fp32, shifted(fp32, 0.6))


def test_an_int8_graph_that_changes_labels_is_refused(run, heldout, fp32, graph_outputs):
    logits = np.sort(graph_outputs(fp32, corrupted(heldout, run.config, 0)).logit)
    lowest = int(np.argmin(logits[2:] - logits[:-2]))  # three logits close together …
    shift = float(logits[lowest + 2] - logits[lowest]) + 0.01
    assert shift < 0.5, "the differences alone would be refused"
    threshold = float(logits[lowest + 2]) + 0.005  # … all of which pass the threshold when shifted
    point = OperatingPoint(threshold=1 / (1 + math.exp(-threshold)), rule="between them")
    with pytest.raises(ParityError, match="of the labels"):
        parity(run, heldout, fp32, shifted(fp32, shift), point=point)


def test_fp32_is_not_held_against_itself(run, heldout, fp32):
    assert set(parity(run, heldout, fp32, fp32, precision="fp32")) == {"n", "fp32_max"}


# The bundle.


def test_an_exported_bundle_loads_and_answers_as_its_graph_does(
    exported, run, graph_outputs, heldout
):
    predictor = Predictor.load(exported.folder)
    assert predictor.manifest == exported.manifest
    radiographs = [imaging.read_file(sample.file) for sample in run.split.heldout[:20]]
    predictions = predictor.predict(radiographs)
    logits = graph_outputs(exported.model, inputs_of(heldout[:20], run.config, 64)).logit
    np.testing.assert_allclose([p.logit for p in predictions], logits, atol=1e-4)
    assert {p.label for p in predictor.predict(radiographs)} <= {"NORMAL", "PNEUMONIA"}


def test_the_bundle_tells_the_truths_apart(exported, run):
    predictor = Predictor.load(exported.folder)
    predictions = predictor.predict([imaging.read_file(s.file) for s in run.split.heldout])
    right = [p.label == s.truth for p, s in zip(predictions, run.split.heldout, strict=True)]
    assert np.mean(right) > 0.9
    assert np.mean([p.input_check.accepted for p in predictions]) >= 0.97


def test_the_manifest_says_what_the_run_was(exported, run):
    manifest = exported.manifest
    assert manifest.model_sha256 == hashlib.sha256(exported.model).hexdigest()
    assert manifest.precision == "int8"
    assert manifest.finding == run.config.finding
    assert manifest.population == run.config.population
    assert manifest.preprocessing.side_px == run.config.side_px
    assert manifest.preprocessing.shrink_to_px == Preprocessing.enough_px(run.config.side_px)
    assert (manifest.preprocessing.mean, manifest.preprocessing.std) == (
        run.config.mean,
        run.config.std,
    )
    assert manifest.evidence.shape == (2, 2)
    assert manifest.default_operating_point == "balanced"
    assert manifest.training["config"] == run.config.model_dump(mode="json")
    assert manifest.training["n_train"] == len(run.split.train)
    assert manifest.training["n_subjects_heldout"] == len({s.subject for s in run.split.heldout})
    assert manifest.training["parity"]["int8_same_labels"] >= 0.99
    assert manifest.calibration.n == len(run.split.heldout)
    assert len(manifest.reference_answers) >= 3


def test_the_operating_points_rise_from_screening_over_balanced_to_rule_in(exported):
    points = exported.manifest.operating_points
    assert list(points) == ["screening", "balanced", "rule_in"]
    screening, balanced, rule_in = (point.threshold for point in points.values())
    assert 0 < screening <= balanced <= rule_in <= 1


def test_the_reference_answers_are_the_models(exported, run, graph_outputs):
    for answer in exported.manifest.reference_answers:
        image = imaging.to_input(
            synthetic_radiograph(answer.seed, 64),
            side_px=64,
            mean=run.config.mean,
            std=run.config.std,
        )
        logit = graph_outputs(exported.model, image[np.newaxis]).logit[0]
        assert logit == pytest.approx(answer.logit, abs=1e-4)


def test_the_metrics_are_those_of_the_bundle_on_heldout_subjects(exported, run):
    (entry,) = exported.manifest.metrics
    assert entry["split"] == "held-out subjects"
    assert entry["n"] == len(run.split.heldout)
    assert set(entry["operating_points"]) == {"screening", "balanced", "rule_in"}
    balanced = entry["operating_points"]["balanced"]
    predictor = Predictor.load(exported.folder)
    predictions = predictor.predict([imaging.read_file(s.file) for s in run.split.heldout])
    right = [p.label == s.truth for p, s in zip(predictions, run.split.heldout, strict=True)]
    assert balanced["accuracy"]["value"] == pytest.approx(np.mean(right))
    assert balanced["threshold"] == exported.manifest.operating_points["balanced"].threshold


def test_nothing_in_a_bundle_tells_where_or_by_whom_it_was_made(exported, run):
    manifest = (exported.folder / "manifest.json").read_text(encoding="utf-8")
    places = [
        str(Path.home()),
        str(Path.cwd()),
        str(run.folder),
        str(run.split.train[0].file.parent),
    ]
    for secret in (*places, str(Path(np.__file__).parents[1]), socket.gethostname()):
        assert secret not in manifest
        assert secret.encode() not in exported.model
    assert not re.search(rf"\b{re.escape(getpass.getuser())}\b", manifest)
    assert not re.search(r'"/', manifest)
    assert b".py" not in exported.model


def test_a_run_exported_twice_gives_the_same_bundle(exported, run, tmp_path):
    export(run, tmp_path)
    for name in ("model.onnx", "manifest.json"):
        assert (tmp_path / name).read_bytes() == (exported.folder / name).read_bytes(), name


def test_a_report_has_its_place_in_the_manifest_and_needs_its_figures():
    report = {
        "dataset": "adults",
        "split": "all",
        "n": 3,
        "n_subjects": 2,
        "n_refused": 0,
        "n_unreadable": 1,
        "operating_points": {},
        "unreadable": ["not for the manifest"],
    }
    assert "unreadable" not in metrics_entry(report)
    assert metrics_entry(report)["dataset"] == "adults"
    del report["n_subjects"]
    with pytest.raises(KeyError, match="n_subjects"):
        metrics_entry(report)


@pytest.mark.parametrize("text", ["", "[]", "3", '{"dataset": "adults"}'])
def test_a_report_that_is_none_stops_the_export_before_it_begins(run, tmp_path, text):
    report = tmp_path / "report.json"
    report.write_text(text)
    with pytest.raises(ConfigError, match=r"report\.json is no report"):
        export(run, tmp_path / "bundle", reports=[report])
    assert not (tmp_path / "bundle").exists()


def test_the_files_of_a_bundle_are_only_its_two(exported):
    assert sorted(f.name for f in exported.folder.iterdir()) == ["manifest.json", "model.onnx"]
    assert json.loads((exported.folder / "manifest.json").read_bytes())["format"] == 2
