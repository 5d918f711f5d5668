"""The policy: what a bundle is asked, and what becomes of radiographs that it does not know.

What it knows are facts of its manifest. Beyond them a radiograph is refused, or answered with a
warning, as the caller chooses for each kind of fact: a site may not want to lose a real chest to
the input check, and still want no laterals.

Does not: decode or predict (``assessment`` does), or fit a fact (``learning`` does).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

from chestxray.errors import (
    NotAChestRadiographError,
    OutsidePopulationError,
    RefusedError,
    WrongBodyPartError,
    WrongModalityError,
    WrongViewError,
)
from chestxray.imaging import Acquisition
from chestxray.imaging.terms import body_part_of, modality_of
from chestxray.inference import Manifest, Population, Prediction

Choice = Literal["refuse", "warn"]
"""What becomes of a radiograph that the bundle does not know."""

NOT_A_CHEST = "this does not look like a frontal chest radiograph"
AGES_UNKNOWN = "the model does not say of which age the patients were that it was trained on"


@dataclass(frozen=True, slots=True)
class Choices:
    """What who asks may choose.

    ``operating_point`` None is the bundle's default. ``input_check`` is for what does not look like
    a chest radiograph, ``population`` for patients of an age that the bundle does not know, and
    ``acquisition`` for a modality, body part or view that it does not know.
    """

    operating_point: str | None = None
    input_check: Choice = "refuse"
    population: Choice = "refuse"
    acquisition: Choice = "refuse"


DEFAULT_CHOICES = Choices()


@dataclass(frozen=True, slots=True)
class Policy:
    """Choices, and the facts of one bundle that they are about. Make one with :meth:`of`."""

    operating_point: str
    choices: Choices
    knows: Population

    @classmethod
    def of(cls, manifest: Manifest, choices: Choices) -> Policy:
        """The policy of ``choices`` for a bundle.

        Raises:
            UnknownOperatingPointError: the bundle has no such point.
        """
        name, _ = manifest.operating_point(choices.operating_point)
        return cls(name, choices, manifest.population)

    def admit(self, acquisition: Acquisition) -> tuple[str, ...]:
        """What a reader should know of how the picture was made, as warnings.

        Raises:
            WrongModalityError, WrongBodyPartError, WrongViewError, OutsidePopulationError: the
                file says that the bundle does not know such radiographs, and these are refused.
        """
        unknown = list(_unknown_acquisition(acquisition, self.knows))
        if unknown and self.choices.acquisition == "refuse":
            raise unknown[0]
        warnings = [str(error) for error in unknown]
        ages, age_years = self.knows.ages, acquisition.age_years
        if ages is None:
            warnings.append(AGES_UNKNOWN)
        elif age_years is None:
            warnings.append(
                f"the patient's age is not known: the model is meant only for patients aged {ages}"
            )
        elif not self.knows.knows_age(age_years):
            outside = (
                "the patient is not of an age that the model knows: "
                f"the model is meant only for patients aged {ages}"
            )
            if self.choices.population == "refuse":
                raise OutsidePopulationError(outside)
            warnings.append(outside)
        return tuple(warnings)

    def accept(self, prediction: Prediction) -> tuple[str, ...]:
        """What the input check has to say, as warnings.

        Raises:
            NotAChestRadiographError: it did not accept the picture, and such are refused.
        """
        if prediction.input_check.accepted:
            return ()
        if self.choices.input_check == "refuse":
            raise NotAChestRadiographError(NOT_A_CHEST, prediction.input_check.score)
        return (NOT_A_CHEST,)


def _unknown_acquisition(acquisition: Acquisition, knows: Population) -> list[RefusedError]:
    """A refusal for each fact that is told and not known. It names the term that a file's words
    were understood as, never the words.
    """
    of_modality, of_body_part, of_view = acquisition.attributes
    modalities, body_parts = _terms(knows.modalities, knows.body_parts)
    told = (
        (WrongModalityError, "modality", of_modality, acquisition.modality, modalities),
        (WrongBodyPartError, "body part", of_body_part, acquisition.body_part, body_parts),
        (WrongViewError, "view", of_view, acquisition.view, knows.views),
    )
    return [
        error(f"the {fact} ({attribute}) is {term}, not {' or '.join(known)}")
        for error, fact, attribute, term, known in told
        if term is not None and term not in known
    ]


@cache  # every file asks, and a bundle's words are the same
def _terms(
    modalities: tuple[str, ...], body_parts: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a bundle calls modalities and body parts, in DICOM's terms."""
    return (
        tuple(modality_of(word) or word for word in modalities),
        tuple(body_part_of(word) or word for word in body_parts),
    )
