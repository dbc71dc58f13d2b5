"""Which atoms are one lattice translation apart, told without numbering the lattice."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.lattice import neighbour_distance

__all__ = ["Neighbours", "lattice_neighbours"]

LONGEST = 1.5  # longest translation, in units of the longer lattice vector
# Atoms of another sublattice are one neighbour distance from where a like one would be, so below
# half of it no two atoms contend for a place.
TOLERANCE = 0.3  # of the distance of nearest neighbours

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """The atoms around each atom that a lattice translation leads to.

    Attributes
    ----------
    cells : (K, 2) int array
        The translations as multiples of the two lattice vectors; row ``K - 1 - k`` is the opposite
        of row k.
    ideal_yx : (K, 2) array
        The same (y, x) [px].
    partner : (N, K) int array
        Row of the atom found there; -1 where there is none.
    """

    cells: Ints
    ideal_yx: Floats
    partner: Ints

    @property
    def count(self) -> Ints:
        """Number of neighbours found for each atom, (N,)."""
        return np.asarray((self.partner >= 0).sum(axis=1), dtype=np.int64)


def lattice_neighbours(
    positions_yx: ArrayLike, vectors_yx: ArrayLike, *, tolerance_px: float | None = None
) -> Neighbours:
    """Match the differences of positions to the shortest lattice vectors.

    Each atom looks for another one at every translation; the two are neighbours where each is the
    other's nearest there. No numbering of the lattice is needed, so that a dislocation, where
    there is none, disturbs the atoms at its core only. This is how peak pairs are found by P. L.
    Galindo et al., *Ultramicroscopy* 107, 1186 (2007), doi:10.1016/j.ultramic.2007.01.019.

    Parameters
    ----------
    positions_yx : (N, 2) array-like
        Positions (y, x) [px], of any number of sublattices; rows with a NaN have no neighbours.
    vectors_yx : (2, 2) array-like
        Shortest lattice vectors (y, x), one a row [px].
    tolerance_px : float, optional
        Largest distance of a neighbour from where the translation leads [px]; 0.3 of the distance
        of nearest neighbours by default. On a square lattice of one atom a cell that allows for
        a rotation of 12 degrees or a strain of 20 %.

    Returns
    -------
    Neighbours
        Six or eight translations: all up to 1.5 times the longer vector.

    Raises
    ------
    InputError
        The vectors do not span a cell, or the tolerance is not above zero.

    Examples
    --------
    >>> positions = np.mgrid[:3, :4].reshape(2, -1).T * 10.0
    >>> lattice_neighbours(positions, [(0, 10), (10, 0)]).count
    array([3, 5, 5, 3, 5, 8, 8, 5, 3, 5, 5, 3])
    """
    positions = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
    vectors = np.asarray(vectors_yx, dtype=np.float64)
    if vectors.shape != (2, 2) or not abs(np.linalg.det(vectors)) > 1e-6 * np.sum(vectors**2):
        raise InputError(
            f"vectors_yx is {vectors.tolist()}; give two lattice vectors (y, x) that are not "
            "parallel."
        )
    cells = np.array([each for each in product((-1, 0, 1), repeat=2) if any(each)])
    length = np.linalg.norm(cells @ vectors, axis=1)
    longest = LONGEST * np.linalg.norm(vectors, axis=1).max()
    cells = cells[length <= longest]
    ideal = cells @ vectors
    valid = np.flatnonzero(np.isfinite(positions).all(axis=1))
    partner = np.full((len(positions), len(cells)), -1)
    if tolerance_px is None:
        near = neighbour_distance(positions)
        tolerance_px = TOLERANCE * float(np.nanmin([near, length.min()]))
    if not tolerance_px > 0:
        raise InputError(f"tolerance_px is {tolerance_px}; give a positive length in pixels.")
    if len(valid) > 1:
        found = positions[valid]
        expected = found[:, None] + ideal  # (n, K, 2)
        distance, nearest = KDTree(found).query(expected, distance_upper_bound=tolerance_px)
        met = np.isfinite(distance)
        nearest = np.where(met, nearest, 0)
        # The opposite translation must lead back.
        own = np.arange(len(valid))[:, None]
        back = nearest[:, ::-1][nearest, np.arange(len(cells))]
        met &= met[:, ::-1][nearest, np.arange(len(cells))] & (back == own)
        partner[valid] = np.where(met, valid[nearest], -1)
    return Neighbours(cells=cells, ideal_yx=ideal, partner=partner)
