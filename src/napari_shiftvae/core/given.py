"""What is told of atoms beside their places: classes that a model is conditional on, and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.patches import Patches
from napari_shiftvae.core.train_config import FEWEST_PATCHES

__all__ = ["GIVEN", "LABEL", "Told", "given_names", "some_patches", "with_given"]

GIVEN = "given_class"  # column of the table of atoms
LABEL = "label"  # column of the same: number of the class that an atom is known to be of
NO_CLASS = "no class"  # why an atom of no given class is set aside


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """What is told of the M picks of an analysis.

    Attributes
    ----------
    given : (M,) array of str or None
        Class that the model is conditional on; "" for atoms that are to be set aside.
    labels : (M,) int array or None
        Class that is known of an atom, of those that are learned; -1 where it is not.
    names : tuple of str
        What the classes are called that labels were given for.
    """

    given: NDArray[np.str_] | None = None
    labels: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()

    @classmethod
    def of_picks(cls, picks: int, given: ArrayLike | None, labels: ArrayLike | None) -> Told:
        """Check that there is one of each for every pick; words for labels are numbered.

        Examples
        --------
        >>> told = Told.of_picks(3, [2, 1, 1], ["", "old", "new"])
        >>> told.given.tolist(), told.labels.tolist(), told.names
        (['2', '1', '1'], [-1, 1, 0], ('new', 'old'))
        """
        words = None if given is None else np.asarray(given).astype(str)
        if words is not None and words.shape != (picks,):
            raise InputError(
                f"given has the shape {words.shape}; give one class for each of the {picks} atoms."
            )
        if labels is None:
            return cls(given=words)
        numbers, names = np.asarray(labels), ()
        if numbers.dtype.kind in "UOT":
            different, numbers = np.unique(numbers.astype(str), return_inverse=True)
            names = tuple(different[different != ""].tolist())
            numbers = numbers - int(different[0] == "")  # "" comes first
        if numbers.shape != (picks,) or numbers.dtype.kind not in "iu":
            raise InputError(
                f"labels has the shape {numbers.shape}; give one name or whole number for each of "
                f'the {picks} atoms, "" or -1 where the class is not known.'
            )
        return cls(given=words, labels=numbers.astype(np.int64), names=names)

    @classmethod
    def of_table(cls, atoms: pd.DataFrame) -> Told:
        """Read it from the table of a run."""
        labels, given = None, None
        if LABEL in atoms:
            labels = pd.to_numeric(atoms[LABEL], errors="coerce").fillna(-1).to_numpy(np.int64)
        if GIVEN in atoms:
            given = atoms[GIVEN].to_numpy().astype(str)
        return cls(given=given, labels=labels)

    def of_rows(self, rows: NDArray[np.int64]) -> Told:
        """What is told of some of the picks, in this order."""
        given = None if self.given is None else self.given[rows]
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, given=given, labels=labels)

    @property
    def words(self) -> NDArray[Any] | None:
        """Labels (M,) by their names, "" where there is none; numbers where they have no names."""
        if self.labels is None or not self.names:
            return self.labels
        return np.array([*self.names, ""])[self.labels]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was told, in words."""
        if not self.names:
            return ()
        named = ", ".join(f"{number} {name}" for number, name in enumerate(self.names))
        return (f"Classes, by the labels: {named}.",)

    def into(self, atoms: pd.DataFrame) -> pd.DataFrame:
        """Add it to the table of a run, before the last column."""
        table, place = atoms.copy(), len(atoms.columns) - 1
        if self.given is not None:
            table.insert(place, GIVEN, self.given.astype(object))
        if self.labels is not None:
            table.insert(place, LABEL, np.where(self.labels < 0, np.nan, self.labels))
        return table


def given_names(given: NDArray[np.str_]) -> tuple[str, ...]:
    """Names of the classes there are, sorted; there must be two.

    Raises
    ------
    InputError
        If there are fewer, or one has too few atoms to learn from.
    """
    names, counts = np.unique(given[given != ""], return_counts=True)
    if len(names) < 2:
        there = f"only one class ({names[0]})" if len(names) else "no class"
        raise InputError(
            f"The atoms have {there}: group them into sublattices first, or make the model "
            "conditional on nothing."
        )
    if counts.min() < FEWEST_PATCHES:
        name = names[counts.argmin()]
        raise InputError(
            f"Class {name} has {counts.min()} atoms and the model needs at least {FEWEST_PATCHES} "
            "of each: put it together with another, or leave its atoms without a class."
        )
    return tuple(names.tolist())


def with_given(patches: Patches, given: ArrayLike, names: Sequence[str]) -> Patches:
    """Tell the class of every window; atoms of none are set aside.

    Parameters
    ----------
    patches : Patches
        N windows of M picks.
    given : (M,) array-like of str
    names : sequence of str
        The C classes of the model.

    Returns
    -------
    Patches
    """
    words = np.asarray(given).astype(str)
    told = words[patches.index, None] == np.asarray(names)  # (N, C)
    known = told.any(axis=1)
    if not known.any():
        raise InputError(
            f"No atom is of a class that the model knows ({', '.join(names)}): name them so."
        )
    set_aside = patches.set_aside.copy()
    set_aside[patches.index[~known]] = NO_CLASS
    patches = replace(patches, set_aside=set_aside, given=torch.from_numpy(told.astype(np.float32)))
    return some_patches(patches, np.flatnonzero(known))


def some_patches(patches: Patches, rows: NDArray[np.int64]) -> Patches:
    """Keep some windows (B,), in order."""
    names = ("frame", "corner_yx", "remainder_yx_px", "index", "offset", "scale")
    kept = {name: getattr(patches, name)[rows] for name in names}
    given = None if patches.given is None else patches.given[rows]
    return replace(patches, **kept, given=given)
