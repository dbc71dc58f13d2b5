"""What the fit says of itself, as numbers and as sentences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.gauge import latent_information
from napari_shiftvae.core.infer import Fit
from napari_shiftvae.core.patches import Patches
from napari_shiftvae.core.reading import Reading

ACTIVE_NAT = 0.1
LEAKAGE_WORTH_SAYING = 0.1
OUTLIER_MAD = 6.0
AGREEMENT = 0.9


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
    seed_agreement : tuple of float
        R2 of each latent from those of another seed; empty where that was not tried.
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
    seed_agreement: tuple[float, ...] = ()

    def and_told(self, sentences: Iterable[str]) -> Diagnostics:
        """Add to what is said in words."""
        return replace(self, sentences=(*self.sentences, *sentences))


def latent_in_words(
    number: int, z: NDArray[np.float64], z_sd: NDArray[np.float64], information_nat: float
) -> str:
    """Say what a latent, ``z1`` being number 1, tells of the atoms (N,).

    Examples
    --------
    >>> latent_in_words(1, np.array([-2.0, 2.0]), np.array([0.1, 0.1]), 2.7)
    'z1 carries information: it varies by 20 times its standard deviation.'
    """
    if information_nat <= ACTIVE_NAT:
        return f"z{number} carries nothing: fewer latents would do."
    ratio = float(np.nanstd(z) / max(float(np.nanmedian(z_sd)), 1e-12))
    times = f"{ratio:.{1 if ratio < 10 else 0}f}"
    return f"z{number} carries information: it varies by {times} times its standard deviation."


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
    leakage = _explained(reading.z, reading.shift_yx_px)
    outliers = count_outliers(reading.residual)
    jumps = int((np.hypot(*reading.shift_yx_px.T) > separation_px / 2).sum())
    reasons, counts = np.unique(patches.set_aside[patches.set_aside != ""], return_counts=True)
    set_aside = dict(zip(reasons.tolist(), counts.tolist(), strict=True))
    sentences = [
        latent_in_words(k, z, sd, nat)
        for k, (z, sd, nat) in enumerate(zip(reading.z.T, reading.z_sd.T, kl, strict=True), start=1)
    ]
    displaced = _explained(reading.z, reading.polar_yx_px)
    for k, (r2, by_displacement) in enumerate(zip(leakage, displaced, strict=True), start=1):
        if r2 > LEAKAGE_WORTH_SAYING:
            sentences.append(f"z{k} follows the shift (R² = {r2:.2f}): {_why(r2, by_displacement)}")
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
        "no class": "which are of no class",
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


def count_outliers(residual: NDArray[np.float64]) -> int:
    """Count the residuals (N,) that stand out: by six median absolute deviations and more."""
    middle = float(np.median(residual))
    spread = float(np.median(np.abs(residual - middle)))
    return int((residual > middle + OUTLIER_MAD * spread).sum())


def _why(r2: float, by_displacement: float) -> str:
    """Tell an atom that moves in its cage, picked at its own place, from a latent that leaks."""
    if by_displacement > r2:
        return (
            "atoms are displaced against their neighbours, which it tells "
            f"(R² = {by_displacement:.2f}), and picks are at the atoms."
        )
    return "compare with another patch size or seed."


def _explained(z: NDArray[np.float64], vector: NDArray[np.float64]) -> tuple[float, ...]:
    """R2 of each latent (N, K) from a quadratic in vectors (N, 2), where these are known."""
    known = np.isfinite(vector).all(axis=1)
    if not known.any():
        return tuple(0.0 for _ in z.T)
    y, x = vector[known].T
    design = torch.from_numpy(np.stack([np.ones_like(y), y, x, y * y, y * x, x * x], axis=1))
    target = torch.from_numpy(z[known])
    left = target - design @ torch.linalg.lstsq(design, target).solution
    total = (target - target.mean(dim=0)).square().sum(dim=0)
    r2: list[float] = (1 - left.square().sum(dim=0) / total.clamp_min(1e-12)).tolist()
    return tuple(r2)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two runs found the same.

    Attributes
    ----------
    r2 : tuple of float
        Share of the variance of each latent of the first run that follows from those of the other.
    sentence : str
        The same in words.
    """

    r2: tuple[float, ...]
    sentence: str


def seed_agreement(first: ArrayLike, second: ArrayLike) -> Agreement:
    """Compare the latents of the same atoms in two runs that differ in their seed.

    The prior ``N(0, 1)`` has no preferred axes, so two runs may hold the same in latents that are
    exchanged, mirrored or turned: a linear map between them is fitted first.

    Parameters
    ----------
    first, second : (N, K) and (N, L) array-like
        Latents; atoms with a NaN in either are left out.

    Returns
    -------
    Agreement

    Raises
    ------
    InputError
        If the runs are not of the same atoms, or have too few of them in common.

    Examples
    --------
    >>> z = np.random.default_rng(0).normal(size=(200, 2))
    >>> seed_agreement(z, z @ [[0.6, -0.8], [0.8, 0.6]]).r2
    (1.0, 1.0)
    """
    one, other = (np.asarray(z, dtype=np.float64) for z in (first, second))
    if one.ndim != 2 or other.ndim != 2 or len(one) != len(other):
        raise InputError(
            f"The latents have shapes {one.shape} and {other.shape}: give two runs of the same "
            "atoms, one row each."
        )
    both = np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1)
    if both.sum() <= 2 * (other.shape[1] + 1):
        raise InputError(f"The runs have {both.sum()} atoms in common: too few to compare.")
    one, other = one[both] - one[both].mean(axis=0), other[both] - other[both].mean(axis=0)
    left = one - other @ np.linalg.lstsq(other, one, rcond=None)[0]
    total = np.maximum((one**2).sum(axis=0), 1e-12)
    r2 = tuple(round(float(value), 6) for value in 1 - (left**2).sum(axis=0) / total)
    listed = ", ".join(f"z{k} {value:.2f}" for k, value in enumerate(r2, start=1))
    verdict = (
        "the seed does not matter"
        if min(r2) >= AGREEMENT
        else "what falls short depends on the seed: train longer, or trust the others only"
    )
    return Agreement(
        r2=r2, sentence=f"Another seed gives the same latents to R² = {listed}: {verdict}."
    )
