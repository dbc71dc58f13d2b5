"""How far apart atoms are, estimated from the image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import as_float_image
from napari_shiftvae.core.spots import (
    FloatImage,
    Positions,
    find_maxima,
    noise_gain,
    noise_sd,
    prepare,
    sub_pixel,
)

SAME = 0.12  # distances that differ less, relatively, count as equal
LARGEST_PX = 1024  # of larger images the middle is enough
FEWEST = 9  # positions; among fewer, equal distances are no wonder


def estimate_separation(image: ArrayLike, *, dark: bool = False) -> float:
    """Estimate the distance between neighbouring columns, those of all visible sublattices.

    The image is looked at through differences of Gaussians of growing width. At each width the
    local maxima stand for columns; the width is good where they are many, at regular distances
    from their neighbours, and still there at a width sqrt(2) times as large. Noise fails the
    second test, blends of columns fail the third. As positions are looked at, not a Fourier
    transform, neither harmonics nor a supercell can be taken for the distance.

    Parameters
    ----------
    image : (H, W) array-like
        NaN pixels are masked.
    dark : bool
        Columns are darker than their surroundings.

    Returns
    -------
    float
        Median distance to the nearest neighbour [px].

    Raises
    ------
    InputError
        The image cannot be analysed, or no distance between columns can be made out.
    """
    pixels = as_float_image(image)
    y, x = (max(0, (length - LARGEST_PX) // 2) for length in pixels.shape)
    middle = pixels[y : y + LARGEST_PX, x : x + LARGEST_PX]
    empty = np.isnan(middle).mean() > 0.5 or np.nanmin(middle) == np.nanmax(middle)
    flat, masked, _ = prepare(pixels if empty else middle, dark)
    white = noise_sd(flat)
    levels = []
    for scale, response, step in _scale_space(flat):
        rough, height = find_maxima(response, reach=1)
        if masked is not None and len(rough):
            valid = ~masked[tuple((rough * step).T)]
            rough, height = rough[valid], height[valid]
        if len(rough) < FEWEST:
            break
        strong = float(np.percentile(height[height >= np.median(height)], 90))
        positions = sub_pixel(response, rough) * step
        levels.append((positions, height, strong, white * noise_gain(scale)))

    best_score, separation = -np.inf, np.nan
    for (positions, height, strong, noise), (later, _, strong_later, _) in zip(
        levels, levels[2:], strict=False
    ):
        if strong_later > 1.25 * strong:
            continue  # strong columns are much wider than this: it sees details between them
        tree_later = _tree(later)
        lowest = {max(4.5 * noise, fraction * strong) for fraction in (0.06, 0.12, 0.25)}
        kept_before = -1
        for threshold in sorted(lowest):
            kept = positions[height > threshold]
            if len(kept) < FEWEST or len(kept) == kept_before:
                continue
            kept_before = len(kept)
            nearest = _nearest(kept)
            distance = float(np.median(nearest))
            lasting = np.mean(tree_later.query(kept)[0] < 0.3 * distance)
            score = regularity_score(kept, penalty=1.25, lasting=float(lasting))
            if score > best_score:
                best_score, separation = score, distance
    if best_score <= 0:
        kind = "dark" if dark else "bright"
        raise InputError(
            f"No regularly spaced {kind} atoms were found; give the distance between neighbouring "
            "atoms, or look at whether they are dark or bright."
        )
    return separation


def _scale_space(image: FloatImage) -> Iterator[tuple[float, FloatImage, int]]:
    """Differences of Gaussians: narrow width [px], response, and pixels per sample.

    Widths grow by a quarter octave; after each octave the image is halved, as it is smooth.
    """
    ratio, step = 2**0.25, 1
    widths = [0.75]
    blurred = [ndimage.gaussian_filter(image, widths[0])]
    while min(blurred[0].shape) >= 24:
        while len(blurred) < 8:
            more = widths[-1] * np.sqrt(ratio**2 - 1)
            blurred.append(ndimage.gaussian_filter(blurred[-1], more))
            widths.append(widths[-1] * ratio)
        for narrow in range(4):
            yield widths[narrow] * step, blurred[narrow] - blurred[narrow + 3], step
        blurred = [level[::2, ::2] for level in blurred[4:]]
        widths = [width / 2 for width in widths[4:]]
        step *= 2


def regularity_score(positions: Positions, *, penalty: float, lasting: float = 1.0) -> float:
    """Weigh regularly spaced positions against the others: N (good - penalty * bad)."""
    if len(positions) < FEWEST:
        return -np.inf
    good = _regular(_nearest(positions)) * lasting
    return len(positions) * (good - penalty * (1 - good))


def _tree(positions: Positions) -> KDTree:
    return KDTree(positions, compact_nodes=False, balanced_tree=False)  # faster for one use


def _nearest(positions: Positions) -> NDArray[np.float64]:
    return np.asarray(_tree(positions).query(positions, k=2)[0])[:, 1]


def _regular(distances: NDArray[np.float64]) -> float:
    """Fraction of distances in their two most common groups, each `SAME` wide to either side.

    Two, because columns of different sublattices may have their nearest neighbours at different
    distances. The second group counts a little less, so that one is better than two.
    """
    logs = np.sort(np.log(np.maximum(distances, 1e-6)))
    total, fraction = len(logs), 0.0
    for weight in (1.0, 0.9):
        if not len(logs):
            break
        first = np.searchsorted(logs, logs - np.log1p(SAME))
        last = np.searchsorted(logs, logs + np.log1p(SAME), side="right")
        most = int(np.argmax(last - first))
        fraction += weight * float(last[most] - first[most]) / total
        logs = np.delete(logs, slice(first[most], last[most]))
    return fraction
