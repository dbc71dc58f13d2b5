"""What the power spectrum of the patches says: where the signal ends, how strong the noise is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_shiftvae.core.patches import Patches

PATCHES_USED = 512
NARROWEST, WIDEST, WIDEST_OF_LINES = 0.05, 0.5, 0.35  # cycles/px
STEEP_TO = 0.45  # cycles/px: a spectrum that falls as far as this ends nowhere


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Summary of a power spectrum.

    Attributes
    ----------
    band_limit : float
        Knee of the spectrum, where the fall of the signal ends on the floor of the noise
        [cycles/px], within 0.05 and 0.5; 0.5 where it falls to the end.
    noise_sigma : float
        Standard deviation of the noise from the power above the band limit, in normalised
        intensity; white noise assumed.
    """

    band_limit: float
    noise_sigma: float


def power_spectrum(patches: Patches) -> Spectrum:
    """Estimate band limit and noise from up to 512 patches.

    The knee is the point of the logarithmic radial profile farthest below the straight line from
    its peak to its end (triangle method: G. W. Zack, W. E. Rogers, S. A. Latt, J. Histochem.
    Cytochem. 25, 741 (1977)).

    Parameters
    ----------
    patches : Patches

    Returns
    -------
    Spectrum
    """
    rows = np.unique(np.linspace(0, len(patches) - 1, PATCHES_USED).astype(int))
    windows = patches.gather(rows).numpy().astype(np.float64)
    windows -= windows.mean(axis=(1, 2), keepdims=True)
    size = patches.patch_size_px
    taper = np.outer(np.hanning(size + 2)[1:-1], np.hanning(size + 2)[1:-1])
    power = (np.abs(np.fft.fft2(windows * taper)) ** 2).mean(axis=0) / (taper**2).sum()
    y, x = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")
    frequency = np.hypot(y, x)
    profile, edges = _radial(frequency, power, size)
    limit = float(np.clip(edges[_knee(profile) + 1], NARROWEST, WIDEST))
    if limit + 1 / size > STEEP_TO:  # atoms of few pixels are above the noise in all rings
        limit = WIDEST
    beyond = power[frequency > min(limit + 1 / size, 0.5)]  # there are corners beyond
    return Spectrum(band_limit=limit, noise_sigma=float(np.sqrt(beyond.mean())))


def line_spectrum(values: NDArray[np.float32]) -> tuple[float, NDArray[np.float64]]:
    """Estimate the band limit of spectra, and the noise of each.

    Parameters
    ----------
    values : (N, W) float array
        Spectra.

    Returns
    -------
    band_limit : float
        Highest frequency at which the signal shows above the noise [cycles/point], within 0.05
        and 0.35.
    noise_sigma : (N,) array
        Standard deviation of the noise from the power above it; white noise assumed.
    """
    length = values.shape[1]
    centred = values - values.mean(axis=1, keepdims=True, dtype=np.float64)
    taper = np.hanning(length + 2)[1:-1]
    power = np.abs(np.fft.rfft(centred * taper)) ** 2 / (taper**2).sum()  # (N, W / 2 + 1)
    frequency = np.fft.rfftfreq(length)
    # Spectra with little noise show detail that the others hide: each counts by its noise.
    floor = power[:, frequency > 0.375].mean(axis=1)
    floor = np.maximum(floor, 1e-12 * power.max())
    relative = (power / np.maximum(floor, np.median(floor) / 100)[:, None]).mean(axis=0)
    above = relative > np.median(relative[frequency > 0.375]) * (1 + 5 / np.sqrt(len(power)))
    above[frequency > 0.375] = False
    limit = frequency[above.nonzero()[0][-1] + 1]
    limit = float(np.clip(limit, NARROWEST, WIDEST_OF_LINES))
    beyond = power[:, frequency > min(limit + 1 / length, 0.4)].mean(axis=1)
    return limit, np.sqrt(np.maximum(beyond, floor.min()))


def _knee(profile: NDArray[np.float64]) -> int:
    """Where the fall of a power spectrum ends.

    The noise of real detectors is not white, so no level tells it from the signal; the knee does.
    """
    peak = int(profile.argmax())
    fall = np.log(profile[peak:])
    chord = np.linspace(fall[0], fall[-1], len(fall))
    return peak + int((chord - fall).argmax())


def _radial(
    frequency: NDArray[np.float64], power: NDArray[np.float64], size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean power in rings of width 1/size up to 0.5 cycles/px, and the edges of the rings."""
    edges = np.arange(0.5, size / 2 + 1) / size
    ring = np.digitize(frequency.ravel(), edges)
    total = np.bincount(ring, power.ravel(), minlength=len(edges) + 1)
    count = np.bincount(ring, minlength=len(edges) + 1)
    return (total / np.maximum(count, 1))[1 : len(edges)], edges
