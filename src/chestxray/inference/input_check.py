"""Is this a frontal chest radiograph at all? The distance of pooled features to the training data.

The features are standardised and modelled as a Gaussian with a few principal directions and one
variance for all the rest (probabilistic principal component analysis: Tipping and Bishop 1999,
J. R. Statist. Soc. B 61:611). The distance is Mahalanobis' under that model, divided by the number
of features, so that a radiograph like the training's lies near 1. A covariance in full
would need more radiographs than there are and a megabyte in the manifest.

Does not: refuse anything. It gives a score; who asks decides what a low score costs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chestxray.inference.bundle import InputCheck

COMPONENTS = 32
"""Principal directions kept: they hold most of the variance, and the manifest stays small."""

THRESHOLD = 0.5
"""The score at the acceptance quantile: the middle of the scale."""

SIGNIFICANT_DIGITS = 6
MIN_STD_RATIO = 0.01
"""Least standard deviation of a feature, as a share of the median one: a channel that never fired
in training must not refuse a radiograph by itself when it fires a little."""


class FeatureModel:
    """The statistics of an :class:`InputCheck`, ready to score features many times."""

    def __init__(self, check: InputCheck) -> None:
        self._mean = np.asarray(check.mean)
        self._std = np.asarray(check.std)
        self._components = np.asarray(check.components).reshape(-1, self._mean.size)
        self._variances = np.asarray(check.variances)
        self._residual_variance = check.residual_variance
        self._distance_at_threshold = check.distance_at_threshold
        self._odds_at_threshold = 1 / check.threshold - 1

    def distance(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Pooled features (N, C) → distance (N,), about 1 for what the network was trained on."""
        z = (np.asarray(features, np.float64) - self._mean) / self._std
        projection = z @ self._components.T
        residual = np.maximum((z**2).sum(1) - (projection**2).sum(1), 0)
        squared = (projection**2 / self._variances).sum(1) + residual / self._residual_variance
        distance: NDArray[np.float64] = np.sqrt(squared / self._mean.size)
        return distance

    def score(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Pooled features (N, C) → score (N,) in [0, 1], higher is more like a chest radiograph.

        The score falls with the distance and equals the check's threshold at
        ``distance_at_threshold``. Features that are not finite score 0.
        """
        finite = np.isfinite(features).all(1)
        distance = self.distance(np.where(finite[:, None], features, 0))
        ratio = distance / self._distance_at_threshold
        return np.where(finite, 1 / (1 + self._odds_at_threshold * ratio**2), 0.0)


def fit_input_check(
    train_features: NDArray[np.floating],
    heldout_features: NDArray[np.floating],
    acceptance: float = 0.99,
) -> InputCheck:
    """Fit the check to pooled features (N, C) of radiographs.

    The Gaussian is fitted to ``train_features``. The threshold is the distance that the share
    ``acceptance`` of ``heldout_features`` does not exceed: other subjects, because a network lies
    nearer to what it has seen. Stored numbers are rounded before the threshold is fitted, so what
    is served is what was fitted.
    """
    train = np.asarray(train_features, np.float64)
    n, n_features = train.shape
    mean = train.mean(0)
    std = train.std(0)
    std = np.maximum(std, max(MIN_STD_RATIO * float(np.median(std)), 1e-6))
    mean, std = _rounded(mean), _rounded(std)
    z = (train - mean) / std
    eigenvalues, eigenvectors = np.linalg.eigh(z.T @ z / n)
    k = min(COMPONENTS, n - 1, n_features - 1)
    variances = eigenvalues[::-1][:k]
    residual_variance = float(eigenvalues[::-1][k:].mean())
    facts = {
        "mean": mean.tolist(),
        "std": std.tolist(),
        "components": _rounded(eigenvectors[:, ::-1][:, :k].T).tolist(),
        "variances": _rounded(np.maximum(variances, 1e-6)).tolist(),
        "residual_variance": float(_rounded(np.asarray(max(residual_variance, 1e-6)))),
        "threshold": THRESHOLD,
        "rule": f"accepts {acceptance:.0%} of n = {len(heldout_features)} held-out radiographs",
    }
    unscaled = FeatureModel(InputCheck.model_validate(facts | {"distance_at_threshold": 1.0}))
    distances = unscaled.distance(heldout_features)
    at_threshold = float(np.quantile(distances, acceptance, method="higher"))
    return InputCheck.model_validate(facts | {"distance_at_threshold": at_threshold})


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``values`` to six significant digits each."""
    rounded = [float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in values.flat]
    return np.asarray(rounded).reshape(values.shape)
