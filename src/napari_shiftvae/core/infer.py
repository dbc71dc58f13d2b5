"""From a trained model to latents and shifts with standard deviations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.patches import Patches

BATCH = 512
ITERATIONS = 20  # twelve left patches short of the maximum; most stop long before
CONVERGED = 1e-3  # of a prior standard deviation
LARGEST_STEP = 0.5  # prior standard deviations


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """Gaussian posterior of every patch.

    Attributes
    ----------
    z : (N, K) tensor
        Content latents.
    shift : (N, 2) tensor
        Shift of the pattern from the centre of its window, (y, x) pixels.
    covariance : (N, 2 + K, 2 + K) tensor
        Of (shift y, shift x, z1 ... zK).
    mean_square : (N,) tensor
        Mean square residual in normalised intensity.
    """

    z: Tensor
    shift: Tensor
    covariance: Tensor
    mean_square: Tensor

    def __len__(self) -> int:
        return len(self.z)


def encode(model: ShiftVAE, patches: Patches) -> Fit:
    """Read the posterior off the encoder.

    Parameters
    ----------
    model : ShiftVAE
    patches : Patches

    Returns
    -------
    Fit
    """
    pieces = []
    with torch.no_grad():
        for rows in batches(len(patches)):
            x = patches.gather(rows.numpy()).to(model.variance.device)
            q = model.encode(x)
            sd = torch.cat([q.log_sd_shift, q.log_sd_z], dim=1).exp()
            residual = model.decode(q.z, q.shift) - x
            pieces.append(
                Fit(
                    z=q.z,
                    shift=q.shift,
                    covariance=torch.diag_embed(sd.square()),
                    mean_square=residual.square().mean(dim=(1, 2)),
                )
            )
    return _joined(pieces)


def refine(model: ShiftVAE, patches: Patches, fit: Fit) -> Iterator[Fit | None]:
    """Move every patch to the maximum of its posterior, with the decoder as it is.

    Levenberg-Marquardt steps on all patches of a batch at once; the inverse of the Gauss-Newton
    Hessian is the covariance (Laplace approximation). The noise variance of the model becomes
    the one of the residuals, with the fitted parameters counted.

    Parameters
    ----------
    model : ShiftVAE
        Its noise variance is updated.
    patches : Patches
    fit : Fit
        Where to start, from `encode`.

    Yields
    ------
    None or Fit
        None after each batch, and the refined fit at the end.

    Examples
    --------
    >>> from napari_shiftvae.core.model import ModelConfig
    >>> from napari_shiftvae.core.patches import stack_patches
    >>> import numpy as np
    >>> stack = np.random.default_rng(0).normal(size=(32, 16, 16)).astype(np.float32)
    >>> patches = stack_patches(stack)
    >>> model = ShiftVAE(ModelConfig(patch_size_px=16, separation_px=8))
    >>> *_, refined = refine(model, patches, encode(model, patches))
    >>> refined.covariance.shape
    torch.Size([32, 4, 4])
    """
    pieces, curvatures = [], []
    for rows in batches(len(patches)):
        with torch.no_grad():
            start = torch.cat([fit.shift[rows], fit.z[rows]], dim=1)
            at, curvature, mean_square = _maximise(model, patches, rows, start)
        pieces.append(
            Fit(z=at[:, 2:], shift=at[:, :2], covariance=curvature, mean_square=mean_square)
        )
        curvatures.append(curvature)
        yield None
    refined = _joined(pieces)
    pixels = patches.patch_size_px**2
    parameters = refined.covariance.shape[1]
    model.variance.copy_(refined.mean_square.mean() * pixels / max(1, pixels - parameters))
    precision = _precision(model)
    hessian = refined.covariance / model.variance + torch.diag(precision)
    yield replace(refined, covariance=torch.linalg.inv(hessian))


def _maximise(
    model: ShiftVAE, patches: Patches, rows: Tensor, start: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Maximum a posteriori (B, 2 + K), products of derivatives, and mean square residuals."""
    device = model.variance.device
    x = patches.gather(rows.numpy()).to(device)
    precision = _precision(model)
    centre = torch.zeros_like(start)
    centre[:, :2] = torch.from_numpy(patches.remainder_yx_px)[rows].to(start)
    unit = precision.rsqrt()

    at = start.clone()
    products = torch.zeros(*at.shape, at.shape[1], device=device)
    mean_square = torch.full((len(at),), torch.inf, device=device)
    score = torch.full_like(mean_square, torch.inf)
    best, gradient = at.clone(), torch.zeros_like(at)
    damping = torch.full_like(score, 1e-3)
    active = torch.arange(len(at), device=device)
    for _ in range(ITERATIONS):
        here = at[active]
        pattern, by_shift, by_latent = model.linearise(here[:, 2:], here[:, :2])
        residual = (x[active] - pattern).flatten(1)
        off = here - centre[active]
        sum_square = residual.square().sum(dim=1)
        new_score = sum_square / model.variance + (precision * off.square()).sum(dim=1)
        better = new_score <= score[active]
        kept = active[better]
        jacobian = torch.cat([by_shift, by_latent], dim=1).flatten(2)[better]  # (B, 2 + K, P P)
        products[kept] = jacobian @ jacobian.mT
        gradient[kept] = (jacobian @ residual[better][..., None])[..., 0] / model.variance - (
            precision * off[better]
        )
        best[kept], score[kept] = here[better], new_score[better]
        mean_square[kept] = sum_square[better] / residual.shape[1]
        damping[active] *= torch.where(better, 0.1, 10.0)

        hessian = products[active] / model.variance + torch.diag(precision)
        hessian += torch.diag_embed(damping[active, None] * hessian.diagonal(dim1=1, dim2=2))
        step = torch.linalg.solve(hessian, gradient[active]) / unit
        step = step.clamp(-LARGEST_STEP, LARGEST_STEP)
        at[active] = best[active] + step * unit
        active = active[(step.abs() > CONVERGED).any(dim=1)]
        if not len(active):
            break
    return best, products, mean_square


def _precision(model: ShiftVAE) -> Tensor:
    """Prior precision of (shift y, shift x, z1 ... zK)."""
    precision = torch.ones(2 + model.config.latent_dim, device=model.variance.device)
    precision[:2] /= model.config.shift_prior_px**2
    return precision


def batches(count: int) -> list[Tensor]:
    """Row numbers 0 to `count` in pieces that fit the memory."""
    return list(torch.tensor_split(torch.arange(count), tuple(range(BATCH, count, BATCH))))


def _joined(pieces: list[Fit]) -> Fit:
    return Fit(
        z=torch.cat([piece.z for piece in pieces]),
        shift=torch.cat([piece.shift for piece in pieces]),
        covariance=torch.cat([piece.covariance for piece in pieces]),
        mean_square=torch.cat([piece.mean_square for piece in pieces]),
    )
