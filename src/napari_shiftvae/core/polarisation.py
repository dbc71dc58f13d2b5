"""Polar displacement: an atom against the middle of its cage."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.lengths import PIXELS, Ruler

__all__ = ["Polarisation", "against_cage", "against_neighbours", "decoded", "polar_deviation"]

Zero = Literal["as read", "mean", "domains"]

MOST_NEIGHBOURS = 12
SHELL_WIDTH = 1.25  # atoms up to this times the typical distance belong to the shell
# In standard deviations. Two normal distributions show two maxima from 2 on: K. M. Ashman, C. M.
# Bird, S. E. Zepf, Astronomical Journal 108, 2348 (1994), doi:10.1086/117248
CLEAN_SEPARATION = 3.0
FEWEST, SAMPLE = 20, 4000  # atoms of a sublattice, to look for domains among
SMALLEST_DOMAIN = 0.1  # share of the atoms; fewer are taken for defects

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Polarisation:
    """Displacement of atoms against their cages, to which polarisation is proportional.

    Attributes
    ----------
    yx_px, sd_yx_px : (N, 2) arrays
        Displacement (y, x) and its standard deviation [px]; NaN where it is not known.
    zero_yx_px : (S, 2) array
        What was taken off for each sublattice [px]: the displacement that counts as no
        polarisation.
    sentence : str
        How it was worked out, and what was taken off, for the user.
    """

    yx_px: Floats
    sd_yx_px: Floats
    zero_yx_px: Floats
    sentence: str


def decoded(
    polar_yx_px: ArrayLike,
    sd_yx_px: ArrayLike = 0.0,
    shared_sd_yx_px: ArrayLike = 0.0,
    *,
    ruler: Ruler = PIXELS,
) -> Polarisation:
    """Central atom against the mean of its nearest neighbours, as the model has them.

    Geometry alone says what zero is: an atom in the middle of its cage. Nothing is taken off.

    Parameters
    ----------
    polar_yx_px : (N, 2) array-like
        As a run has it: ``run.polar_yx``; NaN where not known.
    sd_yx_px : (N, 2) array-like or float
        Its standard deviation [px].
    shared_sd_yx_px : (N, 2) array-like or float
        That of the part of the error which is the same for alike atoms [px].
    ruler : Ruler
        In which unit the sentence has lengths.

    Returns
    -------
    Polarisation

    Examples
    --------
    >>> decoded([(0.5, 0.0), (np.nan, np.nan)], (0.1, 0.02), (0.01, 0.02)).sentence
    'Central atom against the mean ... off. The error that alike atoms share, ... (y, x) of \
(0.010, 0.020) px. Not known for 1 of 2 atoms.'
    """
    moved = np.array(polar_yx_px, dtype=np.float64).reshape(-1, 2)
    known = np.asarray(np.isfinite(moved).all(axis=1))
    sd = np.where(known[:, None], np.asarray(sd_yx_px), np.nan)
    shared = np.broadcast_to(np.asarray(shared_sd_yx_px, dtype=np.float64), moved.shape)
    shared = shared[known & np.isfinite(shared).all(axis=1)]
    told = ""
    if len(shared):
        y, x = (ruler.number(each, 3) for each in np.median(shared, axis=0))
        told = (
            " The error that alike atoms share, which no mean over them makes smaller, has a "
            f"standard deviation (y, x) of ({y}, {x}) {ruler.unit}."
        )
    return Polarisation(
        yx_px=moved,
        sd_yx_px=sd,
        zero_yx_px=np.zeros((1, 2)),
        sentence=(
            "Central atom against the mean of its nearest neighbours: nothing is taken off."
            f"{told} Not known for {(~known).sum()} of {len(moved)} atoms."
        ),
    )


def against_cage(
    atom_yx: ArrayLike,
    cage_yx: ArrayLike,
    *,
    sublattice: ArrayLike | None = None,
    zero: Zero | NDArray[np.bool_] = "domains",
    sd_yx_px: ArrayLike = 0.0,
    ruler: Ruler = PIXELS,
) -> Polarisation:
    """Central atom against the whole pattern around it, where `decoded` is not to be had.

    The gauge of a run leaves a constant open: the mean central atom of all patches counts as
    undisplaced, and every sublattice has its own. It is taken off here, and stated. In an image of
    several phases it is off by some tenths of a pixel.

    The cage is where the nearest neighbours in the patch are. Prior and decoder draw opposite
    domains together a little, which makes displacements too small by 0 to 3 %
    (benchmarks/fields.py).

    Parameters
    ----------
    atom_yx : (N, 2) array-like
        Central atoms (y, x) [px]: ``run.atom_yx``.
    cage_yx : (N, 2) array-like
        Whole patterns, pick plus shift (y, x) [px].
    sublattice : (N,) array-like, optional
        Sublattice of each atom, of any type; all are of one by default.
    zero : {"domains", "mean", "as read"} or (N,) bool array
        What counts as zero, in each sublattice: the midpoint between opposite domains, however
        large each is from a tenth of the atoms on, which leaves things as read where there are no
        two (wide walls draw it a little towards the larger domain); the mean of
        all, which is right where the domains are equally large; nothing taken off; or the mean of
        the atoms marked in an array, which are known to be unpolar.
    sd_yx_px : (N, 2) array-like or float
        Standard deviation of atom minus cage [px]; the errors of the two are not independent, for
        both hold that of the shift: see `polar_deviation`.
    ruler : Ruler
        In which unit the sentence has lengths.

    Returns
    -------
    Polarisation

    Raises
    ------
    InputError
        `zero` marks no atom of a sublattice.

    Examples
    --------
    >>> cage = np.mgrid[:6, :6].reshape(2, -1).T * 10.0
    >>> up = cage[:, 1] > 35
    >>> atom = cage + (0.2, 0.0) + np.where(up, -1.0, 1.0)[:, None] * (1.5, 0.0)
    >>> found = against_cage(atom, cage)
    >>> found.zero_yx_px.round(3), found.yx_px[up][0].round(3) + 0.0
    (array([[0.2, 0. ]]), array([-1.5,  0. ]))
    """
    atom, cage = (np.asarray(each, dtype=np.float64).reshape(-1, 2) for each in (atom_yx, cage_yx))
    if atom.shape != cage.shape:
        raise InputError(f"atom_yx has {len(atom)} rows and cage_yx {len(cage)}; give one each.")
    kind = np.zeros(len(atom), dtype=np.int64)
    names: list[str] = [""]
    if sublattice is not None:
        labels, kind = np.unique(np.asarray(sublattice).astype(str), return_inverse=True)
        names = [f" of {name}" for name in labels]
    moved = atom - cage
    offset, told = np.zeros((len(names), 2)), []
    for number, name in enumerate(names):
        mine = (kind == number) & np.isfinite(moved).all(axis=1)
        offset[number], how = _zero(moved, mine, zero, name)
        y, x = (ruler.number(each, 3) for each in offset[number])
        if mine.any():
            told.append(f"({y}, {x}) {ruler.unit}{name}, {how}" if how else f"nothing{name}")
    taken_off = "; ".join(told) or "nothing"
    return Polarisation(
        yx_px=moved - offset[kind],
        sd_yx_px=np.where(np.isfinite(moved), np.asarray(sd_yx_px), np.nan),
        zero_yx_px=offset,
        sentence=f"Central atom against its cage. Taken off (y, x): {taken_off}.",
    )


def polar_deviation(
    posterior_sd_yx_px: ArrayLike, latent_dim: int, *, sublattice: ArrayLike | None = None
) -> Floats:
    """Standard deviation of central atoms against their cages, the decoder's own error included.

    The posterior holds what the noise of one patch does with the latents. It knows of no error
    across the displacements that the latents stand for. There the decoder itself is what errs: by
    about what the mean of the patches, shared among its patterns, leaves uncertain.

    Parameters
    ----------
    posterior_sd_yx_px : (N, 2) array-like
        ``polar_y_sd_px, polar_x_sd_px`` of the table of atoms; NaN where not known.
    latent_dim : int
        Number of latents.
    sublattice : (N,) array-like, optional
        Sublattice of each atom, whose patterns are learned from its own patches; all are of one by
        default.

    Returns
    -------
    (N, 2) array
        [px]

    Examples
    --------
    >>> polar_deviation(np.tile([0.1, 0.0], (300, 1)), 2)[0].round(4)
    array([0.1005, 0.01  ])
    """
    sd = np.asarray(posterior_sd_yx_px, dtype=np.float64).reshape(-1, 2)
    kind = np.full(len(sd), "") if sublattice is None else np.asarray(sublattice).astype(str)
    decoder_sd = np.zeros(len(sd))
    for name in np.unique(kind):
        known = (kind == name) & np.isfinite(sd).all(axis=1)
        if known.any():
            free = float(np.median(sd[known], axis=0).max())
            decoder_sd[kind == name] = free * np.sqrt((latent_dim + 1) / known.sum())
    return np.asarray(np.hypot(sd, decoder_sd[:, None]))


def against_neighbours(
    positions_yx: ArrayLike,
    cage_yx: ArrayLike,
    *,
    count: int | None = None,
    sd_yx_px: ArrayLike = 0.0,
    cage_sd_yx_px: ArrayLike = 0.0,
) -> Polarisation:
    """Atoms of one sublattice against the mean of their nearest neighbours of another.

    Parameters
    ----------
    positions_yx : (N, 2) array-like
        Atoms in the cages, such as the B columns of a perovskite (y, x) [px].
    cage_yx : (M, 2) array-like
        Atoms that make the cages, such as its A columns (y, x) [px].
    count : int, optional
        Atoms in a complete cage; by default those of the nearest shell, which ends where the
        distance of the next neighbour leaps most (4 in a perovskite, 3 in graphene).
    sd_yx_px, cage_sd_yx_px : (N, 2) and (M, 2) array-likes or floats
        Standard deviations of the positions [px].

    Returns
    -------
    Polarisation
        NaN where the cage is not complete: at borders and beside vacancies. The zero is that of
        the symmetric cage: nothing is taken off.

    Raises
    ------
    InputError
        There are fewer atoms than a cage needs.

    Examples
    --------
    >>> cage = np.mgrid[:4, :5].reshape(2, -1).T * 20.0
    >>> inside = np.mgrid[:3, :4].reshape(2, -1).T * 20.0 + (11.0, 10.0)
    >>> found = against_neighbours(inside, cage)
    >>> found.yx_px[0], found.sentence
    (array([1., 0.]), 'Atoms against the mean of their 4 nearest neighbours; ... 0 of 12 atoms.')
    """
    positions = np.asarray(positions_yx, dtype=np.float64).reshape(-1, 2)
    cage = np.asarray(cage_yx, dtype=np.float64).reshape(-1, 2)
    cage_sd = np.broadcast_to(np.asarray(cage_sd_yx_px, dtype=np.float64), cage.shape)
    sd = np.broadcast_to(np.asarray(sd_yx_px, dtype=np.float64), positions.shape)
    valid = np.asarray(np.isfinite(cage).all(axis=1))
    finite = np.asarray(np.isfinite(positions).all(axis=1))
    cage, cage_sd = cage[valid], cage_sd[valid]
    most = MOST_NEIGHBOURS if count is None else count + 1
    if len(cage) < (count or 2) or not finite.any():
        raise InputError(
            f"{finite.sum()} atoms and {len(cage)} to make cages of are too few; find more of both."
        )
    k = np.arange(1, min(most, len(cage)) + 1)
    found = KDTree(cage).query(np.where(finite[:, None], positions, 0.0), k=k)
    distance, nearest = np.asarray(found[0]), np.asarray(found[1])
    typical = np.median(distance[finite], axis=0)
    if count is None:
        count = int(np.argmax(typical[1:] / np.maximum(typical[:-1], 1e-9))) + 1
    radius = SHELL_WIDTH * float(np.median(distance[finite, :count]))
    complete = finite & (distance[:, count - 1] <= radius)
    shell = nearest[:, :count]
    moved = positions - cage[shell].mean(axis=1)
    variance = sd**2 + np.sum(cage_sd[shell] ** 2, axis=1) / count**2
    moved[~complete] = np.nan
    return Polarisation(
        yx_px=moved,
        sd_yx_px=np.where(complete[:, None], np.sqrt(variance), np.nan),
        zero_yx_px=np.zeros((1, 2)),
        sentence=(
            f"Atoms against the mean of their {count} nearest neighbours; the cage is incomplete "
            f"for {int((~complete).sum())} of {len(positions)} atoms."
        ),
    )


def _zero(
    moved: Floats, mine: NDArray[np.bool_], zero: Zero | NDArray[np.bool_], name: str
) -> tuple[Floats, str]:
    """Constant (2,) [px] to take off the displacements of one sublattice, and what it is."""
    nothing = np.zeros(2)
    if not isinstance(zero, str):
        known = mine & np.asarray(zero, dtype=bool)
        if not known.any():
            raise InputError(f"zero marks no atom{name}; mark some that are known to be unpolar.")
        return np.asarray(moved[known].mean(axis=0)), f"the mean of {known.sum()} unpolar atoms"
    if zero == "as read" or not mine.any():
        return nothing, ""
    if zero == "mean":
        return np.asarray(moved[mine].mean(axis=0)), "the mean"
    middle = _between_domains(moved[mine])
    return (nothing, "") if middle is None else (middle, "the midpoint of opposite domains")


def _between_domains(moved: Floats) -> Floats | None:
    """Point (2,) through which domains invert into each other; None where there are none."""
    if len(moved) < FEWEST:
        return None
    middle, scale = moved.mean(axis=0), max(float(moved.std()), 1e-12)
    sample = np.random.default_rng(0).permutation(len(moved))[:SAMPLE]
    mixture = _heaps((moved[sample] - middle) / scale)
    means, weights = mixture.means_, mixture.weights_
    spread = np.sqrt(np.trace(mixture.covariances_, axis1=1, axis2=2) / 2)
    best, most = None, 0.0
    for i in range(len(means)):
        for j in range(i):
            between = means[i] - means[j]
            distance = float(np.linalg.norm(between))
            along = between / max(distance, 1e-12)
            variance = sum(along @ mixture.covariances_[k] @ along for k in (i, j))
            clean = distance >= CLEAN_SEPARATION * np.sqrt(variance / 2)
            if not clean or min(weights[i], weights[j]) < SMALLEST_DOMAIN:
                continue
            # How much of all heaps has its counterpart on the other side; walls are their own.
            centre = (means[i] + means[j]) / 2
            miss = np.linalg.norm(means[:, None] + means - 2 * centre, axis=2)
            explained = weights[(miss < spread[:, None] + spread).any(axis=1)].sum()
            if explained > most + 1e-9:
                best, most = centre, float(explained)
    return None if best is None else np.asarray(best * scale + middle)


def _heaps(scaled: Floats) -> GaussianMixture:
    """Mixture of two to six normal distributions, of lowest Bayesian information criterion."""
    tried = []
    for k in range(2, 7):
        mixture = GaussianMixture(k, n_init=2, reg_covar=1e-4, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(scaled)
        tried.append((mixture.bic(scaled), mixture))
    return min(tried, key=lambda each: float(each[0]))[1]
