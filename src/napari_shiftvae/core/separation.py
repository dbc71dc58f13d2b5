"""How far apart atoms are, estimated from the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

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
    prepare,
    sub_pixel,
)

SAME = 0.12  # distances that differ less, relatively, count as equal
LARGEST_PX = 1024  # of larger images the middle is enough
FEWEST = 9  # positions; among fewer, equal distances are no wonder


def estimate_separation(
    image: ArrayLike, *, dark: bool = False, region: ArrayLike | None = None
) -> float:
    """Estimate the distance between neighbouring columns, those of all visible sublattices.

    The image is looked at through differences of Gaussians of growing width. At each width the
    local maxima stand for columns; the width is good where they are many, at regular distances
    from their neighbours, with a dip in between, and still there at the next width (the stronger
    half of them at a width sqrt(2) times as large; weak columns merge with their neighbours
    before). An image in which no width passes with all maxima lasting that long is noise. Noise
    fails the second test, the rims of saturated columns the third, blends of columns the last. As
    positions are looked at, not a Fourier transform, neither harmonics nor a supercell can be
    taken for the distance.

    Parameters
    ----------
    image : (H, W) array-like
        NaN pixels are masked.
    dark : bool
        Columns are darker than their surroundings.
    region : (H, W) bool array-like, optional
        The part of the image to look at; all of it by default.

    Returns
    -------
    float
        Median distance to all neighbours that are about as far as the nearest [px].

    Raises
    ------
    InputError
        The image cannot be analysed, or no distance between columns can be made out.
    """
    pixels = as_float_image(image)
    if region is not None:
        pixels = only_in(pixels, check_region(region, pixels.shape))
    y, x = (max(0, (length - LARGEST_PX) // 2) for length in pixels.shape)
    middle = pixels[y : y + LARGEST_PX, x : x + LARGEST_PX]
    empty = np.isnan(middle).mean() > 0.5 or np.nanmin(middle) == np.nanmax(middle)
    flat, masked, _, white = prepare(pixels if empty else middle, dark)
    levels = []
    for scale, blurred, response, step, first in _scale_space(flat):
        rough, height = find_maxima(response, reach=1)
        if masked is not None and len(rough):
            valid = ~masked[tuple((rough * step + first).astype(np.int64).T)]
            rough, height = rough[valid], height[valid]
        if len(rough) < FEWEST:
            break
        level = _Level(
            positions=sub_pixel(response, rough) * step + first,
            height=height,
            strong=float(np.percentile(height[height >= np.median(height)], 90)),
            noise=white * noise_gain(scale),
            blurred=blurred,
            step=step,
            first=first,
        )
        levels.append(level)

    regular, best_score, separation = False, -np.inf, np.nan
    for level, later, last in zip(levels, levels[1:], levels[2:], strict=False):
        if last.strong > 1.25 * level.strong:
            continue  # strong columns are much wider than this: it sees details between them
        tree_later, tree_last = _tree(later.positions), _tree(last.positions)
        lowest = {max(4.5 * level.noise, part * level.strong) for part in (0.06, 0.12, 0.25)}
        kept_before = -1
        for threshold in sorted(lowest):
            high = level.height > threshold
            kept = level.positions[high]
            if len(kept) < FEWEST or len(kept) == kept_before:
                continue
            kept_before = len(kept)
            nearest, neighbour = _nearest(kept)
            distance = float(np.median(nearest))
            apart = level.dips_between(kept, kept[neighbour])
            lasting = apart & (tree_last.query(kept)[0] < 0.3 * distance)
            upper = level.height[high] >= np.median(level.height[high])
            upper_last = float(lasting[upper].mean())
            regular |= regularity_score(kept, penalty=1.25, trusted=float(lasting.mean())) > 0
            lasting = apart & (tree_later.query(kept)[0] < 0.15 * distance)
            score = regularity_score(kept, penalty=1.25, trusted=float(lasting.mean()) * upper_last)
            if score > best_score:
                best_score, separation = score, _shell(kept, distance)
    if not regular:
        kind = "dark" if dark else "bright"
        raise InputError(
            f"No regularly spaced {kind} atoms were found; give the distance between neighbouring "
            "atoms, or look at whether they are dark or bright."
        )
    return separation


def check_region(region: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Check that a region is a mask of an image of this shape, and not empty.

    Parameters
    ----------
    region : (H, W) array-like
        Not zero where the region is.
    shape : (int, int)
        Shape (H, W) of the image.

    Returns
    -------
    (H, W) bool array

    Raises
    ------
    InputError
        It has another shape, or holds no pixel.
    """
    mask = np.asarray(region)
    if mask.shape != tuple(shape):
        raise InputError(
            f"The region has shape {mask.shape} and the image {tuple(shape)}; "
            "give one true or false per pixel of the image."
        )
    mask = mask.astype(bool)
    if not mask.any():
        raise InputError("The region holds no pixel of the image; draw it on the image.")
    return mask


def box_around(region: NDArray[np.bool_], margin: int) -> tuple[slice, slice]:
    """Rows and columns that hold a region and a margin [px], as far as the image reaches."""
    y, x = (np.flatnonzero(region.any(axis=1 - axis)) for axis in (0, 1))
    return (
        slice(max(0, int(y[0]) - margin), int(y[-1]) + 1 + margin),
        slice(max(0, int(x[0]) - margin), int(x[-1]) + 1 + margin),
    )


def only_in(pixels: FloatImage, region: NDArray[np.bool_]) -> FloatImage:
    """Box around a region, NaN outside the region; its pixels are checked as an image's are."""
    box = box_around(region, 0)
    try:
        return as_float_image(np.where(region[box], pixels[box], np.float32(np.nan)))
    except InputError as error:
        raise InputError(f"In the region: {error}") from None


class _Level(NamedTuple):
    """What is seen at one width of the band pass."""

    positions: Positions  # (N, 2) of local maxima [px]
    height: NDArray[np.float64]  # (N,)
    strong: float  # height of a typical strong one
    noise: float  # standard deviation of heights by white noise
    blurred: FloatImage
    step: int  # pixels per sample of `blurred`
    first: Positions  # (2,) place of its first sample [px]

    def dips_between(self, one: Positions, other: Positions) -> NDArray[np.bool_]:
        """Whether the image is darker half way between two positions, (N, 2) each, than at them.

        Two maxima on the rim of one flat-topped column are not two columns.
        """
        ends_and_middle = (np.stack([one, other, (one + other) / 2]) - self.first) / self.step
        y, x = np.moveaxis(np.rint(ends_and_middle).astype(np.int64), -1, 0)
        first, second, middle = self.blurred[y, x]
        return np.asarray(2 * middle + 0.02 * self.strong < first + second)


def _scale_space(
    image: FloatImage,
) -> Iterator[tuple[float, FloatImage, FloatImage, int, Positions]]:
    """Narrow width [px], blurred image, difference of Gaussians, step and first sample [px].

    Widths grow by a quarter octave; after each octave the image is halved, as it is smooth.
    Halving is symmetric, so that a turned image gives the same.
    """
    ratio, step, first = 2**0.25, 1, np.zeros(2)
    widths = [0.75]
    blurred = [ndimage.gaussian_filter(image, widths[0])]
    while min(blurred[0].shape) >= 24:
        while len(blurred) < 8:
            more = widths[-1] * np.sqrt(ratio**2 - 1)
            blurred.append(ndimage.gaussian_filter(blurred[-1], more))
            widths.append(widths[-1] * ratio)
        for narrow in range(4):
            difference = blurred[narrow] - blurred[narrow + 3]
            yield widths[narrow] * step, blurred[narrow], difference, step, first
        even = np.array(blurred[0].shape) % 2 == 0
        first = first + 0.5 * step * even
        blurred = [_halved(level) for level in blurred[4:]]
        widths = [width / 2 for width in widths[4:]]
        step *= 2


def _halved(image: FloatImage) -> FloatImage:
    """Every second sample of odd lengths, means of pairs of even ones."""
    for axis, length in enumerate(image.shape):
        lines = np.moveaxis(image, axis, 0)
        lines = lines[::2] if length % 2 else np.float32(0.5) * (lines[::2] + lines[1::2])
        image = np.moveaxis(lines, 0, axis)
    return np.ascontiguousarray(image, dtype=np.float32)


def regularity_score(positions: Positions, *, penalty: float, trusted: float = 1.0) -> float:
    """Weigh regularly spaced positions against the others: N (good - penalty * bad)."""
    if len(positions) < FEWEST:
        return -np.inf
    good = _regular(_nearest(positions)[0]) * trusted
    return len(positions) * (good - penalty * (1 - good))


def _tree(positions: Positions) -> KDTree:
    return KDTree(positions, compact_nodes=False, balanced_tree=False)  # faster for one use


def _nearest(positions: Positions) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distance (N,) to the nearest neighbour, and its row."""
    distance, neighbour = _tree(positions).query(positions, k=2)
    return np.asarray(distance)[:, 1], np.asarray(neighbour)[:, 1]


def _shell(positions: Positions, nearest: float) -> float:
    """Typical distance of all neighbours about as far as the nearest ones.

    The nearest of several neighbours at disturbed distances is nearer than they are on average.
    """
    pairs = KDTree(positions).query_pairs(1.25 * nearest, output_type="ndarray")
    distances = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1)
    shell = distances[distances > 0.75 * nearest]
    return float(np.median(shell)) if len(shell) else nearest


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
