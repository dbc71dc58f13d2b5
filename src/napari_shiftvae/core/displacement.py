"""Displacement of atoms: from an ideal lattice, or from the mean of their neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.neighbours import lattice_neighbours
from napari_shiftvae.core.reference import Reference

__all__ = ["Displacement", "from_neighbours", "from_reference", "significance"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Displacement:
    """A vector at every atom.

    Attributes
    ----------
    yx_px, sd_yx_px : (N, 2) arrays
        The vector (y, x) and its standard deviation [px]; NaN where it is not known.
    sentence : str
        What it is measured from, for the user.
    """

    yx_px: Floats
    sd_yx_px: Floats
    sentence: str


def from_reference(
    positions_yx: ArrayLike, reference: Reference, *, sd_yx_px: ArrayLike = 0.0
) -> Displacement:
    """Position of each atom minus its place on the reference lattice.

    Parameters
    ----------
    positions_yx : (N, 2) array-like
        Whole patterns (pick plus shift) or central atoms (y, x) [px], in the order of the atoms
        that the reference was made for.
    reference : Reference
        With places: from `reference.image_reference` or `reference.region_reference`.
    sd_yx_px : (N, 2) array-like or float
        Standard deviation of the positions [px].

    Returns
    -------
    Displacement
        Its standard deviation holds those of the position and of the place, as if they were
        independent; for atoms that the reference was fitted to it is a little too large.

    Raises
    ------
    InputError
        The reference has no places, or those of other atoms.

    Examples
    --------
    >>> from napari_shiftvae.core.lattice import fit_lattice
    >>> from napari_shiftvae.core.reference import image_reference
    >>> sites = np.mgrid[:9, :9].reshape(2, -1).T * 10.0
    >>> lattice = fit_lattice(sites)
    >>> moved = sites + np.where(np.arange(81) == 40, 0.5, 0.0)[:, None]
    >>> found = from_reference(moved, image_reference(moved, lattice))
    >>> found.yx_px[40].round(2)
    array([0.5, 0.5])
    """
    positions, sd = _positions(positions_yx, sd_yx_px)
    if reference.places_yx is None:
        raise InputError(
            "The reference is a pair of vectors without places; displacement needs a lattice "
            "fitted to the image or to a region."
        )
    if len(reference.places_yx) != len(positions):
        raise InputError(
            f"The reference is of {len(reference.places_yx)} atoms, not of {len(positions)}; make "
            "it from these positions first."
        )
    moved = positions - reference.places_yx
    place_sd = 0.0 if reference.places_sd_yx is None else reference.places_sd_yx
    return Displacement(
        yx_px=moved,
        sd_yx_px=np.where(np.isfinite(moved), np.hypot(sd, place_sd), np.nan),
        sentence=f"Displacement from {reference.sentence}.",
    )


def from_neighbours(
    positions_yx: ArrayLike, vectors_yx: ArrayLike, *, sd_yx_px: ArrayLike = 0.0
) -> Displacement:
    """Position of each atom minus the mean of its neighbours of the same sublattice.

    Neighbours count in opposite pairs, so that neither strain nor rotation, however large,
    shows in it; what shows is what differs from atom to atom.

    Parameters
    ----------
    positions_yx : (N, 2) array-like
        Whole patterns (pick plus shift) or central atoms (y, x) [px].
    vectors_yx : (2, 2) array-like
        Shortest lattice vectors (y, x), one a row [px]: ``reference.vectors_yx``.
    sd_yx_px : (N, 2) array-like or float
        Standard deviation of the positions [px].

    Returns
    -------
    Displacement
        NaN for atoms without an opposite pair of neighbours, such as those at a corner.

    Examples
    --------
    >>> sites = np.mgrid[:9, :9].reshape(2, -1).T * (10.0, 11.0)
    >>> moved = sites + np.where(np.arange(81) == 40, 0.5, 0.0)[:, None]
    >>> from_neighbours(moved, [(0, 10), (10, 0)]).yx_px[40].round(6)
    array([0.5, 0.5])
    """
    positions, sd = _positions(positions_yx, sd_yx_px)
    partner = lattice_neighbours(positions, vectors_yx).partner
    paired = (partner >= 0) & (partner[:, ::-1] >= 0)  # (N, K)
    count = paired.sum(axis=1)[:, None]
    total = np.where(paired[..., None], positions[partner], 0).sum(axis=1)
    variance = np.where(paired[..., None], sd[partner] ** 2, 0).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = np.where(count > 0, positions - total / count, np.nan)
        deviation = np.where(count > 0, np.sqrt(sd**2 + variance / count**2), np.nan)
    return Displacement(
        yx_px=moved,
        sd_yx_px=deviation,
        sentence="Displacement from the mean of opposite neighbours of the same sublattice.",
    )


def significance(vectors_yx: ArrayLike, sd_yx: ArrayLike) -> Floats:
    """Length of vectors over the standard deviation along them.

    Parameters
    ----------
    vectors_yx, sd_yx : (N, 2) array-like
        Vectors (y, x) and their standard deviations, in one unit; the errors of the two
        components are taken to be independent.

    Returns
    -------
    (N,) array
        Below 2, an arrow may be chance; NaN where either is not known.

    Examples
    --------
    >>> significance([(3.0, 4.0)], [(1.0, 1.0)])
    array([5.])
    """
    vectors, sd = np.asarray(vectors_yx, dtype=np.float64), np.asarray(sd_yx, dtype=np.float64)
    square = np.sum(vectors**2, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = square / np.sqrt(np.sum((vectors * sd) ** 2, axis=1))
    return np.asarray(np.where(square == 0, 0.0, ratio))


def _positions(positions_yx: ArrayLike, sd_yx_px: ArrayLike) -> tuple[Floats, Floats]:
    positions = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
    sd = np.asarray(sd_yx_px, dtype=np.float64)
    if sd.ndim and sd.shape != positions.shape:
        raise InputError(
            f"sd_yx_px has the shape {sd.shape}; give one pair (y, x) for each of the "
            f"{len(positions)} positions, or one number."
        )
    return positions, np.broadcast_to(sd, positions.shape)
