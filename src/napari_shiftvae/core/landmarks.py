"""Where the cage and the central atom of a decoded pattern lie."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from napari_shiftvae.core.decoders import rotation_matrix
from napari_shiftvae.core.model import ShiftVAE

CENTRAL_RADIUS = 0.6  # of the distance between neighbours
CENTRAL_WEIGHT = 1e-3  # so that a window without neighbours still has a whole pattern
ALIGN_ITERATIONS = 4
ATOM_WINDOW, ATOM_WIDTH = 0.18, 0.2  # of the distance between neighbours
ATOM_ITERATIONS = 12
CONVERGED_PX = 1e-3
LARGEST_TURN = 0.5  # rad, or unit of the logarithm of the scale
RIDGE = 1e-5


def cage_position(model: ShiftVAE, z: Tensor, *, derivative: bool = True) -> tuple[Tensor, Tensor]:
    """Register the cage of each decoded pattern with the template's.

    Least squares on pose, contrast and background at once, by Gauss-Newton on the decoder.

    Parameters
    ----------
    model : ShiftVAE
    z : (B, K) or (B, K + C) tensor
        Contents.
    derivative : bool
        Whether to work out the derivative.

    Returns
    -------
    pose : (B, C) tensor
        Of the cage in the pattern as decoded without any: its position [px]; then rotation [rad]
        and log scale where the model has them.
    by_latent : (B, C, K) tensor
        Its derivative; (B, C, 0) where it is not wanted.
    """
    away = (model.grid - model.origin[..., None, None, :]).square().sum(dim=-1).sqrt()
    cage = away > CENTRAL_RADIUS * model.config.separation_px
    weight = model.of_class(torch.where(cage, 1.0, CENTRAL_WEIGHT), z).flatten(1)
    template = model.of_class(model.template, z).flatten(1)
    fixed = torch.stack([template, torch.ones_like(template)], dim=1)  # (B, 2, P P)
    dims, turns = 2, model.config.pose_dim - model.config.shift_dim
    pose = torch.zeros(len(z), dims + turns, device=z.device)
    limit = torch.full_like(pose[0], LARGEST_TURN)
    limit[:dims] = CENTRAL_RADIUS * model.config.separation_px / 2
    small = torch.full_like(limit, CONVERGED_PX / model.config.separation_px)
    small[:dims] = CONVERGED_PX
    for _ in range(ALIGN_ITERATIONS):
        shift, turn = undone(model, pose)
        pattern, by_shift, _ = model.linearise_at(z, shift, turn, latents=False)
        by = by_shift
        if turns:
            by = torch.cat([by_shift, model.by_turn(by_shift, shift)], dim=1)
        # Unknowns: pose (which the pattern is moved back by), contrast, background of the template.
        columns = torch.cat([by.flatten(2), fixed], dim=1)
        step, normal, weighted = _least_squares(columns, weight, pattern.flatten(1))
        pose = (pose + step[:, : dims + turns]).clamp(-limit, limit)
        if (step[:, : dims + turns].abs() < small).all():
            break
    if not derivative:
        return pose, pose[:, :, None][..., :0]
    by_latent = model.linearise_at(z, *undone(model, pose)).by_latent
    by_z, _ = torch.linalg.solve_ex(normal, weighted @ by_latent.flatten(2).mT)
    return pose, by_z[:, : dims + turns]


def central_position(
    model: ShiftVAE, z: Tensor, *, derivative: bool = True
) -> tuple[Tensor, Tensor]:
    """Fit a Gaussian on a background to the central atom of each decoded pattern.

    Least squares under a smooth window about the strongest pixel of the central region; a
    maximum alone would follow every ripple that noise has left in the decoder.

    Parameters
    ----------
    model : ShiftVAE
    z : (B, K) or (B, K + C) tensor
        Contents.
    derivative : bool
        Whether to work out the derivative.

    Returns
    -------
    position : (B, 2) tensor
        Of the central atom in the unshifted pattern [px]; NaN where there is none.
    by_latent : (B, 2, K) tensor
        Its derivative; (B, 2, 0) where it is not wanted.
    """
    region = CENTRAL_RADIUS * model.config.separation_px
    spread = ATOM_WINDOW * model.config.separation_px
    still = z.new_zeros(len(z), 2)
    pattern, _, by_latent = model.linearise_at(z, still, latents=derivative)
    first = feature_pixel(pattern, model.of_class(model.origin, z), model)
    pixels, rows, inside = _window_about(first, spread, model)
    weight = inside * torch.exp(-(pixels - first[:, None]).square().sum(dim=-1) / (2 * spread**2))
    values = pattern.flatten(1).gather(1, rows)

    position, width = first, torch.full_like(first[:, 0], ATOM_WIDTH * model.config.separation_px)
    for _ in range(ATOM_ITERATIONS):
        offset = pixels - position[:, None]
        square = offset.square().sum(dim=-1)
        bell = torch.exp(-square / (2 * width[:, None] ** 2))
        # Height and background are linear: eliminate them, then step in position and width.
        linear = torch.stack([bell, torch.ones_like(bell)], dim=1)
        top = _least_squares(linear, weight, values)[0]
        slope = (top[:, 0] / width**2)[:, None] * bell
        bent = torch.cat(
            [slope[:, None] * offset.mT, (slope * square / width[:, None])[:, None], linear], dim=1
        )
        residual = values - (top[:, :, None] * linear).sum(dim=1)
        step, normal, weighted = _least_squares(bent, weight, residual)
        position = position + step[:, :2].clamp(-1.0, 1.0)
        width = (width + step[:, 2]).clamp(0.4, region)
        if (step[:, :3].abs() < CONVERGED_PX).all():
            break
    found = ((position - first).abs() < 1.5).all(dim=1) & (model.polarity * top[:, 0] > 0)
    found &= (step[:, :2].abs() < 0.05).all(dim=1)
    position = torch.where(found[:, None], position, torch.full_like(position, torch.nan))
    by_latent = by_latent.flatten(2).gather(2, rows[:, None].expand(-1, by_latent.shape[1], -1))
    by, _ = torch.linalg.solve_ex(normal, weighted @ by_latent.mT)
    return position, by[:, :2]


def feature_pixel(pattern: Tensor, near: Tensor, model: ShiftVAE) -> Tensor:
    """Pixel (B, 2) of the strong maximum of each pattern (B, P, P) nearest points (B, 2) [px]."""
    grid = model.grid
    away = (grid - near[:, None, None]).square().sum(dim=-1).sqrt()  # (B, P, P)
    height = model.polarity * pattern
    peak = torch.nn.functional.max_pool2d(height[:, None], 3, stride=1, padding=1)[:, 0]
    central = away <= CENTRAL_RADIUS * model.config.separation_px
    # A gentle slope settles a draw between features in favour of the nearer one.
    slope = away / model.config.separation_px * height.flatten(1).std(dim=1)[:, None, None]
    height = torch.where(central & (height >= peak), height - slope, -torch.inf)
    return grid.flatten(0, 1)[height.flatten(1).argmax(dim=1)]


def _window_about(first: Tensor, spread: float, model: ShiftVAE) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels within 2.5 spreads of some pixels (B, 2): coordinates, flat index, whether inside."""
    size = model.config.patch_size_px
    reach = torch.arange(-math.ceil(2.5 * spread), math.ceil(2.5 * spread) + 1.0)
    offset = torch.cartesian_prod(reach, reach).to(first.device)  # (M, 2)
    pixels = first[:, None] + offset
    index = (pixels + (size - 1) / 2).round().long()
    inside = ((index >= 0) & (index < size)).all(dim=-1)
    index = index.clamp(0, size - 1)
    return pixels, index[..., 0] * size + index[..., 1], inside


def _least_squares(
    columns: Tensor, weight: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted fit of columns (B, C, M) to values (B, M): solution, normal matrix, weighted."""
    weighted = columns * (weight if weight.ndim == 1 else weight[:, None])
    normal = weighted @ columns.mT
    # More than single precision loses, so that columns which are alike do not make it singular.
    scale = normal.diagonal(dim1=1, dim2=2)
    normal = normal + torch.diag_embed(RIDGE * scale + RIDGE**2)
    solution, _ = torch.linalg.solve_ex(normal, (weighted @ values[..., None])[..., 0])
    return solution.nan_to_num(0.0, 0.0, 0.0), normal, weighted


def applied(turn: Tensor, columns: Tensor) -> Tensor:
    """Columns (B, 2, C) of places, turned and magnified."""
    return rotation_matrix(turn[:, 0]) @ columns * torch.exp(turn[:, 1])[:, None, None]


def undone(model: ShiftVAE, pose: Tensor) -> tuple[Tensor, Tensor | None]:
    """Shift and turn that take back the pose (B, C) of a cage."""
    if pose.shape[1] == 2:
        return -pose, None
    turn = -model.turn(pose[:, 2:])
    return -applied(turn, pose[:, :2, None])[..., 0], turn
