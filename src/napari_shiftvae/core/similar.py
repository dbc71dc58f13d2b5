"""Find all places that look like a few examples.

The examples, aligned to each other and averaged, are a template; its normalised cross-correlation
with the image (J. P. Lewis, *Fast Normalized Cross-Correlation*, Vision Interface, 1995) is high
where the image looks like them, whatever its brightness and contrast there.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, signal
from scipy.spatial import KDTree
from skimage.feature import match_template
from skimage.filters import threshold_otsu

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import as_float_image
from napari_shiftvae.core.separation import estimate_separation
from napari_shiftvae.core.spots import (
    POSITION_SCALE,
    FloatImage,
    Positions,
    band_pass,
    find_maxima,
    prepare,
    sub_pixel,
)

__all__ = ["Similar", "assign_groups", "automatic_score", "choose_similar", "find_similar"]

SMALLEST_PX = 5
SHELL = 1.25  # half of the template's side over the distance between neighbours: holds the nearest
LEAST_SEEN = 0.3  # part of the template that lies on valid pixels, at least
REACH = 0.35  # farthest a column is from its surroundings, over the distance between neighbours
FAINT = 0.1  # weakest column a click is moved to, over a typical one
LOWEST_SCORE = 0.1  # below it, places have nothing in common with the examples
CLICK_PX = 2.5  # how far off clicks are, at least
CLICK = 0.25  # and at most, over the distance between neighbours


@dataclass(frozen=True, kw_only=True, eq=False)
class Similar:
    """All places that could be like the examples, found once; a score chooses among them.

    Attributes
    ----------
    positions_yx : (N, 2) array
        Sub-pixel positions (y, x) [px] of the feature that was clicked, sorted by y, then x.
    score : (N,) array
        Normalised cross-correlation with the template, 0 to 1.
    at_border : (N,) bool array
        Whether the template reaches beyond the image there: the score is that of the part of it
        that lies inside, and less sure.
    template : (S, S) array
        Mean of the examples, of the image with mean 0 and spread 1; the feature is in its middle.
    separation_px : float
        Distance between neighbouring columns that size and spacing were chosen by [px].
    """

    positions_yx: Positions
    score: NDArray[np.float64]
    at_border: NDArray[np.bool_]
    template: FloatImage
    separation_px: float

    def __len__(self) -> int:
        return len(self.positions_yx)

    @property
    def template_px(self) -> int:
        """Side of the template [px]."""
        return len(self.template)


def find_similar(
    image: ArrayLike,
    examples_yx: ArrayLike,
    *,
    size_px: int | None = None,
    separation_px: float | None = None,
) -> Similar:
    """Find all places that look like the examples.

    Parameters
    ----------
    image : (H, W) array-like
        NaN pixels are masked: no place on them is found.
    examples_yx : (E, 2) or (2,) array-like
        Examples (y, x) [px], clicked to within a quarter of the separation. Where a bright or
        dark column is that near, its centre is taken; elsewhere the click itself.
    size_px : int, optional
        Side of the template, odd [px]; by default it holds the nearest neighbours of the example,
        so that sites alike but for their surroundings differ.
    separation_px : float, optional
        Distance between neighbouring columns [px]; estimated from the image by default.

    Returns
    -------
    Similar

    Raises
    ------
    InputError
        The image cannot be analysed, an example lies outside it or on masked pixels, or the
        template is larger than the image.

    Examples
    --------
    >>> y, x = np.mgrid[:90, :120]
    >>> image = np.cos(2 * np.pi * y / 15) + np.cos(2 * np.pi * (x - 7.3) / 15)
    >>> similar = find_similar(image, [(31, 36)], separation_px=15)
    >>> positions = choose_similar(similar, 0.95)
    >>> len(positions), bool(np.hypot(*(positions - [30, 37.3]).T).min() < 0.1)
    (48, True)
    """
    pixels = as_float_image(image)
    masked = np.isnan(pixels)
    clicks = _check_examples(examples_yx, pixels.shape, masked)
    separation = _separation(pixels, separation_px)
    size = _template_size(size_px, separation, pixels.shape)
    pixels = prepare(pixels, dark=False).flat
    near = max(CLICK_PX, CLICK * separation)
    half = size // 2
    columns = _columns(pixels, separation)
    centres = _moved(clicks, columns, near)
    template = _mean_example(pixels, centres, half, near)
    # With a rim of one pixel, so that a maximum at the border has neighbours.
    correlation = _correlate(pixels, ~masked, template, rim=1)
    found, score = find_maxima(correlation, reach=max(1, int(0.35 * separation)))
    valid = ~masked[tuple((found - 1).T)] & (score > LOWEST_SCORE)
    found, score = found[valid], score[valid].clip(0, 1)
    positions = (sub_pixel(correlation, found) - 1).clip(0, np.array(pixels.shape) - 1)
    if (centres != clicks).any():  # columns were clicked: the surroundings may be off from them
        positions = _moved(positions, columns, REACH * separation)
    kept = _best_apart(positions, score, 0.5 * separation)
    positions, score = positions[kept], score[kept]
    to_border = np.minimum(positions, np.array(pixels.shape) - 1 - positions).min(axis=1)
    return Similar(
        positions_yx=positions,
        score=score,
        at_border=to_border < half,
        template=template,
        separation_px=separation,
    )


def choose_similar(similar: Similar, score: float | None = None) -> Positions:
    """Take the places that are similar enough.

    Parameters
    ----------
    similar : Similar
    score : float, optional
        Lowest score taken (0 to 1); `automatic_score` by default.

    Returns
    -------
    (N, 2) array
        Positions (y, x) [px]; empty, with a warning, where no place is similar enough.
    """
    lowest = automatic_score(similar) if score is None else float(score)
    if not np.isfinite(lowest):
        raise InputError(f"score is {lowest}; give a number between 0 and 1.")
    kept = similar.score >= lowest
    if not kept.any():
        warnings.warn(
            f"No place has a score of {lowest:.2g} or more; lower the score.", stacklevel=2
        )
    return similar.positions_yx[kept]


def automatic_score(similar: Similar) -> float:
    """Score that separates the similar places from the others best.

    Half way between the mean scores of the two classes that Otsu's threshold makes (N. Otsu, IEEE
    Trans. Syst. Man Cybern. 9, 62 (1979), doi:10.1109/TSMC.1979.4310076).

    Parameters
    ----------
    similar : Similar

    Returns
    -------
    float
        Lowest score taken, 0 to 1.
    """
    if len(np.unique(similar.score)) < 2:
        return LOWEST_SCORE
    high = similar.score > threshold_otsu(similar.score)
    return float(similar.score[high].mean() + similar.score[~high].mean()) / 2


def assign_groups(
    groups: Sequence[Similar], scores: Sequence[float | None] | None = None
) -> tuple[Positions, NDArray[np.int64]]:
    """Give each place to the group of examples that it is most like.

    Places of different groups within half the separation are one place.

    Parameters
    ----------
    groups : sequence of Similar
        One for each kind of site, all of the same image.
    scores : sequence of float or None, optional
        Lowest score of each group, as `choose_similar` takes it; automatic by default.

    Returns
    -------
    positions_yx : (N, 2) array
        Positions (y, x) [px], as the group found them that has the place.
    group : (N,) int array
        Row of `groups`.
    """
    if not groups:
        raise InputError("There are no groups; give at least one.")
    lowest = [None] * len(groups) if scores is None else list(scores)
    if len(lowest) != len(groups):
        raise InputError(f"There are {len(groups)} groups and {len(lowest)} scores; give one each.")
    positions, score, group = [], [], []
    for index, (one, least) in enumerate(zip(groups, lowest, strict=True)):
        chosen = one.score >= (automatic_score(one) if least is None else least)
        positions.append(one.positions_yx[chosen])
        score.append(one.score[chosen])
        group.append(np.full(int(chosen.sum()), index, dtype=np.int64))
    places = np.concatenate(positions)
    nearest = 0.5 * min(one.separation_px for one in groups)
    kept = _best_apart(places, np.concatenate(score), nearest)
    return places[kept], np.concatenate(group)[kept]


def _check_examples(
    examples_yx: ArrayLike, shape: tuple[int, ...], masked: NDArray[np.bool_]
) -> Positions:
    clicks = np.atleast_2d(np.asarray(examples_yx, dtype=np.float64))
    if clicks.ndim != 2 or clicks.shape[1] != 2 or not len(clicks):
        raise InputError(
            f"The examples have shape {clicks.shape}; give at least one position (y, x) in px."
        )
    for y, x in clicks:
        if not (-0.5 <= y < shape[0] - 0.5 and -0.5 <= x < shape[1] - 0.5):
            raise InputError(
                f"The example at ({y:g}, {x:g}) lies outside the image of {shape[0]} x {shape[1]} "
                "px; click inside it."
            )
        if masked[round(y), round(x)]:
            raise InputError(
                f"The example at ({y:g}, {x:g}) lies on masked pixels; click where the image has "
                "values."
            )
    return clicks


def _separation(pixels: FloatImage, separation_px: float | None) -> float:
    if separation_px is None:
        try:
            return estimate_separation(pixels)
        except InputError:
            return estimate_separation(pixels, dark=True)
    if not 2 <= separation_px <= max(pixels.shape):
        raise InputError(
            f"separation_px is {separation_px:g}; give the distance between neighbouring atoms, "
            f"from 2 px to the size of the image ({max(pixels.shape)} px)."
        )
    return float(separation_px)


def _template_size(size_px: int | None, separation: float, shape: tuple[int, ...]) -> int:
    size = 2 * round(SHELL * separation) + 1 if size_px is None else int(size_px)
    if size < SMALLEST_PX or size % 2 == 0:
        raise InputError(f"size_px is {size}; give an odd number of at least {SMALLEST_PX} px.")
    if size > min(shape):
        raise InputError(
            f"The template of {size} px is larger than the image of {shape[0]} x {shape[1]} px; "
            "give a smaller size_px."
        )
    return size


def _columns(pixels: FloatImage, separation: float) -> Positions:
    """Centres (N, 2) of bright and of dark columns."""
    (response,) = band_pass(pixels, max(POSITION_SCALE * separation, 0.6))
    centres = []
    for sign in (1, -1):
        at, height = find_maxima(sign * response, reach=max(1, int(0.3 * separation)))
        if len(at):
            at = at[height > FAINT * np.percentile(height, 90)]
        centres.append(sub_pixel(sign * response, at))
    return np.concatenate(centres)


def _moved(positions: Positions, columns: Positions, near: float) -> Positions:
    """Positions, moved to the nearest column where one is near."""
    if not len(columns):
        return positions
    distance, nearest = KDTree(columns).query(positions)
    return np.where(np.asarray(distance)[:, None] <= near, columns[nearest], positions)


def _mean_example(pixels: FloatImage, start: Positions, half: int, near: float) -> FloatImage:
    """Mean (S, S) of the windows around centres (E, 2), aligned to each other."""
    template = _window(pixels, start[0], half)
    reach = int(np.ceil(near))
    for _ in range(2 if len(start) > 1 else 0):
        moves = np.zeros_like(start)
        for row, centre in enumerate(start):
            similarity = match_template(_window(pixels, centre, half + reach), template)
            best = np.unravel_index(np.argmax(similarity), similarity.shape)
            at = np.clip(np.array([best]), 1, 2 * reach - 1)
            moves[row] = sub_pixel(similarity, at)[0] - reach
        centres = start + moves - moves.mean(axis=0)  # as a whole they stay where they were
        template = np.mean([_window(pixels, centre, half) for centre in centres], axis=0)
    return np.asarray(template, dtype=np.float32)


def _correlate(
    pixels: FloatImage, valid: NDArray[np.bool_], template: FloatImage, rim: int
) -> FloatImage:
    """Normalised cross-correlation over the valid pixels under the template; 0 if they are few.

    D. Padfield, IEEE Trans. Image Process. 21, 2706 (2012), doi:10.1109/TIP.2011.2181402, for a
    template without a mask.
    """
    weight = np.pad(valid.astype(np.float32), rim)
    image = np.pad(pixels, rim) * weight
    turned = (template - template.mean())[::-1, ::-1]
    size = len(template)

    def convolved(what: FloatImage, kernel: FloatImage) -> FloatImage:
        result: FloatImage = signal.oaconvolve(what, kernel, mode="same")
        return result

    def summed(what: FloatImage) -> FloatImage:
        result: FloatImage = ndimage.uniform_filter(what, size, mode="constant") * size**2
        return result

    count = np.maximum(summed(weight), 1)
    image_sum, template_sum = summed(image), convolved(weight, turned)
    common = convolved(image, turned) - image_sum * template_sum / count
    image_power = summed(image**2) - image_sum**2 / count
    template_power = convolved(weight, turned**2) - template_sum**2 / count
    # Less than a thousandth of the template's power is rounding, not a pattern.
    tiny = 1e-3 * float((turned**2).sum())
    power = np.maximum(image_power, tiny) * np.maximum(template_power, tiny)
    seen = count > LEAST_SEEN * size**2
    return np.where(seen, common / np.sqrt(power), np.float32(0))


def _window(image: FloatImage, centre: Positions, half: int) -> FloatImage:
    """Square window of side 2 `half` + 1 around a sub-pixel centre (2,)."""
    steps = np.arange(-half, half + 1)
    at = np.meshgrid(centre[0] + steps, centre[1] + steps, indexing="ij")
    window: FloatImage = ndimage.map_coordinates(image, at, order=3, mode="nearest")
    return window


def _best_apart(
    positions: Positions, score: NDArray[np.float64], distance: float
) -> NDArray[np.int64]:
    """Rows of the best positions no two of which are nearer than `distance`, by y, then x."""
    ranked = np.argsort(-score, kind="stable")
    kept = np.ones(len(positions), dtype=bool)
    if len(positions) > 1:
        pairs = KDTree(positions[ranked]).query_pairs(distance, output_type="ndarray")
        for better, worse in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
            kept[worse] &= not kept[better]
    rows = ranked[kept]
    return np.asarray(rows[np.lexsort((positions[rows, 1], positions[rows, 0]))])
