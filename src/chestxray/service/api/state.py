"""What the routes of one process share.

Does not: read settings, or outlive its application.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chestxray import __version__
from chestxray.assessment import MemoryBudget
from chestxray.errors import NotReadyError
from chestxray.imaging import Limits
from chestxray.service.api.schemas import PredictionAnswer
from chestxray.service.api.served import Served
from chestxray.service.api.shadows import Shadows
from chestxray.service.http.admission import Admission, Place
from chestxray.service.http.multipart import BodyLimits
from chestxray.service.metrics import Metrics
from chestxray.service.settings import Settings


@dataclass
class Service:
    """``served`` is ``None`` until the bundles have been loaded."""

    settings: Settings
    admission: Admission
    metrics: Metrics
    budget: MemoryBudget
    shadows: Shadows
    served: Served | None = None
    draining: bool = False

    @property
    def idle(self) -> bool:
        return self.admission.in_flight == 0

    @property
    def image_limits(self) -> Limits:
        return Limits(max_bytes=self.settings.max_file_bytes, max_pixels=self.settings.max_pixels)

    def body_limits(self, max_files: int) -> BodyLimits:
        return BodyLimits(
            self.settings.max_body_bytes,
            self.settings.max_file_bytes,
            max_files,
            self.settings.body_timeout_s,
        )

    def serve(self, served: Served) -> None:
        """Answer with these bundles from now on; what has begun ends with those it began with.

        May be called from any thread.
        """
        self.served = served
        self.metrics.set_bundles(
            [
                (name, role, predictor.bundle_sha256, __version__)
                for role, predictors in (
                    ("answers", served.registry.predictors),
                    ("shadow", served.shadows),
                )
                for name, predictor in predictors.items()
            ]
        )

    def ready(self) -> Served:
        """The bundles to answer with.

        Raises:
            NotReadyError: while starting or draining.
        """
        if self.draining:
            raise NotReadyError("the service is shutting down")
        if self.served is None:
            raise NotReadyError("the service is starting")
        return self.served

    @contextmanager
    def place(self, body_bytes: int) -> Iterator[Place]:
        """:meth:`Admission.place`, with the gauges of the queue kept up to date.

        Raises:
            OverloadedError: there is none.
        """
        try:
            with self.admission.place(body_bytes) as place:
                self.report_load()
                yield place
        finally:
            self.report_load()

    def report_load(self) -> None:
        """Tell the metrics how the queue is now."""
        self.metrics.set_queue(
            waiting=self.admission.waiting,
            in_flight=self.admission.in_flight,
            buffered_bytes=self.admission.buffered_bytes,
        )

    def report_prediction(self, prediction: PredictionAnswer) -> None:
        """Count an answered radiograph."""
        self.metrics.predicted(
            model=prediction.model.name,
            label=prediction.label,
            operating_point=prediction.operating_point,
            uncertain=prediction.uncertain,
            probability=prediction.probability,
            input_check_score=prediction.input_check.score,
        )
