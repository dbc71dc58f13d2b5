"""What gradient descent leaves undone: least squares of the decoder's output layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from napari_shiftvae.core.fourier_decoder import FourierDecoder
from napari_shiftvae.core.infer import Fit, content, given_of, maximise, piecewise, root_weight
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.patches import Patches

__all__ = ["polish"]

MOST_STEPS = 3
MOST_PATCHES = 4000  # more tell the few things that hidden features can do no better
WORTH = 2.0  # times the gain that noise alone brings: with less, patterns get no better
DAMPING = 1e-3  # mean square of a hidden feature (they are of order 1) that is too faint to tell


def polish(
    model: ShiftVAE, patches: Patches, fit: Fit, learn: Tensor | None = None
) -> Iterator[Fit | None]:
    """Fit the decoder's output layer to patches where their posterior has its maximum.

    The coefficients of a pattern are linear in the hidden features, so their least squares are
    known at once. Patches are moved to the maximum of their posterior and the layer is fitted, in
    turn, while that gains clearly more than noise alone would. Other decoders stay as they are.

    Parameters
    ----------
    model : ShiftVAE
        The output layer of its decoder and its noise variance are changed.
    patches : Patches
    fit : Fit
        Where to start, from `encode`.
    learn : (M,) int tensor, optional
        Rows to learn from, where others are held out.

    Yields
    ------
    None or Fit
        None after each batch, and at the end the fit to refine from; its covariances are those
        of the beginning.
    """
    decoder = model.decoder
    if not isinstance(decoder, FourierDecoder):
        yield fit
        return
    at, dims = torch.cat([fit.pose, fit.z], dim=1), model.config.pose_dim
    learn = torch.arange(len(fit)) if learn is None else learn
    some = learn[:: -(-len(learn) // MOST_PATCHES)]
    for _ in range(MOST_STEPS):
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for part in piecewise(lambda rows: _solved_at(model, patches, some[rows], at), len(some)):
            parts.append(part)
            yield None
        normal = torch.stack([part[0] for part in parts]).sum(dim=0)
        slope = torch.stack([part[1] for part in parts]).sum(dim=0)
        model.variance.copy_(torch.cat([part[2] for part in parts]).mean())
        ridge = DAMPING * normal[-1, -1] * torch.eye(len(normal)).to(normal)
        change = torch.linalg.solve(normal + ridge, slope * decoder.share.flatten().cpu())
        decoder.add_to_output(change.to(at))
        # Halves of chi-square: what is gained, and what the fit of nothing but noise would gain.
        gain = 0.5 * float((change * slope).sum()) / float(model.variance)
        learned = float(torch.linalg.solve(normal + ridge, normal).trace())
        if gain < WORTH * 0.5 * learned * decoder.coefficients_in_view:
            break
    yield replace(fit, pose=at[:, :dims], z=at[:, dims:])


def _solved_at(
    model: ShiftVAE, patches: Patches, rows: Tensor, at: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Move some rows of poses and latents (N, A + K) to the maximum of their posterior.

    Returns
    -------
    normal : (H, H) tensor
        Products of the hidden features.
    slope : (H, F) tensor
        Products of these with the slopes by the coefficients.
    mean_square : (B,) tensor
    """
    decoder, dims = model.decoder, model.config.pose_dim
    assert isinstance(decoder, FourierDecoder)  # noqa: S101 - `polish` sees to it
    with torch.no_grad():
        at[rows], _, mean_square = maximise(model, patches, rows, at[rows])
        here = at[rows]
        x = patches.gather(rows.numpy()).to(here.device)
        z = model.as_decoded(content(here[:, dims:], given_of(patches, rows, here.device)))
        counts, _ = root_weight(model, patches, rows)
        hidden, slope = decoder.slope_of_output(
            z, *model.placed(here[:, :dims]), x, None if counts is None else counts.view_as(x)
        )
        each = hidden.cpu().double()
        return each.mT @ each, each.mT @ slope.cpu().double(), mean_square.cpu()
