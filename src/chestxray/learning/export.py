"""From a finished run to a bundle: graph, parity, calibration, operating points, input check.

Everything is fitted on held-out subjects and on the exported precision's own answers. Export
refuses to finish when the exported model does not compute what the trained network computes.

Does not: train, or judge the result on other data (``evaluation`` does, through the bundle).
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from chestxray import imaging
from chestxray.dataset import Sample
from chestxray.dataset.boxes import Box
from chestxray.errors import ConfigError, ParityError
from chestxray.evaluation.evaluate import Scored, points_of, report_of, score_samples
from chestxray.evaluation.evidence import evidence_in_boxes
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference import NetworkAnswers, OnnxNetwork, Predictor, write_bundle
from chestxray.inference.bundle import (
    FORMAT,
    Calibration,
    Evidence,
    EvidenceValidation,
    InputCheck,
    Manifest,
    OperatingPoint,
    Preprocessing,
    ReferenceAnswer,
    Uncertainty,
)
from chestxray.inference.input_check import fit_input_check
from chestxray.inference.polarity import fit_polarity
from chestxray.inference.probability import calibrated_logit, sigmoid
from chestxray.learning.augmentation import Augmenter
from chestxray.learning.calibration import fit_calibration, fit_operating_points
from chestxray.learning.config import TrainConfig
from chestxray.learning.draws import Draws
from chestxray.learning.graph import quantise, to_onnx
from chestxray.learning.initialise import WEIGHTS_FILE
from chestxray.learning.inputs import (
    data_sha256,
    decode,
    inputs_of,
    targets_of,
    to_grey_levels,
    to_pixels,
    unreadable,
    without,
)
from chestxray.learning.layout import fit_layout, not_whole
from chestxray.learning.networks.network import LAYOUT_CELLS
from chestxray.learning.pictures import Levels, bare_pictures
from chestxray.learning.sampling import weights_of
from chestxray.learning.training import Progress, Run, no_progress

Precision = Literal["int8", "fp32"]

FP32_TOLERANCE = 1e-3
"""Greatest difference in logit between the fp32 graph and PyTorch."""
INT8_TOLERANCE = 0.5
"""99th percentile of the difference in logit between int8 and fp32 …"""
INT8_SAME_LABELS = 0.99
"""… and the least share of labels that stay the same."""

CORRUPTED_COPIES = 4
N_QUANTISATION_INPUTS = 256
N_REFERENCE_ANSWERS = 4
N_CHECKED = 3000
"""Training radiographs that the input check is fitted to."""
NEAR_ENOUGH, WHOLE_ENOUGH = 0.998, 0.993
"""Shares of held-out radiographs, clean and corrupted, that each look accepts."""


def export(
    run: Run,
    out: Path,
    *,
    precision: Precision = "int8",
    external: Mapping[str, list[Sample]] | None = None,
    reports: Sequence[Path] = (),
    boxes: Mapping[str, Sequence[Box]] | None = None,
    progress: Progress = no_progress,
) -> Manifest:
    """Write the bundle of ``run`` into ``out`` and return its manifest.

    ``boxes``, by ``Sample.path``, judge the evidence of the held-out radiographs that have any.
    ``external`` are data sets of other hospitals by name: int8 must agree with fp32 on them too,
    and their figures go into the manifest, as do those in ``reports`` (``report.json`` files).

    Raises:
        ParityError: the exported model computes something else than the network.
        ConfigError: a report cannot be read.
    """
    config, external = run.config, external or {}
    split = without(run.split, run.left_out)
    quoted = [_read_report(file) for file in reports]  # now, not after a minute's work
    steps = ["decode", "graph", "parity", "calibrate", "input check", "evaluate"]

    def begin(step: str) -> None:
        progress(f"export: {step}", steps.index(step), len(steps))

    begin("decode")
    learned, judging = (
        [sample for sample in side if sample.source not in config.lungs_only]
        for side in (split.train, split.heldout)
    )
    heldout = decode(judging, config)
    train = decode(learned, config)
    truth = np.tile(targets_of(judging) > 0.5, 1 + CORRUPTED_COPIES)

    begin("graph")
    fp32 = to_onnx(run.network, config.side_px)
    model = fp32
    if precision == "int8":
        model = quantise(fp32, _quantisation_inputs(train, config))

    begin("parity")
    network = OnnxNetwork(model, threads=config.threads)
    clean = network(inputs_of(heldout, config, config.side_px))
    copies = [network(corrupted(heldout, config, copy)) for copy in range(CORRUPTED_COPIES)]
    logits = np.concatenate([clean.logit, *(copy.logit for copy in copies)])

    begin("calibrate")
    fitted_on = (
        f"held-out subjects, each radiograph once clean and {CORRUPTED_COPIES} times corrupted"
    )
    weights = np.tile(weights_of(judging, config), 1 + CORRUPTED_COPIES)
    calibration = fit_calibration(logits, truth, fitted_on, weights)
    calibration = calibration.model_copy(update={"n": len(heldout)})
    sources = np.tile([sample.source for sample in judging], 1 + CORRUPTED_COPIES)
    points = fit_operating_points(logits, truth, calibration, len(heldout), weights, sources)

    parity = check_parity(
        run, fp32, model, precision, heldout, calibration, points["balanced"], external
    )

    begin("input check")
    check = _fit_input_check(network, train, heldout, config)

    manifest = Manifest(
        format=FORMAT,
        name=config.name,
        created=_finished_at(run),
        model_sha256=hashlib.sha256(model).hexdigest(),
        precision=precision,
        finding=config.finding,
        preprocessing=Preprocessing(
            side_px=config.side_px,
            shrink_to_px=Preprocessing.enough_px(config.side_px),
            mean=config.mean,
            std=config.std,
        ),
        evidence=Evidence(shape=clean.evidence.shape[1:], scale=_evidence_scale(clean, judging)),
        calibration=calibration,
        operating_points=points,
        default_operating_point="balanced",
        uncertainty=_uncertainty(clean, copies, calibration),
        population=config.population,
        polarity=fit_polarity([to_pixels(image) for image in train]),
        input_check=check,
        reference_answers=_reference_answers(network, config),
        training=_training_facts(run) | {"parity": parity},
        metrics=[],
    )
    begin("evaluate")
    write_bundle(out, manifest, model)
    predictor = Predictor.load(out)
    judged = {("training data", "held-out subjects"): judging}
    judged |= {(name, "all"): samples for name, samples in external.items()}
    scored = {
        named: score_samples(predictor, samples, threads=config.threads)
        for named, samples in judged.items()
    }
    measured = [report_of(predictor, scored[named], *named) for named in judged]
    metrics = [*map(metrics_entry, measured), *quoted]
    evidence = _validated(manifest.evidence, next(iter(scored.values())), boxes or {})
    manifest = manifest.model_copy(update={"metrics": metrics, "evidence": evidence})
    write_bundle(out, manifest, model)
    progress("export: done", len(steps), len(steps))
    return manifest


def corrupted(levels: Levels, config: TrainConfig, copy: int) -> NDArray[np.float32]:
    """Inputs of pictures (N, H, W) under the training's augmentation, each in its own frame;
    ``copy`` numbers the draws."""
    own_frame = dict.fromkeys(("paste_p", "paste_lungs_only_p", "swap_p"), 0.0)
    changes = config.augmentation.model_copy(update=own_frame)
    augment = Augmenter(bare_pictures(levels), changes)
    made = []
    for number, start in enumerate(range(0, len(levels), 64)):
        indices = torch.arange(start, min(start + 64, len(levels)))
        # Epochs beyond those of the run: draws that no training image got.
        key = (config.seed, config.epochs + copy, number)
        draws = Draws(key, len(indices), indices.device)
        made.append(to_grey_levels(augment(indices, draws, config.side_px).pixels[:, 0].numpy()))
    return inputs_of(np.concatenate(made), config, config.side_px)


def check_parity(
    run: Run,
    fp32: bytes,
    model: bytes,
    precision: Precision,
    heldout: NDArray[np.uint8],
    calibration: Calibration,
    point: OperatingPoint,
    external: Mapping[str, list[Sample]],
) -> dict[str, float]:
    """Hold the graphs against the network on corrupted held-out and on external radiographs.

    Returns what was measured, for the manifest.

    Raises:
        ParityError: a tolerance is exceeded.
    """
    config = run.config
    whole = []
    for samples in external.values():
        wrong = unreadable(samples, config)
        whole.append([sample for sample in samples if sample.path not in wrong])
    inputs = np.concatenate(
        [
            corrupted(heldout, config, 0),
            *(inputs_of(decode(s, config), config, config.side_px) for s in whole),
        ]
    )
    with torch.inference_mode():
        expected = np.concatenate(
            [
                run.network.cpu().eval()(torch.from_numpy(inputs[i : i + 64])).logit.numpy()
                for i in range(0, len(inputs), 64)
            ]
        )
    exact = OnnxNetwork(fp32, threads=config.threads)(inputs).logit
    measured = {"n": len(inputs), "fp32_max": float(np.abs(exact - expected).max())}
    if measured["fp32_max"] > FP32_TOLERANCE:
        raise ParityError(f"fp32 differs from PyTorch by {measured['fp32_max']:.2g} in logit")
    if precision == "int8":
        rounded = OnnxNetwork(model, threads=config.threads)(inputs).logit
        difference = np.abs(rounded - exact)
        labels = [
            sigmoid(calibrated_logit(logit, calibration)) >= point.threshold
            for logit in (rounded, exact)
        ]
        measured["int8_p99"] = float(np.percentile(difference, 99))
        measured["int8_same_labels"] = float(np.mean(labels[0] == labels[1]))
        if measured["int8_p99"] > INT8_TOLERANCE:
            raise ParityError(
                f"int8 differs from fp32 by {measured['int8_p99']:.2g} in logit (p99): "
                "`chestxray export RUN --precision fp32` exports it as it is"
            )
        if measured["int8_same_labels"] < INT8_SAME_LABELS:
            raise ParityError(
                f"int8 keeps only {measured['int8_same_labels']:.1%} of the labels: "
                "`chestxray export RUN --precision fp32` exports it as it is"
            )
    return measured


def _fit_input_check(
    network: OnnxNetwork, train: Levels, heldout: Levels, config: TrainConfig
) -> InputCheck:
    """Fitted to training radiographs, clean and corrupted; thresholds to held-out ones."""

    def features(levels: Levels) -> NDArray[np.float32]:
        clean = network(inputs_of(levels, config, config.side_px)).features
        return np.concatenate([clean, network(corrupted(levels, config, 0)).features])

    order = np.random.default_rng(config.seed).permutation(len(train))[:N_CHECKED]
    seen, unseen = features(train[order]), features(heldout)
    other = features(not_whole(train[order], config.seed))
    n_cells = LAYOUT_CELLS**2
    of_seen, of_unseen = (f.reshape(len(f), -1, n_cells).mean(2) for f in (seen, unseen))
    check = fit_input_check(of_seen, of_unseen, NEAR_ENOUGH)
    layout = fit_layout(seen, other, unseen, WHOLE_ENOUGH)
    accepted = (
        f"accepts {NEAR_ENOUGH:.1%} for being near and {WHOLE_ENOUGH:.1%} for being whole, of "
        f"n = {len(unseen)} held-out radiographs"
    )
    return check.model_copy(update={"layout": layout, "rule": accepted})


def _quantisation_inputs(train: NDArray[np.uint8], config: TrainConfig) -> NDArray[np.float32]:
    """Training images, half of them corrupted, that show int8 the ranges it must cover."""
    order = np.random.default_rng(config.seed).permutation(len(train))[:N_QUANTISATION_INPUTS]
    half = len(order) // 2
    return np.concatenate(
        [
            inputs_of(train[order[half:]], config, config.side_px),
            corrupted(train[order[:half]], config, 0),
        ]
    )


def _evidence_scale(clean: NetworkAnswers, heldout: list[Sample]) -> float:
    """The strongest cell of a typical positive: the 75th percentile over held-out ones."""
    strongest = clean.evidence.max(axis=(1, 2))[targets_of(heldout) > 0.5]
    return max(float(np.percentile(strongest, 75)), 1e-6)


def _validated(
    evidence: Evidence, scored: Sequence[Scored], boxes: Mapping[str, Sequence[Box]]
) -> Evidence:
    """With what boxes say of the evidence; validated, if it beats one fixed point for everybody."""
    judged = evidence_in_boxes(scored, boxes)
    if not judged["n"]:
        return evidence
    figures = {
        name: judged[name]["value"] for name in ("pointing", "best_fixed_point", "auprc", "chance")
    }
    validation = EvidenceValidation(dataset="held-out subjects", n=judged["n"], **figures)
    better = validation.pointing > validation.best_fixed_point
    return evidence.model_copy(update={"validated": better, "validation": validation})


def _uncertainty(
    clean: NetworkAnswers, copies: list[NetworkAnswers], calibration: Calibration
) -> Uncertainty:
    calibrated = calibrated_logit(clean.logit, calibration)
    moves = [np.abs(calibrated_logit(c.logit, calibration) - calibrated) for c in copies]
    near = np.abs(calibrated) < np.log(9)  # probabilities of 0.1 to 0.9, where moving matters
    moved = np.concatenate([move[near] for move in moves]) if near.any() else np.concatenate(moves)
    return Uncertainty(
        margin=float(np.median(moved)),
        rule="the median of what corruption moves held-out logits by, probabilities 0.1 to 0.9",
    )


def _reference_answers(network: OnnxNetwork, config: TrainConfig) -> list[ReferenceAnswer]:
    images = [synthetic_radiograph(s, config.side_px) for s in range(N_REFERENCE_ANSWERS)]
    inputs = [
        imaging.to_input(i, side_px=config.side_px, mean=config.mean, std=config.std)
        for i in images
    ]
    logits = network(np.stack(inputs)).logit
    return [ReferenceAnswer(seed=s, logit=float(logit)) for s, logit in enumerate(logits)]


def _training_facts(run: Run) -> dict[str, Any]:
    return {
        "config": run.config.model_dump(mode="json"),
        "data_sha256": data_sha256([*run.split.train, *run.split.heldout]),
        "initialised_from": run.initialised_from,
        "teachers": list(run.teachers),
        "n_train": len(run.split.train),
        "n_heldout": len(run.split.heldout),
        "n_subjects_train": len({s.subject for s in run.split.train}),
        "n_subjects_heldout": len({s.subject for s in run.split.heldout}),
        "versions": {name: version(name) for name in ("torch", "onnxruntime")}
        | {"python": platform.python_version()},
        "commit": _commit(),
        "wall_s": round(sum(row["wall_s"] for row in run.history)),
    }


def _finished_at(run: Run) -> str:
    """When training ended; exporting a run again gives the same bundle."""
    seconds = (run.folder / WEIGHTS_FILE).stat().st_mtime
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _commit() -> str | None:
    """The commit of this code where it runs from a checkout (``-dirty`` where files were changed
    since), else None."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(  # noqa: S603 - the user's own git
            describe,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def _read_report(file: Path) -> dict[str, Any]:
    try:
        return metrics_entry(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise ConfigError(f"{file} is no report that can be read") from exc


def metrics_entry(report: dict[str, Any]) -> dict[str, Any]:
    """What of a ``report.json`` belongs into the manifest's ``metrics``."""
    kept = ("dataset", "split", "n", "n_subjects", "n_refused", "n_unreadable")
    return {key: report[key] for key in kept} | {"operating_points": points_of(report)}
