"""Atoms marked in an image or a stack, found or made by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from napari_shiftvae.core.positions import with_nm

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from napari_shiftvae.core.images import Calibration

# What every table of picks has; further columns say what was measured of each atom.
OWN = {"t": np.int64, "y_px": np.float64, "x_px": np.float64, "by_hand": np.bool_}
SUBLATTICE = "sublattice"
WORDS = {SUBLATTICE, "flag"}  # columns of text, "" where there is nothing to say


@dataclass(frozen=True, kw_only=True, eq=False)
class Picks:
    """Atoms marked in an image or a stack.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per atom: ``t`` (frame; 0 in an image), ``y_px``, ``x_px`` [px], ``by_hand`` (what
        a person clicked or moved; no automatic step takes these away), ``sublattice`` ("" where
        it is in none), then what was measured of the atom, NaN where nothing was.
    """

    table: pd.DataFrame

    def __post_init__(self) -> None:
        missing = {*OWN, SUBLATTICE} - set(self.table.columns)
        if missing:
            raise ValueError(f"table has no columns {sorted(missing)}; use Picks.of to make it")

    def __len__(self) -> int:
        return len(self.table)

    @classmethod
    def none(cls) -> Picks:
        """No atoms."""
        return cls.of(np.empty((0, 2)), by_hand=False)

    @classmethod
    def of(
        cls,
        positions_yx: ArrayLike,
        *,
        by_hand: ArrayLike,
        t: ArrayLike = 0,
        sublattice: str = "",
    ) -> Picks:
        """Make picks from anything like arrays, copied."""
        positions = np.array(positions_yx, dtype=float).reshape(-1, 2)
        table = pd.DataFrame(index=range(len(positions)))
        columns = (t, *positions.T, by_hand)
        for (name, kind), values in zip(OWN.items(), columns, strict=True):
            table[name] = np.array(np.broadcast_to(values, len(positions)), dtype=kind)
        table[SUBLATTICE] = pd.Series([sublattice] * len(positions), dtype=str)
        return cls(table=table)

    @classmethod
    def read(cls, table: pd.DataFrame, *, by_hand: bool) -> Picks:
        """Make picks from a table of atoms, such as a file holds; further columns are kept."""
        new = cls.of(table[["y_px", "x_px"]].to_numpy(), by_hand=by_hand, t=table.get("t", 0)).table
        for name in table.columns.difference(["t", "y_px", "x_px"], sort=False):
            if name in WORDS:
                new[name] = table[name].astype(object).where(table[name].notna(), "").astype(str)
            elif not name.endswith("_nm"):  # made anew where they are wanted
                new[name] = table[name]
        new["by_hand"] = new["by_hand"].astype(bool)
        return cls(table=new)

    @cached_property
    def positions_yx(self) -> NDArray[np.float64]:
        """Positions (N, 2), (y, x) [px]."""
        return self.table[["y_px", "x_px"]].to_numpy(dtype=np.float64)

    @cached_property
    def positions_tyx(self) -> NDArray[np.float64]:
        """Positions (N, 3): frame, then (y, x) [px]."""
        return self.table[["t", "y_px", "x_px"]].to_numpy(dtype=np.float64)

    @cached_property
    def t(self) -> NDArray[np.int64]:
        """Frame (N,) of each atom."""
        return self.table["t"].to_numpy()

    @cached_property
    def by_hand(self) -> NDArray[np.bool_]:
        """Whether a person made or moved each atom, (N,)."""
        return self.table["by_hand"].to_numpy()

    @cached_property
    def sublattice(self) -> NDArray[np.object_]:
        """Name of the sublattice of each atom (N,), "" for none."""
        return self.table[SUBLATTICE].to_numpy(dtype=object)

    @property
    def sublattices(self) -> list[str]:
        """Names of the sublattices there are, sorted."""
        return sorted(set(self.sublattice) - {""})

    @property
    def measured(self) -> list[str]:
        """Columns that say what was measured."""
        return [name for name in self.table if name not in {*OWN, SUBLATTICE}]

    def for_file(self, calibration: Calibration | None, *, stack: bool) -> pd.DataFrame:
        """Return the table for a CSV file: with lengths in nm too, frames only for a stack."""
        table = with_nm(self.table, calibration)
        return table if stack else table.drop(columns="t")

    # -- by hand -------------------------------------------------------------------------------

    def added(self, position_yx: ArrayLike, t: int = 0) -> Picks:
        """Add one pick, made by hand, at the end."""
        return self._with(Picks.of(position_yx, by_hand=True, t=t))

    def moved(self, index: int, position_yx: ArrayLike) -> Picks:
        """Put one pick elsewhere, which makes it a pick by hand with nothing measured."""
        table = self.table.copy()
        table.loc[index, ["y_px", "x_px"]] = np.asarray(position_yx, dtype=float)
        table.loc[index, "by_hand"] = True
        for name in self.measured:
            table.loc[index, name] = "" if name in WORDS else np.nan
        return Picks(table=table)

    def without(self, indices: Iterable[int]) -> Picks:
        """Leave out some rows."""
        return Picks(table=self.table.drop(index=list(indices)).reset_index(drop=True))

    def edited(self, positions: ArrayLike) -> Picks:
        """Take over edited positions (N, 2) or, with the frame, (N, 3).

        A row that was there before keeps what is known of it; another one is by hand.
        """
        places = np.array(positions, dtype=float)
        places = places.reshape(-1, places.shape[-1] if places.ndim == 2 else 2)
        if places.shape[1] == 2:
            places = np.column_stack([np.zeros(len(places)), places])
        before = {tuple(place): row for row, place in enumerate(self.positions_tyx.tolist())}
        rows = [before.get(tuple(place), -1) for place in places.tolist()]
        new = Picks.of(places[:, 1:], by_hand=True, t=np.rint(places[:, 0])).table
        known = np.array(rows, dtype=int) >= 0
        kept = self.table.iloc[[row for row in rows if row >= 0]]
        kept.index = new.index[known]
        table = pd.concat([new[~known], kept]).sort_index()
        return Picks(table=table[self.table.columns]) if len(self) else Picks(table=new)

    def nearest(self, position_yx: ArrayLike, within_px: float, t: int = 0) -> int | None:
        """Row of the pick nearest to a position in a frame, None where none is that near."""
        rows = np.flatnonzero(self.t == t)
        if not len(rows):
            return None
        distance = np.linalg.norm(self.positions_yx[rows] - np.asarray(position_yx), axis=1)
        index = int(distance.argmin())
        return int(rows[index]) if distance[index] <= within_px else None

    # -- by automatic steps --------------------------------------------------------------------

    def with_found(self, found: Picks, distance_px: float, frame: int | None = None) -> Picks:
        """Keep the picks made by hand, and add the found ones that are not near them.

        Parameters
        ----------
        found : Picks
            What an automatic step found.
        distance_px : float
            A found position nearer than this to a pick by hand is the same atom.
        frame : int, optional
            The only one that was looked at: picks in others stay.

        Returns
        -------
        Picks
            Those that stay first.
        """
        stays = self.by_hand if frame is None else self.by_hand | (self.t != frame)
        return Picks(table=self.table[stays].reset_index(drop=True)).with_more(found, distance_px)

    def with_more(self, others: Picks, distance_px: float) -> Picks:
        """Add those of other picks that are not near to one there is."""
        nearest, _ = self.match(others, distance_px)
        return self._with(Picks(table=others.table[nearest < 0]))

    def with_group(self, places: Picks, name: str, distance_px: float) -> Picks:
        """Give a sublattice's name to the picks at some places, and add those that are missing."""
        _, rows = self.match(places, distance_px)
        table = self.table.copy()
        table.loc[rows, SUBLATTICE] = name
        named = Picks(table=places.table.assign(**{SUBLATTICE: name}))
        return Picks(table=table).with_more(named, distance_px)

    def match(self, others: Picks, distance_px: float) -> tuple[NDArray[Any], NDArray[Any]]:
        """Pair other picks with those here, each with the nearest in its frame.

        Returns
        -------
        nearest : (len(others),) int array
            Row here, -1 where none is nearer than `distance_px`.
        rows : (M,) int array
            Rows here that are paired, sorted.
        """
        if not len(self) or not len(others):
            return np.full(len(others), -1), np.empty(0, dtype=int)
        apart = np.array([10 * distance_px, 1, 1])  # no pair between frames
        distance, nearest = cKDTree(self.positions_tyx * apart).query(others.positions_tyx * apart)
        nearest = np.where(distance < distance_px, nearest, -1)
        return nearest, np.unique(nearest[nearest >= 0])

    def with_measured(self, measured: pd.DataFrame) -> Picks:
        """Take over columns for all atoms; those of the positions too."""
        return Picks(table=self.table.assign(**{name: measured[name] for name in measured}))

    def in_sublattices(self, names: Iterable[str]) -> Picks:
        """Return the picks of some sublattices only, "" meaning those in none."""
        return Picks(table=self.table[self.table[SUBLATTICE].isin(list(names))])

    def _with(self, others: Picks) -> Picks:
        if not len(self):
            return Picks(table=others.table.reset_index(drop=True))
        if not len(others):
            return self
        table = pd.concat([self.table, others.table], ignore_index=True)
        for name in WORDS & set(table):
            table[name] = table[name].fillna("")
        return Picks(table=table)
