"""Noise that depends on intensity, as that of counted electrons does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_shiftvae.core.windows import Windows

__all__ = ["NoiseLaw", "NoiseSums"]

STEP, REACH = 0.1, 20.0  # of the bins, in standard deviations of the intensity
ROUNDS = 10
FLOOR = 0.05  # of the mean variance; a line through few pixels may fall below zero
EVEN = 0.05  # spread of the variance below which noise counts as the same everywhere


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseLaw:
    """Variance of the noise by the intensity without noise: read-out, counting and gain.

    Intensity and variance are in units of the mean scale of the windows, from their mean offset.

    Attributes
    ----------
    coefficients : (3,) tensor
        Of 1, intensity and its square, over the mean variance.
    lowest, highest : float
        Intensities that the law was found in; it is constant beyond.
    """

    coefficients: Tensor
    lowest: float
    highest: float

    def relative(self, intensity: Tensor) -> Tensor:
        """Variance over the mean one, of the shape of the intensity."""
        inside = intensity.clamp(self.lowest, self.highest)
        one, first, second = self.coefficients.unbind()
        return (one + inside * (first + inside * second)).clamp_min(FLOOR)

    def reweighted(
        self, root: Tensor | None, patches: Windows, rows: Tensor, pattern: Tensor
    ) -> Tensor:
        """Square roots of weights (B, M), with those (B, M) or (B, 1) that there are already.

        By the decoded patterns (B, *W) of some windows; one on average.
        """
        gain, offset = _common(patches, rows, pattern)
        own = self.relative(gain * pattern.flatten(1) + offset).rsqrt()
        if patches.weight is None:  # windows with weights have a noise of their own
            own = gain * own
        return own if root is None else root * own


class NoiseSums:
    """Squares of residuals summed by intensity, window by window."""

    def __init__(self) -> None:
        size = round(2 * REACH / STEP)
        self.count, self.square = np.zeros(size), np.zeros(size)
        self.scales: list[Tensor] = []

    def add(
        self,
        patches: Windows,
        rows: Tensor,
        pattern: Tensor,
        residual: Tensor,
        *,
        before: NoiseLaw | None = None,
    ) -> None:
        """Count in residuals (B, M) of decoded patterns (B, M); NaN where a pixel is masked.

        Where windows have weights, and so a noise of their own, it is divided out; a law that was
        found before tells it from what depends on intensity.
        """
        gain, offset = _common(patches, rows, pattern)
        intensity = gain * pattern + offset
        square = (gain * residual).square()
        if patches.weight is None:
            self.scales.append(gain.square().cpu())
        else:
            even = square if before is None else square / before.relative(intensity)
            square = square / even.mean(dim=1, keepdim=True)
        place, square = ((intensity + REACH) / STEP).long().flatten(), square.flatten()
        known = square.isfinite() & (place >= 0) & (place < len(self.count))
        place, square = place[known].cpu(), square[known].cpu().double()
        self.count += torch.bincount(place, minlength=len(self.count)).numpy()
        self.square += torch.bincount(place, square, minlength=len(self.square)).numpy()

    def law(self) -> NoiseLaw | None:
        """Fit the law to all that was added; None where the noise is the same everywhere."""
        used = self.count > 0
        count, place = self.count[used], (np.flatnonzero(used) + 0.5) * STEP - REACH
        square = self.square[used] / count
        mean = float(self.square.sum() / self.count.sum())
        powers = np.stack([np.ones_like(place), place, place**2], axis=1)
        relative = np.ones_like(place)
        for _ in range(ROUNDS):
            # A square of Gaussian noise scatters by the square root of two of its mean.
            root = np.sqrt(count) / relative
            found = np.linalg.lstsq(powers * root[:, None], square / mean * root, rcond=None)[0]
            relative = np.maximum(powers @ found, FLOOR)
        average = np.average(relative, weights=count)
        spread = np.sqrt(np.average((relative - average) ** 2, weights=count))
        unlike = 0.0
        if self.scales:
            scales = torch.cat(self.scales)
            unlike = float(scales.std(correction=0) / scales.mean())
        if not max(spread / average, unlike) > EVEN:
            return None
        return NoiseLaw(
            coefficients=torch.from_numpy(found / average).float(),
            lowest=float(place[0]),
            highest=float(place[-1]),
        )


def _common(patches: Windows, rows: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and offset (B, 1) of some windows against the mean ones."""
    own = rows.numpy()

    def column(values: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(values)[:, None].to(like)

    scale = float(patches.scale.mean(dtype=np.float64))
    mean = float(patches.offset.mean(dtype=np.float64))
    gain = column(patches.scale[own] / np.float32(scale))
    return gain, column(((patches.offset[own] - mean) / scale).astype(np.float32))
