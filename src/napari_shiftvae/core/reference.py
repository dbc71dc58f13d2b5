"""What displacement and strain are measured from: an ideal lattice, and where it was taken from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.lattice import Lattice

__all__ = ["Reference", "image_reference", "region_reference"]

FEWEST_ATOMS = 6

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """An ideal lattice.

    Attributes
    ----------
    vectors_yx : (2, 2) array
        Lattice vectors a and b (y, x), one a row [px].
    sentence : str
        What it was taken from, for the user.
    vectors_sd_yx : (2, 2) array or None
        Standard deviations of the vectors [px]; None for vectors that are known.
    places_yx, places_sd_yx : (N, 2) array or None
        Ideal position of each atom (y, x) and its standard deviation [px]; NaN for atoms that are
        not on the lattice. None where vectors alone are known, which is enough for strain.
    """

    vectors_yx: Floats
    sentence: str
    vectors_sd_yx: Floats | None = None
    places_yx: Floats | None = None
    places_sd_yx: Floats | None = None


def image_reference(positions_yx: ArrayLike, lattice: Lattice) -> Reference:
    """Take the lattice fitted to all atoms as the reference.

    Displacements from it have no shift and no uniform strain: these are in the lattice.

    Parameters
    ----------
    positions_yx : (N, 2) array-like
        Those that the lattice was fitted to, in their order, or better ones of the same atoms
        (y, x) [px], such as central atoms; their lattice is fitted anew, each sublattice with its
        own mean.
    lattice : Lattice
        From `lattice.fit_lattice`; give that the amplitudes where sublattices differ in contrast.

    Returns
    -------
    Reference

    Examples
    --------
    >>> from napari_shiftvae.core.lattice import fit_lattice
    >>> positions = np.mgrid[:5, :6].reshape(2, -1).T * 10.0
    >>> reference = image_reference(positions, fit_lattice(positions))
    >>> reference.vectors_yx.round(6) + 0.0
    array([[ 0., 10.],
           [10.,  0.]])
    """
    everywhere = np.ones(len(lattice.index), dtype=bool)
    return _fitted(positions_yx, lattice, everywhere, "the lattice fitted to {count} atoms")


def region_reference(
    positions_yx: ArrayLike, lattice: Lattice, inside: NDArray[np.bool_]
) -> Reference:
    """Take the lattice of the atoms in a region as the reference and extend it over the image.

    Parameters
    ----------
    positions_yx : (N, 2) array-like
        Positions (y, x) [px], as for `image_reference`.
    lattice : Lattice
        Of all atoms: says which cell each belongs to.
    inside : (N,) bool array
        Which atoms are in the region.

    Returns
    -------
    Reference
        Places are NaN for sublattices without an atom in the region.

    Raises
    ------
    InputError
        Fewer than six atoms of the lattice are in the region, or they form one row.

    Examples
    --------
    >>> from napari_shiftvae.core.lattice import fit_lattice
    >>> y, x = np.mgrid[:8, :8].reshape(2, -1) * 10.0
    >>> positions = np.column_stack([y, np.where(x > 35, 1.02 * x - 0.7, x)])
    >>> reference = region_reference(positions, fit_lattice(positions), x < 35)
    >>> moved = positions - reference.places_yx
    >>> float(reference.vectors_yx[0, 1].round(6)), float(moved[7, 1].round(6))
    (10.0, 0.7)
    >>> reference.sentence
    'the lattice of 32 atoms in the reference region'
    """
    region = np.asarray(inside, dtype=bool)
    if region.shape != (len(lattice.index),):
        raise InputError(
            f"inside has the shape {region.shape}; give one value for each of the "
            f"{len(lattice.index)} atoms."
        )
    return _fitted(
        positions_yx, lattice, region, "the lattice of {count} atoms in the reference region"
    )


def _fitted(
    positions_yx: ArrayLike, lattice: Lattice, inside: NDArray[np.bool_], sentence: str
) -> Reference:
    """Least squares on origin, vectors and places of the sublattices; outliers left out once."""
    positions = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
    if len(positions) != len(lattice.index):
        raise InputError(
            f"The lattice was fitted to {len(lattice.index)} atoms, not to {len(positions)}; fit "
            "it to these positions first."
        )
    on = lattice.basis >= 0
    rows = np.flatnonzero(on & inside & np.isfinite(positions).all(axis=1))
    kinds = np.unique(lattice.basis[rows])
    if len(rows) < max(FEWEST_ATOMS, 2 + len(kinds)):
        raise InputError(
            f"{len(rows)} atoms of the lattice are in the reference region; draw a larger one, "
            f"with {max(FEWEST_ATOMS, 2 + len(kinds))} or more."
        )
    known = on & np.isin(lattice.basis, kinds)
    design = np.zeros((len(positions), len(kinds) + 2))  # (N, P): one column a sublattice, a, b
    design[known, np.searchsorted(kinds, lattice.basis[known])] = 1
    design[known, -2:] = lattice.index[known]
    if np.linalg.matrix_rank(design[rows]) < design.shape[1]:
        raise InputError(
            "The atoms in the reference region form one row; draw one that is two rows wide."
        )
    for _ in range(2):
        solution: Floats = np.asarray(np.linalg.lstsq(design[rows], positions[rows], rcond=None)[0])
        miss = np.linalg.norm(positions[rows] - design[rows] @ solution, axis=1)
        kept = miss <= 4 * np.median(miss) + 1e-9  # as for the lattice of the image
        freedom = max(1, len(rows) - design.shape[1])
        scatter = np.sqrt(np.sum((positions[rows] - design[rows] @ solution) ** 2, 0) / freedom)
        used, rows = rows, rows[kept]
        if np.linalg.matrix_rank(design[rows]) < design.shape[1]:
            break
    covariance = np.linalg.inv(design[used].T @ design[used])
    leverage = np.sqrt(np.einsum("np,pq,nq->n", design, covariance, design))
    places = np.where(known[:, None], design @ solution, np.nan)
    return Reference(
        vectors_yx=solution[-2:],
        sentence=sentence.format(count=len(used)),
        vectors_sd_yx=np.sqrt(np.diag(covariance)[-2:, None]) * scatter,
        places_yx=places,
        places_sd_yx=np.where(known[:, None], leverage[:, None] * scatter, np.nan),
    )
