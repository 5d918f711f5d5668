"""What the routes of one process share.

Does not: read settings, or outlive its application.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from chestxray.errors import NotReadyError
from chestxray.imaging import Limits
from chestxray.inference import Predictor
from chestxray.service.admission import Admission, Place
from chestxray.service.metrics import Metrics
from chestxray.service.multipart import BodyLimits
from chestxray.service.schemas import InputCheckProblem, PredictionAnswer, Problem
from chestxray.service.settings import Settings


@dataclass
class Service:
    """``predictor`` is ``None`` until the bundle has been loaded."""

    settings: Settings
    admission: Admission
    metrics: Metrics
    predictor: Predictor | None = None
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

    def ready_predictor(self) -> Predictor:
        """Raises NotReadyError while starting or draining."""
        if self.draining:
            raise NotReadyError("the service is shutting down")
        if self.predictor is None:
            raise NotReadyError("the service is starting")
        return self.predictor

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
            label=prediction.label,
            operating_point=prediction.operating_point,
            uncertain=prediction.uncertain,
            probability=prediction.probability,
            input_check_score=prediction.input_check.score,
        )

    def report_problem(self, problem: Problem) -> None:
        """Count a problem that was given, by itself or in a batch."""
        score = problem.input_check.score if isinstance(problem, InputCheckProblem) else None
        self.metrics.refused(problem.code, score)
