"""Translations that carry a set of atoms onto itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, Delaunay, KDTree, QhullError

SAMPLE = 1000  # atoms from which translations are looked for
REACH = 4.2  # longest translation, in units of the mean spacing of atoms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Translation:
    vector: Floats  # (2,) [px]
    length: float
    share: float  # of the atoms that it carries onto atoms, beyond what chance does
    unlike: float  # typical difference of contrast of the two, as a logarithm
    regional: bool  # whether atoms that it carries onto atoms have neighbours that it does, too


def shortest_translations(
    positions: Floats, contrast: Floats | None, near_px: float
) -> Floats | None:
    """Find the two shortest vectors that carry most atoms onto like atoms.

    Parameters
    ----------
    positions : (N, 2) array
        (y, x) [px].
    contrast : (N,) array or None
        Of each atom, above zero.
    near_px : float
        Distance of nearest neighbours [px].

    Returns
    -------
    (2, 2) array or None
        Vectors (y, x), one a row [px]: the first nearer to the x axis and pointing right, the
        second pointing down. None where there are no two, or where shorter ones hold in a part
        of the image only: two grains have a common lattice of large cells by coincidence.
    """
    try:
        hull = ConvexHull(positions)
    except QhullError:
        return None  # all on one line
    spacing = float(np.sqrt(hull.volume / len(positions)))
    # Drawn at random, as every n-th atom may belong to one sublattice. Always the same draw.
    sample = np.random.default_rng(0).permutation(len(positions))[:SAMPLE]
    tree = KDTree(positions)
    candidates = _frequent_differences(positions, sample, tree, REACH * spacing, near_px)
    neighbour = np.asarray(tree.query(positions[sample], k=2)[1])[:, 1]
    inside = Delaunay(positions[hull.vertices])
    found = []
    for vector in candidates:
        lands = inside.find_simplex(positions[sample] + vector) >= 0
        if lands.sum() < max(4, len(sample) / 4):
            continue
        length = float(np.linalg.norm(vector))
        tolerance = 0.2 * near_px + 0.04 * length
        distance, partner = (
            np.asarray(each) for each in tree.query(positions[sample[lands]] + vector)
        )
        met = distance < tolerance
        by_chance = 1 - np.exp(-np.pi * (tolerance / spacing) ** 2)
        unlike = 0.0
        if contrast is not None and met.any():
            ratio = contrast[partner[met]] / contrast[sample[lands][met]]
            unlike = float(np.median(np.abs(np.log(ratio))))
        met_beside = np.asarray(tree.query(positions[neighbour[lands]] + vector)[0]) < tolerance
        translation = _Translation(
            vector=vector,
            length=length,
            share=float((met.mean() - by_chance) / (1 - by_chance)),
            unlike=unlike,
            regional=bool((met == met_beside).mean() > 0.9),
        )
        found.append(translation)
    return _choose(found)


def _choose(found: list[_Translation]) -> Floats | None:
    most = max((each.share for each in found), default=0.0)
    if most < 0.35:
        return None
    good = [each for each in found if each.share > 0.8 * most]
    least = min(each.unlike for each in good)
    good = [each for each in good if each.unlike <= max(2 * least, least + 0.15)]
    good.sort(key=lambda each: each.length)
    first = good[0]
    for second in good[1:]:
        if abs(cross(first.vector, second.vector)) > 0.3 * first.length * second.length:
            break
    else:
        return None
    in_a_part = [each for each in found if each.regional and 0.25 < each.share < 0.8 * most]
    if any(each.length < 0.9 * second.length for each in in_a_part):
        return None
    return _reduced(first.vector, second.vector)


def _frequent_differences(
    positions: Floats, sample: Ints, tree: KDTree, reach: float, near: float
) -> Floats:
    """Most frequent vectors (V, 2) between atoms up to `reach` apart, one of each +- pair."""
    pairs = KDTree(positions[sample]).sparse_distance_matrix(tree, reach, output_type="coo_matrix")
    apart = pairs.data > 0.5 * near
    vectors = positions[pairs.col[apart]] - positions[sample[pairs.row[apart]]]
    step = 0.07 * near
    half = int(np.ceil(reach / step)) + 2
    edges = (np.arange(2 * half + 2) - half - 0.5) * step
    density, _, _ = np.histogram2d(vectors[:, 0], vectors[:, 1], bins=(edges, edges))
    density = ndimage.gaussian_filter(density, 0.12 * near / step)
    peaks = np.argwhere((density == ndimage.maximum_filter(density, 5)) & (density > 0)) - half
    y, x = peaks.T
    peaks = peaks[(y > 0) | ((y == 0) & (x > 0))]
    order = np.argsort(density[tuple((peaks + half).T)])[::-1]
    candidates: Floats = peaks[order[:60]] * step
    all_vectors = KDTree(vectors)
    for _ in range(3):
        around = all_vectors.query_ball_point(candidates, 0.2 * near)
        for candidate, rows in zip(candidates, around, strict=True):
            if rows:
                candidate[:] = vectors[rows].mean(axis=0)
    return candidates


def _reduced(first: Floats, second: Floats) -> Floats:
    """Shortest vectors of the same lattice, the one nearer to x first (Lagrange reduction)."""
    short, long = sorted((first, second), key=np.linalg.norm)
    while True:
        long = long - np.rint(long @ short / (short @ short)) * short
        if np.linalg.norm(long) >= np.linalg.norm(short) * (1 - 1e-9):
            break
        short, long = long, short
    pair = sorted((short, long), key=lambda vector: -abs(vector[1]) / float(np.linalg.norm(vector)))
    return np.stack([pair[0] * np.sign(pair[0][1] or 1), pair[1] * np.sign(pair[1][0] or 1)])


def cross(one: Floats, other: Floats) -> float:
    """Area of the parallelogram of two vectors, with its sign."""
    return float(one[0] * other[1] - one[1] * other[0])
