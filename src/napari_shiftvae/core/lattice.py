"""The lattice of the atoms: vectors, indices, reference positions.

Atoms are indexed by walking from neighbour to neighbour, so that a lattice may bend and stretch
slowly across the image; one ideal lattice is fitted to all of them in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.grains import SMALLEST_TURN_RAD, jumps, relative_rotation
from napari_shiftvae.core.translations import shortest_translations
from napari_shiftvae.core.vacancies import empty_sites, local_displacement
from napari_shiftvae.core.walk import cell_coordinates

FEWEST_ATOMS = 8
LOWEST_FRACTION = 0.5  # of the atoms on the lattice, for it to be one
PARTS = 3  # to either side, of an image that is no single crystal
PART_ATOMS = 16  # fewest in a part, or beside the lattice, to look for another crystal in
STRAY_FRACTION = 0.25  # of the atoms around that are on no site, for them to be another crystal's
PART_FRACTION = 0.8  # of them on its lattice, for it to be one

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lattice:
    """An ideal lattice and the place of each atom on it.

    Attributes
    ----------
    origin_yx : (2,) array
        The lattice point of basis 0 nearest the middle of the atoms (y, x) [px].
    a_yx, b_yx : (2,) array
        Shortest lattice vectors (y, x) [px]; `a_yx` is the one nearer to the x axis and points
        right, `b_yx` points down.
    basis_yx : (B, 2) array
        Places of the atoms of one cell relative to its lattice point [px]; the first is 0.
    index : (N, 2) int array
        Multiples of a and b for each atom; 0 where it is not on the lattice.
    basis : (N,) int array
        Row of `basis_yx` for each atom; -1 where it is not on the lattice.
    reference_yx : (N, 2) array
        Ideal position of each atom [px]; NaN where it is not on the lattice.
    rms_px : float
        Root mean square distance of the atoms on the lattice from their ideal positions [px].
    fraction : float
        Fraction of the atoms that are on the lattice.
    extra : (E,) int array
        Rows of the atoms that are on no site.
    vacancy_yx : (V, 2) array
        Expected position of each site inside the crystal that has no atom, moved as the atoms
        around it are (y, x) [px].
    vacancy_index, vacancy_basis : (V, 2) and (V,) int arrays
        Cell and row of `basis_yx` of each of these sites.
    """

    origin_yx: Floats
    a_yx: Floats
    b_yx: Floats
    basis_yx: Floats
    index: Ints
    basis: Ints
    reference_yx: Floats
    rms_px: float
    fraction: float
    extra: Ints
    vacancy_yx: Floats
    vacancy_index: Ints
    vacancy_basis: Ints


@dataclass(frozen=True, kw_only=True)
class NoLattice:
    """That atoms have no lattice in common, and why.

    Attributes
    ----------
    reason : str
        For the user, such as ``"two grains, rotated by 12 degrees against each other"``.
    """

    reason: str


def neighbour_distance(positions_yx: ArrayLike) -> float:
    """Median distance of the atoms to their nearest neighbours.

    Parameters
    ----------
    positions_yx : (N, 2) array-like
        Positions (y, x) [px]; rows with a NaN, and repeated ones, are left out.

    Returns
    -------
    float
        [px]; NaN for fewer than two atoms.

    Examples
    --------
    >>> neighbour_distance([(0, 0), (0, 5), (0, 10)])
    5.0
    """
    positions = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
    positions = np.unique(positions[np.isfinite(positions).all(axis=1)], axis=0)
    if len(positions) < 2:
        return float("nan")
    return float(np.median(np.asarray(KDTree(positions).query(positions, k=2)[0])[:, 1]))


def fit_lattice(
    positions_yx: ArrayLike, *, amplitude: ArrayLike | None = None
) -> Lattice | NoLattice:
    """Fit a lattice, with one or more atoms in its cell, to atoms.

    Vacancies, atoms that are none and a lattice that bends slowly are coped with.

    Parameters
    ----------
    positions_yx : (N, 2) array-like
        Positions (y, x) [px]; rows with a NaN are on no lattice.
    amplitude : (N,) array-like, optional
        Contrast of each atom, in any unit above zero. It tells apart sublattices that positions
        alone cannot, such as the B columns of an unpolar perovskite, in the middle of the A
        columns; without it the cell is the smallest that explains the positions.

    Returns
    -------
    Lattice or NoLattice
        The latter where no lattice holds at least half of the atoms, or where there are two
        grains, turned against each other by 1.5 degrees or more.

    Examples
    --------
    >>> i, j = np.mgrid[:6, :8].reshape(2, -1, 1)
    >>> lattice = fit_lattice(i * np.array([14, 2]) + j * np.array([-1, 15]))
    >>> lattice.a_yx.round(6), lattice.b_yx.round(6), lattice.fraction
    (array([-1., 15.]), array([14.,  2.]), 1.0)
    """
    everything = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
    contrast = None if amplitude is None else np.asarray(amplitude, dtype=np.float64)
    if contrast is not None and contrast.shape != (len(everything),):
        raise InputError(
            f"amplitude has the shape {contrast.shape}; give one value for each of the "
            f"{len(everything)} positions."
        )
    valid = np.isfinite(everything).all(axis=1)
    if contrast is not None:
        if not (contrast[valid] > 0).all():
            raise InputError("amplitude has values that are not above zero; leave these atoms out.")
        contrast = contrast[valid]
    positions = everything[valid]
    if len(positions) < FEWEST_ATOMS:
        return NoLattice(reason=f"no lattice: fewer than {FEWEST_ATOMS} atoms")
    indexed = _indexed(positions, contrast)
    others = _other_crystals(positions, contrast, indexed)
    if others is not None:
        return NoLattice(reason=others)
    if indexed is None:
        return NoLattice(
            reason="no lattice: no two translations carry half of the atoms onto others"
        )
    full_index = np.zeros((len(everything), 2), dtype=np.int64)
    full_basis = np.full(len(everything), -1)
    full_index[valid], full_basis[valid] = indexed.index, indexed.basis
    return _ideal(everything, full_index, full_basis)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Indexed:
    """Cell (N, 2) and place (N,) of atoms on a lattice of some vectors (2, 2) [px]."""

    vectors: Floats
    index: Ints
    basis: Ints


def _indexed(positions: Floats, contrast: Floats | None) -> _Indexed | None:
    near_px = neighbour_distance(positions)
    vectors = shortest_translations(positions, contrast, near_px)
    if vectors is None:
        return None
    local = cell_coordinates(positions, vectors, near_px)
    places = _places(local, vectors, near_px)
    index, basis = _assign(local, places, vectors, near_px)
    if (basis >= 0).sum() < max(FEWEST_ATOMS, LOWEST_FRACTION * len(positions)):
        return None
    return _Indexed(vectors=vectors, index=index, basis=basis)


def _other_crystals(
    positions: Floats, contrast: Floats | None, indexed: _Indexed | None
) -> str | None:
    """Say which crystals there are, where there is more than one."""
    rotation = stretch = None
    if indexed is not None:
        rotation, stretch = jumps(positions, indexed.vectors, indexed.index, indexed.basis)
        near = np.asarray(KDTree(positions).query(positions, k=min(13, len(positions)))[1])
        beside = (indexed.basis < 0)[near].mean(axis=1) > STRAY_FRACTION
        if rotation is None and stretch is None and not _crystals(positions, contrast, [beside]):
            return None
    extent = np.maximum(np.ptp(positions, axis=0), 1.0)
    tile = np.minimum((positions - positions.min(axis=0)) * PARTS / extent, PARTS - 1)
    number = tile.astype(np.int64) @ (PARTS, 1)
    found = _crystals(positions, contrast, [number == each for each in range(PARTS**2)])
    pairs = list(combinations(found, 2))
    turns = [relative_rotation(one, other) for one, other in pairs]
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
        alone = _indexed(positions[part], None if contrast is None else contrast[part])
        # A cell as large as the part has room for any stray atoms.
        if alone is None or alone.basis.max() >= part.sum() / FEWEST_ATOMS:
            continue
        if (alone.basis >= 0).mean() >= PART_FRACTION:
            found.append(alone.vectors)
    return found


def _places(local: Floats, vectors: Floats, near_px: float) -> Floats:
    """Places of the atoms of one cell (B, 2) [px], that of most atoms first."""
    inverse = np.linalg.inv(vectors)
    fold = (local @ inverse) % 1.0
    lengths = np.linalg.norm(vectors, axis=1)
    bins = [max(8, int(np.ceil(length / (0.08 * near_px)))) for length in lengths]
    places: list[Floats] = []
    counts: list[int] = []
    left = np.ones(len(local), dtype=bool)
    while left.any():
        density, _, _ = np.histogram2d(
            fold[left, 0], fold[left, 1], bins=bins, range=[(0.0, 1.0), (0.0, 1.0)]
        )
        density = ndimage.gaussian_filter(
            density, 0.12 * near_px * np.array(bins) / lengths, mode="wrap"
        )
        place = (np.array(np.unravel_index(np.argmax(density), density.shape)) + 0.5) / bins
        for _ in range(3):
            away = _wrapped(fold - place, vectors)
            mine = left & (np.linalg.norm(away, axis=1) < 0.35 * near_px)
            if mine.any():
                place += np.median(away[mine], axis=0) @ inverse
        count = int(mine.sum())
        if count < max([1, *(0.35 * each for each in counts[:1])]):
            break
        left &= ~mine
        others = _wrapped(np.array(places).reshape(-1, 2) - place, vectors)
        distance = np.linalg.norm(others, axis=1)
        if (distance < 0.6 * near_px).any():
            # Atoms are not nearer than neighbours are: this is the other part of a place that
            # splits up, as polar displacements of both signs make it.
            same = int(np.argmin(distance))
            counts[same] += count
            places[same] = places[same] - others[same] @ inverse * count / counts[same]
        else:
            places.append(place)
            counts.append(count)
    first = places[0] @ vectors
    whole: Floats = first + _wrapped(np.array(places) - places[0], vectors)
    return whole


def _wrapped(fold: Floats, vectors: Floats) -> Floats:
    """Shortest vectors [px] of differences (N, 2) given in cells."""
    whole = (fold - np.rint(fold)) @ vectors  # nearly the shortest: look at the neighbours, too
    around = np.array([(i, j) for i in (0, -1, 1) for j in (0, -1, 1)]) @ vectors
    nearest = np.argmin(np.linalg.norm(whole[:, None] + around, axis=2), axis=1)
    return np.asarray(whole + around[nearest])


def _assign(local: Floats, places: Floats, vectors: Floats, near_px: float) -> tuple[Ints, Ints]:
    """Cell (N, 2) and place (N,) of each atom, -1 where it has none; one atom to a place."""
    inverse = np.linalg.inv(vectors)
    away = np.stack([_wrapped((local - place) @ inverse, vectors) for place in places])  # (B, N, 2)
    miss = np.linalg.norm(away, axis=2)
    basis = np.argmin(miss, axis=0)
    row = np.arange(len(local))
    index = np.rint((local - places[basis] - away[basis, row]) @ inverse).astype(np.int64)
    miss = miss[basis, row]
    order = np.argsort(miss, kind="stable")
    _, first = np.unique(np.column_stack([index, basis])[order], axis=0, return_index=True)
    best = np.zeros(len(local), dtype=bool)
    best[order[first]] = True
    off = ~best | (miss > 0.35 * near_px)
    index[off], basis[off] = 0, -1
    return index, basis


def _ideal(positions: Floats, index: Ints, basis: Ints) -> Lattice:
    """Fit origin, vectors and places to the indexed atoms by least squares."""
    on = basis >= 0
    kinds = int(basis.max()) + 1
    design = np.column_stack([np.eye(kinds)[basis[on]], index[on]]).astype(np.float64)
    target = positions[on]
    used = np.ones(len(target), dtype=bool)
    for _ in range(2):
        solution = np.linalg.lstsq(design[used], target[used])[0]
        miss = np.linalg.norm(target - design @ solution, axis=1)
        used = miss <= 4 * np.median(miss) + 1e-9  # wrong atoms that happen to lie near a site
    vectors = solution[kinds:]
    middle = np.rint((target.mean(axis=0) - solution[0]) @ np.linalg.inv(vectors)).astype(np.int64)
    reference = np.full_like(positions, np.nan)
    reference[on] = design @ solution
    empty, empty_basis = empty_sites(index, basis)
    vacancy = np.asarray(solution[empty_basis] + empty @ vectors, dtype=np.float64)
    vacancy += local_displacement(vacancy, reference[on], positions[on] - reference[on])
    return Lattice(
        origin_yx=solution[0] + middle @ vectors,
        a_yx=vectors[0],
        b_yx=vectors[1],
        basis_yx=solution[:kinds] - solution[0],
        index=np.where(on[:, None], index - middle, 0),
        basis=basis,
        reference_yx=reference,
        rms_px=float(np.sqrt(np.mean(np.sum((target - reference[on]) ** 2, axis=1)))),
        fraction=float(on.mean()),
        extra=np.flatnonzero(~on & np.isfinite(positions).all(axis=1)),
        vacancy_yx=vacancy,
        vacancy_index=empty - middle,
        vacancy_basis=empty_basis,
    )
