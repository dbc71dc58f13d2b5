"""What counts as shift and what as content: the gauges that make two runs comparable.

The likelihood does not change when a latent changes sign or place, nor when a part of the shift
that depends on the latents, or on nothing, is drawn into the pattern. Here all of these are fixed:

- latents in falling order of their information (KL from the prior), each rising with the mean
  intensity of the patch;
- the *cage*, all but the central atom, of every decoded pattern lies as in the mean pattern, so
  the whole pattern's shift is that of the cage, and the central atom moves against it;
- the central feature of the mean pattern sits at the centre of the window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_shiftvae.core.infer import Fit, batches
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.patches import Patches

CENTRAL_RADIUS = 0.6  # of the distance between neighbours
CENTRAL_WEIGHT = 1e-3  # so that a window without neighbours still has a whole pattern
TEMPLATE_PATTERNS = 512
TEMPLATE_ROUNDS = 3
ALIGN_ITERATIONS = 4
ATOM_WINDOW, ATOM_WIDTH = 0.18, 0.2  # of the distance between neighbours
ATOM_ITERATIONS = 12
CONVERGED_PX = 1e-3
RIDGE = 1e-5


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What a fit says of every patch, gauges fixed, on the pixels of the image.

    Attributes
    ----------
    z, z_sd : (N, K) arrays
        Content latents and their standard deviations.
    shift_yx_px, shift_sd_yx_px : (N, 2) arrays
        Whole pattern minus pick [px].
    atom_yx_px, atom_sd_yx_px : (N, 2) arrays
        Position of the central atom in the image [px]; NaN where the pattern has none.
    residual : (N,) array
        Root mean square residual over the noise standard deviation.
    """

    z: NDArray[np.float64]
    z_sd: NDArray[np.float64]
    shift_yx_px: NDArray[np.float64]
    shift_sd_yx_px: NDArray[np.float64]
    atom_yx_px: NDArray[np.float64]
    atom_sd_yx_px: NDArray[np.float64]
    residual: NDArray[np.float64]


@torch.no_grad()
def fix_gauge(model: ShiftVAE, patches: Patches, fit: Fit, *, dark: bool = False) -> Fit:
    """Fix order and sign of the latents and the origin of the shift, in the model.

    Parameters
    ----------
    model : ShiftVAE
        Its gauge is set.
    patches : Patches
    fit : Fit
        Posterior in the model's present gauge.
    dark : bool
        Whether atoms are minima.

    Returns
    -------
    Fit
        The same posterior in the new gauge.
    """
    kl = latent_information(fit).mean(dim=0)
    order = torch.argsort(kl, descending=True)
    intensity = torch.empty(len(fit), device=fit.z.device)
    for rows in batches(len(fit)):
        mean = patches.gather(rows.numpy()).mean(dim=(1, 2))
        own = rows.numpy()
        mean = mean * torch.from_numpy(patches.scale[own]) + torch.from_numpy(patches.offset[own])
        intensity[rows] = mean.to(intensity.device)
    covariance = ((intensity - intensity.mean())[:, None] * (fit.z - fit.z.mean(dim=0))).mean(dim=0)
    signs = torch.where(covariance < 0, -1.0, 1.0)
    turn = torch.zeros_like(model.gauge)
    turn[order, torch.arange(len(order))] = signs[order]
    model.gauge.copy_(model.gauge @ turn)
    whole = torch.block_diag(torch.eye(2, device=turn.device), turn)
    turned = Fit(
        z=fit.z @ turn,
        shift=fit.shift,
        covariance=whole.T @ fit.covariance @ whole,
        mean_square=fit.mean_square,
    )
    _fix_origin(model, turned.z, -1.0 if dark else 1.0)
    return turned


def latent_information(fit: Fit) -> Tensor:
    """KL divergence of each latent's posterior from its prior, (N, K) [nat]."""
    variance = fit.covariance.diagonal(dim1=1, dim2=2)[:, 2:]
    return 0.5 * (fit.z.square() + variance - 1 - variance.log())


def _fix_origin(model: ShiftVAE, z: Tensor, polarity: float) -> None:
    some = z[:: -(-len(z) // TEMPLATE_PATTERNS)]
    model.polarity.fill_(polarity)
    model.template.copy_(model.decode(some, torch.zeros_like(some[:, :2])).mean(dim=0))
    model.origin.copy_(
        _feature_pixel(model.template[None], torch.zeros_like(model.origin), model)[0]
    )
    for _ in range(TEMPLATE_ROUNDS):
        cage, _ = cage_position(model, some, derivative=False)
        model.template.copy_(model.decode(some, -cage).mean(dim=0))
    offsets = [
        central_position(model, part, derivative=False)[0]
        - cage_position(model, part, derivative=False)[0]
        for part in (z[rows] for rows in batches(len(z)))
    ]
    offset = torch.cat(offsets)
    offset = offset[offset.isfinite().all(dim=1)]
    if len(offset):
        model.origin.copy_(offset.mean(dim=0))


def _feature_pixel(pattern: Tensor, near: Tensor, model: ShiftVAE) -> Tensor:
    """Pixel (B, 2) of the strong maximum of each pattern (B, P, P) nearest a point [px]."""
    grid = _pixel_grid(model)
    away = (grid - near).square().sum(dim=-1).sqrt()
    height = model.polarity * pattern
    peak = torch.nn.functional.max_pool2d(height[:, None], 3, stride=1, padding=1)[:, 0]
    central = away <= CENTRAL_RADIUS * model.config.separation_px
    # A gentle slope settles a draw between features in favour of the nearer one.
    slope = away / model.config.separation_px * height.flatten(1).std(dim=1)[:, None, None]
    height = torch.where(central & (height >= peak), height - slope, -torch.inf)
    return grid.flatten(0, 1)[height.flatten(1).argmax(dim=1)]


def _pixel_grid(model: ShiftVAE) -> Tensor:
    """Pixel coordinates (P, P, 2) from the centre of the window."""
    size = model.config.patch_size_px
    pixel = torch.arange(size, device=model.template.device) - (size - 1) / 2
    return torch.stack(torch.meshgrid(pixel, pixel, indexing="ij"), dim=-1)


def cage_position(model: ShiftVAE, z: Tensor, *, derivative: bool = True) -> tuple[Tensor, Tensor]:
    """Register the cage of each decoded pattern with the template's.

    Least squares on position, contrast and background at once, by Gauss-Newton on the decoder.

    Parameters
    ----------
    model : ShiftVAE
    z : (B, K) tensor
    derivative : bool
        Whether to work out the derivative.

    Returns
    -------
    position : (B, 2) tensor
        Of the cage in the unshifted pattern [px].
    by_latent : (B, 2, K) tensor
        Its derivative; (B, 2, 0) where it is not wanted.
    """
    away = (_pixel_grid(model) - model.origin).square().sum(dim=-1).sqrt()
    cage = away > CENTRAL_RADIUS * model.config.separation_px
    weight = torch.where(cage, 1.0, CENTRAL_WEIGHT).flatten()
    template = model.template.flatten().expand(len(z), -1)
    fixed = torch.stack([template, torch.ones_like(template)], dim=1)  # (B, 2, P P)
    position = torch.zeros(len(z), 2, device=z.device)
    limit = CENTRAL_RADIUS * model.config.separation_px / 2
    for _ in range(ALIGN_ITERATIONS):
        pattern, by_shift, _ = model.linearise(z, -position, latents=False)
        # Unknowns: position (pattern slides back by it), contrast and background of the template.
        columns = torch.cat([by_shift.flatten(2), fixed], dim=1)
        step, normal, weighted = _least_squares(columns, weight, pattern.flatten(1))
        position = (position + step[:, :2]).clamp(-limit, limit)
        if (step[:, :2].abs() < CONVERGED_PX).all():
            break
    if not derivative:
        return position, position[:, :, None][..., :0]
    by_latent = model.linearise(z, -position).by_latent
    by, _ = torch.linalg.solve_ex(normal, weighted @ by_latent.flatten(2).mT)
    return position, by[:, :2]


def central_position(
    model: ShiftVAE, z: Tensor, *, derivative: bool = True
) -> tuple[Tensor, Tensor]:
    """Fit a Gaussian on a background to the central atom of each decoded pattern.

    Least squares under a smooth window about the strongest pixel of the central region; a
    maximum alone would follow every ripple that noise has left in the decoder.

    Parameters
    ----------
    model : ShiftVAE
    z : (B, K) tensor
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
    pattern, _, by_latent = model.linearise(z, torch.zeros_like(z[:, :2]), latents=derivative)
    first = _feature_pixel(pattern, model.origin, model)
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


@torch.no_grad()
def read(model: ShiftVAE, patches: Patches, fit: Fit) -> Reading:
    """Turn a fit into latents, shifts and positions of central atoms, in pixels of the image.

    Standard deviations follow from the joint covariance of shift and latents by the derivatives
    of the two positions.

    Parameters
    ----------
    model : ShiftVAE
        With its gauge fixed.
    patches : Patches
    fit : Fit

    Returns
    -------
    Reading
    """
    cages: list[Tensor] = []
    atoms: list[Tensor] = []
    cage_sd: list[Tensor] = []
    atom_sd: list[Tensor] = []
    for rows in batches(len(fit)):
        z, covariance = fit.z[rows], fit.covariance[rows]
        for place, places, deviations in (
            (cage_position(model, z), cages, cage_sd),
            (central_position(model, z), atoms, atom_sd),
        ):
            position, by_latent = place
            unit = torch.eye(2, device=z.device).expand(len(z), 2, 2)
            by = torch.cat([unit, by_latent], dim=2)  # (B, 2, 2 + K)
            variance = (by @ covariance @ by.mT).diagonal(dim1=1, dim2=2)
            places.append(position + fit.shift[rows])
            deviations.append(torch.where(position.isfinite(), variance.sqrt(), torch.nan))
    whole = _array(torch.cat(cages) + model.origin)
    atom = _array(torch.cat(atoms))
    return Reading(
        z=_array(fit.z),
        z_sd=_array(fit.covariance.diagonal(dim1=1, dim2=2)[:, 2:].sqrt()),
        shift_yx_px=whole - patches.remainder_yx_px,
        shift_sd_yx_px=_array(torch.cat(cage_sd)),
        atom_yx_px=patches.centre_yx + atom,
        atom_sd_yx_px=_array(torch.cat(atom_sd)),
        residual=_array((fit.mean_square / model.variance).sqrt()),
    )


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.cpu().numpy().astype(np.float64)
