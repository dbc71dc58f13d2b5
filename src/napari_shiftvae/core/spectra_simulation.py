"""Spectra of one peak with known place and width, and the bounds on finding them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_shiftvae.core.errors import InputError

__all__ = ["PeakSpectra", "peak_spectra"]


@dataclass(frozen=True, kw_only=True)
class PeakSpectra:
    """Noisy Gaussian peaks of height one, the truth behind them, and the bounds on recovering it.

    Attributes
    ----------
    spectra : (N, W) float32 array
    axis : (W,) array
        Places of the points, in the axis' unit.
    centre, width : (N,) arrays
        Place and standard deviation of each peak, in the axis' unit.
    noise_sigma : (N,) array
        Standard deviation of the noise in each spectrum.
    covariance : (N, 2, 2) array
        Cramer-Rao bound of (centre, width) for each spectrum and its own noise, in the axis' unit
        squared.
    """

    spectra: NDArray[np.float32]
    axis: NDArray[np.float64]
    centre: NDArray[np.float64]
    width: NDArray[np.float64]
    noise_sigma: NDArray[np.float64]
    covariance: NDArray[np.float64] = field(repr=False)

    @property
    def step(self) -> float:
        """Distance of neighbouring points, in the axis' unit."""
        return float(self.axis[1] - self.axis[0])

    @property
    def bound_centre(self) -> float:
        """Smallest RMS error of the centres, in the axis' unit."""
        return float(np.sqrt(self.covariance[:, 0, 0].mean()))


def peak_spectra(
    *,
    rng: np.random.Generator,
    count: int = 5000,
    points: int = 100,
    half_range: float = 12.0,
    centre_range: tuple[float, float] = (-3.0, 3.0),
    width_range: tuple[float, float] = (0.5, 5.0),
    noise_range: tuple[float, float] = (0.001, 0.1),
) -> PeakSpectra:
    """Peaks as in the one-dimensional example of pyroVED's shift-VAE notebook.

    The noise is white, of a standard deviation drawn for each spectrum.

    Parameters
    ----------
    rng : numpy.random.Generator
    count, points : int
        Number N of spectra, and W of points in each.
    half_range : float
        The axis runs from minus this to plus this.
    centre_range, width_range, noise_range : (float, float)
        Ranges of the uniform distributions.

    Returns
    -------
    PeakSpectra

    Examples
    --------
    >>> task = peak_spectra(rng=np.random.default_rng(0))
    >>> task.spectra.shape, round(task.bound_centre / task.step, 2)
    ((5000, 100), 0.21)
    """
    if not 0 < noise_range[0] <= noise_range[1]:
        raise InputError(f"noise_range is {noise_range}; give two positive numbers in order.")
    axis = np.linspace(-half_range, half_range, points)
    centre, width = rng.uniform(*centre_range, count), rng.uniform(*width_range, count)
    noise = rng.uniform(*noise_range, count)
    u = (axis - centre[:, None]) / width[:, None]  # (N, W)
    peak = np.exp(-0.5 * u**2)
    spectra = peak + noise[:, None] * rng.standard_normal((count, points))
    slopes = np.stack([peak * u, peak * u**2], axis=1) / width[:, None, None]  # (N, 2, W)
    information = slopes @ slopes.swapaxes(1, 2) / noise[:, None, None] ** 2
    return PeakSpectra(
        spectra=spectra.astype(np.float32),
        axis=axis,
        centre=centre,
        width=width,
        noise_sigma=noise,
        covariance=np.asarray(np.linalg.inv(information), dtype=np.float64),
    )
