"""From a received instance to its answer, and the process that does nothing else.

Does not: send an answer (``sender``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import product
from typing import NamedTuple

from pydicom import Dataset

from chestxray.assessment import Assessor, Choices, Registry, assess
from chestxray.errors import ChestXrayError, NodeError
from chestxray.imaging import Limits
from chestxray.imaging.dicom import acquisition_of, open_data_set, read_data_set, text
from chestxray.inference import Bundle, Predictor
from chestxray.pacs.config import NodeConfig, Route
from chestxray.pacs.overlay import make_overlay
from chestxray.pacs.processes import begin_child, log_unexpected
from chestxray.pacs.report import make_report
from chestxray.pacs.spool import Spool, Waiting

logger = logging.getLogger(__name__)

POLL_S = 0.05
"""How often an idle judge looks for work."""

PAUSE_S = 1.0
"""How long a judge rests when it could not keep what it has found."""

NOT_ROUTED = "not_routed"


class Answer(NamedTuple):
    """What answers an instance: overlays and, last, the report; and where they go."""

    data_sets: list[Dataset]
    destination: str


class Refusal(NamedTuple):
    """Why an instance gets no answer: the ``code`` of an error, or ``not_routed``."""

    reason: str


def assessors_of(route: Route, registry: Registry) -> list[Assessor]:
    """The bundles that assess what takes a route, under its choices.

    Raises:
        UnknownModelError: there is no bundle of a name.
        UnknownOperatingPointError: one of them has no such operating point.
    """
    choices = Choices(route.operating_point, route.input_check, route.population, route.acquisition)
    return registry.assessors(route.bundles or (registry.default,), choices)


def judge(
    data: bytes, calling_ae: str, registry: Registry, routes: Sequence[Route], limits: Limits
) -> Answer | Refusal:
    """Judge a DICOM file that ``calling_ae`` has sent."""
    try:
        ds = read_data_set(data, limits)
        route = _route_of(ds, calling_ae, routes)
        if route is None:
            return Refusal(NOT_ROUTED)
        return _answer(ds, route, registry, limits)
    except ChestXrayError as exc:
        return Refusal(exc.code)


def _route_of(ds: Dataset, calling_ae: str, routes: Sequence[Route]) -> Route | None:
    """The first route that fits: it may name the terms that the words of an instance are understood
    as, or the words themselves.
    """
    meant, said = acquisition_of(ds), (text(ds, "Modality"), text(ds, "BodyPartExamined"))
    named = product({said[0] or "", meant.modality or ""}, {said[1] or "", meant.body_part or ""})
    ways = [(modality, body_part, calling_ae) for modality, body_part in named]
    return next((route for route in routes if any(route.fits(*way) for way in ways)), None)


def _answer(ds: Dataset, route: Route, registry: Registry, limits: Limits) -> Answer:
    assessments = assess(open_data_set(ds, limits), assessors_of(route, registry))
    errors = [assessment.error for assessment in assessments if assessment.error is not None]
    if len(errors) == len(assessments):
        raise errors[0]
    overlays = [
        make_overlay(ds, assessment)
        for assessment in assessments
        if assessment.error is None and _is_overlaid(assessment.assessor.predictor, route)
    ]
    report = make_report(ds, assessments, unvalidated_heatmaps=route.unvalidated_heatmaps)
    return Answer([*overlays, report], route.destination)


def _is_overlaid(predictor: Predictor, route: Route) -> bool:
    return predictor.manifest.evidence.validated or route.unvalidated_heatmaps


def run_judge(name: str, config: NodeConfig, bundles: Mapping[str, Bundle], keep_s: float) -> None:
    """What a judge's process does: one instance after the other until it is told to end."""
    stopping = begin_child()
    registry = Registry.of(bundles)
    spool = Spool(config.node.folder, keep_s=keep_s)
    while not stopping.is_set():
        try:
            waiting = spool.claim(name)
            if waiting is None:
                stopping.wait(POLL_S)
            else:
                _work(waiting, name, spool, registry, config.route)
        except (OSError, NodeError) as exc:  # the disk is full, or someone is in the way
            logger.error("judge %s rests: %s", name, exc)  # noqa: TRY400
            stopping.wait(PAUSE_S)
        except Exception as exc:  # noqa: BLE001 - the last resort: as if the process had died
            log_unexpected(exc)
            spool.crashed(name)


def _work(
    waiting: Waiting, name: str, spool: Spool, registry: Registry, routes: Sequence[Route]
) -> None:
    begun = time.monotonic()
    try:
        data = waiting.file.read_bytes()
    except FileNotFoundError:
        spool.refused(waiting.number, name, "file_missing")
        return
    found = judge(data, waiting.calling_ae, registry, routes, Limits())
    if isinstance(found, Refusal):
        spool.refused(waiting.number, name, found.reason)
        verdict = f"refused: {found.reason}"
    else:
        answer = [_file_of(ds) for ds in found.data_sets]
        spool.judged(waiting.number, name, found.destination, answer)
        verdict = f"judged for {found.destination}"
    took_ms = 1000 * (time.monotonic() - begun)
    logger.info("instance %d %s in %.0f ms", waiting.number, verdict, took_ms)


def _file_of(ds: Dataset) -> list[memoryview]:
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return [buffer.getbuffer()]
