"""Whether atoms are two crystals, turned against each other."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from skimage.filters import threshold_otsu

from napari_shiftvae.core.indexing import FEWEST_ATOMS, Indexed, index_atoms

PARTS = 3  # to either side, of an image that is no single crystal
PART_ATOMS = 16  # fewest in a part, or beside the lattice, to look for another crystal in
STRAY_FRACTION = 0.25  # of the atoms around that are on no site, for them to be another crystal's
PART_FRACTION = 0.8  # of them on its lattice, for it to be one
SMALLEST_TURN_RAD = np.deg2rad(1.5)
SMALLEST_STRETCH = 0.07  # well above the misfit of crystals that grow on one another
SAME_LENGTH, SAME_CELL = 0.06, 0.15  # by how much vectors of one lattice may differ
SMOOTH = 13  # atoms over which deformations are averaged
AROUND = 25  # atoms that must be of one grain for that one to be more than a wall
LEAST_GRAIN = 0.03  # of the atoms, inside of a grain
SHARP = 0.6  # of the jump, where it is no bend

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def other_crystals(
    positions: Floats, contrast: Floats | None, indexed: Indexed | None
) -> str | None:
    """Say which crystals there are, where there is more than one.

    Parameters
    ----------
    positions : (N, 2) array
        (y, x) [px].
    contrast : (N,) array or None
        Of each atom, above zero.
    indexed : Indexed or None
        The lattice that was found for all of them.

    Returns
    -------
    str or None
        None where there is one, or none.
    """
    rotation = stretch = None
    if indexed is not None:
        rotation, stretch = _jumps(positions, indexed.vectors, indexed.index, indexed.basis)
        stray, beside = indexed.basis < 0, np.zeros(len(positions), dtype=bool)
        if stray.sum() >= STRAY_FRACTION * PART_ATOMS:
            near = np.asarray(KDTree(positions).query(positions, k=SMOOTH)[1])
            beside = stray[near].mean(axis=1) > STRAY_FRACTION
        own = _crystals(positions, contrast, [beside])
        turns = [_relative_rotation(indexed.vectors, each) for each in own]
        one = all(turn is not None and turn < SMALLEST_TURN_RAD for turn in turns)
        if rotation is None and stretch is None and one:
            return None
    extent = np.maximum(np.ptp(positions, axis=0), 1.0)
    tile = np.minimum((positions - positions.min(axis=0)) * PARTS / extent, PARTS - 1)
    number = tile.astype(np.int64) @ (PARTS, 1)
    found = _crystals(positions, contrast, [number == each for each in range(PARTS**2)])
    pairs = list(combinations(found, 2))
    turns = [_relative_rotation(one, other) for one, other in pairs]
    turn = max((each for each in turns if each is not None), default=0.0)
    if turn < SMALLEST_TURN_RAD and rotation is not None:
        turn = rotation
    if turn > SMALLEST_TURN_RAD:
        return f"two grains, rotated by {np.rad2deg(turn):.0f} degrees against each other"
    if None in turns:
        spacings = sorted(np.linalg.norm(each, axis=1).min() for each in pairs[turns.index(None)])
        return f"two lattices, with spacings of {spacings[0]:.1f} and {spacings[1]:.1f} px"
    if stretch is not None:
        return f"two lattices, their spacings different by {100 * np.expm1(stretch):.0f} %"
    return None


def _crystals(
    positions: Floats, contrast: Floats | None, parts: list[NDArray[np.bool_]]
) -> list[Floats]:
    """Lattice vectors (2, 2) of those parts of the atoms that are crystals."""
    found = []
    for part in parts:
        if part.sum() < PART_ATOMS:
            continue
        alone = index_atoms(positions[part], None if contrast is None else contrast[part])
        # A cell as large as the part has room for any stray atoms.
        if alone is None or alone.basis.max() >= part.sum() / FEWEST_ATOMS:
            continue
        if (alone.basis >= 0).mean() >= PART_FRACTION:
            found.append(alone.vectors)
    return found


def _relative_rotation(one: Floats, other: Floats) -> float | None:
    """Smallest angle by which one lattice is turned against another.

    Parameters
    ----------
    one, other : (2, 2) array
        Lattice vectors (y, x), one a row [px].

    Returns
    -------
    float or None
        Between 0 and pi [rad]; None where no rotation carries one onto the other.
    """
    few = np.array([(i, j) for i in range(-2, 3) for j in range(-2, 3)]) @ one
    length = np.linalg.norm(other[0])
    alike = few[np.abs(np.linalg.norm(few, axis=1) - length) < SAME_LENGTH * length]
    angles = []
    for vector in alike:
        angle = np.arctan2(*other[0]) - np.arctan2(*vector)  # from x towards y
        cosine, sine = np.cos(angle), np.sin(angle)
        cells = other @ np.linalg.inv(one @ np.array([[cosine, -sine], [sine, cosine]]))
        whole = np.rint(cells)
        if np.abs(cells - whole).max() < SAME_CELL and abs(abs(np.linalg.det(whole)) - 1) < 0.1:
            angles.append(abs((angle + np.pi) % (2 * np.pi) - np.pi))
    return float(min(angles)) if angles else None


def _jumps(
    positions: Floats, vectors: Floats, index: Ints, basis: Ints
) -> tuple[float | None, float | None]:
    """Rotation and stretch of two crystals that were indexed as one lattice.

    Rotation and stretch of the lattice around each atom are fitted to its neighbours of the same
    sublattice. Two crystals are two plateaus of one of them with a step in between. Where a
    crystal bends there is no step; at a domain wall there is, but behind it no other plateau.

    Parameters
    ----------
    positions : (N, 2) array
        (y, x) [px].
    vectors : (2, 2) array
        Lattice vectors, one a row [px].
    index, basis : (N, 2) and (N,) int arrays
        Cell and sublattice of each atom; a basis of -1 for those on no lattice.

    Returns
    -------
    rotation, stretch : float or None
        Angle [rad] and logarithm of the ratio of spacings; None where there is no such step.
    """
    on = np.flatnonzero(basis >= 0)
    positions, index, basis = positions[on], index[on], basis[on]
    rotation, stretch = _deformations(positions, vectors, index, basis)
    known = np.isfinite(rotation)
    if known.sum() < 2 * AROUND:
        return None, None
    positions = positions[known]
    near = np.asarray(KDTree(positions).query(positions, k=AROUND)[1])
    return (
        _step(positions, near, rotation[known], SMALLEST_TURN_RAD),
        _step(positions, near, stretch[known], SMALLEST_STRETCH),
    )


def _step(positions: Floats, near: Ints, quantity: Floats, least: float) -> float | None:
    """Height of the step between two plateaus of a quantity (N,), if it is `least` or more."""
    smooth = np.median(quantity[near[:, :SMOOTH]], axis=1)  # keeps steps, unlike a mean
    if np.ptp(smooth) < least:
        return None
    high = smooth > threshold_otsu(smooth)
    inside = high[near].all(axis=1), (~high[near]).all(axis=1)
    if min(each.sum() for each in inside) < max(3, LEAST_GRAIN * len(positions)):
        return None
    jump = float(np.median(smooth[inside[0]]) - np.median(smooth[inside[1]]))
    spread = sum(np.median(np.abs(smooth[each] - np.median(smooth[each]))) for each in inside)
    if jump < max(least, 4 * spread):
        return None
    # What is left of the jump beside a smooth bend.
    y, x = ((positions - positions.mean(axis=0)) / positions.std()).T
    design = np.stack([high, np.ones_like(y), y, x, y * y, y * x, x * x], axis=1)
    sharp = np.linalg.lstsq(design, smooth, rcond=None)[0][0]
    return jump if sharp > SHARP * jump else None


def _deformations(
    positions: Floats, vectors: Floats, index: Ints, basis: Ints
) -> tuple[Floats, Floats]:
    """Rotation [rad] and logarithm of the stretch around each atom, (N,); NaN where unknown."""
    reach = 1.6 * float(np.linalg.norm(vectors, axis=1).max())
    one, other = KDTree(positions).query_pairs(reach, output_type="ndarray").T
    step = index[other] - index[one]
    near = (basis[one] == basis[other]) & (np.abs(step) <= 1).all(axis=1) & step.any(axis=1)
    one, other, ideal = one[near], other[near], step[near] @ vectors
    found = positions[other] - positions[one]
    # The turned and stretched ideal neighbours nearest to the found ones, by least squares.
    parts = (
        found[:, 0] * ideal[:, 1] - found[:, 1] * ideal[:, 0],
        (found * ideal).sum(axis=1),
        (ideal**2).sum(axis=1),
        np.ones(len(one)),
    )
    both, count = np.concatenate([one, other]), len(positions)
    sine, cosine, square, pairs = (
        np.bincount(both, np.tile(each, 2), minlength=count) for each in parts
    )
    enough = pairs >= 2
    with np.errstate(divide="ignore", invalid="ignore"):
        stretch = np.log(np.hypot(sine, cosine) / square)
    return np.where(enough, np.arctan2(sine, cosine), np.nan), np.where(enough, stretch, np.nan)
