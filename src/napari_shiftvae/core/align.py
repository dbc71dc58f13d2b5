"""Windows cut anywhere, moved onto one motif."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.filters import difference_of_gaussians, threshold_otsu

from napari_shiftvae.core.matching import Matcher, best_first
from napari_shiftvae.core.spots import sub_pixel

ROUNDS = 10
LEARNING = 3  # rounds until the pattern is free of the noise of the first window
CANDIDATES = 8
FEATURE = 1 / 6  # of the separation: width of a feature
CORE = 0.75  # of the separation: width of the weight, so that what is in the middle counts most
REACH = 0.75  # of the distance between motifs: from the middle of a square cell to its corner
DIFFERENT = 0.8  # of the usual score: what fits less well is no variety of the same motif
GOOD = 0.9  # of the score of the best candidate
SAME_PLACE = 0.5  # of the separation: maxima nearer than this belong to one feature
FIT = 0.5  # of the usual score: where there is less, there is no motif

Places = NDArray[np.int64]


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
    *,
    dark: bool = False,
) -> Iterator[NDArray[np.float64]]:
    """Move windows onto the motif that they share, one window onto each.

    The window that is best repeated in the image, centred on a feature, is the first pattern. It
    is correlated with the image, the windows where it fits are averaged to the next pattern, and
    so on until the places rest. Each window then goes to the place nearest to it; those that meet
    another go to the best places that none has reached.

    Parameters
    ----------
    image : (H, W) float32 array
        NaN allowed.
    positions_yx : (N, 2) array
        Centres of windows (y, x) [px].
    patch_size_px : int
    separation_px : float
        Distance between neighbouring features [px]; the motif may repeat at a larger one.
    dark : bool
        Whether features are darker than their surroundings.

    Yields
    ------
    (M, 2) array
        Centres after each round, at most N; the last are sub-pixel. All are distinct.
    """
    filled = np.where(np.isfinite(image), image, np.nanmedian(image))
    size = patch_size_px
    middle = np.float64((size - 1) / 2)
    matcher = Matcher.of(filled, size, CORE * separation_px)
    first = np.rint(positions_yx - middle).astype(int)
    first = np.clip(first, 0, np.array(matcher.shape) - 1)
    view = np.lib.stride_tricks.sliding_window_view(filled, (size, size))
    width = FEATURE * separation_px
    feature = difference_of_gaussians(filled, width, 2 * width) * (-1 if dark else 1)
    at_middle = feature[size // 2 :, size // 2 :][: matcher.shape[0], : matcher.shape[1]]
    candidates = _onto_features(first, at_middle, round(REACH * separation_px))
    scores = [matcher.score(view[y, x]) for y, x in candidates]
    score = scores[_choose(scores, at_middle[tuple(candidates.T)], separation_px)]
    for _ in range(LEARNING):
        alike = _alike(score, separation_px)
        if not len(alike):  # windows as large as the image cannot move
            yield np.unique(first, axis=0) + middle
            return
        score = matcher.score(view[tuple(alike.T)].mean(axis=0))
    period_px = _period(_alike(score, separation_px), separation_px)
    places = first[:0]
    for _ in range(ROUNDS):
        before, (places, value) = places, best_first(score, REACH * period_px)
        places = places[value > FIT * np.median(value)]
        score = matcher.score(view[tuple(places.T)].mean(axis=0))
        yield _reached(places, first) + middle
        if np.array_equal(np.unique(before, axis=0), np.unique(places, axis=0)):
            break
    yield sub_pixel(score, _reached(places, first)) + middle


def _onto_features(first: Places, at_middle: NDArray[np.float32], reach: int) -> Places:
    """Move some windows so that the strongest feature around is in their middle."""
    moved = []
    for place in first[:: max(1, len(first) // CANDIDATES)]:
        low = np.maximum(place - reach, 0)
        around = at_middle[low[0] : place[0] + reach + 1, low[1] : place[1] + reach + 1]
        moved.append(low + np.unravel_index(np.argmax(around), around.shape))
    return np.unique(moved, axis=0)


def _choose(
    scores: list[NDArray[np.float32]], strength: NDArray[np.float32], separation_px: float
) -> int:
    """Of the candidates that are well repeated in the image, the one of the strongest feature."""
    repeats = np.zeros(len(scores))
    for i, score in enumerate(scores):
        _, value = best_first(score, SAME_PLACE * separation_px)
        others = value[1 : 2 + len(value) // 3]  # the first is the candidate itself
        repeats[i] = others.mean() if len(others) else 0.0
    return int(np.where(repeats >= GOOD * repeats.max(), strength, -np.inf).argmax())


def _alike(score: NDArray[np.float32], separation_px: float) -> Places:
    """Places where the pattern fits well.

    Where several sublattices fill one window, it fits them all, but its own one best by far.
    """
    places, value = best_first(score, SAME_PLACE * separation_px)
    if len(value) < 4:
        return places
    good = value >= threshold_otsu(value[1:])  # the first may be the pattern itself
    if good.all() or np.median(value[~good]) > DIFFERENT * np.median(value[good]):
        good = value > FIT * np.median(value)
    chosen: Places = places[good]
    return chosen


def _period(places: Places, separation_px: float) -> float:
    """Distance between places where the pattern fits well [px]."""
    if len(places) < 2:
        return separation_px
    nearest = np.asarray(cKDTree(places).query(places, k=2)[0])[:, 1]
    return max(separation_px, float(np.median(nearest)))


def _reached(places: Places, first: Places) -> Places:
    """Places, the best first, that as many windows come to, each to one of its own."""
    if len(places) <= len(first):
        return places
    nearest = np.unique(cKDTree(places).query(first)[1])
    others = np.setdiff1d(np.arange(len(places)), nearest)[: len(first) - len(nearest)]
    chosen: Places = places[np.concatenate([nearest, others])]
    return chosen
