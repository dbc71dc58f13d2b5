"""What was changed by hand of positions that were found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Edits", "edits"]

MOST_EDITS = 60  # more are better kept in a table


@dataclass(frozen=True, kw_only=True, eq=False)
class Edits:
    """What was changed by hand of positions that were found.

    Attributes
    ----------
    deleted : tuple of int
        Rows of what was found.
    before : tuple of int
        Rows of what is left that each added position goes before.
    added_yx : (N, 2) array
        Positions (y, x) [px] that were clicked or moved.
    """

    deleted: tuple[int, ...]
    before: tuple[int, ...]
    added_yx: NDArray[np.float64]


def edits(found_yx: ArrayLike, picks_yx: ArrayLike) -> Edits | None:
    """Tell what was changed by hand between positions that were found and those in use.

    Parameters
    ----------
    found_yx, picks_yx : (M, 2) and (N, 2) array-like

    Returns
    -------
    Edits or None
        None where the picks are not what was found with a few deleted and a few added, such as
        when they were refined.

    Examples
    --------
    >>> made = edits([[1, 1], [2, 2], [3, 3]], [[9, 9], [1, 1], [3, 3]])
    >>> made.deleted, made.before, made.added_yx
    ((1,), (0,), array([[9., 9.]]))
    """
    found = [tuple(row) for row in np.asarray(found_yx, dtype=np.float64).reshape(-1, 2).tolist()]
    picks = [tuple(row) for row in np.asarray(picks_yx, dtype=np.float64).reshape(-1, 2).tolist()]
    row_of = {position: row for row, position in enumerate(found)}
    rows = [row_of.get(position, -1) for position in picks]
    kept = [row for row in rows if row >= 0]
    if kept != sorted(set(kept)):
        return None
    added = [place for place, row in enumerate(rows) if row < 0]
    deleted = tuple(sorted(set(range(len(found))) - set(kept)))
    if len(added) > MOST_EDITS or len(deleted) > MOST_EDITS:
        return None
    return Edits(
        deleted=deleted,
        before=tuple(place - number for number, place in enumerate(added)),
        added_yx=np.array([picks[place] for place in added], dtype=np.float64).reshape(-1, 2),
    )
