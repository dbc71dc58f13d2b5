"""Windows cut anywhere, moved onto one motif."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.feature import match_template
from skimage.filters import threshold_otsu

ROUNDS = 10
REACH = 0.75  # of the distance between motifs: from the middle of a square cell to its corner


def sample_positions(
    shape: tuple[int, int],
    patch_size_px: int,
    sampling: Literal["grid", "random"],
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Centres of windows that lie wholly in the image.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the image [px].
    patch_size_px : int
    sampling : {"grid", "random"}
        On a square grid of about `count` points, or uniformly at random.
    count : int
    rng : numpy.random.Generator

    Returns
    -------
    (N, 2) array
        Centres (y, x) in pixels.
    """
    low = (patch_size_px - 1) / 2
    high = np.array(shape) - 1 - low
    if sampling == "random":
        return rng.uniform(low, np.maximum(high, low), size=(count, 2))
    extent = np.maximum(high - low, 1.0)
    step = np.sqrt(extent.prod() / count)
    y, x = (np.linspace(low, end, max(1, round((end - low) / step))) for end in high)
    return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2)


def align(
    image: NDArray[np.float32],
    positions_yx: NDArray[np.float64],
    patch_size_px: int,
    separation_px: float,
) -> Iterator[NDArray[np.float64]]:
    """Move windows onto the motif that they share, and merge those that meet.

    The mean of the windows is the template; it is correlated with the image around every window,
    the windows move to the maximum, and so on until they rest (at most ten times).

    Parameters
    ----------
    image : (H, W) float32 array
        NaN allowed.
    positions_yx : (N, 2) array
        Centres of windows (y, x) [px].
    patch_size_px : int
    separation_px : float
        Distance between neighbouring features [px]; the motif may repeat at a larger one.

    Yields
    ------
    (M, 2) array
        Centres after each round; the last are distinct and sub-pixel.
    """
    filled = np.where(np.isfinite(image), image, np.nanmedian(image))
    size = patch_size_px
    corner = np.rint(positions_yx - (size - 1) / 2).astype(int)
    corner = np.clip(corner, 0, np.array(image.shape) - size)
    template = _first_template(filled, corner, size)
    reach_px = REACH * _period(match_template(filled, template), separation_px)
    for _ in range(ROUNDS):
        score = match_template(filled, template)
        moved = _climb(score, corner, reach_px)
        rest = bool((moved == corner).all())
        corner = np.unique(moved, axis=0)
        view = np.lib.stride_tricks.sliding_window_view(filled, (size, size))
        template = view[corner[:, 0], corner[:, 1]].mean(axis=0)
        yield corner + (size - 1) / 2
        if rest:
            break
    found = corner[_distinct(score, corner, reach_px)]
    yield _sub_pixel(score, found) + (size - 1) / 2


def _first_template(
    image: NDArray[np.float32], corner: NDArray[np.int_], size: int
) -> NDArray[np.float32]:
    """Return the window that is most like the others: the one best repeated in the image."""
    view = np.lib.stride_tricks.sliding_window_view(image, (size, size))
    best, template = -np.inf, view[corner[0, 0], corner[0, 1]]
    for y, x in corner[:: max(1, len(corner) // 6)]:
        score = match_template(image, view[y, x])
        repeats = np.percentile(score, 99)
        if repeats > best:
            best, template = repeats, view[y, x]
    first: NDArray[np.float32] = template
    return first


def _period(score: NDArray[np.float32], separation_px: float) -> float:
    """Distance between places where the template fits well [px].

    Where several sublattices fill one window, it fits them all, but its own one best.
    """
    reach = max(1, round(separation_px / 2))
    peak = ndimage.maximum_filter(score, size=2 * reach + 1) == score
    peak &= score > 0
    place, value = np.argwhere(peak), score[peak]
    if len(value) > 1:
        place = place[value >= threshold_otsu(value)]
    if len(place) < 2:
        return separation_px
    nearest = np.asarray(cKDTree(place).query(place, k=2)[0])[:, 1]
    return max(separation_px, float(np.median(nearest)))


def _climb(
    score: NDArray[np.float32], corner: NDArray[np.int_], reach_px: float
) -> NDArray[np.int_]:
    """Maximum of the score within reach of each corner."""
    reach = max(1, round(reach_px))
    offset = np.arange(-reach, reach + 1)
    dy, dx = np.meshgrid(offset, offset, indexing="ij")
    inside = dy**2 + dx**2 <= reach_px**2
    dy, dx = dy[inside], dx[inside]
    y, x = corner[:, :1] + dy, corner[:, 1:] + dx
    valid = (y >= 0) & (x >= 0) & (y < score.shape[0]) & (x < score.shape[1])
    value = score[np.clip(y, 0, score.shape[0] - 1), np.clip(x, 0, score.shape[1] - 1)]
    best = np.where(valid, value, -np.inf).argmax(axis=1)
    moved: NDArray[np.int_] = corner + np.stack([dy[best], dx[best]], axis=1)
    return moved


def _distinct(
    score: NDArray[np.float32], corner: NDArray[np.int_], reach_px: float
) -> NDArray[np.bool_]:
    """Local maxima of the score, the better of any two closer than the reach.

    At the border of the image the score may still rise beyond it.
    """
    peak = ndimage.maximum_filter(score, size=3)[corner[:, 0], corner[:, 1]]
    value = score[corner[:, 0], corner[:, 1]]
    last = np.array(score.shape) - 1
    keep: NDArray[np.bool_] = (value >= peak) & ((corner > 0) & (corner < last)).all(axis=1)
    for i, j in cKDTree(corner).query_pairs(reach_px):
        keep[i if value[i] < value[j] else j] = False
    return keep


def _sub_pixel(score: NDArray[np.float32], corner: NDArray[np.int_]) -> NDArray[np.float64]:
    """Vertex of the parabolas through each maximum and its neighbours."""
    padded = np.pad(score, 1, mode="edge").astype(np.float64)
    y, x = corner.T + 1
    result = corner.astype(np.float64)
    for axis, (before, after) in enumerate(
        (
            (padded[y - 1, x], padded[y + 1, x]),
            (padded[y, x - 1], padded[y, x + 1]),
        )
    ):
        bend = before + after - 2 * padded[y, x]
        with np.errstate(divide="ignore", invalid="ignore"):
            move = 0.5 * (before - after) / bend
        result[:, axis] += np.where(bend < 0, np.clip(move, -0.5, 0.5), 0.0)
    return result
