"""Picks of a sequence, frame by frame, with what is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.given import Told
from napari_shiftvae.core.images import checksum


@dataclass(frozen=True, kw_only=True, eq=False)
class FramePicks:
    """M picks in T frames.

    Attributes
    ----------
    frame : (M,) int array
    positions_yx : (M, 2) array
        Picks (y, x) [px].
    told : Told
        What is told of these picks.
    frames : int
        T.
    """

    frame: NDArray[np.int64]
    positions_yx: NDArray[np.float64]
    told: Told
    frames: int

    @classmethod
    def of(
        cls,
        positions_tyx: ArrayLike | None,
        frames: int,
        *,
        given: ArrayLike | None = None,
        labels: ArrayLike | None = None,
    ) -> FramePicks | None:
        """Check picks (frame, y, x) and what is told of them; None where there are none.

        Raises
        ------
        InputError
            If something is told of no picks, or there are picks in frames that do not exist.

        Examples
        --------
        >>> picks = FramePicks.of([[1, 5, 6], [0, 2, 3]], 2, given=["A", "B"])
        >>> picks.of_frame(1)
        (array([[5., 6.]]), array(['A'], dtype='<U1'))
        """
        if positions_tyx is None:
            if given is not None or labels is not None:
                raise InputError("Classes are told of given atoms: give their positions too.")
            return None
        table = np.asarray(positions_tyx, dtype=np.float64).reshape(-1, 3)
        outside = (table[:, 0] < 0) | (table[:, 0] >= frames)
        if outside.any():
            raise InputError(
                f"{int(outside.sum())} positions are in frames that do not exist: the sequence has "
                f"frames 0 to {frames - 1}."
            )
        return cls(
            frame=table[:, 0].astype(np.int64),
            positions_yx=table[:, 1:],
            told=Told.of_picks(len(table), given, labels),
            frames=frames,
        )

    def of_frame(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.str_] | None]:
        """Picks (N, 2) of one frame, and their classes (N,) where these are given."""
        rows = self.frame == index
        given = None if self.told.given is None else self.told.given[rows]
        return self.positions_yx[rows], given

    def of_frames(self, frames: Sequence[int]) -> NDArray[np.int64]:
        """Rows of the picks of some frames, one frame after the other."""
        return np.concatenate([np.flatnonzero(self.frame == index) for index in frames])

    def with_labels(self, frames: Sequence[int], most: int) -> list[int]:
        """Add the frames that hold labelled atoms, `most` of them, to those to learn from."""
        if self.told.labels is None:
            return list(frames)
        there = np.unique(self.frame[self.told.labels >= 0])[:most]
        return sorted({*frames, *there.tolist()})

    @property
    def checksums(self) -> dict[str, str]:
        """Fingerprints of picks and of what is told of them."""
        columns = np.column_stack([self.frame, self.positions_yx])
        found = {"positions": checksum(columns[np.argsort(self.frame, kind="stable")])}
        if self.told.given is not None:
            found["given"] = checksum(np.char.encode(self.told.given, "utf-8").view(np.uint8))
        if self.told.labels is not None:
            found["labels"] = checksum(self.told.labels)
        return found
