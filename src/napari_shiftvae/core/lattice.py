"""The lattice of the atoms: vectors, indices, reference positions.

Atoms are indexed by walking from neighbour to neighbour, so that a lattice may bend and stretch
slowly across the image; one ideal lattice is fitted to all of them in the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.grains import other_crystals
from napari_shiftvae.core.indexing import FEWEST_ATOMS, index_atoms, neighbour_distance
from napari_shiftvae.core.vacancies import empty_sites, local_displacement

__all__ = ["Lattice", "NoLattice", "fit_lattice", "neighbour_distance"]

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
    indexed = index_atoms(positions, contrast)
    others = other_crystals(positions, contrast, indexed)
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


def _ideal(positions: Floats, index: Ints, basis: Ints) -> Lattice:
    """Fit origin, vectors and places to the indexed atoms by least squares."""
    on = basis >= 0
    kinds = int(basis.max()) + 1
    design = np.column_stack([np.eye(kinds)[basis[on]], index[on]]).astype(np.float64)
    target = positions[on]
    used = np.ones(len(target), dtype=bool)
    for _ in range(2):
        solution = np.linalg.lstsq(design[used], target[used], rcond=None)[0]
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
