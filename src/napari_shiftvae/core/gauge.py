"""What counts as shift and what as content: the gauges that make two runs comparable.

The likelihood does not change when latents are turned into each other, or one changes sign or
place, nor when a part of the shift that depends on the latents, or on nothing, is drawn into the
pattern. Here all of these are fixed:

- latents along the axes that diagonalise their spread over their noise, in falling order of their
  information (KL from the prior), each rising with the mean intensity of the patch;
- the *cage*, all but the central atom, of every decoded pattern lies as in the mean pattern, so
  the whole pattern's shift is that of the cage, and the central atom moves against it;
- the central feature of the mean pattern sits at the centre of the window;
- where classes are given, each has a mean pattern, origin and mean pose of its own, so that the
  atoms of every class move against their own kind of cage, by zero on average;
- where the model turns or magnifies its patterns, the cage of every decoded pattern is turned and
  magnified as that of the mean pattern, and the mean rotation and the mean logarithm of the scale
  over the patches of the training are zero.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from napari_shiftvae.core.infer import Fit, batches
from napari_shiftvae.core.landmarks import (
    applied,
    feature_pixel,
    find_cage,
    find_central,
    find_landmarks,
    undone,
)
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.surroundings import surroundings
from napari_shiftvae.core.windows import Windows

__all__ = ["fix_gauge", "latent_information"]

TEMPLATE_PATTERNS = 512
TEMPLATE_ROUNDS = 3


@torch.no_grad()
def fix_gauge(model: ShiftVAE, patches: Windows, fit: Fit, *, dark: bool = False) -> Fit:
    """Fix axes, order and sign of the latents and the origin of the shift, in the model.

    Parameters
    ----------
    model : ShiftVAE
        Its gauge is set.
    patches : Patches or Spectra
    fit : Fit
        Posterior in the model's present gauge.
    dark : bool
        Whether atoms are minima.

    Returns
    -------
    Fit
        The same posterior in the new gauge.
    """
    axes = _axes(model, fit)
    model.gauge.copy_(model.gauge @ axes)
    fit = _turned(fit, axes)
    kl = latent_information(fit).mean(dim=0)
    order = torch.argsort(kl, descending=True)
    intensity = torch.empty(len(fit), device=fit.z.device)
    for rows in batches(len(fit)):
        mean = patches.gather(rows.numpy()).flatten(1).mean(dim=1)
        own = rows.numpy()
        mean = mean * torch.from_numpy(patches.scale[own]) + torch.from_numpy(patches.offset[own])
        intensity[rows] = mean.to(intensity.device)
    covariance = ((intensity - intensity.mean())[:, None] * (fit.z - fit.z.mean(dim=0))).mean(dim=0)
    signs = torch.where(covariance < 0, -1.0, 1.0)
    turn = torch.zeros_like(model.gauge)
    turn[order, torch.arange(len(order))] = signs[order]
    model.gauge.copy_(model.gauge @ turn)
    turned = _turned(fit, turn)
    _fix_origin(model, turned.content, -1.0 if dark else 1.0)
    _fix_mean_turn(model, turned)
    return turned


def _axes(model: ShiftVAE, fit: Fit) -> Tensor:
    """Directions (K, K), in columns, along which latents spread against their noise.

    Latents that tell about as much as each other come out turned by any angle, another one for each
    seed: neither the prior nor a smooth decoder minds. These axes are the same for all seeds. Where
    classes are learned, it is the axes along which they are apart that are kept.
    """
    latents = model.config.latent_dim
    if model.config.classes or latents < 2:
        return torch.eye(latents).to(model.gauge)
    z = fit.z.double()
    strength, directions = torch.linalg.eigh(torch.cov(z.T))
    root = directions @ torch.diag(strength.clamp_min(0).sqrt()) @ directions.T
    of_latents = fit.covariance[:, fit.pose.shape[1] :, fit.pose.shape[1] :].double()
    precision = torch.linalg.inv(of_latents).mean(dim=0)
    axes: Tensor = torch.linalg.eigh(root @ precision @ root)[1]
    return axes.to(model.gauge)


def _turned(fit: Fit, turn: Tensor) -> Fit:
    """Posterior of latents in other axes, the columns of an orthogonal matrix (K, K)."""
    whole = torch.block_diag(torch.eye(fit.pose.shape[1], device=turn.device), turn)
    return replace(fit, z=fit.z @ turn, covariance=whole.T @ fit.covariance @ whole)


def latent_information(fit: Fit) -> Tensor:
    """KL divergence of each latent's posterior from its prior, (N, K) [nat]."""
    variance = fit.covariance.diagonal(dim1=1, dim2=2)[:, fit.pose.shape[1] :]
    return 0.5 * (fit.z.square() + variance - 1 - variance.log())


def _fix_origin(model: ShiftVAE, z: Tensor, polarity: float) -> None:
    model.polarity.fill_(polarity)
    number = model.given_class(z)
    for kind in number.unique().tolist():
        own = kind if model.config.given else ...
        _fix_origin_of(model, z[number == kind], model.template[own], model.origin[own])


def _fix_origin_of(model: ShiftVAE, z: Tensor, template: Tensor, origin: Tensor) -> None:
    """Set mean pattern and origin, views of the model's buffers, for contents of one class."""
    some = z[:: -(-len(z) // TEMPLATE_PATTERNS)]
    still = some.new_zeros(len(some), model.config.dimensions)
    template.copy_(_at(model, some, still).mean(dim=0))
    if model.config.dimensions == 1:  # spectra.read_spectra says where these lie
        return
    centre = torch.zeros_like(origin)
    origin.copy_(feature_pixel(template[None], centre[None], model)[0])
    central = find_central(model, some, surroundings(model, template, origin), derivative=False)
    for _ in range(TEMPLATE_ROUNDS):
        around = surroundings(model, template, origin)
        cage, _ = find_cage(model, some, around, central, derivative=False)
        template.copy_(_at(model, some, *undone(model, cage)).mean(dim=0))
    offset = _offset(model, some)
    known = offset.isfinite().all(dim=1)
    if known.any():
        latents = model.config.latent_dim
        origin.copy_(_mean_over(z[:, :latents], some[known, :latents], offset[known]))


def _mean_over(z: Tensor, some: Tensor, values: Tensor) -> Tensor:
    """Mean of values over all latents (N, K), known at some of them.

    Of a quadratic through those: what is left of a smooth function after it has hardly a mean.
    """
    if len(some) == len(z):
        return values.mean(dim=0)
    square = torch.triu_indices(z.shape[1], z.shape[1])

    def powers(of: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(of[:, :1]), of, of[:, square[0]] * of[:, square[1]]], 1)

    terms = powers(some).double().cpu()
    coefficients = torch.linalg.lstsq(terms, values.double().cpu(), driver="gelsd").solution
    total = torch.stack([powers(z[rows]).double().cpu().sum(dim=0) for rows in batches(len(z))])
    mean: Tensor = total.sum(dim=0) / len(z) @ coefficients
    return mean.to(values)


def _fix_mean_turn(model: ShiftVAE, fit: Fit) -> None:
    if model.config.pose_dim == model.config.shift_dim:
        return
    hidden = [
        find_landmarks(model, fit.content[rows], derivative=False).cage[:, 2:]
        for rows in batches(len(fit))
    ]
    turn = fit.pose[:, model.config.shift_dim :] + torch.cat(hidden)
    number = model.given_class(fit.content)
    for kind in number.unique().tolist():
        own = kind if model.config.given else ...
        model.mean_turn[own].copy_(turn[number == kind].mean(dim=0))


def _offset(model: ShiftVAE, z: Tensor) -> Tensor:
    """Central atom (B, 2) in the frame of its cage [px]."""
    marks = find_landmarks(model, z, derivative=False)
    cage = marks.cage
    offset = marks.atom - cage[:, :2]
    if cage.shape[1] > 2:
        offset = applied(-model.turn(cage[:, 2:]), offset[..., None])[..., 0]
    return offset


def _at(model: ShiftVAE, z: Tensor, shift: Tensor, turn: Tensor | None = None) -> Tensor:
    pattern: Tensor = model.decoder(model.as_decoded(z), shift, turn)
    return pattern
