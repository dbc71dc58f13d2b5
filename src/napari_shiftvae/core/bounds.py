"""How well a pattern's parameters can be known at best: the Cramer-Rao bound."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.errors import InputError

__all__ = ["cramer_rao"]


def cramer_rao(derivatives: ArrayLike, noise_sigma: float) -> NDArray[np.float64]:
    """Smallest covariance an unbiased estimate of a pattern's parameters can have.

    For pixels with independent Gaussian noise the Fisher information is
    ``F_jk = sum_pixels (df/dt_j)(df/dt_k) / noise_sigma**2``; the bound is its inverse, with every
    parameter unknown at once (S. M. Kay, *Fundamentals of Statistical Signal Processing:
    Estimation Theory*, 1993, sections 3.7 and 3.9).

    Parameters
    ----------
    derivatives : (..., K, P, Q) array_like
        Derivative of the noise-free pattern with respect to each of its K parameters at each
        pixel [intensity per unit of the parameter].
    noise_sigma : float
        Standard deviation of the noise in one pixel [intensity].

    Returns
    -------
    (..., K, K) ndarray
        Covariance matrix [product of the parameters' units].

    Raises
    ------
    InputError
        Where the noise is not positive or the pixels do not determine all parameters.

    Examples
    --------
    The mean of 100 pixels with noise 1 is known to 0.1:

    >>> float(cramer_rao(np.ones((1, 10, 10)), 1.0)[0, 0])
    0.01
    """
    if not noise_sigma > 0:
        raise InputError(f"noise_sigma is {noise_sigma}; give a positive number.")
    derivatives = np.asarray(derivatives, dtype=np.float64)
    flat = derivatives.reshape(*derivatives.shape[:-2], -1)  # (..., K, P * Q)
    information = flat @ np.swapaxes(flat, -1, -2) / noise_sigma**2  # (..., K, K)
    # Parameters have different units; scaling to a unit diagonal keeps the inverse well conditioned
    # and makes the test for undetermined parameters independent of those units.
    scale = np.sqrt(np.diagonal(information, axis1=-2, axis2=-1))
    outer = scale[..., :, None] * scale[..., None, :]
    if not np.all(scale > 0) or np.any(np.linalg.cond(information / outer) > 1e10):
        raise InputError(
            "The pixels do not determine all parameters; leave out a parameter that has no "
            "effect of its own or widen the window."
        )
    return np.asarray(np.linalg.inv(information / outer) / outer)
