"""Cell and place in the cell of each atom, along a lattice that may bend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from napari_shiftvae.core.translations import shortest_translations
from napari_shiftvae.core.walk import cell_coordinates

FEWEST_ATOMS = 8
LOWEST_FRACTION = 0.5  # of the atoms on the lattice, for it to be one

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Indexed:
    """Cell (N, 2) and place (N,) of atoms on a lattice of some vectors (2, 2) [px]."""

    vectors: Floats
    index: Ints
    basis: Ints


def index_atoms(positions: Floats, contrast: Floats | None) -> Indexed | None:
    """Find the lattice that holds most atoms, and the place of each on it.

    Parameters
    ----------
    positions : (N, 2) array
        (y, x) [px].
    contrast : (N,) array or None
        Of each atom, above zero.

    Returns
    -------
    Indexed or None
        None where no lattice holds at least half of the atoms.
    """
    near_px = neighbour_distance(positions)
    vectors = shortest_translations(positions, contrast, near_px)
    if vectors is None:
        return None
    local = cell_coordinates(positions, vectors, near_px)
    places = _places(local, vectors, near_px)
    index, basis = _assign(local, places, vectors, near_px)
    if (basis >= 0).sum() < max(FEWEST_ATOMS, LOWEST_FRACTION * len(positions)):
        return None
    return Indexed(vectors=vectors, index=index, basis=basis)


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
