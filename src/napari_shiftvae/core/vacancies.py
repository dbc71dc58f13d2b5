"""Sites of a lattice that no atom sits on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

NEIGHBOURS = 8  # atoms that say by how much the lattice around a vacancy is displaced

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def empty_sites(index: Ints, basis: Ints) -> tuple[Ints, Ints]:
    """Sites without an atom that occupied sites of the same sublattice enclose.

    Sites that are joined to the outside by a row of empty ones are not among them: there the
    crystal, or what was found of it, ends.

    Parameters
    ----------
    index, basis : (N, 2) and (N,) int arrays
        Cell and sublattice of each atom; a basis of -1 for those on no lattice.

    Returns
    -------
    index, basis : (V, 2) and (V,) int arrays
        The same for the sites.
    """
    on = basis >= 0
    low = index[on].min(axis=0)
    size = np.ptp(index[on], axis=0) + 1
    kinds = int(basis.max()) + 1
    occupied = np.zeros((kinds, *size), dtype=bool)
    occupied[basis[on], *(index[on] - low).T] = True
    filled = np.stack([ndimage.binary_fill_holes(each) for each in occupied])
    kind, i, j = np.nonzero(filled & ~occupied)
    return np.stack([i, j], axis=1) + low, kind


def local_displacement(places: Floats, ideal: Floats, displacement: Floats) -> Floats:
    """Displacement expected at some sites: the mean over the nearest atoms.

    Parameters
    ----------
    places : (V, 2) array
        Of the sites on the ideal lattice (y, x) [px].
    ideal, displacement : (N, 2) arrays
        Of atoms on the lattice: their places on it, and the atoms minus these [px].

    Returns
    -------
    (V, 2) array
        [px].
    """
    k = np.arange(1, min(NEIGHBOURS, len(ideal)) + 1)
    nearest = np.asarray(KDTree(ideal).query(places, k=k)[1])
    return np.asarray(displacement[nearest].mean(axis=1))
