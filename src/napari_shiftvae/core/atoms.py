"""Find atomic columns in an image.

Columns are the local maxima of a difference of Gaussians, which takes out a sloped or
contaminated background and most of the noise. Its width follows from the distance between
neighbouring columns, and that distance from the image: see `estimate_separation`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import as_float_image
from napari_shiftvae.core.separation import (
    box_around,
    check_region,
    estimate_separation,
    only_in,
    regularity_score,
)
from napari_shiftvae.core.spots import (
    POSITION_SCALE,
    FloatImage,
    Positions,
    band_pass,
    climb,
    find_maxima,
    noise_gain,
    prepare,
    sub_pixel,
)

__all__ = [
    "Candidates",
    "FoundAtoms",
    "automatic_threshold",
    "candidates",
    "estimate_separation",
    "find_atoms",
    "select",
]

# Width of the narrow Gaussian over the distance between neighbours: of 0.12 to 0.16, the one that
# found most columns and fewest wrong ones on simulated lattices. Wider ones lose weak columns
# between strong ones, narrower ones split noisy columns.
SCALE = 0.13


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """All places where a column could be, found once; a threshold chooses among them.

    Attributes
    ----------
    positions_yx : (N, 2) array
        Sub-pixel positions (y, x) [px], sorted by y, then x.
    strength : (N,) array
        Height of the background-free, smoothed image at the column, as a fraction of that of a
        typical strong column (the 90th percentile); about 1 for these, 0 for none.
    amplitude : (N,) array
        The same height in the units of the image's intensity, always positive.
    noise : float
        Standard deviation of `strength` from white noise.
    separation_px : float
        Distance between neighbours that the search was made for [px].
    dark : bool
        Whether columns are darker than their surroundings.
    """

    positions_yx: Positions
    strength: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    noise: float
    separation_px: float
    dark: bool

    def __len__(self) -> int:
        return len(self.positions_yx)


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundAtoms:
    """Columns found in an image.

    Attributes
    ----------
    positions_yx : (N, 2) array
        Sub-pixel positions (y, x) [px], sorted by y, then x.
    amplitude : (N,) array
        Height of the background-free, smoothed image at the column, in the units of the image's
        intensity, always positive. A measure of contrast, not the height of a fitted peak.
    separation_px : float
        Distance between neighbours that the search was made for [px].
    threshold : float
        Lowest strength taken, as a fraction of that of a typical strong column.
    dark : bool
        Whether columns are darker than their surroundings.
    """

    positions_yx: Positions
    amplitude: NDArray[np.float64]
    separation_px: float
    threshold: float
    dark: bool

    def __len__(self) -> int:
        return len(self.positions_yx)


def find_atoms(
    image: ArrayLike,
    *,
    separation_px: float | None = None,
    threshold: float | None = None,
    dark: bool = False,
    region: ArrayLike | None = None,
) -> FoundAtoms:
    """Find atomic columns at sub-pixel precision.

    Parameters
    ----------
    image : (H, W) array-like
        NaN pixels are masked: no column is found on them or cut by them.
    separation_px : float, optional
        Distance between neighbouring columns, those of all sublattices that shall be found [px];
        estimated from the image by default.
    threshold : float, optional
        Lowest strength of a column, as a fraction of that of a typical strong column (0 to 1);
        chosen by `automatic_threshold` by default.
    dark : bool
        Find columns darker than their surroundings.
    region : (H, W) bool array-like, optional
        Find only columns whose centre lies in this part of the image, and take the distance
        between columns, a typical column and the threshold from there; all of the image by
        default.

    Returns
    -------
    FoundAtoms
        Empty, with a warning, where nothing is above the threshold. Columns cut by the border of
        the image are left out, those cut by the edge of the region are not.

    Raises
    ------
    InputError
        The image cannot be analysed, the region is empty or of another shape, or no distance
        between columns can be made out.

    Examples
    --------
    >>> y, x = np.mgrid[:90, :120]
    >>> image = np.cos(2 * np.pi * y / 15) + np.cos(2 * np.pi * (x - 7.3) / 15)
    >>> found = find_atoms(image)
    >>> found.positions_yx.min(axis=0).round(1), len(found)
    (array([15. ,  7.3]), 40)
    """
    return select(
        candidates(image, separation_px=separation_px, dark=dark, region=region), threshold
    )


def candidates(
    image: ArrayLike,
    *,
    separation_px: float | None = None,
    dark: bool = False,
    region: ArrayLike | None = None,
) -> Candidates:
    """Find all places where a column could be, for a threshold to choose among with `select`.

    Parameters
    ----------
    image, separation_px, dark, region
        As `find_atoms` takes them.

    Returns
    -------
    Candidates
    """
    pixels = as_float_image(image)
    wanted = None if region is None else check_region(region, pixels.shape)
    separation = _separation(pixels, separation_px, dark, wanted)
    corner = np.zeros(2)
    if wanted is not None:
        only_in(pixels, wanted)  # says what is wrong with its pixels
        # The margin holds the neighbours of columns at the region's edge, which is no border.
        box = box_around(wanted, int(np.ceil(2 * separation)))
        pixels, wanted = pixels[box], wanted[box]
        corner[:] = box[0].start, box[1].start
    flat, masked, unit, noise = prepare(pixels, dark)
    scale = max(SCALE * separation, 0.6)
    response, smoother = band_pass(flat, scale, max(POSITION_SCALE * separation, 0.6))
    rough, height = find_maxima(response, reach=int(np.ceil(0.3 * separation)))
    if masked is not None:
        # A column is cut by the mask when masked pixels reach into its core.
        whole = ndimage.distance_transform_edt(~masked)[tuple(rough.T)] > max(1.5, scale)
        rough, height = rough[whole], height[whole]
    tops = climb(smoother, rough)
    near = np.hypot(*(tops - rough).T) <= max(1.5, 0.1 * separation)
    near &= _to_border(rough, flat.shape) > 0.25 * separation
    positions = np.where(near[:, None], sub_pixel(smoother, tops), sub_pixel(response, rough))
    # A column is cut by the border, as by the mask, when its core reaches there.
    whole = _to_border(positions, flat.shape) > scale
    if wanted is not None:
        whole &= wanted[tuple(np.rint(positions).astype(np.int64).T)]
    positions, height = positions[whole] + corner, height[whole]
    order = np.lexsort((positions[:, 1], positions[:, 0]))
    positions, height = positions[order], height[order]
    strong = float(np.percentile(height, 90)) if len(height) else 1.0
    return Candidates(
        positions_yx=positions,
        strength=height / strong,
        amplitude=height * unit,
        noise=noise * noise_gain(scale) / strong,
        separation_px=separation,
        dark=dark,
    )


def select(found: Candidates, threshold: float | None = None) -> FoundAtoms:
    """Take the candidates that are strong enough.

    Parameters
    ----------
    found : Candidates
    threshold : float, optional
        As `find_atoms` takes it.

    Returns
    -------
    FoundAtoms
        Empty, with a warning, where no candidate is strong enough.
    """
    lowest = automatic_threshold(found) if threshold is None else float(threshold)
    if not np.isfinite(lowest):
        raise InputError(f"threshold is {lowest}; give a fraction between 0 and 1.")
    kept = found.strength >= lowest
    if not kept.any():
        why = (
            f"all {len(found)} candidates are weaker than the threshold of {lowest:.2g}"
            if len(found)
            else "the smoothed image, or the region of it, has no maximum away from the border and "
            "from masked pixels; take a larger region or another distance between atoms"
        )
        warnings.warn(f"No atom was found: {why}.", stacklevel=2)
    return FoundAtoms(
        positions_yx=found.positions_yx[kept],
        amplitude=found.amplitude[kept],
        separation_px=found.separation_px,
        threshold=lowest,
        dark=found.dark,
    )


def automatic_threshold(found: Candidates) -> float:
    """Choose the threshold that leaves most regularly spaced columns and fewest others.

    Noise and contamination lie at irregular distances from their neighbours, columns of all
    sublattices do not. Of thresholds that serve equally well it is the middle one, so that
    columns with some atoms missing are found too. Where nothing is regular it is four times the
    noise, at least 0.1.

    Parameters
    ----------
    found : Candidates

    Returns
    -------
    float
        Lowest strength, as a fraction of that of a typical strong column.
    """
    trials = np.geomspace(0.03, 0.6, 25)
    trials = trials[trials > 2.5 * found.noise]
    scores = np.array(
        [
            regularity_score(found.positions_yx[found.strength >= trial], penalty=2)
            for trial in trials
        ]
    )
    if not len(scores) or scores.max() <= 0:
        return max(4 * found.noise, 0.1)
    best = int(np.argmax(scores))
    worse = np.flatnonzero(scores < 0.97 * scores[best])
    first = worse[worse < best].max(initial=-1) + 1
    last = worse[worse > best].min(initial=len(trials)) - 1
    return float(np.sqrt(trials[first] * trials[last]))


def _to_border(
    positions: NDArray[np.float64] | NDArray[np.int64], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Distance (N,) of positions (N, 2) from the first or last row or column [px]."""
    return np.asarray(np.minimum(positions, np.array(shape) - 1 - positions).min(axis=1))


def _separation(
    pixels: FloatImage,
    separation_px: float | None,
    dark: bool,
    region: NDArray[np.bool_] | None,
) -> float:
    if separation_px is None:
        return estimate_separation(pixels, dark=dark, region=region)
    if not 2 <= separation_px <= max(pixels.shape):
        raise InputError(
            f"separation_px is {separation_px:g}; give the distance between neighbouring atoms, "
            f"from 2 px to the size of the image ({max(pixels.shape)} px)."
        )
    return float(separation_px)
