"""Spectra, one per pixel: the same model and training, with windows of one dimension."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.infer import Fit, batches
from napari_shiftvae.core.model import ShiftVAE

SHORTEST = 8  # points
# Detail that the decoder has not learned is error as well: no spectrum counts as if it had less
# noise than this part of the median.
NOISE_FLOOR = 0.4
WIDEST_PRIOR = 0.125  # of the length
LAG_RANGE = 0.25  # of the length
CENTRE_STEPS = 5
SLOWEST = 0.3  # points per point: a centre of gravity moves slower than a spectrum cut off


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectra:
    """Spectra of a scan, row by row of its pixels.

    Attributes
    ----------
    values : (N, W) float32 array
    grid_shape : (int, int)
        Height and width (H, W) of the scan [px].
    index : (N,) int array
        Pixel of each spectrum, counted row by row.
    set_aside : (H * W,) str array
        Why a pixel has no spectrum here: ``"masked"`` (NaN or infinite), ``"constant"``, or ``""``.
    offset, scale : (N,) float32 arrays
        Values are handed out as ``(value - offset) / scale``.
    weight : (N, 1) float32 tensor or None
        Weight in the likelihood, the inverse of a relative variance of the noise.
    """

    values: NDArray[np.float32]
    grid_shape: tuple[int, int]
    index: NDArray[np.int64]
    set_aside: NDArray[np.str_]
    offset: NDArray[np.float32]
    scale: NDArray[np.float32]
    weight: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def remainder_yx_px(self) -> NDArray[np.float64]:
        """Centre of the shift's prior, (N, 1): zero."""
        return np.zeros((len(self), 1))

    @property
    def given(self) -> None:
        """Spectra have no given classes."""
        return

    def weigh(self, rows: torch.Tensor) -> torch.Tensor | None:
        """Weights (B, 1) of some spectra."""
        return None if self.weight is None else self.weight[rows]

    def beyond(self, rows: torch.Tensor) -> None:
        """Windows hold all their values."""

    def gather(self, rows: ArrayLike | slice = slice(None)) -> torch.Tensor:
        """Copy some normalised spectra, (B, W)."""
        rows = rows if isinstance(rows, slice) else np.asarray(rows)
        values = self.values[rows] - self.offset[rows, None]
        values /= self.scale[rows, None]
        return torch.from_numpy(values)


def extract_spectra(cube: Any, axis: int, *, each: bool = False) -> Spectra:
    """Take one spectrum per pixel along an axis of an array.

    Parameters
    ----------
    cube : array
        Two axes of a scan and one of the spectra, in any order, or one and one; numpy, dask or
        zarr, of real numbers.
    axis : int
        The axis of the spectra; negative counts from the end.
    each : bool
        Whether each spectrum has its own offset and scale, so that latents and weights do not
        follow its brightness; one offset and scale for all otherwise.

    Returns
    -------
    Spectra

    Raises
    ------
    InputError
        If the array has no such axis, or no spectra that could be analysed.

    Examples
    --------
    >>> cube = np.random.default_rng(0).normal(size=(50, 4, 6))
    >>> spectra = extract_spectra(cube, 0)
    >>> spectra.values.shape, spectra.grid_shape
    ((24, 50), (4, 6))
    """
    shape = " x ".join(str(length) for length in cube.shape)
    if cube.ndim not in (2, 3):
        raise InputError(
            f"The array has {cube.ndim} dimensions ({shape}): give one with an axis of spectra "
            "and one or two of the scan."
        )
    if not -cube.ndim <= axis < cube.ndim:
        raise InputError(
            f"The array ({shape}) has no axis {axis}: choose the axis of the spectra from 0 to "
            f"{cube.ndim - 1}."
        )
    if cube.dtype.kind not in "iuf":
        raise InputError(f"The array holds {cube.dtype} values: give integers or real numbers.")
    length = cube.shape[axis]
    if not SHORTEST <= length <= 8192:
        raise InputError(
            f"The spectra along axis {axis} have {length} points (array of {shape}): choose an "
            f"axis with {SHORTEST} to 8192, or bin the spectra."
        )
    block = np.moveaxis(np.asarray(cube), axis, -1)
    grid_shape = block.shape[:-1] if block.ndim == 3 else (1, block.shape[0])
    with np.errstate(over="ignore"):
        values = block.reshape(-1, length).astype(np.float32)
    finite = np.isfinite(values).all(axis=1)
    with np.errstate(invalid="ignore"):
        varied = values.max(axis=1) > values.min(axis=1)
    set_aside = np.where(~finite, "masked", np.where(~varied, "constant", ""))
    index = np.flatnonzero(set_aside == "")
    if not len(index):
        raise InputError(
            "No spectrum can be analysed: each is constant or has NaN or infinite points. Check "
            "the axis of the spectra, or choose another array."
        )
    values = np.ascontiguousarray(values[index])
    mean, variance = values.mean(axis=1, dtype=float), values.var(axis=1, dtype=float)
    if not each:
        variance[:] = variance.mean() + mean.var()
        mean[:] = mean.mean()
    return Spectra(
        values=values,
        grid_shape=(grid_shape[0], grid_shape[1]),
        index=index,
        set_aside=set_aside,
        offset=mean.astype(np.float32),
        scale=np.sqrt(variance).astype(np.float32),
    )


def weighted(spectra: Spectra, noise: NDArray[np.float64]) -> Spectra:
    """Let spectra count by their noise.

    Parameters
    ----------
    spectra : Spectra
    noise : (N,) array
        Standard deviation of the noise, from `spectrum.line_spectrum`.

    Returns
    -------
    Spectra
    """
    variance = noise**2 + (NOISE_FLOOR * np.median(noise)) ** 2
    weight = torch.from_numpy(variance.mean() / variance).float()
    return replace(spectra, weight=weight[:, None])


def some_spectra(spectra: Spectra, rows: NDArray[np.int64]) -> Spectra:
    """Keep some spectra (B,), in order."""
    names = ("values", "index", "offset", "scale")
    kept = {name: getattr(spectra, name)[rows] for name in names}
    weight = None if spectra.weight is None else spectra.weight[rows]
    return replace(spectra, **kept, weight=weight)


def spread_of_lags(spectra: Spectra) -> float:
    """Estimate the standard deviation of the shifts [points].

    From the maxima of the correlation of each spectrum with the mean one, as the median absolute
    deviation; half a point to an eighth of the length.
    """
    rows = np.unique(np.linspace(0, len(spectra) - 1, 2048).astype(int))
    values = spectra.gather(rows).numpy().astype(np.float64)
    values -= values.mean(axis=1, keepdims=True)
    mean, length = values.mean(axis=0), values.shape[1]
    padded = 2 * length
    product = np.fft.rfft(values, padded) * np.fft.rfft(mean, padded).conj()
    reach = int(LAG_RANGE * length)
    correlation = np.roll(np.fft.irfft(product, padded), reach, axis=1)[:, : 2 * reach + 1]
    lag = correlation.argmax(axis=1) - reach
    spread = 1.4826 * np.median(np.abs(lag - np.median(lag)))
    return float(np.clip(spread, 0.5, WIDEST_PRIOR * length))


@dataclass(frozen=True, kw_only=True, eq=False)
class SpectraReading:
    """What a fit says of every spectrum, gauges fixed.

    Attributes
    ----------
    z, z_sd : (N, K) arrays
        Content latents and their standard deviations.
    shift_px, shift_sd_px : (N,) arrays
        Shift of the spectrum from the mean shift [points].
    residual : (N,) array
        Root mean square residual over the noise that the spectrum was weighted by.
    noise_sigma : (N,) array
        Standard deviation of the noise of each by its residual, in normalised intensity.
    """

    z: NDArray[np.float64]
    z_sd: NDArray[np.float64]
    shift_px: NDArray[np.float64]
    shift_sd_px: NDArray[np.float64]
    residual: NDArray[np.float64]
    noise_sigma: NDArray[np.float64]


def slope_centre(model: ShiftVAE, z: Tensor) -> tuple[Tensor, Tensor]:
    """Find where decoded spectra lie: the centre of gravity of their squared slope.

    That is the middle of a symmetric peak and of an edge, whatever its height and background, and
    it moves with the spectrum.

    Parameters
    ----------
    model : ShiftVAE
    z : (B, K) tensor

    Returns
    -------
    place : (B,) tensor
        From the middle of the spectrum as decoded without shift [points].
    by_latent : (B, K) tensor
        Its derivative.
    """
    point = (model.grid[1:, 0] + model.grid[:-1, 0]) / 2
    place = torch.zeros_like(z[:, :1])
    # Moved back until it lies in the middle, so that the ends cut off as much on both sides.
    for _ in range(CENTRE_STEPS):
        spectrum, by_shift, by_latent = model.linearise_at(z, -place)
        slope = spectrum.diff(dim=1)  # (B, W - 1)
        total = slope.square().sum(dim=1, keepdim=True).clamp_min(1e-12)
        off = (slope.square() * point).sum(dim=1, keepdim=True) / total  # (B, 1)
        pull = (2 * slope * (point - off) / total)[:, None]
        own = (by_shift.diff(dim=2) * pull).sum(dim=2).clamp_min(SLOWEST)
        place = (place + off / own).clamp(-LAG_RANGE * len(point), LAG_RANGE * len(point))
    return place[:, 0], (by_latent.diff(dim=2) * pull).sum(dim=2) / own


@torch.no_grad()
def read_spectra(model: ShiftVAE, spectra: Spectra, fit: Fit) -> SpectraReading:
    """Turn a fit into latents and shifts.

    Part of a shift may hide in the decoder, as a function of the latents. It is taken out: a
    decoded spectrum lies where `slope_centre` finds it.

    Parameters
    ----------
    model : ShiftVAE
        With its gauge fixed.
    spectra : Spectra
    fit : Fit

    Returns
    -------
    SpectraReading
    """
    parts = []
    for rows in batches(len(fit)):
        hidden, by_latent = slope_centre(model, fit.z[rows])  # (B,), (B, K)
        pose = fit.pose[rows].sum(dim=1)  # nothing, without invariance
        by = torch.cat([torch.ones_like(fit.pose[rows]), by_latent], dim=1)[:, None]
        variance = (by @ fit.covariance[rows] @ by.mT)[:, 0, 0]
        parts.append(torch.stack([hidden + pose, variance.sqrt()]))
    shift, shift_sd = torch.cat(parts, dim=1).cpu().double().numpy()
    weight = torch.ones(()) if spectra.weight is None else spectra.weight[:, 0]
    z_sd = fit.covariance.diagonal(dim1=1, dim2=2)[:, fit.pose.shape[1] :].sqrt()
    return SpectraReading(
        z=fit.z.cpu().double().numpy(),
        z_sd=z_sd.cpu().double().numpy(),
        shift_px=shift - shift.mean(),
        shift_sd_px=shift_sd,
        residual=(fit.mean_square / model.variance).sqrt().cpu().double().numpy(),
        noise_sigma=(fit.mean_square.cpu() / weight).sqrt().double().numpy(),
    )
