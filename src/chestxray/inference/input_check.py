"""Is this a whole frontal chest radiograph at all? Two looks at the features of its layout.

*How far from the training's?* The features are averaged over the picture, which leaves what it is
made of, standardised and modelled as a Gaussian with a few principal directions and one
variance for all the rest (probabilistic principal component analysis: Tipping and Bishop 1999,
J. R. Statist. Soc. B 61:611). The distance is Mahalanobis' under that model, divided by the number
of features, so that a radiograph like the training's lies near 1. A covariance in full
would need more radiographs than there are and a megabyte in the manifest.

*Is everything where it belongs?* A linear classifier of all features tells whole frontal chests
from such that were turned, cut or folded (``learning/layout.py``): a lateral chest is made of what
a frontal one is made of, and a hand of what a shoulder is.

Does not: refuse anything. It gives a score; who asks decides what a low score costs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chestxray.inference.bundle import InputCheck
from chestxray.inference.probability import sigmoid

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
        self._layout = check.layout
        self._weights = np.asarray([] if check.layout is None else check.layout.weights)

    def distance(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Features (N, F) → distance (N,), about 1 for what the network was trained on."""
        channels = np.asarray(features, np.float64).reshape(len(features), self._mean.size, -1)
        z = (channels.mean(2) - self._mean) / self._std
        projection = z @ self._components.T
        residual = np.maximum((z**2).sum(1) - (projection**2).sum(1), 0)
        squared = (projection**2 / self._variances).sum(1) + residual / self._residual_variance
        distance: NDArray[np.float64] = np.sqrt(squared / self._mean.size)
        return distance

    def score(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Features (N, F) → score (N,) in [0, 1], higher is more like a chest radiograph.

        The lesser of two scores, each of which equals the check's threshold where its look says so.
        Features that are not finite score 0.
        """
        finite = np.isfinite(features).all(1)
        features = np.where(finite[:, None], features, 0)
        ratio = self.distance(features) / self._distance_at_threshold
        score = 1 / (1 + self._odds_at_threshold * ratio**2)
        if self._layout is not None:
            margin = np.asarray(features, np.float64) @ self._weights + self._layout.bias
            score = np.minimum(score, sigmoid(margin - np.log(self._odds_at_threshold)))
        return np.where(finite, score, 0.0)


def fit_input_check(
    train_features: NDArray[np.floating],
    heldout_features: NDArray[np.floating],
    acceptance: float = 0.99,
) -> InputCheck:
    """Fit the check to features (N, C) of radiographs, averaged over the picture; of no layout.

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
    mean, std = rounded(mean), rounded(std)
    z = (train - mean) / std
    eigenvalues, eigenvectors = np.linalg.eigh(z.T @ z / n)
    k = min(COMPONENTS, n - 1, n_features - 1)
    variances = eigenvalues[::-1][:k]
    residual_variance = float(eigenvalues[::-1][k:].mean())
    facts = {
        "mean": mean.tolist(),
        "std": std.tolist(),
        "components": rounded(eigenvectors[:, ::-1][:, :k].T).tolist(),
        "variances": rounded(np.maximum(variances, 1e-6)).tolist(),
        "residual_variance": float(rounded(np.asarray(max(residual_variance, 1e-6)))),
        "threshold": THRESHOLD,
        "rule": f"accepts {acceptance:.0%} of n = {len(heldout_features)} held-out radiographs",
    }
    unscaled = FeatureModel(InputCheck.model_validate(facts | {"distance_at_threshold": 1.0}))
    distances = unscaled.distance(heldout_features)
    at_threshold = float(np.quantile(distances, acceptance, method="higher"))
    return InputCheck.model_validate(facts | {"distance_at_threshold": at_threshold})


def rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``values`` to six significant digits each."""
    numbers = [float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in values.flat]
    return np.asarray(numbers).reshape(values.shape)
