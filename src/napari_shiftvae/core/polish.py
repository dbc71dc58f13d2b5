"""What gradient descent leaves undone: least squares of the decoder's output layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from napari_shiftvae.core.band import in_band
from napari_shiftvae.core.fourier_decoder import FourierDecoder
from napari_shiftvae.core.infer import Fit, content, given_of, maximise, piecewise, root_weight
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.patches import Patches
from napari_shiftvae.core.windows import Windows

__all__ = ["polish"]

MOST_STEPS = 4
MOST_PATCHES = 4000  # more tell the few things that hidden features can do no better
WORTH_NAT = 0.2  # per patch
SURE = 6.0  # standard errors by which a gain must stand out of what noise alone brings
WORTH = (
    2.0  # times the gain that noise alone brings: with more, what is strong is fitted as a whole
)
STRONG, FAINT = 1e-3, 1e-5  # mean squares of combinations of hidden features, which are of order 1


def polish(
    model: ShiftVAE, patches: Patches, fit: Fit, learn: Tensor | None = None
) -> Iterator[Fit | None]:
    """Fit the decoder's output layer to patches where their posterior has its maximum.

    The coefficients of a pattern are linear in the hidden features, so their least squares are
    known at once. Each combination of hidden features is taken only as far as what it would gain
    stands out of what noise alone would (W. James, C. Stein, Proc. Fourth Berkeley Symp. Math.
    Statist. Prob. 1, 361 (1961)); the strong ones as a whole, where they gain clearly more than
    that together. Patches are moved to the maximum of their posterior and the layer is fitted, in
    turn, while that gains much. Other decoders stay as they are.

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
    if not isinstance(model.decoder, FourierDecoder):
        yield fit
        return
    model, windows = in_band(model, patches)
    decoder = model.decoder
    assert isinstance(decoder, FourierDecoder)  # noqa: S101 - it is of the same kind
    at, dims = torch.cat([fit.pose, fit.z], dim=1), model.config.pose_dim
    learn = torch.arange(len(fit)) if learn is None else learn
    some = learn[:: -(-len(learn) // MOST_PATCHES)]
    for _ in range(MOST_STEPS):
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for part in piecewise(lambda rows: _solved_at(model, windows, some[rows], at), len(some)):
            parts.append(part)
            yield None
        normal = torch.stack([part[0] for part in parts]).sum(dim=0)
        slope = torch.stack([part[1] for part in parts]).sum(dim=0)
        model.variance.copy_(torch.cat([part[2] for part in parts]).mean())
        change, gain_nat = _change(decoder, normal, slope, float(model.variance))
        decoder.add_to_output(change.to(at))
        if gain_nat < WORTH_NAT * len(some):
            break
    yield replace(fit, pose=at[:, :dims], z=at[:, dims:])


def _change(
    decoder: FourierDecoder, normal: Tensor, slope: Tensor, variance: float
) -> tuple[Tensor, float]:
    """How the output layer (H, F) is to change, and what that gains [nat].

    From products of its H hidden features, and of these with the slopes by F coefficients.
    """
    strength, axes = torch.linalg.eigh(normal)
    strength = strength.clamp(min=1e-12 * float(strength[-1]))
    slope, share = axes.T @ slope, decoder.share.flatten().to(slope)
    chi_square = (slope.square() * share).sum(dim=1) / (strength * variance)  # (H,)
    by_noise = decoder.coefficients_in_view
    real = chi_square > by_noise + SURE * (2 * by_noise) ** 0.5
    shrunk = torch.where(real, 1 - by_noise / chi_square, 0.0)
    relative = strength / normal[-1, -1]
    taken = shrunk * relative / (relative + FAINT)
    whole = relative / (relative + STRONG)
    if float((whole * chi_square).sum()) > WORTH * by_noise * float(whole.sum()):
        taken = torch.maximum(taken, whole)
    change = axes @ ((taken / strength)[:, None] * slope) * share
    return change, 0.5 * float((taken * chi_square).sum())


def _solved_at(
    model: ShiftVAE, patches: Windows, rows: Tensor, at: Tensor
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
