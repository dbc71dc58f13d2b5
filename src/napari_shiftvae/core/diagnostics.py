"""What the fit says of itself, as numbers and as sentences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_shiftvae.core.gauge import Reading, latent_information
from napari_shiftvae.core.infer import Fit
from napari_shiftvae.core.patches import Patches

ACTIVE_NAT = 0.1
LEAKAGE_WORTH_SAYING = 0.1
OUTLIER_MAD = 6.0


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """Numbers of one analysis.

    Attributes
    ----------
    kl_latents : tuple of float
        Information in each content latent, mean over patches [nat].
    active_latents : int
        Latents with more than 0.1 nat.
    leakage : tuple of float
        R2 of each latent from a quadratic in the shift.
    noise_sigma, noise_sigma_independent : float
        Noise by the model, and by the power spectrum above the band limit; in the image's unit.
    outliers : int
        Patches whose residual stands out by more than six median absolute deviations.
    period_jumps : int
        Patches shifted by more than half the distance between neighbours.
    set_aside : dict
        Number of picks without a patch, by reason.
    sentences : tuple of str
        The same in words.
    """

    kl_latents: tuple[float, ...]
    active_latents: int
    leakage: tuple[float, ...]
    noise_sigma: float
    noise_sigma_independent: float
    outliers: int
    period_jumps: int
    set_aside: dict[str, int]
    sentences: tuple[str, ...]


def diagnose(
    patches: Patches,
    fit: Fit,
    reading: Reading,
    *,
    noise_sigma: float,
    noise_sigma_independent: float,
    separation_px: float,
) -> Diagnostics:
    """Summarise a fit.

    Parameters
    ----------
    patches : Patches
    fit : Fit
        With its gauge fixed.
    reading : Reading
    noise_sigma, noise_sigma_independent : float
        In the image's unit.
    separation_px : float
        Distance between neighbours [px].

    Returns
    -------
    Diagnostics
    """
    kl = latent_information(fit).mean(dim=0).tolist()
    leakage = _leakage(reading.z, reading.shift_yx_px)
    middle = float(np.median(reading.residual))
    spread = float(np.median(np.abs(reading.residual - middle)))
    outliers = int((reading.residual > middle + OUTLIER_MAD * spread).sum())
    jumps = int((np.hypot(*reading.shift_yx_px.T) > separation_px / 2).sum())
    reasons, counts = np.unique(patches.set_aside[patches.set_aside != ""], return_counts=True)
    set_aside = dict(zip(reasons.tolist(), counts.tolist(), strict=True))
    sentences = [
        f"z{k} carries {nat:.2f} nat per atom."
        if nat > ACTIVE_NAT
        else f"z{k} carries nothing ({nat:.2f} nat): fewer latents would do."
        for k, nat in enumerate(kl, start=1)
    ]
    sentences += [
        f"z{k} follows the shift (R² = {r2:.2f}): compare with another patch size or seed."
        for k, r2 in enumerate(leakage, start=1)
        if r2 > LEAKAGE_WORTH_SAYING
    ]
    ratio = noise_sigma / noise_sigma_independent
    sentences.append(
        f"The noise by the model is {ratio:.2f} times that of the power spectrum"
        + (
            ": much structure is left in the residual; more latents or epochs may help."
            if ratio > 1.5
            else "."
        )
    )
    if outliers:
        sentences.append(f"{_atoms(outliers)} with a residual that stands out: look for defects.")
    if jumps:
        sentences.append(
            f"{_atoms(jumps)} shifted by more than half the spacing of "
            f"{separation_px:.1f} px: they may have been taken for a neighbour."
        )
    words = {
        "border": "too near the border",
        "masked": "beside masked pixels",
        "duplicate": "picked twice",
    }
    sentences += [f"{_atoms(n)} set aside, {words[why]}." for why, n in set_aside.items()]
    return Diagnostics(
        kl_latents=tuple(kl),
        active_latents=sum(nat > ACTIVE_NAT for nat in kl),
        leakage=leakage,
        noise_sigma=noise_sigma,
        noise_sigma_independent=noise_sigma_independent,
        outliers=outliers,
        period_jumps=jumps,
        set_aside=set_aside,
        sentences=tuple(sentences),
    )


def _atoms(count: int) -> str:
    return f"{count} atom" + ("" if count == 1 else "s")


def _leakage(z: NDArray[np.float64], shift: NDArray[np.float64]) -> tuple[float, ...]:
    y, x = shift.T
    design = torch.from_numpy(np.stack([np.ones_like(y), y, x, y * y, y * x, x * x], axis=1))
    target = torch.from_numpy(z)
    left = target - design @ torch.linalg.lstsq(design, target).solution
    total = (target - target.mean(dim=0)).square().sum(dim=0)
    return tuple((1 - left.square().sum(dim=0) / total.clamp_min(1e-12)).tolist())
