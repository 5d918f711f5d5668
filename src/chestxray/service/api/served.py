"""The bundles of a process: those that answer by name, and shadows that assess and never answer.

Does not: choose when they are replaced (``server`` does), or whom a shadow assesses (``shadows``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chestxray.assessment import (
    Assessor,
    Choices,
    Policy,
    Registry,
    put_to_work,
    read_bundles,
)
from chestxray.errors import ConfigError
from chestxray.inference import Bundle, Predictor
from chestxray.service.settings import Settings


@dataclass(frozen=True, slots=True)
class Bundles:
    """Bundles as they were read, by name; the first of ``answering`` is the default."""

    answering: Mapping[str, Bundle]
    shadows: Mapping[str, Bundle]


def read_served(settings: Settings) -> Bundles:
    """Read what the settings name.

    Raises:
        BundleError: a bundle cannot be read.
        ConfigError: two have one name, or a shadow asks another question than the default.
    """
    answering = read_bundles(settings.bundle)
    shadows = read_bundles(settings.shadow) if settings.shadow else {}
    asked = next(iter(answering.values())).manifest.finding
    for name, bundle in shadows.items():
        if name in answering:
            raise ConfigError(f"a shadow and a bundle that answers have the name {name}")
        if not bundle.manifest.finding.is_that_of(asked):
            raise ConfigError(f"the shadow {name} does not ask for the finding of the default")
    return Bundles(answering, shadows)


@dataclass(frozen=True, slots=True)
class Served:
    """Bundles at work; replaced as a whole, so a request has the same ones from start to end."""

    registry: Registry
    shadows: Mapping[str, Predictor] = field(default_factory=dict)

    @classmethod
    def of(cls, bundles: Bundles, before: Served | None = None) -> Served:
        """Put bundles to work; those that have been at work ``before`` go on.

        Raises:
            BundleDamagedError: one does not run here.
            ConfigError: one has the name of another that answered another question: who asks by
                that name would get labels that he does not know.
        """
        known = {} if before is None else before._by_sha256()
        asked = {} if before is None else before.registry.predictors
        for name, bundle in bundles.answering.items():
            finding = bundle.manifest.finding
            if name in asked and not finding.is_that_of(asked[name].manifest.finding):
                raise ConfigError(f"{name} would ask for another finding: give it another name")

        def at_work(named: Mapping[str, Bundle]) -> dict[str, Predictor]:
            return {
                name: known.get(bundle.sha256) or put_to_work(name, bundle)
                for name, bundle in named.items()
            }

        return cls(Registry(at_work(bundles.answering)), at_work(bundles.shadows))

    def _by_sha256(self) -> dict[str, Predictor]:
        at_work = (*self.registry.predictors.values(), *self.shadows.values())
        return {predictor.bundle_sha256: predictor for predictor in at_work}

    def shadowing(self, assessor: Assessor) -> Sequence[Assessor]:
        """Those who assess in the shadow of the default, under its choices; nobody, of others."""
        if assessor.name != self.registry.default:
            return ()
        chosen = assessor.policy.choices
        # They are compared at every operating point, so it does not matter which was asked for.
        choices = Choices(None, chosen.input_check, chosen.population, chosen.acquisition)
        return [
            Assessor(name, predictor, Policy.of(predictor.manifest, choices))
            for name, predictor in self.shadows.items()
        ]
