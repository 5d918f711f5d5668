"""Has a share of the requests assessed by shadows too, after their answer, and counts where they
differ from the default.

A shadow waits for a thread as a request does, so that no more is computed at a time than there are
threads for, and half of them are never its. What it may hold in memory is bounded. What is beyond
these bounds is skipped, and counted.

Does not: show, log or keep what a shadow says of a radiograph.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from functools import partial

from chestxray.assessment import Assessment, Assessor, assess
from chestxray.errors import OverloadedError
from chestxray.service.http.admission import Admission
from chestxray.service.metrics import Metrics


class Shadows:
    """Follows what is answered; used from the event loop.

    ``share`` of the requests, in [0, 1], is assessed again.
    """

    def __init__(self, admission: Admission, metrics: Metrics, share: float) -> None:
        self._admission, self._metrics, self._share = admission, metrics, share
        self._following: set[asyncio.Task[None]] = set()

    def follow(
        self, assessments: Sequence[Assessment], shadows: Sequence[Assessor], n_bytes: int
    ) -> None:
        """Have the files of a request assessed by ``shadows``, by and by; they have ``n_bytes``."""
        if not shadows or random.random() >= self._share:  # noqa: S311 - a sample, no secret
            return
        if len(self._following) >= max(1, self._admission.threads // 2):
            self._metrics.shadow_skipped()
            return
        try:
            self._admission.buffer(n_bytes)
        except OverloadedError:
            self._metrics.shadow_skipped()
            return
        task = asyncio.ensure_future(self._follow(assessments, shadows, n_bytes))
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    def close(self) -> None:
        """Leave what is not begun."""
        for task in self._following:
            task.cancel()

    async def _follow(
        self, assessments: Sequence[Assessment], shadows: Sequence[Assessor], n_bytes: int
    ) -> None:
        try:
            for assessment in assessments:
                await self._admission.wait_for_thread()
                await self._admission.run_in_thread(partial(self._compare, assessment, shadows))
        finally:
            self._admission.buffer(-n_bytes)

    def _compare(self, answered: Assessment, shadows: Sequence[Assessor]) -> None:
        if answered.source is None or answered.outcome == "unreadable":
            return  # and so it is for everyone
        for shadow in assess(answered.source, shadows):
            name = shadow.assessor.name
            points = shadow.assessor.predictor.manifest.operating_points
            for point in answered.assessor.predictor.manifest.operating_points:
                if point in points:
                    self._metrics.shadowed(
                        shadow=name,
                        operating_point=point,
                        label=_label(answered, point),
                        shadow_label=_label(shadow, point),
                    )
            if answered.outcome == shadow.outcome == "answered":
                (_, prediction), (_, shadows_prediction) = answered.answer, shadow.answer
                difference = shadows_prediction.probability - prediction.probability
                self._metrics.shadow_differed(shadow=name, difference=difference)


def _label(assessment: Assessment, operating_point: str) -> str:
    """The label at an operating point, or ``refused``."""
    if assessment.outcome != "answered":
        return assessment.outcome
    _, prediction = assessment.answer
    manifest = assessment.assessor.predictor.manifest
    threshold = manifest.operating_points[operating_point].threshold
    finding = manifest.finding
    return finding.positive if prediction.probability >= threshold else finding.negative
