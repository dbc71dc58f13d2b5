"""Atoms marked in an image, found or made by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Picks:
    """Atoms marked in an image.

    Attributes
    ----------
    positions_yx : (N, 2) float64 array
        Pixels (y, x).
    by_hand : (N,) bool array
        True for what a person clicked or moved; no automatic step takes these away.
    """

    positions_yx: NDArray[np.float64]
    by_hand: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.positions_yx.shape != (len(self.by_hand), 2):
            raise ValueError(
                f"positions_yx has shape {self.positions_yx.shape}; "
                f"({len(self.by_hand)}, 2) is needed, one row for each flag in by_hand"
            )

    def __len__(self) -> int:
        return len(self.positions_yx)

    @classmethod
    def none(cls) -> Picks:
        """No atoms."""
        return cls(positions_yx=np.empty((0, 2)), by_hand=np.empty(0, dtype=bool))

    @classmethod
    def of(cls, positions_yx: ArrayLike, by_hand: ArrayLike) -> Picks:
        """Make picks from anything like arrays, copied."""
        return cls(
            positions_yx=np.array(positions_yx, dtype=float).reshape(-1, 2),
            by_hand=np.array(by_hand, dtype=bool),
        )

    def added(self, position_yx: ArrayLike) -> Picks:
        """Add one pick, made by hand, at the end."""
        return Picks(
            positions_yx=np.vstack([self.positions_yx, np.asarray(position_yx, dtype=float)]),
            by_hand=np.append(self.by_hand, True),
        )

    def moved(self, index: int, position_yx: ArrayLike) -> Picks:
        """Put one pick elsewhere, which makes it a pick by hand."""
        positions, by_hand = self.positions_yx.copy(), self.by_hand.copy()
        positions[index] = position_yx
        by_hand[index] = True
        return Picks(positions_yx=positions, by_hand=by_hand)

    def without(self, indices: Iterable[int]) -> Picks:
        """Leave out some rows."""
        keep = np.ones(len(self), dtype=bool)
        keep[list(indices)] = False
        return Picks(positions_yx=self.positions_yx[keep], by_hand=self.by_hand[keep])

    def with_found(self, found_yx: ArrayLike, distance_px: float) -> Picks:
        """Keep the picks made by hand, and add the found ones that are not near them.

        Parameters
        ----------
        found_yx : (N, 2) array-like
            What an automatic step found, pixels (y, x).
        distance_px : float
            A found position nearer than this to a pick by hand is the same atom.

        Returns
        -------
        Picks
            By hand first.
        """
        found = np.asarray(found_yx, dtype=float).reshape(-1, 2)
        hand = self.positions_yx[self.by_hand]
        if len(hand) and len(found):
            nearest, _ = cKDTree(hand).query(found)
            found = found[nearest >= distance_px]
        return Picks(
            positions_yx=np.vstack([hand, found]),
            by_hand=np.arange(len(hand) + len(found)) < len(hand),
        )

    def edited(self, positions_yx: ArrayLike) -> Picks:
        """Carry the flags over to an edited table: a row that was not there before is by hand."""
        positions = np.array(positions_yx, dtype=float).reshape(-1, 2)
        before = {
            tuple(row): bool(hand)
            for row, hand in zip(self.positions_yx.tolist(), self.by_hand, strict=True)
        }
        flags = [before.get(tuple(row), True) for row in positions.tolist()]
        return Picks(positions_yx=positions, by_hand=np.array(flags, dtype=bool))

    def nearest(self, position_yx: ArrayLike, within_px: float) -> int | None:
        """Row of the pick nearest to a position, None where none is that near."""
        if not len(self):
            return None
        distance = np.linalg.norm(self.positions_yx - np.asarray(position_yx), axis=1)
        index = int(distance.argmin())
        return index if distance[index] <= within_px else None
