"""Strain and rotation at every atom, from its neighbours on the lattice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.neighbours import lattice_neighbours
from napari_shiftvae.core.reference import Reference

__all__ = ["Strain", "strain"]

FEWEST_NEIGHBOURS = 3
NARROWEST = 0.05  # least over largest moment of the neighbours' places: below, they form a row
SHARPEST = 0.1  # smallest standard deviation that counts, over the median one

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Strain:
    """Strain at every atom, without unit; NaN where too few neighbours were found.

    Attributes
    ----------
    exx, eyy, exy, rotation_rad : (N,) arrays
        ``d u_x / d x``, ``d u_y / d y``, ``(d u_x / d y + d u_y / d x) / 2`` and
        ``(d u_y / d x - d u_x / d y) / 2``, positive from x towards y (clockwise on the screen).
    exx_sd, eyy_sd, exy_sd, rotation_sd_rad : (N,) arrays
        Standard deviations.
    neighbours : (N,) int array
        Number of neighbours it was worked out from.
    position_sd_px : float
        Root mean square standard deviation of the positions along one axis: as given, or as
        estimated from how far atoms lie from where their neighbours tell [px].
    sentence : str
        What was taken as unstrained, which definition, and how many atoms have none.
    """

    exx: Floats
    eyy: Floats
    exy: Floats
    rotation_rad: Floats
    exx_sd: Floats
    eyy_sd: Floats
    exy_sd: Floats
    rotation_sd_rad: Floats
    neighbours: Ints
    position_sd_px: float
    sentence: str

    def table(self) -> pd.DataFrame:
        """One row an atom: strains and their standard deviations under their own names."""
        names = [f"{each}{sd}" for each in ("exx", "eyy", "exy") for sd in ("", "_sd")]
        names += ["rotation_rad", "rotation_sd_rad"]
        return pd.DataFrame({name: getattr(self, name) for name in names})


def strain(
    positions_yx: ArrayLike, reference: Reference, *, sd_yx_px: ArrayLike | None = None
) -> Strain:
    """Fit to the neighbours of every atom how the reference lattice is deformed there.

    The gradient of the displacement ``u`` is fitted to the atom and its (up to eight) neighbours
    one lattice translation away by weighted least squares. Its derivatives are with respect to the
    *reference* lattice, so that a crystal drawn out by 1 % along x has exactly ``exx = 0.01``.
    Strain and rotation are the symmetric and the antisymmetric part (small-strain definition): a
    pure rotation by w shows as ``exx = eyy = cos(w) - 1``, which is -0.015 % at one degree and
    -0.6 % at six; turn the reference along where rotations are larger.

    Neighbours are told by their differences, not by their number in the lattice: see
    `neighbours.lattice_neighbours`. Atoms at vacancies and borders make do with fewer.

    Parameters
    ----------
    positions_yx : (N, 2) array-like
        Whole patterns (pick plus shift) or central atoms (y, x) [px], of any number of
        sublattices, each of which is compared with itself only.
    reference : Reference
        What counts as unstrained; its vectors are used, its places are not.
    sd_yx_px : (N, 2) array-like or float, optional
        Standard deviations of the positions [px], taken as independent; they weight the fit.
        By default one for all is estimated from the residuals of the fits, which holds true
        scatter from site to site as well.

    Returns
    -------
    Strain
        NaN with fewer than three neighbours, or where they form one row with the atom. The standard
        deviations are those from the positions; that of the reference, common to all atoms, is
        not in them (``reference.vectors_sd_yx``).

    Raises
    ------
    InputError
        `sd_yx_px` does not fit the positions.

    Examples
    --------
    >>> positions = np.mgrid[:5, :5].reshape(2, -1).T * (10.0, 10.1)
    >>> reference = Reference(vectors_yx=np.array([(0, 10), (10, 0)]), sentence="known vectors")
    >>> found = strain(positions, reference)
    >>> float(found.exx[12].round(6)), abs(float(found.eyy[12].round(6)))
    (0.01, 0.0)
    """
    positions = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
    sd = _deviations(positions, sd_yx_px)
    around = lattice_neighbours(positions, reference.vectors_yx)
    own = np.arange(len(positions))[:, None]
    member = np.hstack([around.partner, own])  # (N, M), the atom itself last
    ideal = np.vstack([around.ideal_yx, np.zeros(2)])  # (M, 2)
    there = (member >= 0) & np.isfinite(sd[member]).all(axis=2)
    enough = (around.count >= FEWEST_NEIGHBOURS) & there[:, -1]
    weight = there / (_floored(sd)[member] ** 2)
    total = np.maximum(weight.sum(axis=1), 1e-300)
    arm = ideal - (weight @ ideal / total[:, None])[:, None]  # (N, M, 2) from the weighted middle
    moment = np.einsum("nm,nmi,nmj->nij", weight, arm, arm)
    spread = np.linalg.eigvalsh(moment)
    enough &= spread[:, 0] > NARROWEST * spread[:, 1]
    moment[~enough] = np.eye(2)
    by = np.einsum("nij,nmj,nm->nmi", np.linalg.inv(moment), arm, weight)  # d gradient / d position
    moved = np.where(there[..., None], positions[member] - positions[:, None] - ideal, 0)
    gradient = np.einsum("nmj,nmi->nij", by, moved)  # d u_i / d x_j, in the order (y, x)
    if sd_yx_px is None:
        middle = np.einsum("nm,nmi->ni", weight, moved) / total[:, None]
        left = moved - middle[:, None] - np.einsum("nij,nmj->nmi", gradient, arm)
        sd = np.full_like(positions, _scatter(left, there, enough))
    variance = np.where(there[..., None], sd[member] ** 2, 0)  # (N, M, 2)
    along = np.einsum("nmi,nmj->nij", variance, by**2)  # of d u_i / d x_j
    gradient[~enough], along[~enough] = np.nan, np.nan
    # Errors of u_x and u_y are independent, so those of the mixed derivatives are as well.
    mixed_sd = np.sqrt(along[:, 1, 0] + along[:, 0, 1]) / 2
    found = np.isfinite(positions).all(axis=1)
    none = int((found & ~enough).sum())
    return Strain(
        exx=gradient[:, 1, 1],
        eyy=gradient[:, 0, 0],
        exy=(gradient[:, 1, 0] + gradient[:, 0, 1]) / 2,
        rotation_rad=(gradient[:, 0, 1] - gradient[:, 1, 0]) / 2,
        exx_sd=np.sqrt(along[:, 1, 1]),
        eyy_sd=np.sqrt(along[:, 0, 0]),
        exy_sd=mixed_sd,
        rotation_sd_rad=mixed_sd,
        neighbours=np.where(enough, there[:, :-1].sum(axis=1), around.count),
        position_sd_px=float(np.sqrt(np.mean(sd[enough] ** 2))) if enough.any() else float("nan"),
        sentence=(
            f"Small strain, from {reference.sentence}"
            + (
                f"; {none} of {found.sum()} atoms {'has' if none == 1 else 'have'} fewer than "
                f"{FEWEST_NEIGHBOURS} neighbours and no strain."
                if none
                else "."
            )
        ),
    )


def _deviations(positions: Floats, sd_yx_px: ArrayLike | None) -> Floats:
    """Standard deviations (N, 2) of positions: ones where not given, NaN where positions are."""
    given = np.asarray(1.0 if sd_yx_px is None else sd_yx_px, dtype=np.float64)
    if given.ndim and given.shape != positions.shape:
        raise InputError(
            f"sd_yx_px has the shape {given.shape}; give one pair (y, x) for each of the "
            f"{len(positions)} positions, or one number."
        )
    return np.where(np.isfinite(positions), given, np.nan)


def _floored(sd: Floats) -> Floats:
    """Deviations (N,) for the weights: both axes together, none so small that it rules alone."""
    both = np.sqrt(np.mean(sd**2, axis=1))
    known = both[np.isfinite(both)]
    least = SHARPEST * float(np.median(known)) if len(known) else 0.0
    return np.where(np.isfinite(both), np.maximum(both, least if least > 0 else 1.0), 1.0)


def _scatter(left: Floats, there: NDArray[np.bool_], enough: NDArray[np.bool_]) -> float:
    """Standard deviation of positions [px] from the residuals (N, M, 2) of all fits."""
    square = np.where(there[..., None], left**2, 0).sum(axis=(1, 2))
    freedom = 2 * (there.sum(axis=1) - 3)
    counted = enough & (freedom > 0)
    if not counted.any():
        return float("nan")
    # Of the median fit, so that atoms at a core or a wall do not speak for all: the mean square
    # of f independent errors has the median (1 - 2 / 9 f)^3 (E. B. Wilson, M. M. Hilferty, Proc.
    # Natl. Acad. Sci. 17, 684 (1931), doi:10.1073/pnas.17.12.684).
    f = freedom[counted]
    return float(np.sqrt(np.median(square[counted] / f / (1 - 2 / (9 * f)) ** 3)))
