"""Refinement of all patches together, where neighbours say something about each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from napari_shiftvae.core.infer import Fit, batches, root_weight
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.smoothness import Neighbourhood, edge_weights, widths
from napari_shiftvae.core.windows import Windows, prior_centre

__all__ = ["refine_together"]

ROUNDS = 5  # of linearisation
REWEIGHTINGS = 8  # in each
LARGEST_STEP = 0.5  # prior standard deviations
MOST_STEPS = 100  # of conjugate gradients
SMALL = 1e-4  # of the first residual: where these stop
SAMPLES = 32  # that the neighbours' own uncertainty is taken from


class _Quadratic(NamedTuple):
    """Posterior of each patch about where it stands, the neighbours left out."""

    precision: Tensor  # (N, A + K, A + K)
    slope: Tensor  # (N, A + K)
    mean_square: Tensor  # (N,)


def refine_together(
    model: ShiftVAE,
    patches: Windows,
    fit: Fit,
    neighbours: Neighbourhood,
    *,
    smoothness: float,
    edge_preserving: bool,
) -> Iterator[Fit | None]:
    """Move all patches to the maximum of the posterior in which neighbours are alike.

    What each patch says of itself is a Gaussian about where it stands (Gauss-Newton); with the
    neighbours that is one sparse linear system for the latents of all, solved by conjugate
    gradients, while the edge-preserving costs are majorised by quadratic ones, again and again
    (P. W. Holland, R. E. Welsch, *Commun. Stat.* 6, 813 (1977), doi:10.1080/03610927708827533).
    Then the derivatives are taken anew. Poses follow the latents.

    Standard deviations are those of the whole field, with the condition taken for the truth: the
    part that comes from the neighbours' own uncertainty is the mean over samples drawn from the
    posterior (G. Papandreou, A. Yuille, *Adv. Neural Inf. Process. Syst.* 23, 1858 (2010)).

    Parameters
    ----------
    model : ShiftVAE
        Left as it is.
    patches : Patches or Spectra
        N windows.
    fit : Fit
        From `infer.refine`.
    neighbours : Neighbourhood
        Of the N.
    smoothness : float
        Weight of the condition, as in `train.TrainConfig`.
    edge_preserving : bool

    Yields
    ------
    None or Fit
        None after each round, and the refined fit at the end.
    """
    partner = neighbours.partner.to(fit.z.device)
    strength = smoothness / max(1e-9, float((partner >= 0).sum(dim=1).float().mean()))
    dims = fit.pose.shape[1]
    metric = torch.linalg.inv(fit.covariance[:, dims:, dims:].mean(dim=0))  # (K, K)
    own = _quadratic(model, patches, fit)
    unit = torch.cat([model.pose_prior, model.pose_prior.new_ones(fit.z.shape[1])])
    weight = torch.zeros_like(partner, dtype=fit.z.dtype)
    for wider in widths(ROUNDS):
        to_pose, precision, slope = _without_pose(own, dims)
        z = fit.z
        for _ in range(REWEIGHTINGS):
            weight = (partner >= 0) * strength
            if edge_preserving:
                away = z[:, None] - z[partner]
                weight = weight * edge_weights(((away @ metric) * away).sum(dim=2), wider)
            apply, inverse = _system(precision, partner, weight, metric)
            pull = slope + (precision @ fit.z[..., None])[..., 0]
            z = _solve(apply, inverse, pull, z)
        step = z - fit.z
        by_pose = own.slope[:, :dims] - (own.precision[:, :dims, dims:] @ step[..., None])[..., 0]
        step = torch.cat([(to_pose @ by_pose[..., None])[..., 0], step], dim=1) / unit
        step = step.clamp(-LARGEST_STEP, LARGEST_STEP) * unit
        fit = replace(fit, pose=fit.pose + step[:, :dims], z=fit.z + step[:, dims:])
        own = _quadratic(model, patches, fit)
        yield None
    covariance = _covariance(own, dims, partner, weight, metric)
    yield replace(fit, covariance=covariance, mean_square=own.mean_square)


@torch.no_grad()
def _quadratic(model: ShiftVAE, patches: Windows, fit: Fit) -> _Quadratic:
    device, dims = model.variance.device, fit.pose.shape[1]
    prior = torch.cat([model.pose_prior**-2, model.pose_prior.new_ones(fit.z.shape[1])])
    centre = torch.zeros(len(fit), len(prior), device=device)
    centre[:, :dims] = prior_centre(model, patches).to(device)
    pieces = []
    for rows in batches(len(fit)):
        pose, z = fit.pose[rows], fit.z[rows]
        pattern, by_pose, by_latent = model.linearise(fit.content[rows], pose)
        residual = (patches.gather(rows.numpy()).to(device) - pattern).flatten(1)
        jacobian = torch.cat([by_pose, by_latent], dim=1).flatten(2)  # (B, A + K, P P)
        root, count = root_weight(model, patches, rows)
        if fit.noise is not None:
            root = fit.noise.reweighted(root, patches, rows, pattern)
        if root is not None:
            residual, jacobian = residual * root, jacobian * root[:, None]
        off = torch.cat([pose, z], dim=1) - centre[rows]
        slope = (jacobian @ residual[..., None])[..., 0] / model.variance - prior * off
        precision = jacobian @ jacobian.mT / model.variance + torch.diag(prior)
        pieces.append(_Quadratic(precision, slope, residual.square().sum(dim=1) / count))
    return _Quadratic(*(torch.cat(part) for part in zip(*pieces, strict=True)))


def _without_pose(own: _Quadratic, dims: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse of the precision of poses, and precision and slope of latents once they follow."""
    to_pose = torch.linalg.inv(own.precision[:, :dims, :dims])
    across = own.precision[:, dims:, :dims] @ to_pose
    precision = own.precision[:, dims:, dims:] - across @ own.precision[:, :dims, dims:]
    slope = own.slope[:, dims:] - (across @ own.slope[:, :dims, None])[..., 0]
    return to_pose, precision, slope


def _system(
    precision: Tensor, partner: Tensor, weight: Tensor, metric: Tensor
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Product with the matrix of the linear system, and the inverses of its blocks."""
    block = precision + weight.sum(dim=1)[:, None, None] * metric

    def apply(z: Tensor) -> Tensor:  # (N, K)
        around = (weight[..., None] * z[partner]).sum(dim=1)
        return (block @ z[..., None])[..., 0] - around @ metric

    return apply, torch.linalg.inv(block)


def _solve(
    apply: Callable[[Tensor], Tensor], inverse: Tensor, right: Tensor, start: Tensor
) -> Tensor:
    """Conjugate gradients, preconditioned by the inverses of the blocks."""
    at = start
    residual = right - apply(at)
    ahead = (inverse @ residual[..., None])[..., 0]
    direction, product = ahead, (residual * ahead).sum()
    enough = SMALL**2 * float((right * (inverse @ right[..., None])[..., 0]).sum())
    for _ in range(MOST_STEPS):
        if float(product) <= enough:
            break
        image = apply(direction)
        length = product / (direction * image).sum()
        at = at + length * direction
        residual = residual - length * image
        ahead = (inverse @ residual[..., None])[..., 0]
        before, product = product, (residual * ahead).sum()
        direction = ahead + product / before * direction
    return at


def _covariance(
    own: _Quadratic, dims: int, partner: Tensor, weight: Tensor, metric: Tensor
) -> Tensor:
    """Covariance (N, A + K, A + K) of each patch in the posterior of the field."""
    to_pose, precision, _ = _without_pose(own, dims)
    apply, inverse = _system(precision, partner, weight, metric)
    generator = torch.Generator(precision.device).manual_seed(0)
    root, spread = torch.linalg.cholesky(precision), torch.linalg.cholesky(metric)
    count, latents = precision.shape[:2]
    around = torch.zeros_like(precision)
    rows = torch.arange(count, device=precision.device)[:, None].expand_as(partner)
    for _ in range(SAMPLES):
        noise = torch.randn(count, latents, 1, generator=generator, device=precision.device)
        right = (root @ noise)[..., 0]
        # One number for each pair, with opposite signs at its two ends.
        pair = torch.randn(
            *partner.shape, latents, generator=generator, device=precision.device
        ) * (weight * (rows < partner)).sqrt().unsqueeze(-1)
        pair = pair @ spread.T
        right = right + pair.sum(dim=1)
        right.index_add_(0, partner.clamp_min(0).flatten(), -pair.flatten(0, 1))
        sample = _solve(apply, inverse, right, torch.zeros_like(right))
        pull = ((weight[..., None] * sample[partner]).sum(dim=1) @ metric)[..., None]
        moved = inverse @ pull
        around += moved @ moved.mT / SAMPLES
    of_z = inverse + around
    follow = -to_pose @ own.precision[:, :dims, dims:]  # (N, A, K)
    cross = follow @ of_z
    return torch.cat(
        [
            torch.cat([to_pose + cross @ follow.mT, cross], dim=2),
            torch.cat([cross.mT, of_z], dim=2),
        ],
        dim=1,
    )
