"""Standard deviations of fitted columns, alone and among neighbours that overlap."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_shiftvae.core.gaussian_fit import JointFit
from napari_shiftvae.core.gaussian_scene import LEVEL

MOST_NEIGHBOURS = 8
CLUSTERS = 256  # solved at once

Floats = NDArray[np.float64]


def covariances(found: JointFit, half: int) -> Floats:
    """Covariance (N, 7, 7) of each column's parameters from white noise of its own residual.

    Crowded columns are solved together with their nearest neighbours, so that what is not known of
    these counts too; what lies beyond is taken as known. A window's equations weigh the same pixels
    as its neighbour's, hence the sandwich (P. J. Huber, Proc. Fifth Berkeley Symp. 1, 221 (1967)).
    """
    matrix = torch.from_numpy(found.information)
    if found.coupling is None:
        unit = matrix.diagonal(dim1=1, dim2=2).clamp(min=1e-30).sqrt()
        scale = unit[:, :, None] * unit[:, None, :]
        inverse = (
            torch.linalg.inv(matrix / scale + 1e-9 * torch.eye(7, dtype=torch.float64)) / scale
        )
        return np.asarray(inverse * torch.from_numpy(found.rms**2)[:, None, None])
    blocks, members = _ordered(found)
    parts = [
        _cluster(found, blocks, members[part], half)
        for part in torch.arange(len(matrix)).split(CLUSTERS)
    ]
    return np.asarray(torch.cat(parts) * torch.from_numpy(found.rms**2)[:, None, None])


def _ordered(found: JointFit) -> tuple[dict[str, Tensor], Tensor]:
    """Blocks sorted by pair, with none at the end, and each column with its nearest (N, 9)."""
    coupling = found.coupling
    assert coupling is not None  # noqa: S101
    N = len(found.parameters)
    place = torch.from_numpy(found.parameters[:, :2])
    far = (place[coupling.row] - place[coupling.column]).square().sum(1)
    order = torch.from_numpy(np.lexsort((far.numpy(), coupling.row.numpy())))
    row, column = coupling.row[order], coupling.column[order]
    rank = torch.arange(len(row)) - torch.searchsorted(row, row)
    near = rank < MOST_NEIGHBOURS
    members = torch.full((N, 1 + MOST_NEIGHBOURS), N)
    members[:, 0] = torch.arange(N)
    members[row[near], 1 + rank[near]] = column[near]
    key, sort = torch.sort(coupling.row * (N + 1) + coupling.column)
    blocks = torch.cat([coupling.blocks[sort], torch.zeros(1, 7, 7, dtype=torch.float64)])
    return {"key": key, "block": blocks}, members


def _cluster(found: JointFit, blocks: dict[str, Tensor], members: Tensor, half: int) -> Tensor:
    N, (n, m) = len(found.parameters), members.shape
    one = members[:, :, None].expand(n, m, m)
    other = members[:, None, :].expand(n, m, m)
    key = one * (N + 1) + other
    slot = torch.searchsorted(blocks["key"], key.reshape(-1)).clamp(max=len(blocks["key"]) - 1)
    found_slot = torch.where(blocks["key"][slot] == key.reshape(-1), slot, len(blocks["key"]))
    system = blocks["block"][found_slot].view(n, m, m, 7, 7)
    own = torch.cat([torch.from_numpy(found.information), torch.eye(7, dtype=torch.float64)[None]])
    system[:, torch.arange(m), torch.arange(m)] = own[members]
    centre = torch.from_numpy(np.rint(found.parameters[:, :2]))
    centre = torch.cat([centre, torch.full((1, 2), torch.inf, dtype=torch.float64)])[members]
    apart = (centre[:, :, None] - centre[:, None]).abs()
    shared = (2 * half + 1 - apart).nan_to_num(nan=0.0).clamp(min=0).prod(-1)  # (n, m, m) pixels
    noise = (system + system.permute(0, 2, 1, 4, 3)) / 2
    noise[..., LEVEL, :LEVEL] = system[..., LEVEL, :LEVEL]
    noise[..., :LEVEL, LEVEL] = system.permute(0, 2, 1, 4, 3)[..., :LEVEL, LEVEL]
    noise[..., LEVEL, LEVEL] = shared
    itself = torch.arange(m)
    noise[:, itself, itself] = own[members]
    size = 7 * m
    system = system.permute(0, 1, 3, 2, 4).reshape(n, size, size)
    noise = noise.permute(0, 1, 3, 2, 4).reshape(n, size, size)
    unit = noise.diagonal(dim1=1, dim2=2).clamp(min=1e-30).sqrt()
    scale = unit[:, :, None] * unit[:, None, :]
    system, noise = system / scale + 1e-9 * torch.eye(size, dtype=torch.float64), noise / scale
    wanted = torch.zeros(n, size, 7, dtype=torch.float64)
    wanted[:, :7] = torch.eye(7, dtype=torch.float64)
    weights = torch.linalg.solve(system.mT, wanted)
    covariance: Tensor = weights.mT @ noise @ weights / scale[:, :7, :7]
    return covariance


def shapes(parameters: Floats, covariance: Floats) -> dict[str, Floats]:
    """Widths, their ratio and the angle of the major axis, each with its standard deviation.

    Parameters
    ----------
    parameters : (N, 7) array
        As in `JointFit`.
    covariance : (N, 7, 7) array

    Returns
    -------
    dict of (N,) arrays
        `sigma_major_px`, `sigma_minor_px`, `ellipticity`, `angle_rad`, and the same names with
        `sd`; first order in the noise.
    """
    a, b, c = parameters[:, 3:6].T
    middle, difference = (a + c) / 2, (a - c) / 2
    radius = np.maximum(np.hypot(difference, b), 1e-9 * middle)
    major, minor = (middle - radius) ** -0.5, (middle + radius) ** -0.5
    zero = np.zeros_like(a)
    of_middle = np.stack([zero + 0.5, zero, zero + 0.5])
    of_radius = np.stack([difference / 2, b, -difference / 2]) / radius
    of_major = -0.5 * major**3 * (of_middle - of_radius)
    of_minor = -0.5 * minor**3 * (of_middle + of_radius)
    of_ratio = of_major / minor - of_minor * major / minor**2
    of_angle = np.stack([b / 2, -difference, -b / 2]) / (2 * radius**2)
    of_shape = covariance[:, 3:6, 3:6]

    def sd(slope: Floats) -> Floats:
        return np.asarray(np.sqrt(np.einsum("in,nij,jn->n", slope, of_shape, slope).clip(0)))

    return {
        "sigma_major_px": major,
        "sigma_major_sd_px": sd(of_major),
        "sigma_minor_px": minor,
        "sigma_minor_sd_px": sd(of_minor),
        "ellipticity": major / minor,
        "ellipticity_sd": sd(of_ratio),
        "angle_rad": np.arctan2(-b, difference) / 2,
        # Of an angle nothing is known from: spread evenly over half a turn.
        "angle_sd_rad": np.minimum(sd(of_angle), np.pi / np.sqrt(12)),
    }
