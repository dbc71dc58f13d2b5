"""What the Explore tab has done in a thread. No Qt, no layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_shiftvae.layers import CLASS

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from napari_shiftvae.core.classify import Method
    from napari_shiftvae.core.patches import Patches
    from napari_shiftvae.core.runs import Run


@dataclass(frozen=True, kw_only=True, eq=False)
class Classified:
    """A run whose atoms have classes, with what each class is like.

    Attributes
    ----------
    run : Run
        Its atoms have the column ``class``.
    table : pandas.DataFrame
        Number of atoms and means of the columns, one row a class.
    patterns : (C, P, P) array
        Mean patch of each class.
    sentence : str
    """

    run: Run
    table: pd.DataFrame
    patterns: NDArray[np.float32]
    sentence: str


def classify(
    run: Run, patches: Patches, columns: Sequence[str], method: Method, count: int | None
) -> Classified:
    """Sort the atoms of a run into classes by some of their columns."""
    from napari_shiftvae.core.classify import cluster

    values = run.atoms[list(dict.fromkeys(columns))].to_numpy(dtype=float)
    found = cluster(values, method=method, count=count, seed=run.config.train.seed)
    return _classified(run, patches, found.label, found.sentence)


def add_class(run: Run, patches: Patches, rows: Sequence[int]) -> Classified:
    """Put some atoms into a class of their own."""
    labels = np.full(len(run.atoms), -1)
    if CLASS in run.atoms:
        labels = run.atoms[CLASS].to_numpy(dtype=int).copy()
    number = int(labels.max()) + 1
    labels[list(rows)] = number
    return _classified(run, patches, labels, f"Class {number}: {len(rows)} selected atoms.")


def _classified(run: Run, patches: Patches, labels: NDArray[np.int64], sentence: str) -> Classified:
    from napari_shiftvae.core.classify import class_pictures, class_table

    aside = run.atoms.columns.get_loc("set_aside")
    atoms = run.atoms.drop(columns=CLASS, errors="ignore")
    atoms.insert(min(aside, atoms.shape[1]), CLASS, labels)
    return Classified(
        run=replace(run, atoms=atoms),
        table=class_table(run.atoms, labels),
        patterns=class_pictures(patches, labels[patches.index]),
        sentence=sentence,
    )
