"""Has a share of the requests assessed by shadows too, once they were, and counts where they differ
from the default.

A shadow waits for a thread as a request does, so that no more is computed at a time than there are
threads for, and has no more than half of them, or one. Of a request it holds the files, which count
as bodies in memory do; they are decoded anew. What is beyond these bounds is skipped, and counted.

Does not: show, log or keep what a shadow says of a radiograph.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from functools import partial

from chestxray.assessment import Assessment, Assessor, MemoryBudget, assess
from chestxray.errors import OverloadedError
from chestxray.service.http.admission import Admission
from chestxray.service.metrics import Metrics

logger = logging.getLogger(__name__)


class Shadows:
    """Follows what is answered; used from the event loop.

    ``share`` of the requests, in [0, 1], is assessed again.
    """

    def __init__(
        self, admission: Admission, metrics: Metrics, budget: MemoryBudget, share: float
    ) -> None:
        self._admission, self._metrics, self._share = admission, metrics, share
        self._budget = budget
        self._following: set[asyncio.Task[None]] = set()

    def follow(
        self, assessments: Sequence[Assessment], shadows: Sequence[Assessor], n_bytes: int
    ) -> None:
        """Have the files of a request assessed by ``shadows``, by and by; they have ``n_bytes``."""
        if not shadows or random.random() >= self._share:  # noqa: S311 - a sample, no secret
            return
        # What is unreadable is so for everyone, and wants no thread.
        readable = [each for each in assessments if each.outcome != "unreadable"]
        if not readable:
            return
        if len(self._following) >= max(1, self._admission.threads // 2):
            self._metrics.shadow_skipped()
            return
        try:
            self._admission.buffer(n_bytes)
        except OverloadedError:
            self._metrics.shadow_skipped()
            return
        task = asyncio.ensure_future(self._follow(readable, shadows, n_bytes))
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
        except Exception as exc:  # noqa: BLE001 - the last resort: nobody waits for it
            # Not the message, which may quote what was sent.
            logger.error("a shadow has failed: unexpected %s", type(exc).__name__)  # noqa: TRY400
            self._metrics.shadow_failed()
        finally:
            self._admission.buffer(-n_bytes)

    def _compare(self, answered: Assessment, shadows: Sequence[Assessor]) -> None:
        assert answered.source is not None  # noqa: S101 - it was readable
        for shadow in assess(answered.source, shadows, budget=self._budget):
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
                difference = _probability(shadow) - _probability(answered)
                self._metrics.shadow_differed(shadow=name, difference=difference)


def _probability(assessment: Assessment) -> float:
    assert assessment.prediction is not None  # noqa: S101 - it was answered
    return assessment.prediction.probability


def _label(assessment: Assessment, operating_point: str) -> str:
    """The label at an operating point, or ``refused``."""
    if assessment.outcome != "answered":
        return assessment.outcome
    manifest = assessment.assessor.predictor.manifest
    threshold = manifest.operating_points[operating_point].threshold
    finding = manifest.finding
    return finding.positive if _probability(assessment) >= threshold else finding.negative
