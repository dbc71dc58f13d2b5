"""Polar displacements and their errors: what the decoder says, and what the residual adds to it.

The decoder draws patterns onto a smooth surface, as few latents allow. An atom can lie off it: by a
displacement that the latents do not follow, or drawn towards other atoms by the prior. The residual
of its patch then asks for a step. How much of such steps is real shows where they are compared over
many alike atoms with what noise alone would ask for: each is taken as far as that tells (W. James,
C. Stein, Proc. Fourth Berkeley Symp. Math. Statist. Prob. 1, 361 (1961); B. Efron, C. Morris,
J. Am. Statist. Assoc. 68, 117 (1973), doi:10.1080/01621459.1973.10481350).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from napari_shiftvae.core.fourier_decoder import FourierDecoder
from napari_shiftvae.core.infer import Fit, batches, root_weight
from napari_shiftvae.core.landmarks import Landmarks, applied
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.patches import Patches

__all__ = ["Polar", "leverage", "seen_polar", "settled"]

ALIKE = 400  # atoms that are compared, at most; at least half as many
# Standard errors by which steps must be longer than noise makes them. Chance makes them so in one
# group in ten, which is then said to be less certain than it is.
SURE = 2.0
FAINT = 0.05  # of the variance without a model: no less is put down to noise in a step
RIDGE = 1e-3  # mean square of a hidden feature that is too faint to tell, as in `polish`


class Polar(NamedTuple):
    """Central atoms against their shells, along the axes of the window."""

    place: Tensor  # (B, 2) [px]; NaN where unknown
    step: Tensor  # (B, 2), what the residual asks for [px]
    posterior: Tensor  # (B, 2, 2), covariance from that of pose and latents [px^2]
    free: Tensor  # (B, 2, 2), covariance of place plus step [px^2]


def seen_polar(
    model: ShiftVAE,
    patches: Patches,
    fit: Fit,
    rows: Tensor,
    *,
    found: Landmarks,
    posterior: Tensor,
) -> Polar:
    """Read polar displacements of some patches, and what their residuals ask for.

    Parameters
    ----------
    model : ShiftVAE
    patches : Patches
    fit : Fit
    rows : (B,) tensor
        Which patches.
    found : Landmarks
        Of their patterns, with derivatives.
    posterior : (B, 2, 2) tensor
        Covariance along the axes of the window [px^2].

    Returns
    -------
    Polar
    """
    pose, response = fit.pose[rows], found.polar_response
    pattern = model.decode(fit.content[rows], pose)
    residual = patches.gather(rows.numpy()).to(pattern) - pattern
    root, _ = root_weight(model, patches, rows)
    if fit.noise is not None:
        root = fit.noise.reweighted(root, patches, rows, pattern)
    variance = model.variance.expand(len(rows))
    if patches.weight is not None:
        variance = fit.mean_square[rows]
    noise_sd = variance.sqrt()[:, None]
    if root is not None:
        residual = torch.where(root > 0, residual.flatten(1), 0.0).view_as(pattern)
        noise_sd = torch.where(root > 0, noise_sd / root.clamp(min=1e-9), 0.0)
    shift, turn = model.placed(pose)
    at = model.grid.expand(len(rows), -1, -1, -1)  # (B, P, P, 2)
    axes = torch.eye(2).to(pose).expand(len(rows), 2, 2)
    if turn is not None:
        axes = applied(turn, axes)
        at = torch.einsum("bij,byxj->byxi", axes, at)
    # Window to pattern: residuals are looked up where the pixels of the pattern lie.
    at = ((at + shift[:, None, None]) / model.grid.amax()).flip(-1)
    residual = torch.nn.functional.grid_sample(
        residual[:, None], at, mode="bicubic", padding_mode="zeros", align_corners=True
    )
    step = response @ residual.flatten(1)[..., None]
    weighed = response * noise_sd[:, None]
    return Polar(
        place=(axes @ found.polar[..., None])[..., 0],
        step=(axes @ step)[..., 0],
        posterior=posterior,
        free=axes @ (weighed @ weighed.mT) @ axes.mT,
    )


def leverage(model: ShiftVAE, content: Tensor) -> Tensor:
    """Variance of decoded patterns over that of a single patch, (N,), for patches learned from.

    That of the least squares of the output layer. Other decoders count as many parameters as a
    plane over the latents has.
    """
    decoder = model.decoder
    if not isinstance(decoder, FourierDecoder):
        return torch.full_like(content[:, 0], (model.config.latent_dim + 1) / len(content))
    hidden = [decoder.hidden(model.as_decoded(content[rows])) for rows in batches(len(content))]
    normal = sum((each.mT.double() @ each.double() for each in hidden), torch.zeros(()).double())
    ridge = RIDGE * normal[-1, -1] * torch.eye(len(normal)).to(normal)
    inverse = torch.linalg.inv(normal + ridge).float()
    return torch.cat([((each @ inverse) * each).sum(dim=1) for each in hidden])


def settled(polar: Polar, content: Tensor, leverage: Tensor) -> tuple[Tensor, Tensor]:
    """Take each step as far as those of alike atoms are longer than noise makes them.

    Parameters
    ----------
    polar : Polar
        Of N atoms.
    content : (N, K + C) tensor
        Latents and given classes: alike atoms are near each other in these.
    leverage : (N,) tensor
        From `leverage`.

    Returns
    -------
    place, sd : (N, 2) tensors
        Polar displacements and their standard deviations [px]; of unknown ones that without step.
    """
    place = polar.place.clone()
    free = polar.free.diagonal(dim1=1, dim2=2).mean(dim=1)
    value, vector = torch.linalg.eigh(polar.free - polar.posterior)
    value = torch.maximum(value, FAINT * free[:, None].clamp(min=1e-12))
    root = vector @ torch.diag_embed(value.sqrt()) @ vector.mT
    step = torch.linalg.solve(root, polar.step[..., None])[..., 0]  # of unit variance if noise
    known = step.isfinite().all(dim=1).nonzero()[:, 0]
    unknown = place.isnan().any(dim=1)
    spread = torch.zeros_like(root)
    for alike in _cells(content, known):
        square, axes = torch.linalg.eigh(step[alike].mT @ step[alike] / len(alike))
        real = square > 1 + SURE * (2 / len(alike)) ** 0.5
        share = torch.where(real, 1 - 1 / square.clamp(min=1.0), 0.0)
        taken = axes @ torch.diag(share) @ axes.mT
        place[alike] += (root[alike] @ taken @ step[alike][..., None])[..., 0]
        left = axes @ torch.diag((1 - share).square()) @ axes.mT
        spread[alike] = taken + leverage[alike, None, None] * left
        missed = axes @ torch.diag(torch.where(real, square - 1, 0.0)) @ axes.mT
        alone = alike[unknown[alike]]
        spread[alone] = missed + leverage[alone, None, None] * torch.eye(2).to(missed)
    covariance = polar.posterior + root @ spread @ root
    return place, covariance.diagonal(dim1=1, dim2=2).sqrt()


def _cells(content: Tensor, rows: Tensor) -> list[Tensor]:
    """Rows in groups of alike contents: halved across the widest direction until few enough."""
    if not len(rows):
        return []
    if len(rows) <= ALIKE:
        return [rows]
    widest = content[rows].std(dim=0).argmax()
    order = rows[content[rows, widest].argsort()]
    return [cell for half in order.chunk(2) for cell in _cells(content, half)]
