"""Kinds of atoms: grouped by what they look like and where they sit, and one under another."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from napari_shiftvae.core.atoms import FoundAtoms, find_atoms
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.images import as_float_image
from napari_shiftvae.core.lattice import Lattice, fit_lattice, neighbour_distance

__all__ = ["Groups", "find_beneath", "group_atoms", "subtract_columns"]

Criterion = Literal["place", "intensity", "shape"]
CRITERIA: tuple[Criterion, ...] = ("place", "intensity", "shape")

MOST_GROUPS = 4  # that intensity and shape are looked through for
SAMPLE = 20_000  # atoms that a mixture is fitted to; the others are assigned to it
SMALLEST = 0.01  # of the atoms, for a group of its own
# Two normal distributions show two maxima from here on: K. M. Ashman, C. M. Bird, S. E. Zepf,
# Astronomical Journal 108, 2348 (1994), doi:10.1086/117248. A little more keeps one skewed
# distribution from being halved.
CLEAN_SEPARATION = 2.5
REACH = 4.0  # radius in which a column is drawn [sigma]; 3e-4 of its height outside

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """Atoms sorted into kinds.

    Attributes
    ----------
    label : (N,) int array
        Group of each atom, 0 being the one of the strongest columns; -1 for atoms whose
        measurements are missing or that sit on no lattice.
    reason : str
        In words, what the groups were told apart by, or why there is one only.
    """

    label: Ints
    reason: str

    def __len__(self) -> int:
        return int(self.label.max(initial=-1)) + 1


def group_atoms(
    atoms: pd.DataFrame,
    *,
    by: Sequence[Criterion] = ("place", "intensity"),
    count: int | None = None,
) -> Groups:
    """Sort atoms into sublattices.

    Atoms are told apart by their place in the unit cell of the fitted lattice; within one place by
    a mixture of normal distributions of the logarithms of intensity, or of width and ellipticity.
    The number of distributions is the largest one that the Bayesian information criterion favours
    and whose distributions are all cleanly apart from each other, so that one kind of atoms with
    scattered intensities stays one.

    Parameters
    ----------
    atoms : pandas.DataFrame
        ``y_px, x_px`` [px] and, as `gaussians.refine_gaussians` measures them, ``amplitude``,
        ``sigma_major_px``, ``sigma_minor_px`` [px].
    by : sequence of {"place", "intensity", "shape"}
        What tells atoms apart.
    count : int, optional
        Number of kinds within each place, if it is known.

    Returns
    -------
    Groups

    Raises
    ------
    InputError
        Nothing to go by was given, or a column is missing.

    Examples
    --------
    >>> y, x = np.mgrid[:10, :10].reshape(2, -1) * 12.0
    >>> strong = (x + y) % 24 == 0
    >>> atoms = pd.DataFrame({"y_px": y, "x_px": x, "amplitude": np.where(strong, 5.0, 2.0)})
    >>> groups = group_atoms(atoms, by=["intensity"])
    >>> len(groups), bool((groups.label[strong] == 0).all())
    (2, True)
    """
    if not by or set(by) - set(CRITERIA):
        raise InputError(f"by is {list(by)}: choose one or more of {', '.join(CRITERIA)}.")
    if count is not None and not 1 <= count <= 20:
        raise InputError(f"count is {count}: choose from 1 to 20 groups.")
    amplitude = _column(atoms, "amplitude") if "intensity" in by else atoms.get("amplitude")
    positive = None
    if amplitude is not None:
        amplitude = np.asarray(amplitude, dtype=np.float64)
        positive = np.isfinite(amplitude) & (amplitude > 0)
    label, told = np.zeros(len(atoms), dtype=np.int64), []
    if "place" in by:
        label, sentence = _by_place(atoms, amplitude, positive)
        told.append(sentence)
    features = _features(atoms, by)
    if features.shape[1]:
        finite = np.isfinite(features).all(axis=1)
        split = np.full(len(atoms), -1)
        next_free = 0
        for place in range(int(label.max(initial=-1)) + 1):
            rows = np.flatnonzero((label == place) & finite)
            if not len(rows):
                continue
            kind = _mixture(features[rows], count)
            split[rows] = next_free + kind
            next_free = int(split.max()) + 1
        label = split
        told.append(" and ".join(name for name in by if name != "place"))
    return Groups(label=_strongest_first(label, amplitude), reason="; ".join(told))


def subtract_columns(image: ArrayLike, atoms: pd.DataFrame) -> NDArray[np.float32]:
    """Take fitted columns out of an image.

    Parameters
    ----------
    image : (H, W) array-like
    atoms : pandas.DataFrame
        As `gaussians.refine_gaussians` measures them: ``y_px, x_px, amplitude, sigma_major_px,
        sigma_minor_px, angle_rad``; columns with missing values stay in the image.

    Returns
    -------
    (H, W) float32 array
        What is left, background included.
    """
    left = as_float_image(image).astype(np.float64)
    names = ["y_px", "x_px", "amplitude", "sigma_major_px", "sigma_minor_px", "angle_rad"]
    values = np.stack([_column(atoms, name) for name in names], axis=1)
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return left.astype(np.float32)
    reach = max(2, int(np.ceil(REACH * values[:, 3].max())))
    step = np.arange(-reach, reach + 1)
    padded = np.pad(left, 2 * reach)
    for part in np.array_split(values, 1 + len(values) * len(step) ** 2 // 2_000_000):
        place = part[:, :2]
        corner = np.clip(np.rint(place).astype(np.int64), -reach, np.array(left.shape) + reach)
        y = (corner[:, 0, None] + step - place[:, :1])[:, :, None]  # (n, w, 1)
        x = (corner[:, 1, None] + step - place[:, 1:])[:, None, :]
        sine, cosine = np.sin(part[:, 5, None, None]), np.cos(part[:, 5, None, None])
        along, across = x * cosine + y * sine, y * cosine - x * sine
        major, minor = part[:, 3, None, None], part[:, 4, None, None]
        drawn = part[:, 2, None, None] * np.exp(
            -0.5 * ((along / major) ** 2 + (across / minor) ** 2)
        )
        rows = corner[:, 0, None] + 2 * reach + step
        columns = corner[:, 1, None] + 2 * reach + step
        np.subtract.at(padded, (rows[:, :, None], columns[:, None, :]), drawn)
    inside = slice(2 * reach, -2 * reach)
    return padded[inside, inside].astype(np.float32)


def find_beneath(
    image: ArrayLike,
    atoms: pd.DataFrame,
    *,
    separation_px: float | None = None,
    threshold: float | None = None,
    dark: bool = False,
) -> FoundAtoms:
    """Find a weaker sublattice once the columns known so far are taken out of the image.

    Parameters
    ----------
    image : (H, W) array-like
    atoms : pandas.DataFrame
        Fitted columns, as `subtract_columns` takes them; depths instead of heights where `dark`.
    separation_px, threshold, dark
        As `atoms.find_atoms` takes them, of the sublattice that is looked for.

    Returns
    -------
    FoundAtoms
        Those at least 0.35 of the distance of neighbours away from all columns known.
    """
    known = atoms[["y_px", "x_px"]].to_numpy(dtype=np.float64)
    near = neighbour_distance(known)
    fitted = atoms.assign(amplitude=-atoms["amplitude"]) if dark else atoms
    left = subtract_columns(image, fitted)
    if separation_px is None and np.isfinite(near):
        separation_px = near
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty result is an answer
        found = find_atoms(left, separation_px=separation_px, threshold=threshold, dark=dark)
    away = np.ones(len(found), dtype=bool)
    if len(known) and len(found) and np.isfinite(near):
        away = np.asarray(KDTree(known).query(found.positions_yx)[0]) > 0.35 * near
    return FoundAtoms(
        positions_yx=found.positions_yx[away],
        amplitude=found.amplitude[away],
        separation_px=found.separation_px,
        threshold=found.threshold,
        dark=dark,
    )


def _column(atoms: pd.DataFrame, name: str) -> Floats:
    if name not in atoms:
        raise InputError(f"The atoms have no column {name}: refine them first.")
    return atoms[name].to_numpy(dtype=np.float64)


def _by_place(
    atoms: pd.DataFrame, amplitude: Floats | None, positive: NDArray[np.bool_] | None
) -> tuple[Ints, str]:
    """Place in the unit cell (N,), all 0 where there is no lattice, and a word about it."""
    rows = np.arange(len(atoms)) if positive is None else np.flatnonzero(positive)
    positions = atoms[["y_px", "x_px"]].to_numpy(dtype=np.float64)[rows]
    contrast = None if amplitude is None else amplitude[rows]
    lattice = fit_lattice(positions, amplitude=contrast)
    if not isinstance(lattice, Lattice):
        return np.zeros(len(atoms), dtype=np.int64), "no lattice to tell places by"
    label = np.full(len(atoms), -1)
    label[rows] = lattice.basis
    places = len(lattice.basis_yx)
    return label, f"{places} place{'s' if places > 1 else ''} in the unit cell"


def _features(atoms: pd.DataFrame, by: Sequence[Criterion]) -> Floats:
    """Logarithms (N, F) of what atoms are told apart by, beside their place."""
    columns = []
    with np.errstate(invalid="ignore", divide="ignore"):
        if "intensity" in by:
            columns.append(np.log(_column(atoms, "amplitude")))
        if "shape" in by:
            major, minor = (_column(atoms, f"sigma_{axis}_px") for axis in ("major", "minor"))
            columns += [np.log(major * minor) / 2, np.log(major / minor)]
    return np.stack(columns, axis=1) if columns else np.empty((len(atoms), 0))


def _mixture(features: Floats, count: int | None) -> Ints:
    """Component (N,) of each row of features (N, F)."""
    spread = np.maximum(features.std(axis=0), 1e-9)
    scaled = (features - features.mean(axis=0)) / spread
    sample = np.random.default_rng(0).permutation(len(scaled))[:SAMPLE]
    most = min(count or MOST_GROUPS, len(sample) // 4)
    best, lowest = np.zeros(len(scaled), dtype=np.int64), np.inf
    for k in range(count or 1, most + 1):
        mixture = GaussianMixture(k, n_init=3, reg_covar=1e-4, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer kinds than k: not chosen
            mixture.fit(scaled[sample])
        criterion = mixture.bic(scaled[sample])
        if count is not None or (criterion < lowest - 10 and _clean(mixture)):
            best, lowest = mixture.predict(scaled), criterion
    return np.asarray(np.unique(best, return_inverse=True)[1], dtype=np.int64)


def _clean(mixture: GaussianMixture) -> bool:
    """Whether no component is tiny and all are apart from each other."""
    if mixture.weights_.min() < SMALLEST:
        return False
    for i in range(mixture.n_components):
        for j in range(i):
            between = mixture.means_[i] - mixture.means_[j]
            along = between / max(float(np.linalg.norm(between)), 1e-12)
            variance = sum(along @ mixture.covariances_[k] @ along for k in (i, j))
            if np.linalg.norm(between) < CLEAN_SEPARATION * np.sqrt(variance / 2):
                return False
    return True


def _strongest_first(label: Ints, amplitude: Floats | None) -> Ints:
    """Number the groups by falling amplitude; by falling size where that is not known."""
    groups = np.unique(label[label >= 0])
    if amplitude is None:
        value = [float((label == group).sum()) for group in groups]
    else:
        value = [float(np.nanmedian(amplitude[label == group])) for group in groups]
    order = groups[np.argsort(value)[::-1]]
    renumbered = np.full_like(label, -1)
    for number, group in enumerate(order):
        renumbered[label == group] = number
    return renumbered
