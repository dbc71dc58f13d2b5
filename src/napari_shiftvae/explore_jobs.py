"""What the Explore tab has done in a thread. No Qt, no layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_shiftvae.layers import CLASS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae.core.patches import Patches
    from napari_shiftvae.core.runs import Run

METHODS: dict[str, Literal["mixture", "kmeans", "hdbscan"]] = {
    "mixture": "mixture",
    "k-means": "kmeans",
    "HDBSCAN": "hdbscan",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Classified:
    """A run whose atoms have classes, the mean patch of each class, and a sentence."""

    run: Run
    patterns: dict[int, NDArray[np.float32]]
    sentence: str


def classify(
    run: Run, patches: Patches, columns: Sequence[str], method: str, count: int | None
) -> Classified:
    """Sort the atoms of a run into classes by some of their columns."""
    from napari_shiftvae.core.classify import cluster

    values = run.atoms[list(dict.fromkeys(columns))].to_numpy(dtype=float)
    found = cluster(values, method=METHODS[method], count=count, seed=run.config.train.seed)
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
    aside = run.atoms.columns.get_loc("set_aside")
    atoms = run.atoms.drop(columns=CLASS, errors="ignore")
    atoms.insert(min(aside, atoms.shape[1]), CLASS, labels)
    return Classified(
        run=replace(run, atoms=atoms),
        patterns=class_means(patches, labels),
        sentence=sentence,
    )


def class_means(patches: Patches, labels: NDArray[np.int64]) -> dict[int, NDArray[np.float32]]:
    """Mean patch of each class, of at most a thousand of its atoms."""
    of_patch = labels[patches.index]
    means = {}
    for number in np.unique(of_patch[of_patch >= 0]).tolist():
        rows = np.flatnonzero(of_patch == number)
        some = rows[:: -(-len(rows) // 1000)]
        means[number] = patches.gather(some).mean(dim=0).numpy()
    return means
