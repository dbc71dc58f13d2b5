"""What the Explore tab has done in a thread. No Qt, no layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_shiftvae.colouring import CLASS_NAME, class_names
from napari_shiftvae.layers import CLASS

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from napari_shiftvae.core.classify import Criterion, Method
    from napari_shiftvae.core.patches import Patches
    from napari_shiftvae.core.runs import Run


@dataclass(frozen=True, kw_only=True)
class ClassOrder:
    """How atoms shall be sorted into classes.

    Attributes
    ----------
    method, criterion : str
        As `classify.cluster` takes them.
    count : int or None
    by_axes : bool
        By the columns of the plot, not by all latents.
    split : bool
        Whether classes are then split by the brightness of their atoms.
    """

    method: Method
    criterion: Criterion
    count: int | None
    by_axes: bool
    split: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Classified:
    """A run whose atoms have classes, with what each class is like.

    Attributes
    ----------
    run : Run
        Its atoms have the column ``class``, and ``class_name`` where a class has a name.
    table : pandas.DataFrame
        Number of atoms and means of the columns, one row a class.
    patterns : (C, P, P) array
        Mean patch of each class; NaN where it has none.
    sentence : str
    """

    run: Run
    table: pd.DataFrame
    patterns: NDArray[np.float32]
    sentence: str


def classify(
    run: Run,
    patches: Patches,
    values: NDArray[np.float64],
    order: ClassOrder,
) -> Classified:
    """Sort the atoms of a run into classes by some columns (N, F) and, asked for, brightness."""
    from napari_shiftvae.core.classify import central_brightness, cluster, split_classes

    seed = run.config.train.seed
    found = cluster(
        values, method=order.method, count=order.count, criterion=order.criterion, seed=seed
    )
    label, sentence = found.label, found.sentence
    if order.split:
        brightness = np.full(len(run.atoms), np.nan)
        brightness[patches.index] = central_brightness(patches, run.separation_px)
        label = split_classes(label, brightness, seed=seed)
        more = int(label.max(initial=-1)) + 1 - found.count
        if more:
            sizes = [str((label == found.count + each).sum()) for each in range(more)]
            sentence += (
                f" Brightness sets apart {' and '.join(sizes)} of these atoms as "
                f"{'a class of their own' if more == 1 else 'classes of their own'}."
            )
    return described(with_classes(run, label, {}), patches, sentence)


def add_class(run: Run, patches: Patches, rows: Sequence[int], name: str) -> Classified:
    """Put some atoms into a class of their own."""
    labels, names = np.full(len(run.atoms), -1), {}
    if CLASS in run.atoms:
        labels = run.atoms[CLASS].to_numpy(dtype=int).copy()
        names = class_names(run.atoms)
    number = int(labels.max()) + 1
    labels[list(rows)] = number
    said = f"Class {name or number}: {len(rows)} selected atoms."
    return described(with_classes(run, labels, {**names, number: name}), patches, said)


def with_classes(run: Run, labels: NDArray[np.int64], names: dict[int, str]) -> Run:
    """Give the atoms of a run classes, in columns before the last one, ``set_aside``.

    Parameters
    ----------
    run : Run
    labels : (N,) int array
        -1 for none.
    names : dict of int to str
        Of classes that have names other than their numbers.
    """
    given = {number: name for number, name in names.items() if name not in {"", str(number)}}
    atoms = run.atoms.drop(columns=[CLASS, CLASS_NAME], errors="ignore")
    aside = atoms.columns.get_loc("set_aside")
    if (labels >= 0).any():
        atoms.insert(aside, CLASS, labels)
        if given:
            words = [given.get(int(label), "") for label in labels]
            atoms.insert(aside + 1, CLASS_NAME, np.array(words, dtype=object))
    return replace(run, atoms=atoms)


def described(run: Run, patches: Patches, sentence: str) -> Classified:
    """Compare the classes of a run."""
    from napari_shiftvae.core.classify import class_pictures, class_table

    labels = np.full(len(run.atoms), -1)
    if CLASS in run.atoms:
        labels = run.atoms[CLASS].to_numpy(dtype=int)
    return Classified(
        run=run,
        table=class_table(run.atoms.drop(columns=CLASS, errors="ignore"), labels),
        patterns=class_pictures(patches, labels[patches.index]),
        sentence=sentence,
    )
