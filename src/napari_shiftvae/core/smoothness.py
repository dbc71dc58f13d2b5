"""Latents that vary smoothly over the sample: which atoms are compared, and what a step costs.

Neighbours enter the bound as a Markov random field: each pair of them costs
``weight / mean number of neighbours * rho(r)``, where r is the difference of their latents in units
of the posterior standard deviation. So the weight has no unit and 1 is a start on any data:

- quadratic, ``rho = r^2 / 2``: the neighbours of an atom together count ``weight`` times as much as
  its own window;
- edge-preserving, ``rho = 5 (r^2 / 2) / (1 + r^2 / c^2)`` with c = 1: stronger where they differ
  by less than the noise, and without any pull where they differ by much more, so that a domain wall
  stays. As this has many minima, it begins with a large c, which falls (graduated non-convexity).

The condition is that of the published version of M. Ziatdinov, C. Y. Wong, S. V. Kalinin, *Mach.
Learn.: Sci. Technol.* 4, 045033 (2023), doi:10.1088/2632-2153/ad073b; ``rho`` is of S. Geman, D. E.
McClure, *Bull. Int. Stat. Inst.* 52, 5 (1987), its treatment of A. Blake, A. Zisserman, *Visual
Reconstruction*, MIT Press 1987.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree
from torch import Tensor

from napari_shiftvae.core.lattice import NoLattice, fit_lattice
from napari_shiftvae.core.neighbours import lattice_neighbours
from napari_shiftvae.core.patches import Patches

__all__ = ["Neighbourhood", "neighbourhood", "roughness", "settle"]

Pairs = tuple[Tensor, Tensor]

EDGE = 1.0  # standard deviations: c, about where the edge-preserving pull is strongest
GAIN = 5.0  # of the edge-preserving condition where neighbours are alike
WIDEST = 4.0  # times c, to begin with
BLOCK = 16  # atoms in one piece of the sample; a batch is made of a few
NEAREST = 6  # neighbours where there is no lattice
ALIKE = 0.5  # of the highest correlation between windows one translation apart
SHELL = 1.3  # of the length at which the translations span the plane
SWEEPS = 4
PAIRS = 512  # that a correlation is taken from


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbourhood:
    """Which atoms are compared with which.

    Attributes
    ----------
    positions_yx : (N, D) array
        Where they are, in any unit.
    partner : (N, M) int64 tensor
        Rows of the neighbours of each; -1 fills up. Who has a neighbour is its neighbour.
    """

    positions_yx: NDArray[np.float64]
    partner: Tensor

    @classmethod
    def of_pairs(cls, positions_yx: ArrayLike, pairs: ArrayLike) -> Neighbourhood:
        """Make one of N positions and (E, 2) rows of pairs, in any order and repeated or not.

        Examples
        --------
        >>> Neighbourhood.of_pairs([(0, 0), (0, 1), (0, 2)], [(0, 1), (2, 1)]).partner.tolist()
        [[1, -1], [0, 2], [1, -1]]
        """
        positions = np.asarray(positions_yx, dtype=np.float64)
        ends = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        both = np.unique(np.concatenate([ends, ends[:, ::-1]]), axis=0)
        both = both[both[:, 0] != both[:, 1]]
        count = np.bincount(both[:, 0], minlength=len(positions))
        place = np.arange(len(both)) - np.repeat(np.cumsum(count) - count, count)
        partner = np.full((len(positions), max(1, int(count.max(initial=0)))), -1)
        partner[both[:, 0], place] = both[:, 1]
        return cls(positions_yx=positions, partner=torch.from_numpy(partner))

    def shuffled(self, generator: torch.Generator) -> Tensor:
        """All rows (N,), in an order in which neighbours mostly come close together.

        A grid thrown on the sample at random cuts it into pieces, which follow in random order.
        """
        device = generator.device
        draw = torch.rand(4, generator=generator, device=device).cpu().double().numpy()
        count, dims = self.positions_yx.shape
        extent = np.maximum(np.ptp(self.positions_yx, axis=0), 1e-9)
        side = (BLOCK * float(extent.prod()) / count) ** (1 / dims)
        at = self.positions_yx / side
        if dims == 2:
            angle = 2 * math.pi * draw[2]
            turn = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
            at = at @ np.array(turn)
        piece = np.floor(at + draw[:dims])
        _, number = np.unique(piece, axis=0, return_inverse=True)
        own = torch.from_numpy(number.reshape(-1))
        order = torch.randperm(int(own.max()) + 1, generator=generator, device=device).cpu()
        return torch.argsort(order[own], stable=True)

    def pairs_among(self, rows: Tensor) -> Pairs:
        """Places in `rows` (B,) of the two ends of each pair that is in there, twice each."""
        place = torch.full((len(self.partner),), -1)
        place[rows] = torch.arange(len(rows))
        partner = self.partner[rows]
        there = torch.where(partner >= 0, place[partner], -1)
        first, column = (there >= 0).nonzero(as_tuple=True)
        return first, there[first, column]


def roughness(z: Tensor, sd: Tensor, pairs: Pairs, *, edge_preserving: bool) -> Tensor:
    """Mean cost of the pairs, per atom and for a weight of 1 [nat].

    Parameters
    ----------
    z : (B, K) tensor
        Latents of a batch.
    sd : (K,) tensor
        Their standard deviations.
    pairs : two (E,) int tensors
        Rows of the batch.
    edge_preserving : bool

    Returns
    -------
    () tensor
        Zero without pairs.
    """
    first, second = pairs
    if not len(first):
        return z.sum() * 0
    square = ((z[first] - z[second]) / sd).square().sum(dim=1)
    if not edge_preserving:
        return 0.25 * square.mean()
    return 0.25 * GAIN * (square / (1 + square / EDGE**2)).mean()


def edge_weights(square: Tensor, wider: float = 1.0) -> Tensor:
    """Weights of the squares that majorise the edge-preserving costs, c being `wider`."""
    return GAIN / (1 + square / (wider * EDGE) ** 2).square()


def widths(steps: int) -> list[float]:
    """Fall of c to its own value, in so many steps."""
    return list(np.geomspace(WIDEST, 1, steps))


def settle(
    z: Tensor, log_sd: Tensor, pairs: Pairs, *, weight: float, edge_preserving: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Let neighbours in a batch settle between what each window says and the condition.

    A few sweeps find the mean field, differentiably. Without that an encoder, which sees one
    window only, can meet the condition in one way only, by saying less: in a test at a noise that
    hid most of the order parameter, its correlation with the truth fell from 0.85 to 0.62, while
    settled it rises to 0.87, and after `smooth_refine.refine_together` to 0.95.

    Parameters
    ----------
    z, log_sd : (B, K) tensors
        Means and log standard deviations by each window alone.
    pairs : two (E,) int tensors
        Rows of the batch.
    weight : float
        Of the condition.
    edge_preserving : bool

    Returns
    -------
    z, log_sd : (B, K) tensors
        With the neighbours.
    cost : () tensor
        What is left of the condition, per atom [nat].
    """
    first, second = pairs
    sd = (2 * log_sd).exp().mean(dim=0).sqrt().detach()
    strength = weight * len(z) / max(1, len(first))
    settled, total = z, z.new_ones(len(z), 1)
    for wider in widths(SWEEPS):
        pull = z.new_full((len(first), 1), strength)
        if edge_preserving:
            away = ((settled[first] - settled[second]) / sd).detach()
            pull = pull * edge_weights(away.square().sum(dim=1, keepdim=True), wider)
        total = z.new_ones(len(z), 1).index_add(0, first, pull)
        # Half a step: whole ones would swing to and fro between neighbours.
        settled = 0.5 * settled + 0.5 * z.index_add(0, first, pull * settled[second]) / total
    cost = weight * roughness(settled, sd, pairs, edge_preserving=edge_preserving)
    return settled, log_sd - 0.5 * total.log(), cost


def neighbourhood(patches: Patches) -> Neighbourhood:
    """Find which windows of an image to compare: the nearest ones of the same kind.

    On a lattice, translations are tried from the shortest on, and kept where the windows they lead
    to look alike: with two kinds of atoms in turns, nearest neighbours would blur one into the
    other. Without a lattice, the six nearest.

    Parameters
    ----------
    patches : Patches
        N windows of one image.

    Returns
    -------
    Neighbourhood

    Examples
    --------
    >>> from napari_shiftvae.core.patches import extract_patches
    >>> y, x = np.mgrid[10:190:12, 10:190:12].reshape(2, -1)
    >>> image = np.random.default_rng(0).normal(size=(200, 200)).astype(np.float32)
    >>> image[y, x] += np.where((y + x) % 24 == 20, 20, 9)
    >>> found = neighbourhood(extract_patches(image, np.stack([y, x], 1), 8))
    >>> int((found.partner >= 0).sum(dim=1).max())  # the diagonals, twelve times root two apart
    4
    """
    positions = patches.pick_yx
    lattice = fit_lattice(positions)
    pairs = None
    if not isinstance(lattice, NoLattice):
        pairs = _like_pairs(patches, positions, np.stack([lattice.a_yx, lattice.b_yx]))
    if pairs is None:
        near = np.asarray(KDTree(positions).query(positions, k=[*range(2, NEAREST + 2)])[1])
        first = np.repeat(np.arange(len(positions)), NEAREST)
        pairs = np.stack([first, near.ravel()], 1)
    return Neighbourhood.of_pairs(positions, pairs)


def _like_pairs(
    patches: Patches, positions: NDArray[np.float64], vectors: NDArray[np.float64]
) -> NDArray[np.int64] | None:
    """Pairs (E, 2) by the shortest translations that keep the look; None if none do."""
    found = lattice_neighbours(positions, vectors)
    lead = {tuple(cell.tolist()): to for cell, to in zip(found.cells, found.partner.T, strict=True)}
    for one, by_one in list(lead.items()):  # twice as far
        for other, by_other in list(lead.items()):
            both = (one[0] + other[0], one[1] + other[1])
            on = by_other[by_one]
            on[by_one < 0] = -1
            lead[both] = np.where(lead[both] >= 0, lead[both], on) if both in lead else on
    # A translation and its opposite make the same pairs.
    candidates = []
    for cell, to in lead.items():
        rows = np.flatnonzero(to >= 0)
        if cell > (0, 0) and len(rows):
            length = float(np.linalg.norm(np.array(cell) @ vectors))
            candidates.append((length, cell, np.stack([rows, to[rows]], 1)))
    if not candidates:
        return None
    candidates.sort(key=lambda each: each[0])
    alike = _correlations(patches, [pairs for _, _, pairs in candidates])
    chosen: list[NDArray[np.int64]] = []
    cells: list[tuple[int, ...]] = []
    reach = math.inf
    for (length, cell, pairs), correlation in zip(candidates, alike, strict=True):
        if length > SHELL * reach:
            break
        if correlation < ALIKE * max(alike):
            continue
        cells.append(cell)
        chosen.append(pairs)
        if np.linalg.matrix_rank(np.array(cells)) == 2:
            reach = min(reach, length)
    return np.concatenate(chosen) if chosen else None


def _correlations(patches: Patches, groups: list[NDArray[np.int64]]) -> list[float]:
    """Covariance of the two windows of a pair, about the mean window, for each group of pairs."""
    spread = np.linspace(0, len(patches) - 1, min(PAIRS, len(patches))).astype(np.int64)
    mean = patches.gather(spread).mean(dim=0)
    found = []
    for pairs in groups:
        some = pairs[np.linspace(0, len(pairs) - 1, min(PAIRS, len(pairs))).astype(np.int64)]
        one, other = (patches.gather(rows) - mean for rows in some.T)
        found.append(float((one * other).mean()))
    return found
