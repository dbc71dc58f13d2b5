"""Gaussians on a background, fitted to decoded patterns under smooth windows."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from napari_shiftvae.core.model import ShiftVAE

ATOM_WINDOW, ATOM_WIDTH = 0.18, 0.2  # of the distance between neighbours
RIDGE = 1e-5


class Windows(NamedTuple):
    """Pixels about some atoms, and how much they count."""

    pixels: Tensor  # (B, W, 2) [px]
    rows: Tensor  # (B, W), where they are in a pattern, flat
    weight: Tensor  # (B, W)


class LocalStep(NamedTuple):
    """One step of Gauss-Newton; parameters are y, x, width and height, background."""

    top: Tensor  # (B, 2), height and background at the place and width of before
    step: Tensor  # (B, 5)
    normal: Tensor  # (B, 5, 5)
    weighted: Tensor  # (B, 5, W), weighted derivatives


def windows_about(first: Tensor, model: ShiftVAE) -> Windows:
    """Smooth windows about pixels (B, 2) of the pattern, as wide as an atom."""
    spread = ATOM_WINDOW * model.config.separation_px
    size = model.config.patch_size_px
    reach = torch.arange(-math.ceil(2.5 * spread), math.ceil(2.5 * spread) + 1.0)
    offset = torch.cartesian_prod(reach, reach).to(first.device)  # (W, 2)
    pixels = first[:, None] + offset
    index = (pixels + (size - 1) / 2).round().long()
    inside = ((index >= 0) & (index < size)).all(dim=-1)
    index = index.clamp(0, size - 1)
    weight = inside * torch.exp(-offset.square().sum(dim=-1) / (2 * spread**2))
    return Windows(pixels, index[..., 0] * size + index[..., 1], weight)


def bells_at(atoms: Tensor, pixels: Tensor) -> Tensor:
    """Gaussians (B, W) of atoms (B, 4), as in `surroundings`, at pixels (B, W, 2)."""
    square = (pixels - atoms[:, None, :2]).square().sum(dim=-1)
    return atoms[:, 2:3] * torch.exp(-square / (2 * atoms[:, 3:] ** 2))


def local_step(values: Tensor, windows: Windows, position: Tensor, width: Tensor) -> LocalStep:
    """Step from places (B, 2) and widths (B,) of Gaussians towards values (B, W)."""
    offset = windows.pixels - position[:, None]
    square = offset.square().sum(dim=-1)
    shape = torch.exp(-square / (2 * width[:, None] ** 2))
    # Height and background are linear: eliminate them, then step in position and width.
    linear = torch.stack([shape, torch.ones_like(shape)], dim=1)
    top = least_squares(linear, windows.weight, values)[0]
    slope = (top[:, 0] / width**2)[:, None] * shape
    bent = torch.stack([slope * square / width[:, None], shape, linear[:, 1]], dim=1)
    bent = torch.cat([slope[:, None] * offset.mT, bent], dim=1)
    residual = values - (top[:, :, None] * linear).sum(dim=1)
    return LocalStep(top, *least_squares(bent, windows.weight, residual))


def least_squares(columns: Tensor, weight: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted fit of columns (B, C, M) to values (B, M): solution, normal matrix, weighted."""
    weighted = columns * (weight if weight.ndim == 1 else weight[:, None])
    normal = weighted @ columns.mT
    # More than single precision loses, so that columns which are alike do not make it singular.
    scale = normal.diagonal(dim1=1, dim2=2)
    normal = normal + torch.diag_embed(RIDGE * scale + RIDGE**2)
    solution, _ = torch.linalg.solve_ex(normal, (weighted @ values[..., None])[..., 0])
    return solution.nan_to_num(0.0, 0.0, 0.0), normal, weighted


def spread_out(values: Tensor, rows: Tensor, pattern: Tensor) -> Tensor:
    """Sum values (B, C, W) at pixels (B, W) into patterns (B, C, M), like others (B, M)."""
    into = pattern.new_zeros(len(values), values.shape[1], pattern.shape[1])
    return into.scatter_add_(2, rows[:, None].expand_as(values), values)
