"""Index atoms from neighbour to neighbour, along a lattice that may bend."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, KDTree

STEP = 1.5  # longest step of the walk, in units of the longer lattice vector
LEAP = 4.0  # the same across holes

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def cell_coordinates(positions: Floats, vectors: Floats, near_px: float) -> Floats:
    """Positions on the straightened lattice.

    One sublattice is indexed, starting in the most perfect neighbourhood. At each step the atoms
    indexed so far tell where the lattice goes on; an atom close to that place is the next one.

    Parameters
    ----------
    positions : (N, 2) array
        (y, x) [px].
    vectors : (2, 2) array
        Lattice vectors, one a row [px].
    near_px : float
        Distance of nearest neighbours [px].

    Returns
    -------
    (N, 2) array
        Positions [px] less the local origin of the lattice: whole multiples of the vectors for
        atoms of the sublattice walked on, the same plus a constant for the others.
    """
    walk = _Walk(positions=positions, vectors=vectors, tolerance=0.25 * near_px)
    walk.start(_seed(positions, vectors, near_px))
    size = float(np.linalg.norm(vectors, axis=1).max())
    crowd = len(positions) / max(ConvexHull(positions).volume, 1.0)
    k = min(len(positions) - 1, int(1.5 * np.pi * (STEP * size) ** 2 * crowd) + 8)
    distance, neighbour = (
        np.asarray(each)[:, 1:] for each in KDTree(positions).query(positions, k=k + 1)
    )
    reachable = distance < STEP * size
    new = np.flatnonzero(walk.known)
    while len(new):
        while len(new):
            next_ones = np.unique(neighbour[new][reachable[new]])
            next_ones = next_ones[~walk.known[next_ones]]
            near = neighbour[next_ones]
            new = walk.step(next_ones, near, walk.known[near] & reachable[next_ones])
        rest = np.flatnonzero(~walk.known)
        near, distance_to_known = walk.nearest_known(rest)
        leap = distance_to_known < LEAP * size
        new = walk.step(rest[leap], near[leap], np.ones_like(near[leap], dtype=bool))
    weight = walk.known[neighbour] & reachable
    origin = walk.origin_at(positions, neighbour, weight)
    alone = np.flatnonzero(weight.sum(axis=1) < 3)
    near, _ = walk.nearest_known(alone)
    origin[alone] = walk.origin_at(positions[alone], near, np.ones_like(near, dtype=bool))
    return positions - origin


def _seed(positions: Floats, vectors: Floats, near_px: float) -> int:
    """Atom in the most perfect neighbourhood; of several, the one nearest the middle."""
    tree = KDTree(positions)
    partners = []
    for vector in (*vectors, *-vectors):
        distance, partner = tree.query(positions + vector)
        met = distance < 0.2 * near_px + 0.04 * np.linalg.norm(vector)
        partners.append(np.where(met, partner, -1))
    perfect = np.sum([partner >= 0 for partner in partners], axis=0)
    around = perfect + np.sum([np.where(p >= 0, perfect[p], 0) for p in partners], axis=0)
    from_middle = np.linalg.norm(positions - positions.mean(axis=0), axis=1)
    return int(np.lexsort((from_middle, -around))[0])


@dataclass(kw_only=True, eq=False)
class _Walk:
    """State of the walk: the atoms known so far and the lattice's origin as each sees it."""

    positions: Floats  # (N, 2)
    vectors: Floats  # (2, 2)
    tolerance: float
    known: Bools = field(init=False)
    origin: Floats = field(init=False)  # (N, 2), of known atoms
    taken: Bools = field(init=False)  # (2 R + 1, 2 R + 1), cells that have their atom

    def start(self, seed: int) -> None:
        """Put the seed on the lattice point (0, 0)."""
        self.known = np.zeros(len(self.positions), dtype=bool)
        self.origin = np.zeros_like(self.positions)
        self.known[seed], self.origin[seed] = True, self.positions[seed]
        cells = (self.positions - self.positions[seed]) @ np.linalg.inv(self.vectors)
        reach = 2 * int(np.abs(cells).max()) + 8  # more than any lattice may stretch
        self.taken = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=bool)
        self.taken[reach, reach] = True

    def nearest_known(self, rows: Ints) -> tuple[Ints, Floats]:
        """Up to a dozen known atoms (C, k) nearest each of `rows`, distance (C,) of the first."""
        known = np.flatnonzero(self.known)
        k = np.arange(1, min(12, len(known)) + 1)
        distance, which = KDTree(self.positions[known]).query(self.positions[rows], k=k)
        return known[which], np.asarray(distance)[:, 0]

    def origin_at(self, places: Floats, near: Ints, weight: Bools) -> Floats:
        """Origin (C, 2) as seen from places (C, 2): a plane through that of atoms `near` (C, k)."""
        w = weight[..., None].astype(np.float64)
        total = np.maximum(w.sum(axis=1), 1)
        middle = (w * self.positions[near]).sum(axis=1) / total
        origin = (w * self.origin[near]).sum(axis=1) / total
        arm = w * (self.positions[near] - middle[:, None])  # (C, k, 2)
        # The added unit cell keeps the plane level where few atoms, or a row, fix it.
        moment = arm.swapaxes(1, 2) @ arm + abs(np.linalg.det(self.vectors)) * np.eye(2)
        slope = np.linalg.solve(moment, arm.swapaxes(1, 2) @ (self.origin[near] - origin[:, None]))
        seen: Floats = origin + ((places - middle)[:, None] @ slope)[:, 0]
        return seen

    def step(self, rows: Ints, near: Ints, weight: Bools) -> Ints:
        """Index those of `rows` (C,) that lie where atoms `near` (C, k) expect one; return them."""
        expected = self.origin_at(self.positions[rows], near, weight)
        index = np.rint((self.positions[rows] - expected) @ np.linalg.inv(self.vectors))
        origin = self.positions[rows] - index @ self.vectors
        miss = np.linalg.norm(origin - expected, axis=1)
        reach = len(self.taken) // 2
        cell = index.astype(np.int64) + reach
        order = np.argsort(miss)  # of several atoms for one cell, the best
        order = order[(miss[order] <= self.tolerance)]
        order = order[((cell[order] >= 0) & (cell[order] <= 2 * reach)).all(axis=1)]
        order = order[~self.taken[tuple(cell[order].T)]]
        _, first = np.unique(cell[order] @ (len(self.taken), 1), return_index=True)
        new = order[first]
        self.taken[tuple(cell[new].T)] = True
        self.known[rows[new]] = True
        self.origin[rows[new]] = origin[new]
        found: Ints = rows[new]
        return found
