"""The bundles that are asked, by name: the first is the default.

Does not: watch folders, or replace itself (who holds a registry does, by another one).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from chestxray.assessment.assess import Assessor
from chestxray.assessment.policy import DEFAULT_CHOICES, Choices, Policy
from chestxray.errors import BundleError, ConfigError, UnknownModelError
from chestxray.inference import BUNDLED, Bundle, Predictor, read_bundle

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"

Named = tuple[str | None, Path]
"""A bundle's folder and the name it is given; None is its own, from its manifest."""


def named(option: str) -> Named:
    """``NAME=DIR``, or ``DIR`` alone, taken apart. A folder with ``=`` in its name is ``./a=b``.

    Raises:
        ConfigError: it is neither.
    """
    name, equals, folder = option.strip().partition("=")
    if not equals or "/" in name:
        name, folder = "", option.strip()
    elif not re.fullmatch(NAME, name):
        raise ConfigError(f"{option!r} is not NAME=DIR: a name has letters, digits, '.', '_', '-'")
    if not folder:
        raise ConfigError("the folder of a bundle is empty")
    return name or None, Path(folder)


def read_bundles(named_folders: Iterable[Named]) -> dict[str, Bundle]:
    """Read bundles, in the order given; the shipped one if there are none.

    Raises:
        BundleError: one cannot be read.
        ConfigError: two have one name.
    """
    bundles: dict[str, Bundle] = {}
    for given, folder in list(named_folders) or [(None, BUNDLED)]:
        bundle = read_bundle(folder)
        name = given or bundle.manifest.name
        if name in bundles:
            raise ConfigError(f"two bundles have the name {name}: NAME=DIR gives another")
        bundles[name] = bundle
    return bundles


def put_to_work(name: str, bundle: Bundle) -> Predictor:
    """``Predictor.of``, which in its errors says the bundle's name."""
    try:
        return Predictor.of(bundle)
    except BundleError as exc:
        raise type(exc)(f"the bundle {name}: {exc}") from exc


class Registry:
    """Bundles at work, by name."""

    def __init__(self, predictors: Mapping[str, Predictor]) -> None:
        self.predictors = dict(predictors)
        self.default = next(iter(self.predictors))

    @classmethod
    def of(cls, bundles: Mapping[str, Bundle]) -> Registry:
        """Put bundles to work; see ``Predictor.of``, also for what it raises."""
        return cls({name: put_to_work(name, bundle) for name, bundle in bundles.items()})

    def assessor(self, model: str | None = None, choices: Choices = DEFAULT_CHOICES) -> Assessor:
        """The bundle of the name ``model``, the default for None, under ``choices``.

        Raises:
            UnknownModelError: there is none of that name.
            UnknownOperatingPointError: it has no such operating point.
        """
        name = self.default if model is None else model
        if name not in self.predictors:
            known = ", ".join(self.predictors)
            raise UnknownModelError(f"there is no such model; there are: {known}")
        predictor = self.predictors[name]
        return Assessor(name, predictor, Policy.of(predictor.manifest, choices))

    def assessors(
        self, models: Iterable[str] | None = None, choices: Choices = DEFAULT_CHOICES
    ) -> list[Assessor]:
        """Those of the names ``models``, or all; as :meth:`assessor`."""
        return [self.assessor(name, choices) for name in models or self.predictors]
