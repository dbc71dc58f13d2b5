"""From a trained model to latents and shifts with standard deviations."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from napari_shiftvae.core.band import in_band
from napari_shiftvae.core.errors import is_out_of_memory, tell
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.noise import NoiseLaw, NoiseSums
from napari_shiftvae.core.progress import Progress
from napari_shiftvae.core.windows import Windows, prior_centre

BATCH = 512
ITERATIONS = 20  # twelve left patches short of the maximum; most stop long before
CONVERGED = 3e-4  # of a prior standard deviation
ROUNDS_WITH_WEIGHTS = 4  # noise of each window and law of all are found in turns
LARGEST_STEP = 0.5  # prior standard deviations

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """Gaussian posterior of every patch.

    Attributes
    ----------
    z : (N, K) tensor
        Content latents.
    pose : (N, A) tensor
        Shift of the pattern from the centre of its window, (y, x) pixels; rotation [rad];
        logarithm of the scale; those that the model has.
    covariance : (N, A + K, A + K) tensor
        Of pose and latents.
    mean_square : (N,) tensor
        Mean square residual in normalised intensity, weighted where the windows have weights.
    given : (N, C) tensor or None
        Classes that were given, as of `Windows`.
    noise : NoiseLaw or None
        How the noise depends on intensity, where `refine` found that it does.
    """

    z: Tensor
    pose: Tensor
    covariance: Tensor
    mean_square: Tensor
    given: Tensor | None = None
    noise: NoiseLaw | None = None

    def __len__(self) -> int:
        return len(self.z)

    @property
    def content(self) -> Tensor:
        """Latents and given classes, (N, K) or (N, K + C), as the decoder takes them."""
        return content(self.z, self.given)


def content(z: Tensor, given: Tensor | None) -> Tensor:
    """Put given classes (N, C) behind latents (N, K)."""
    return z if given is None else torch.cat([z, given.to(z)], dim=1)


def given_of(patches: Windows, rows: Tensor, device: torch.device) -> Tensor | None:
    """Given classes (B, C) of some windows."""
    return None if patches.given is None else patches.given[rows].to(device)


def encode(model: ShiftVAE, patches: Windows) -> Fit:
    """Read the posterior off the encoder.

    Parameters
    ----------
    model : ShiftVAE
    patches : Patches or Spectra

    Returns
    -------
    Fit
    """
    model, patches = in_band(model, patches)

    def read(rows: Tensor) -> Fit:
        x = patches.gather(rows.numpy()).to(model.variance.device)
        given = given_of(patches, rows, x.device)
        q = model.encode(x, given)
        sd = torch.cat([q.log_sd_pose, q.log_sd_z], dim=1).exp()
        residual = (model.decode(content(q.z, given), q.pose) - x).flatten(1)
        root, count = root_weight(model, patches, rows)
        if root is not None:
            residual = residual * root
        return Fit(
            z=q.z,
            pose=q.pose,
            covariance=torch.diag_embed(sd.square()),
            mean_square=_total(residual, on_device(patches.beyond(rows), x.device)) / count,
            given=given,
        )

    with torch.no_grad():
        return _joined(list(piecewise(read, len(patches))))


def refine(
    model: ShiftVAE, patches: Windows, fit: Fit, *, uneven: bool = True
) -> Iterator[Fit | None]:
    """Move every patch to the maximum of its posterior, with the decoder as it is.

    Levenberg-Marquardt steps on all patches of a batch at once; the inverse of the Gauss-Newton
    Hessian is the covariance (Laplace approximation). The noise variance of the model becomes
    the one of the residuals, with the fitted parameters counted. Where residuals show that the
    noise depends on intensity, as that of counted electrons does, all patches are refined once
    more with each pixel weighted by its own noise.

    Parameters
    ----------
    model : ShiftVAE
        Its noise variance is updated.
    patches : Patches or Spectra
    fit : Fit
        Where to start, from `encode`.
    uneven : bool
        Whether to look if the noise depends on intensity.

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
    fit = yield from _at_maximum(model, patches, fit)
    law = _law(model, patches, fit) if uneven else None
    if law is not None:
        fit = yield from _at_maximum(model, patches, replace(fit, noise=law))
    parameters = fit.covariance.shape[1]
    count = torch.cat([root_weight(model, patches, rows)[1] for rows in batches(len(patches))])
    own = fit.mean_square * count / (count - parameters).clamp(min=1)
    model.variance.copy_(own.mean())
    # Weights are estimates; each window has enough values to correct its own.
    variance = model.variance if patches.weight is None else own[:, None, None]
    hessian = fit.covariance / variance + torch.diag(prior_precision(model))
    yield replace(fit, covariance=torch.linalg.inv(hessian))


def refining(
    model: ShiftVAE, patches: Windows, fit: Fit, *, uneven: bool = True
) -> Generator[Progress, str | None, Fit]:
    """Do as `refine` does, and tell how far it is."""
    for done, result in enumerate(refine(model, patches, fit, uneven=uneven)):
        fit = result or fit
        yield Progress(
            stage="refine",
            fraction=min(1.0, done * BATCH / len(patches)),
            message="Refining shifts and latents",
        )
    return fit


def _at_maximum(model: ShiftVAE, patches: Windows, fit: Fit) -> Generator[None, None, Fit]:
    """Refine all patches; instead of the covariance, return products of derivatives."""
    pieces = []
    dims = model.config.pose_dim
    if fit.noise is None:  # else pixels count by what is decoded there
        model, patches = in_band(model, patches)

    def move(rows: Tensor) -> Fit:
        with torch.no_grad():
            start = torch.cat([fit.pose[rows], fit.z[rows]], dim=1)
            at, curvature, mean_square = maximise(model, patches, rows, start, fit.noise)
        return Fit(
            z=at[:, dims:],
            pose=at[:, :dims],
            covariance=curvature,
            mean_square=mean_square,
            given=given_of(patches, rows, at.device),
            noise=fit.noise,
        )

    for piece in piecewise(move, len(patches)):
        pieces.append(piece)
        yield None
    return _joined(pieces)


@torch.no_grad()
def _law(model: ShiftVAE, patches: Windows, fit: Fit) -> NoiseLaw | None:
    """How the noise depends on intensity, from the residuals of a fit."""
    law = None
    for _ in range(1 if patches.weight is None else ROUNDS_WITH_WEIGHTS):
        sums = NoiseSums()
        for rows in batches(len(patches)):
            pattern = model.decode(fit.content[rows], fit.pose[rows])
            residual = patches.gather(rows.numpy()).to(pattern) - pattern
            counts = on_device(patches.weigh(rows), pattern.device)
            if counts is not None and counts.dtype == torch.bool:
                residual = residual.masked_fill(~counts, torch.nan)
            sums.add(patches, rows, pattern.flatten(1), residual.flatten(1), before=law)
        law = sums.law()
        if law is None:
            break
    return law


def maximise(
    model: ShiftVAE, patches: Windows, rows: Tensor, start: Tensor, law: NoiseLaw | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Maximum a posteriori (B, A + K), products of derivatives, and mean square residuals."""
    device, dims = model.variance.device, model.config.pose_dim
    x = patches.gather(rows.numpy()).to(device)
    root, count = root_weight(model, patches, rows)
    beyond, given = on_device(patches.beyond(rows), device), given_of(patches, rows, device)
    if law is not None:
        pattern = model.decode(content(start[:, dims:], given), start[:, :dims])
        root = law.reweighted(root, patches, rows, pattern)
    precision = prior_precision(model)
    centre = torch.zeros_like(start)
    centre[:, :dims] = prior_centre(model, patches)[rows].to(start)
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
        at_content = content(here[:, dims:], None if given is None else given[active])
        pattern, by_pose, by_latent = model.linearise(at_content, here[:, :dims])
        residual = (x[active] - pattern).flatten(1)
        jacobian = torch.cat([by_pose, by_latent], dim=1).flatten(2)  # (B, A + K, P P)
        if root is not None:
            own = root[active]
            residual, jacobian = residual * own, jacobian * own[:, None]
        off = here - centre[active]
        sum_square = _total(residual, None if beyond is None else beyond[active])
        new_score = sum_square / model.variance + (precision * off.square()).sum(dim=1)
        better = new_score <= score[active]
        kept = active[better]
        jacobian = jacobian[better]
        products[kept] = jacobian @ jacobian.mT
        gradient[kept] = (jacobian @ residual[better][..., None])[..., 0] / model.variance - (
            precision * off[better]
        )
        best[kept], score[kept] = here[better], new_score[better]
        mean_square[kept] = sum_square[better] / count[kept]
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


def _total(residual: Tensor, beyond: Tensor | None) -> Tensor:
    """Sums of squares (B,) of residuals (B, M), and of what the windows hold beyond."""
    total = residual.square().sum(dim=1)
    return total if beyond is None else total + beyond


def prior_precision(model: ShiftVAE) -> Tensor:
    """Prior precision of pose and latents."""
    return torch.cat([model.pose_prior**-2, model.pose_prior.new_ones(model.config.latent_dim)])


def root_weight(model: ShiftVAE, patches: Windows, rows: Tensor) -> tuple[Tensor | None, Tensor]:
    """Square roots of the weights, (B, P P) or (B, 1) or None, and how many values count, (B,)."""
    device = model.variance.device
    weight = on_device(patches.weigh(rows), device)
    count = torch.full((len(rows),), float(math.prod(model.config.window)), device=device)
    if weight is None:
        return None, count
    if weight.dtype == torch.bool:
        count = weight.flatten(1).sum(dim=1).float()
    return weight.flatten(1).float().sqrt(), count


def on_device(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    """The same, where there is one."""
    return None if tensor is None else tensor.to(device)


def batches(count: int) -> list[Tensor]:
    """Row numbers 0 to `count` in pieces that fit the memory."""
    return list(torch.tensor_split(torch.arange(count), tuple(range(BATCH, count, BATCH))))


def piecewise(work: Callable[[Tensor], T], count: int) -> Iterator[T]:
    """Do work on row numbers 0 to `count`, in pieces that are halved where memory runs out."""
    size, done = BATCH, 0
    while done < count:
        rows = torch.arange(done, min(done + size, count))
        piece = None
        try:
            piece = work(rows)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or len(rows) == 1:
                raise
        # Outside of the handler: what it caught holds on to the memory of the failed piece.
        if piece is None:
            size = len(rows) // 2
            tell(f"Memory ran out: patches are read {size} at a time instead of {len(rows)}.")
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        yield piece
        done += len(rows)


def _joined(pieces: list[Fit]) -> Fit:
    return Fit(
        z=torch.cat([piece.z for piece in pieces]),
        pose=torch.cat([piece.pose for piece in pieces]),
        covariance=torch.cat([piece.covariance for piece in pieces]),
        mean_square=torch.cat([piece.mean_square for piece in pieces]),
        noise=pieces[0].noise,
        given=None
        if pieces[0].given is None
        else torch.cat([piece.given for piece in pieces if piece.given is not None]),
    )
