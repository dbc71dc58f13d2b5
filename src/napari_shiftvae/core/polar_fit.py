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

from napari_shiftvae.core.alike import compounding
from napari_shiftvae.core.infer import Fit, root_weight
from napari_shiftvae.core.landmarks import Landmarks, applied
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.patches import Patches

__all__ = ["Polar", "Settled", "seen_polar", "settled"]

ALIKE = 400  # atoms that are compared, at most; at least half as many
# Standard errors by which steps must be longer than noise makes them. Chance makes them so in one
# group in ten, which is then said to be less certain than it is.
SURE = 2.0
ALIKE_ERRORS = 0.5  # correlation from which on two atoms err in the same way
RIDGE = 1e-3  # as in `alike`
FAINT = 0.05  # of the variance without a model: no less is put down to noise in a step


class Polar(NamedTuple):
    """Central atoms against their shells, along the axes of the window."""

    place: Tensor  # (B, 2) [px]; NaN where unknown
    step: Tensor  # (B, 2), what the residual asks for [px]
    posterior: Tensor  # (B, 2, 2), covariance from that of pose and latents [px^2]
    free: Tensor  # (B, 2, 2), covariance of place plus step [px^2]
    compounding: Tensor  # (B,), from `alike.compounding`


class Settled(NamedTuple):
    """Polar displacements of N atoms and their standard deviations; (N, 2) each [px]."""

    place: Tensor  # NaN where unknown
    sd: Tensor
    shared_sd: Tensor  # of the error that is the same for alike atoms; a part of `sd`


def seen_polar(
    model: ShiftVAE,
    patches: Patches,
    fit: Fit,
    rows: Tensor,
    *,
    found: Landmarks,
    seen: Tensor,
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
    seen : (B, H) tensor
        Of their contents, from `alike.seen_through`.
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
    place = torch.from_numpy(patches.centre_yx[rows.numpy()]).to(shift) + shift
    frame = torch.from_numpy(patches.frame[rows.numpy()])
    return Polar(
        place=(axes @ found.polar[..., None])[..., 0],
        step=(axes @ step)[..., 0],
        posterior=posterior,
        free=axes @ (weighed @ weighed.mT) @ axes.mT,
        compounding=compounding(weighed.cpu(), seen.cpu(), place.cpu(), axes.cpu(), frame).to(
            response
        ),
    )


def settled(polar: Polar, content: Tensor, seen: Tensor) -> Settled:
    """Take each step as far as those of alike atoms tell that it is real.

    First the part that is a smooth function of the latents, which the decoder misses of all alike
    atoms, then what is left of each; of both as much as is longer than noise makes it.

    Parameters
    ----------
    polar : Polar
        Of N atoms.
    content : (N, K + C) tensor
        Latents and given classes: alike atoms are near each other in these.
    seen : (N, H) tensor
        From `alike.seen_through`.

    Returns
    -------
    Settled
        Standard deviations of unknown displacements are those without a step.
    """
    place, unknown = polar.place.clone(), polar.place.isnan().any(dim=1)
    free = polar.free.diagonal(dim1=1, dim2=2)
    value, vector = torch.linalg.eigh(polar.free - polar.posterior)
    value = torch.maximum(value, FAINT * free.mean(dim=1).clamp(min=1e-12)[:, None])
    root = vector @ torch.diag_embed(value.sqrt()) @ vector.mT
    step = torch.linalg.solve(root, polar.step[..., None])[..., 0]  # of unit variance if noise
    smooth = _smooth(step, seen, ~unknown)
    known = step.isfinite().all(dim=1).nonzero()[:, 0]
    spread, shared = torch.zeros_like(root), torch.zeros_like(free)
    everywhere = polar.compounding.nanmean().nan_to_num(1.0)
    for alike in _cells(content, known):
        compounded = polar.compounding[alike].nanmean()
        compounded = compounded if compounded.isfinite() else everywhere
        whole, common = _leverage(seen[alike])
        whole = whole * compounded.clamp(min=1.0)  # what differs between alike atoms never cancels
        shared[alike] = compounded * common[:, None] * free[alike]
        square, axes = torch.linalg.eigh(smooth[alike].mT @ smooth[alike] / whole.sum())
        missed = smooth[alike] @ _matrix(axes, 1 - 1 / square.clamp(min=1.0))
        step[alike] -= missed
        square, axes = torch.linalg.eigh(step[alike].mT @ step[alike] / len(alike))
        real = square > 1 + SURE * (2 / len(alike)) ** 0.5
        share = torch.where(real, 1 - 1 / square.clamp(min=1.0), 0.0)
        taken = _matrix(axes, share)
        place[alike] += (root[alike] @ (missed + step[alike] @ taken)[..., None])[..., 0]
        spread[alike] = taken + whole[:, None, None] * _matrix(axes, (1 - share).square())
        alone = unknown[alike]
        spread[alike[alone]] = _matrix(axes, torch.where(real, square - 1, 0.0))
        spread[alike[alone]] += whole[alone, None, None] * torch.eye(2).to(axes)
    variance = (polar.posterior + root @ spread @ root).diagonal(dim1=1, dim2=2)
    return Settled(place, variance.sqrt(), torch.minimum(shared, variance).sqrt())


def _matrix(axes: Tensor, values: Tensor) -> Tensor:
    """Symmetric matrix of some axes, in columns, and its values along them."""
    return axes @ torch.diag(values) @ axes.mT


def _smooth(step: Tensor, seen: Tensor, known: Tensor) -> Tensor:
    """Part (N, 2) of steps that the decoder's output layer could have drawn."""
    own = seen[known]
    normal = own.mT @ own + RIDGE * torch.eye(own.shape[1]).to(own)
    fitted: Tensor = seen @ torch.linalg.solve(normal, own.mT @ step[known])
    return fitted


def _leverage(seen: Tensor) -> tuple[Tensor, Tensor]:
    """Variance (B,) of what is decoded over that of a patch, and the part common to alike ones."""
    covariance = seen @ seen.mT
    whole = covariance.diagonal()
    deviation = whole.sqrt().clamp(min=1e-12)
    alike = covariance > ALIKE_ERRORS * deviation * deviation[:, None]
    return whole, (covariance * alike).sum(dim=1) / alike.sum(dim=1)


def _cells(content: Tensor, rows: Tensor) -> list[Tensor]:
    """Rows in groups of alike contents: halved across the widest direction until few enough."""
    if not len(rows):
        return []
    if len(rows) <= ALIKE:
        return [rows]
    widest = content[rows].std(dim=0).argmax()
    order = rows[content[rows, widest].argsort()]
    return [cell for half in order.chunk(2) for cell in _cells(content, half)]
