"""Normal distributions over an even background, by expectation maximisation.

A few strange rows, which no normal distribution holds, would otherwise be taken for a wide class of
their own; the background takes them up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, logsumexp
from sklearn.cluster import KMeans

STARTS, MOST_STEPS = 3, 200
TOLERANCE = 1e-4  # of the mean log likelihood, at which a fit ends
SMOOTHING = 1e-4  # added to each variance, so that none vanishes
BACKGROUND_AT_FIRST = 0.05  # share of the rows

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """A fitted mixture.

    Attributes
    ----------
    weight : (K,) array
        Share of each normal distribution; the rest to 1 is the background's.
    mean : (K, F) array
    root : (K, F, F) array
        Lower Cholesky factors of the covariances.
    density : float
        Of the background; 0 for none.
    log_likelihood : float
        Of the rows that it was fitted to.
    """

    weight: Floats
    mean: Floats
    root: Floats
    density: float
    log_likelihood: float

    def log_parts(self, values: Floats) -> Floats:
        """Logarithm of what each distribution, and last the background, adds to the density."""
        parts = np.empty((len(values), len(self.weight) + (self.density > 0)))
        with np.errstate(divide="ignore"):
            weights = np.log(self.weight)
            if self.density:
                rest = np.log(max(0.0, 1 - float(self.weight.sum())))
                parts[:, -1] = rest + np.log(self.density)
        for k, (mean, root) in enumerate(zip(self.mean, self.root, strict=True)):
            away = np.linalg.solve(root, (values - mean).T)
            size = np.log(np.diagonal(root)).sum() + 0.5 * len(root) * np.log(2 * np.pi)
            parts[:, k] = weights[k] - size - 0.5 * (away**2).sum(axis=0)
        return parts

    def shares(self, values: Floats) -> Floats:
        """Probability of each distribution, and last of the background, for each row."""
        parts = self.log_parts(values)
        return np.asarray(np.exp(parts - logsumexp(parts, axis=1, keepdims=True)))

    def label(self, values: Floats) -> NDArray[np.int64]:
        """Most likely normal distribution of each row, strange ones too."""
        return np.asarray(self.log_parts(values)[:, : len(self.weight)].argmax(axis=1))

    def bic(self, values: Floats) -> float:
        """Bayesian information criterion of the rows it was fitted to."""
        count, columns = self.mean.shape
        free = count * (columns + columns * (columns + 1) // 2) + count - 1 + (self.density > 0)
        return float(free * np.log(len(values)) - 2 * self.log_likelihood)

    def icl(self, values: Floats) -> float:
        """Integrated completed likelihood: the same and twice the entropy of the assignment."""
        return self.bic(values) + 2 * float(entr(self.shares(values)).sum())


def fit_mixture(values: Floats, count: int, *, seed: int, background: bool = True) -> Mixture:
    """Fit normal distributions, each with a covariance of its own.

    The best of three starts from k-means; the even background over the box of the rows is that of
    J. D. Banfield, A. E. Raftery, *Biometrics* 49, 803 (1993), doi:10.2307/2532201.

    Parameters
    ----------
    values : (N, F) array
        Of about the same spread along all columns.
    count : int
        Number K of normal distributions.
    seed : int
    background : bool
        Whether some rows may belong to none.

    Returns
    -------
    Mixture
    """
    box = float(np.prod(np.maximum(np.ptp(values, axis=0), 1e-9)))
    density = 1 / box if background else 0.0
    fits = [_fit(values, count, density, seed + start) for start in range(STARTS)]
    return max(fits, key=lambda fit: fit.log_likelihood)


def _fit(values: Floats, count: int, density: float, seed: int) -> Mixture:
    first = KMeans(count, n_init=1, random_state=seed).fit_predict(values)
    share = np.eye(count)[first]
    if density:
        strange = np.full(len(values), BACKGROUND_AT_FIRST)
        share = np.column_stack([share * (1 - BACKGROUND_AT_FIRST), strange])
    found, likelihood = _maximised(values, share, density), -np.inf
    for _ in range(MOST_STEPS):
        parts = found.log_parts(values)
        total = logsumexp(parts, axis=1)
        before, likelihood = likelihood, float(total.sum())
        if likelihood - before < TOLERANCE * len(values):
            break
        found = _maximised(values, np.exp(parts - total[:, None]), density)
    return replace(found, log_likelihood=likelihood)


def _maximised(values: Floats, share: Floats, density: float) -> Mixture:
    """Mixture of which the rows have these shares."""
    share = share[:, : share.shape[1] - (density > 0)]
    held = share.sum(axis=0) + 1e-12
    mean = share.T @ values / held[:, None]
    covariance = np.empty((len(held), values.shape[1], values.shape[1]))
    for k in range(len(held)):
        away = values - mean[k]
        covariance[k] = (share[:, k, None] * away).T @ away / held[k]
    covariance += SMOOTHING * np.eye(values.shape[1])
    return Mixture(
        weight=held / len(values),
        mean=mean,
        root=np.asarray(np.linalg.cholesky(covariance), dtype=np.float64),
        density=density,
        log_likelihood=np.nan,
    )
