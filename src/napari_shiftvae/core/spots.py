"""Spots in an image: band pass, local maxima, their sub-pixel places, the noise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage, signal
from scipy.spatial import KDTree

WIDER = 2**0.75  # width of the broad Gaussian of the band pass over that of the narrow one

# Width of the narrow Gaussian for positions, over the distance between neighbours: wider than the
# one that finds columns best, as it takes out more noise.
POSITION_SCALE = 0.17
ROUNDING = 1e-5  # of the highest value; below it single precision makes maxima of its own
FEWEST_LINES = 32  # fewer do not tell offsets from a lattice

FloatImage = NDArray[np.float32]
Positions = NDArray[np.float64]


class Prepared(NamedTuple):
    """An image made ready for finding spots in it."""

    flat: FloatImage  # mean 0 and spread 1, columns bright, slope and offsets of lines removed
    masked: NDArray[np.bool_] | None  # pixels that were NaN, None if there are none
    unit: float  # intensity that `flat` is in units of, positive
    noise: float  # standard deviation of the white noise of `flat`


def prepare(pixels: FloatImage, dark: bool) -> Prepared:
    """Fill masked pixels, remove what is no spot, and normalise."""
    masked = np.isnan(pixels)
    if masked.any():
        # The nearest valid pixel continues the image without a step that would look like columns.
        at = ndimage.distance_transform_edt(masked, return_distances=False, return_indices=True)
        pixels = pixels[tuple(at)]
    flat = pixels - pixels.mean(dtype=np.float64).astype(np.float32)
    noise = noise_sd(flat)
    flat = level_lines(flat, noise)
    unit = float(flat.std(dtype=np.float64))
    return Prepared(
        flat=flat / np.float32(-unit if dark else unit),
        masked=masked if masked.any() else None,
        unit=unit,
        noise=noise / unit,
    )


def level_lines(image: FloatImage, noise: float) -> FloatImage:
    """Take out the mean slope, and offsets of whole rows and columns, as a scanning tip makes them.

    Such offsets are white along the scan, the means of the lines of a lattice are not: in their
    cosine transform it shows as few strong terms at low frequencies, which are kept (by a smooth
    limit, so that a shifted image keeps the same ones). Offsets that do not stand out from the
    pixels' noise stay, and so do sharp edges along the lines.
    """
    level = np.zeros((1, 1))
    for axis in (0, 1):
        means = image.mean(axis=1 - axis, dtype=np.float64)
        slope = means - signal.detrend(means)
        terms = fft.dct(means - slope, norm="ortho")
        fine = np.abs(terms[len(terms) // 2 :])
        offset_sd = float(np.median(fine)) / 0.6745
        least = 2 * noise / np.sqrt(image.shape[1 - axis])
        stands_out = offset_sd > max(least, ROUNDING * np.abs(terms).max())
        white = np.mean(fine > 3 * offset_sd) < 0.05
        if len(terms) >= FEWEST_LINES and stands_out and white:
            terms /= 1 + (terms / (4 * offset_sd)) ** 4
            slope += fft.idct(terms, norm="ortho")
        level = level + np.expand_dims(slope, 1 - axis)
    levelled: FloatImage = image - level.astype(np.float32)
    return levelled


def band_pass(image: FloatImage, *scales: float) -> list[FloatImage]:
    """Differences of Gaussians of widths `scale` [px] and `WIDER` times that, for each scale.

    By the cosine transform, which mirrors the image at its borders; one serves all widths.
    """
    terms = fft.dctn(image, norm="ortho")
    octant = [np.pi * np.arange(length, dtype=np.float32) / length for length in image.shape]

    def gaussian(width: float) -> tuple[FloatImage, FloatImage]:
        y, x = (np.exp(-0.5 * (width * angle) ** 2) for angle in octant)
        return y[:, None], x

    passed = []
    for scale in scales:
        (y, x), (broad_y, broad_x) = gaussian(scale), gaussian(WIDER * scale)
        passed.append(fft.idctn(terms * (y * x - broad_y * broad_x), norm="ortho"))
    return passed


def find_maxima(response: FloatImage, reach: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Positive local maxima within +-`reach` pixels, off the border: positions (N, 2), heights."""
    highest = ndimage.maximum_filter(response, size=2 * max(reach, 1) + 1)
    is_peak = (response == highest) & (response > ROUNDING * response.max())
    is_peak[[0, -1]] = False
    is_peak[:, [0, -1]] = False
    positions, height = np.argwhere(is_peak), response[is_peak].astype(np.float64)
    if len(np.unique(height)) < len(height):  # of equal pixels side by side, the first
        twins = KDTree(positions).query_pairs(reach + 0.5, output_type="ndarray").max(axis=1)
        positions, height = np.delete(positions, twins, axis=0), np.delete(height, twins)
    return positions, height


def climb(response: FloatImage, start: NDArray[np.int64]) -> NDArray[np.int64]:
    """Go uphill pixel by pixel from each position (N, 2) to a maximum, staying off the border."""
    steps = np.array([(y, x) for y in (0, -1, 1) for x in (0, -1, 1)])
    inside = np.array(response.shape) - 2
    at = start
    for _ in range(8):
        around = np.clip(at[:, None] + steps, 1, inside)  # (N, 9, 2)
        highest = np.argmax(response[around[..., 0], around[..., 1]], axis=1)
        at = around[np.arange(len(at)), highest]
        if not highest.any():
            break
    return at


def sub_pixel(response: FloatImage, at: NDArray[np.int64]) -> Positions:
    """Top of the parabola through each maximum and its two neighbours, along y and x."""
    y, x = at.T
    centre = response[y, x]
    positions = at.astype(np.float64)
    for axis, (before, after) in enumerate(
        ((response[y - 1, x], response[y + 1, x]), (response[y, x - 1], response[y, x + 1]))
    ):
        curvature = np.maximum(2 * centre - before - after, np.finfo(np.float32).tiny)
        positions[:, axis] += np.clip((after - before) / (2 * curvature), -0.5, 0.5)
    return positions


def noise_sd(image: FloatImage) -> float:
    """Standard deviation of white noise, from second differences that see little else.

    J. Immerkaer, Computer Vision and Image Understanding 64, 300 (1996),
    doi:10.1006/cviu.1996.0060; with a median in place of the mean, for its robustness.
    """
    second = np.array([1, -2, 1], dtype=np.float32)
    rough = ndimage.correlate1d(ndimage.correlate1d(image, second, axis=0), second, axis=1)
    return float(np.median(np.abs(rough))) / (0.6745 * 6)


def noise_gain(scale: float) -> float:
    """Standard deviation of filtered white noise of unit standard deviation, scale in px."""
    narrow, broad = scale**2, (WIDER * scale) ** 2
    variance = 1 / (4 * narrow) + 1 / (4 * broad) - 1 / (narrow + broad)
    return float(np.sqrt(variance / np.pi))
