"""Classes of atoms: clusters of latents, or of any other columns of the table of atoms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree
from sklearn.cluster import HDBSCAN, KMeans

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.mixture import Mixture, fit_mixture

if TYPE_CHECKING:
    from napari_shiftvae.core.patches import Patches

__all__ = [
    "Classes",
    "central_brightness",
    "class_pictures",
    "class_table",
    "cluster",
    "split_classes",
]

Method = Literal["gaussian mixture", "k-means", "hdbscan"]
METHODS: tuple[Method, ...] = ("gaussian mixture", "k-means", "hdbscan")
Criterion = Literal["icl", "bic"]
CRITERIA: dict[Criterion, str] = {"icl": "ICL (BIC and overlap)", "bic": "BIC"}

MOST = 8  # classes that are tried where their number is not given
SAMPLE = 20_000  # rows that classes are made from; the others are assigned to them
# A difference of BIC above 10 is very strong evidence: R. E. Kass, A. E. Raftery, J. Am. Stat.
# Assoc. 90, 773 (1995), doi:10.1080/01621459.1995.10476572.
STRONG_EVIDENCE = 10.0
FEWEST = 10  # rows of a class whose number is not given
SMALLEST = 0.01  # share of the rows, for a class of HDBSCAN
PICTURES_AT_ONCE = 512
ATOM, AROUND = 0.15, 0.9  # widths of the Gaussians that weigh an atom and its surroundings

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Classes:
    """Atoms sorted into classes.

    Attributes
    ----------
    label : (N,) int array
        Class of each row, 0 being the largest class; -1 for rows with a NaN and, with HDBSCAN,
        for those that belong nowhere.
    count : int
        Number of classes C.
    size : (C,) int array
        Rows in each.
    mean, sd : (C, F) arrays
        Mean and standard deviation of each class, in the units of the values.
    sentence : str
        What was done and found, for the user.
    """

    label: Ints
    count: int
    size: Ints
    mean: Floats
    sd: Floats
    sentence: str


def cluster(
    values: ArrayLike,
    *,
    method: Method = "gaussian mixture",
    count: int | None = None,
    criterion: Criterion = "icl",
    seed: int = 0,
) -> Classes:
    """Sort rows of values into clusters.

    Each column is scaled to a standard deviation of 1 first, so that units do not matter. Strange
    rows far from all others do not make a mixture wider: each is in the class nearest to it.

    Parameters
    ----------
    values : (N, F) array-like
        Any columns, one row an atom; rows with a NaN or an infinity are in no class.
    method : {"gaussian mixture", "k-means", "hdbscan"}
        Clusters of any elliptic shape and size; compact ones of about one size; or dense regions
        of any shape, of at least 1 % of the rows, with the rest in no class (L. McInnes, J. Healy,
        S. Astels, *J. Open Source Softw.* 2, 205 (2017), doi:10.21105/joss.00205).
    count : int, optional
        Number of classes; HDBSCAN always finds it itself. By default, for mixtures and k-means,
        the smallest of one to eight normal distributions, of ten rows or more each, of which
        `criterion` is within 10 of the lowest.
    criterion : {"icl", "bic"}
        How that number is chosen. The Bayesian information criterion (G. Schwarz, *Ann. Stat.* 6,
        461 (1978), doi:10.1214/aos/1176344136) asks how many normal distributions describe the
        values, so that one skewed heap becomes two classes. The integrated completed likelihood
        (C. Biernacki, G. Celeux, G. Govaert, *IEEE Trans. Pattern Anal. Mach. Intell.* 22, 719
        (2000), doi:10.1109/34.865189) is the same plus twice the entropy of the assignment, so
        that classes have to be apart: it joins heaps less than about four deviations apart.
    seed : int
        Of the random starts; the same seed gives the same classes.

    Returns
    -------
    Classes
        Numbered by falling size; of two as large, the one of the lower mean comes first.

    Raises
    ------
    InputError
        An unknown method or criterion, a count that the rows do not allow, or one given to HDBSCAN.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> values = np.concatenate([rng.normal(0, 1, (90, 2)), rng.normal(9, 1, (30, 2))])
    >>> found = cluster(values)
    >>> found.count, found.size
    (2, array([90, 30]))
    >>> found.sentence
    '2 classes of 90 and 30 atoms, by a Gaussian mixture, their number by ICL (BIC and overlap).'
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.shape[1]:
        raise InputError(f"values has the shape {table.shape}; give one or more columns.")
    if method not in METHODS:
        raise InputError(f"method is {method!r}: choose one of {', '.join(METHODS)}.")
    if criterion not in CRITERIA:
        raise InputError(f"criterion is {criterion!r}: choose one of {', '.join(CRITERIA)}.")
    rows = np.flatnonzero(np.isfinite(table).all(axis=1))
    different = len(np.unique(table[rows], axis=0))
    _check_count(count, method, different)
    label = np.full(len(table), -1)
    if len(rows):
        scaled = _standardised(table[rows])
        sample = np.random.default_rng(seed).permutation(len(rows))[:SAMPLE]
        if method == "hdbscan":
            label[rows] = _dense(scaled, np.sort(sample))
        else:
            tried = [count] if count else range(1, min(MOST, different) + 1)
            round_ = _whitened(scaled)
            mixture = _mixture(round_[sample], tried, criterion, seed)
            if method == "gaussian mixture":
                label[rows] = mixture.label(round_)
            else:
                means = KMeans(len(mixture.weight), n_init=10, random_state=seed)
                label[rows] = means.fit(scaled[sample]).predict(scaled)
    label = _largest_first(label, table)
    found = int(label.max(initial=-1)) + 1
    size = np.bincount(label[label >= 0], minlength=found)
    mean = np.stack([table[label == each].mean(axis=0) for each in range(found)] or [[]])
    sd = np.stack([table[label == each].std(axis=0) for each in range(found)] or [[]])
    return Classes(
        label=label,
        count=found,
        size=size.astype(np.int64),
        mean=mean.reshape(found, table.shape[1]),
        sd=sd.reshape(found, table.shape[1]),
        sentence=_in_words(size, method, None if count else criterion, label, rows),
    )


def class_table(atoms: pd.DataFrame, label: ArrayLike) -> pd.DataFrame:
    """Compare classes: how many atoms each has, and what they are like on average.

    Parameters
    ----------
    atoms : pandas.DataFrame
        N rows; columns that hold no numbers are left out.
    label : (N,) array-like of int
        Class of each row; negative for rows in no class, which are left out.

    Returns
    -------
    pandas.DataFrame
        One row a class, indexed by its number: ``count``, then for each column, NaN left out, its
        mean; ``<column> sd``, how much the atoms differ; and ``<column> se``, the standard error
        of the mean (NaN for a single atom).

    Examples
    --------
    >>> class_table(pd.DataFrame({"z1": [1.0, 2.0, 7.0, 9.0]}), [0, 0, 1, -1]).loc[0].to_dict()
    {'count': 2.0, 'z1': 1.5, 'z1 sd': 0.5, 'z1 se': 0.5}
    """
    number = pd.Series(np.asarray(label), index=atoms.index, name="class")
    groups = atoms.select_dtypes("number").loc[number >= 0].groupby(number[number >= 0])
    columns = {"count": groups.size()}
    mean, sd, error = groups.mean(), groups.std(ddof=0), groups.sem()
    for name in mean.columns:
        columns[str(name)] = mean[name]
        columns[f"{name} sd"], columns[f"{name} se"] = sd[name], error[name]
    return pd.DataFrame(columns)


def class_pictures(patches: Patches, label: ArrayLike) -> NDArray[np.float32]:
    """Mean patch of each class.

    Parameters
    ----------
    patches : Patches
        Of N picks; gathered a few hundred at a time.
    label : (N,) array-like of int
        Class of each *patch*: that of pick ``patches.index``. Negative for those in no class.

    Returns
    -------
    (C, P, P) float32 array
        In the unit of ``patches.frames``: that of the image, its slow background taken off where
        that was done for the patches. NaN for numbers that no patch has.
    """
    number = np.asarray(label, dtype=np.int64)
    if number.shape != (len(patches),):
        raise InputError(
            f"label has the shape {number.shape}; give one class for each of the {len(patches)} "
            "patches."
        )
    size = patches.patch_size_px
    total = np.zeros((int(number.max(initial=-1)) + 1, size, size))
    for first in range(0, len(patches), PICTURES_AT_ONCE):
        rows = np.arange(first, min(first + PICTURES_AT_ONCE, len(patches)))
        rows = rows[number[rows] >= 0]
        pixels = patches.gather(rows).numpy().reshape(-1, size, size).astype(np.float64)
        pixels *= patches.scale[rows, None, None]
        pixels += patches.offset[rows, None, None]
        np.add.at(total, number[rows], pixels)
    count = np.bincount(number[number >= 0], minlength=len(total)).astype(np.float64)
    count[count == 0] = np.nan
    return (total / count[:, None, None]).astype(np.float32)


def central_brightness(patches: Patches, separation_px: float) -> Floats:
    """Brightness of the image at each pick against what is around it.

    Parameters
    ----------
    patches : Patches
        N of them; gathered a few hundred at a time.
    separation_px : float
        Distance between neighbours [px]; the atom is weighed by a Gaussian of 0.15 of it, its
        surroundings by one of 0.9.

    Returns
    -------
    (N,) array
        In the unit of ``patches.frames``.
    """
    size = patches.patch_size_px
    middle = (size - 1) / 2 + patches.remainder_yx_px
    away = np.arange(size) - middle[:, :, None]  # (N, 2, P)
    found = np.empty(len(patches))
    for first in range(0, len(patches), PICTURES_AT_ONCE):
        rows = np.arange(first, min(first + PICTURES_AT_ONCE, len(patches)))
        pixels = patches.gather(rows).numpy().astype(np.float64)
        means = []
        for share in (ATOM, AROUND):
            weight = np.exp(-0.5 * (away[rows] / (share * separation_px)) ** 2)
            weight /= weight.sum(axis=2, keepdims=True)
            means.append(np.einsum("npq,np,nq->n", pixels, weight[:, 0], weight[:, 1]))
        found[rows] = means[0] - means[1]
    return found * patches.scale


def split_classes(label: ArrayLike, values: ArrayLike, *, seed: int = 0) -> Ints:
    """Split off the atoms of each class that stand apart by one more value.

    Few atoms that differ in little, such as substituted ones among thousands, are lost in clusters
    of all atoms; within their class they are apart.

    Parameters
    ----------
    label : (N,) array-like of int
        Class of each row, -1 for none.
    values : (N,) array-like
        One value a row, such as `central_brightness`; rows with a NaN stay in their class.
    seed : int

    Returns
    -------
    (N,) int array
        The largest part of each class keeps its number; the others follow the last one.
    """
    before, column = np.asarray(label, dtype=np.int64), np.asarray(values, dtype=np.float64)
    after, most = before.copy(), int(before.max(initial=-1)) + 1
    for number in range(most):
        rows = np.flatnonzero((before == number) & np.isfinite(column))
        parts = cluster(column[rows, None], seed=seed).label
        moved = parts > 0
        after[rows[moved]] = int(after.max()) + parts[moved]
    return after


def _check_count(count: int | None, method: Method, different: int) -> None:
    if count is None:
        return
    if method == "hdbscan":
        raise InputError(
            f"count is {count}, but HDBSCAN finds the number of classes itself: leave it out, or "
            "choose k-means."
        )
    if not 1 <= count <= different:
        raise InputError(
            f"count is {count}; choose 1 to {different} classes for {different} different rows."
        )


def _standardised(values: Floats) -> Floats:
    """Columns of mean 0 and standard deviation 1; columns without any spread are all 0."""
    values = values - values.mean(axis=0)
    spread = values.std(axis=0)
    flat = spread <= 1e-12 * np.maximum(np.abs(values).max(axis=0), 1e-300)
    return np.where(flat, 0.0, values / np.where(flat, 1.0, spread))


def _whitened(scaled: Floats) -> Floats:
    """Turn to principal axes, each of standard deviation 1."""
    # Mixtures are the same on any axes, but the compact groups that they are started from are not.
    axes, spread, _ = np.linalg.svd(scaled, full_matrices=False)
    known = spread > 1e-9 * max(float(spread.max(initial=0.0)), 1e-300)
    kept = axes[:, known] if known.any() else axes[:, :1]
    return np.asarray(kept * np.sqrt(len(scaled)), dtype=np.float64)


def _mixture(scaled: Floats, tried: Iterable[int], criterion: Criterion, seed: int) -> Mixture:
    found: list[tuple[float, Mixture]] = []
    for k, background in product(tried, (False, True)):
        mixture = fit_mixture(scaled, k, seed=seed, background=background)
        value = mixture.icl(scaled) if criterion == "icl" else mixture.bic(scaled)
        if not found or mixture.weight.min() * len(scaled) >= FEWEST:
            found.append((value, mixture))
    lowest = min(value for value, _ in found)
    return next(mixture for value, mixture in found if value <= lowest + STRONG_EVIDENCE)


def _dense(scaled: Floats, sample: Ints) -> Ints:
    smallest = max(FEWEST, round(SMALLEST * len(sample)))
    if len(sample) <= smallest:
        return np.full(len(scaled), -1)
    found = HDBSCAN(min_cluster_size=smallest, copy=True).fit(scaled[sample])
    nearest = np.asarray(KDTree(scaled[sample]).query(scaled)[1])
    return np.asarray(found.labels_[nearest], dtype=np.int64)


def _largest_first(label: Ints, values: Floats) -> Ints:
    groups = np.unique(label[label >= 0])
    order = sorted(
        groups,
        key=lambda each: (-(label == each).sum(), tuple(values[label == each].mean(axis=0))),
    )
    renumbered = np.full_like(label, -1)
    for number, group in enumerate(order):
        renumbered[label == group] = number
    return renumbered


def _in_words(
    size: Ints, method: Method, criterion: Criterion | None, label: Ints, rows: Ints
) -> str:
    by = {"gaussian mixture": "a Gaussian mixture", "k-means": "k-means", "hdbscan": "HDBSCAN"}
    sizes = [str(each) for each in size]
    listed = " and ".join([", ".join(sizes[:-1]), sizes[-1]] if len(sizes) > 1 else sizes)
    said = f"{len(size)} class{'' if len(size) == 1 else 'es'}"
    said += f" of {listed} atoms" if sizes else ""
    said += f", by {by[method]}"
    if criterion is not None and method != "hdbscan":
        said += f", their number by {CRITERIA[criterion]}"
    if (label[rows] < 0).any():
        said += f"; {(label[rows] < 0).sum()} atoms belong to none"
    if len(rows) < len(label):
        said += f"; {len(label) - len(rows)} atoms have missing values and no class"
    return f"{said}."
