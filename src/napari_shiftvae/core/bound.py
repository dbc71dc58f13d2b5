"""The evidence lower bound of a batch: what training climbs and what held-out patches judge by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from napari_shiftvae.core.classes import UNKNOWN
from napari_shiftvae.core.infer import (
    batches,
    content,
    given_of,
    maximise,
    on_device,
    prior_precision,
    root_weight,
)
from napari_shiftvae.core.model import Encoded, ShiftVAE
from napari_shiftvae.core.windows import Windows, prior_centre

__all__ = ["Batch", "Terms", "evidence", "gathered", "judged", "terms"]


class Terms(NamedTuple):
    """Negative bound of a batch and its parts, means over its patches [nat]."""

    loss: Tensor  # ()
    mean_square: Tensor  # (), of the residual in normalised intensity
    kl_pose: Tensor  # ()
    kl_latents: Tensor  # (K,), from N(0, 1)
    kl_content: Tensor  # (), of all latents from their prior
    wrong: Tensor | float  # cost of wrong classes, which is no part of the bound


class Batch(NamedTuple):
    """What is known of B patches."""

    x: Tensor  # (B, *W)
    centre: Tensor  # (B, A), where the prior of the pose is centred
    weight: Tensor | None  # as of `Windows.weigh`
    beyond: Tensor | None  # as of `Windows.beyond`
    given: Tensor | None  # (B, C), classes that the model is conditional on
    label: Tensor  # (B,) int, known classes; -1 where not


def gathered(patches: Windows, rows: Tensor, centre: Tensor, label: Tensor) -> Batch:
    """Gather some patches, of centres (N, A) and labels (N,), on the device of the centres."""
    device = centre.device
    return Batch(
        patches.gather(rows.numpy()).to(device),
        centre[rows],
        on_device(patches.weigh(rows), device),
        on_device(patches.beyond(rows), device),
        given_of(patches, rows, device),
        label[rows],
    )


def terms(
    model: ShiftVAE,
    batch: Batch,
    encoded: Encoded,
    generator: torch.Generator,
    *,
    kl_weights: tuple[float, float] = (1.0, 1.0),
    step: int | None = None,
) -> Terms:
    """Estimate the bound of patches (B, *W) from one sample of their posterior.

    Parameters
    ----------
    model : ShiftVAE
    batch : Batch
    encoded : Encoded
        Their posterior.
    generator : torch.Generator
        Of the sample.
    kl_weights : (float, float)
        Of pose and content.
    step : int, optional
        Finished steps of training: the variance of the noise follows the residual. Without it the
        model is left as it is.
    """
    x, weight, pose_dim = batch.x, batch.weight, model.config.pose_dim
    noise = torch.randn(len(x), pose_dim + encoded.z.shape[1], generator=generator, device=x.device)
    pose = encoded.pose + encoded.log_sd_pose.exp() * noise[:, :pose_dim]
    z = encoded.z + encoded.log_sd_z.exp() * noise[:, pose_dim:]
    residual, looked_at = model.residual(content(z, batch.given), pose, x, generator)
    square, pixels = residual.square(), float(math.prod(model.config.window))
    if weight is not None:
        each = weight.expand_as(x).flatten(1)
        square = square * each[:, looked_at]
        if weight.dtype == torch.bool:
            count = each.float().mean()
            square, pixels = square / count, pixels * float(count)
    mean_square = square.mean()
    if batch.beyond is not None:
        mean_square = (square.sum() + batch.beyond.sum()) / (len(x) * pixels)
    if step is not None:
        # Slow enough to average over batches, fast enough to follow the fall of the residual.
        model.variance.lerp_(mean_square.detach(), max(0.1, 1 / (1 + step)))
    prior = model.pose_prior
    kl_pose = _kl((encoded.pose - batch.centre) / prior, encoded.log_sd_pose - prior.log()).sum()
    kl_latents = _kl(encoded.z, encoded.log_sd_z)
    # The constant part makes the loss the bound itself.
    likelihood = (
        0.5 * pixels * (mean_square / model.variance + torch.log(2 * math.pi * model.variance))
    )
    kl_content = kl_latents.sum()
    wrong: Tensor | float = 0.0
    if model.classes is not None and model.classes.ready:
        kl_content, wrong = model.classes.divergence(encoded.z, encoded.log_sd_z, batch.label)
    loss = likelihood + kl_weights[0] * kl_pose + kl_weights[1] * kl_content
    return Terms(loss, mean_square, kl_pose, kl_latents, kl_content, wrong)


@torch.no_grad()
def judged(model: ShiftVAE, patches: Windows, rows: Tensor) -> tuple[float, Tensor, Tensor]:
    """Negative bound of some patches, and what the encoder says of them.

    The same sample is drawn at every call, so that two calls differ by the model alone.

    Returns
    -------
    loss : float
        Mean over the patches [nat].
    z, pose : (R, K) and (R, A) tensors
        Posterior means.
    """
    device = model.variance.device
    generator = torch.Generator(device).manual_seed(0)
    centre = prior_centre(model, patches).to(device)
    unknown = torch.full((len(patches),), UNKNOWN, device=device)
    total, means, poses = 0.0, [], []
    for piece in batches(len(rows)):
        batch = gathered(patches, rows[piece], centre, unknown)
        encoded = model.encode(batch.x, batch.given)
        total += float(terms(model, batch, encoded, generator).loss) * len(piece)
        means.append(encoded.z.cpu())
        poses.append(encoded.pose.cpu())
    return total / len(rows), torch.cat(means), torch.cat(poses)


@torch.no_grad()
def evidence(
    model: ShiftVAE, patches: Windows, rows: Tensor, weights: Sequence[Tensor] | None = None
) -> float:
    """Negative logarithm of the evidence of some patches, by Laplace's approximation.

    That is the bound with the posterior that suits each patch best, so it judges the decoder alone;
    what the encoder knows of patches that it never saw is far less, and less steady. The variance
    of the noise is the one that suits these patches.

    Parameters
    ----------
    model : ShiftVAE
    patches : Patches or Spectra
    rows : (R,) int tensor
    weights : sequence of tensor, optional
        Parameters of the decoder to judge, instead of its own.

    Returns
    -------
    float
        Mean over the patches [nat].
    """
    own = [parameter.data for parameter in model.decoder.parameters()]
    try:
        _set_weights(model, own if weights is None else weights)
        parts = [_at_maximum(model, patches, rows[piece]) for piece in batches(len(rows))]
    finally:
        _set_weights(model, own)
    products, prior, square, count = (torch.cat(part) for part in zip(*parts, strict=True))
    parameters = products.shape[1]
    variance = square.sum() / (count - parameters).clamp(min=1).sum()
    precision = prior_precision(model)
    hessian = products / variance + torch.diag(precision)
    each = (
        square / variance
        + count * torch.log(2 * math.pi * variance)
        + prior
        + torch.logdet(hessian)
        - precision.log().sum()
    )
    return 0.5 * float(each.mean())


def _set_weights(model: ShiftVAE, weights: Sequence[Tensor]) -> None:
    for parameter, weight in zip(model.decoder.parameters(), weights, strict=True):
        parameter.data = weight


def _at_maximum(model: ShiftVAE, patches: Windows, rows: Tensor) -> tuple[Tensor, ...]:
    """Products of derivatives (B, A + K, A + K), and (B,) of each patch: prior, square, count."""
    device, dims = model.variance.device, model.config.pose_dim
    x = patches.gather(rows.numpy()).to(device)
    encoded = model.encode(x, given_of(patches, rows, device))
    start = torch.cat([encoded.pose, encoded.z], dim=1)
    at, products, mean_square = maximise(model, patches, rows, start)
    at[:, :dims] -= prior_centre(model, patches)[rows].to(device)
    count = root_weight(model, patches, rows)[1]
    return products, (prior_precision(model) * at.square()).sum(dim=1), mean_square * count, count


def _kl(mean: Tensor, log_sd: Tensor) -> Tensor:
    """KL divergence from N(0, 1), averaged over the batch: (B, K) to (K,)."""
    return (0.5 * (mean.square() + (2 * log_sd).exp() - 1) - log_sd).mean(dim=0)
