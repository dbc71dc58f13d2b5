"""Patches of one motif with known shift and two known factors, and the bounds on finding them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.bounds import cramer_rao
from napari_shiftvae.core.errors import InputError

__all__ = ["FactorPatches", "Motif", "factor_patches"]

CHUNK = 256  # patches rendered at once: bounds memory, the derivatives take 4 x P x P each


@dataclass(frozen=True, kw_only=True)
class Motif:
    """A central atom in a cage of four corner atoms, all of them 2D Gaussians.

    The four parameters of one pattern are, in this order: shift of the whole pattern along y and
    along x [px], intensity of the central atom, and displacement of the central atom against
    the cage [px], positive along `displacement_direction_yx`. Positions are relative to the centre
    of the window, which lies at pixel index ``(patch_size_px - 1) / 2`` on both axes.

    Attributes
    ----------
    patch_size_px : int
        Side P of the square window [px].
    sigma_px : float
        Standard deviation of every Gaussian [px].
    cage_half_diagonal_px : float
        Distance of the corner atoms from the centre of the cage [px].
    cage_intensity : float
        Height of the corner atoms.
    displacement_direction_yx : (float, float)
        Direction (y, x) of the displacement; any length but zero.
    """

    patch_size_px: int = 40
    sigma_px: float = 2.7
    cage_half_diagonal_px: float = 14.0
    cage_intensity: float = 1.1
    displacement_direction_yx: tuple[float, float] = (0.6, 0.8)

    def __post_init__(self) -> None:
        for name in ("patch_size_px", "sigma_px", "cage_half_diagonal_px"):
            value = getattr(self, name)
            if not value > 0:
                raise InputError(f"{name} is {value}; give a positive number.")
        if not np.hypot(*self.displacement_direction_yx) > 0:
            raise InputError("displacement_direction_yx is zero; give a direction (y, x).")

    @property
    def unit_yx(self) -> NDArray[np.float64]:
        """Unit vector (y, x) of the central atom's displacement, shape (2,)."""
        direction = np.asarray(self.displacement_direction_yx, dtype=np.float64)
        unit: NDArray[np.float64] = direction / np.linalg.norm(direction)
        return unit

    def render(self, parameters: ArrayLike) -> NDArray[np.float64]:
        """Draw noise-free patterns.

        Parameters
        ----------
        parameters : (N, 4) array_like
            ``shift_y [px], shift_x [px], intensity, displacement [px]`` of each pattern.

        Returns
        -------
        (N, P, P) ndarray
        """
        height, y, x = self._profiles(parameters)[:3]
        patterns: NDArray[np.float64] = (height[..., None] * y).swapaxes(1, 2) @ x
        return patterns

    def derivatives(self, parameters: ArrayLike) -> NDArray[np.float64]:
        """Analytic derivatives of the patterns with respect to their parameters.

        Parameters
        ----------
        parameters : (N, 4) array_like
            As for `render`.

        Returns
        -------
        (N, 4, P, P) ndarray
            Intensity per px, per px, per unit of intensity, per px.
        """
        height, y, x, dy, dx = self._profiles(parameters)
        along_y = (height[..., None] * dy).swapaxes(1, 2)  # (N, P, 5)
        along_x = (height[..., None] * y).swapaxes(1, 2)
        unit_y, unit_x = self.unit_yx
        central_y = along_y[:, :, :1] * x[:, :1]  # (N, P, P)
        central_x = along_x[:, :, :1] * dx[:, :1]
        return np.stack(
            [
                np.matmul(along_y, x),
                np.matmul(along_x, dx),
                y[:, 0, :, None] * x[:, 0, None, :],
                unit_y * central_y + unit_x * central_x,
            ],
            axis=1,
        )

    def _profiles(self, parameters: ArrayLike) -> tuple[NDArray[np.float64], ...]:
        """Heights (N, 5), and per atom the profile along y and x and their derivatives (N, 5, P).

        The central atom comes first. A 2D Gaussian is the product of two profiles, so nothing of
        size P x P is needed per atom.
        """
        values = np.atleast_2d(np.asarray(parameters, dtype=np.float64))
        half = self.cage_half_diagonal_px / np.sqrt(2)
        corners = half * np.array([[0, 0], [-1, -1], [-1, 1], [1, -1], [1, 1]])
        centres = values[:, None, :2] + corners  # (N, 5, 2)
        centres[:, 0] += values[:, 3:4] * self.unit_yx
        height = np.full((len(values), 5), self.cage_intensity)
        height[:, 0] = values[:, 2]
        pixels = np.arange(self.patch_size_px) - (self.patch_size_px - 1) / 2
        u = (pixels - centres[..., None]) / self.sigma_px  # (N, 5, 2, P)
        profile = np.exp(-0.5 * u**2)
        slope = profile * u / self.sigma_px
        return height, profile[:, :, 0], profile[:, :, 1], slope[:, :, 0], slope[:, :, 1]


@dataclass(frozen=True, kw_only=True)
class FactorPatches:
    """Noisy patches of a motif, the truth behind them, and the bounds on recovering it.

    Attributes
    ----------
    patches : (N, P, P) float32 ndarray
    shift_yx_px : (N, 2) ndarray
        Shift of the whole pattern, positive = further down / right [px].
    central_yx_px : (N, 2) ndarray
        Central atom relative to the window's centre, ``shift + displacement * direction`` [px].
    factors : (N, 2) ndarray
        Intensity of the central atom; its displacement against the cage [px].
    direction_yx : (2,) ndarray
        Unit vector (y, x) of the displacement.
    noise_sigma : float
        Standard deviation of the noise [intensity]; root mean square where it depends on that.
    covariance : (N, 4, 4) ndarray
        Cramer-Rao bound of (shift y, shift x, intensity, displacement) for each patch.
    """

    patches: NDArray[np.float32]
    shift_yx_px: NDArray[np.float64]
    central_yx_px: NDArray[np.float64]
    factors: NDArray[np.float64]
    direction_yx: NDArray[np.float64]
    noise_sigma: float
    covariance: NDArray[np.float64] = field(repr=False)

    @property
    def central_covariance(self) -> NDArray[np.float64]:
        """Bound of the central atom's position (y, x) for each patch, (N, 2, 2) [px^2]."""
        # central = shift + displacement * direction; its derivative by the four parameters:
        jacobian = np.column_stack([np.eye(2), np.zeros(2), self.direction_yx])  # (2, 4)
        return np.asarray(jacobian @ self.covariance @ jacobian.T)

    @property
    def bound_shift_px(self) -> float:
        """Smallest RMS error of the shift, mean over patches and both axes [px]."""
        return float(np.sqrt(_mean_variance(self.covariance[:, :2, :2])))

    @property
    def bound_central_px(self) -> float:
        """Smallest RMS error of the central atom's position, over both axes [px]."""
        return float(np.sqrt(_mean_variance(self.central_covariance)))

    @property
    def bound_central_along_px(self) -> float:
        """Smallest RMS error of the central atom's position along its displacement [px]."""
        variance = self.central_covariance @ self.direction_yx @ self.direction_yx
        return float(np.sqrt(variance.mean()))


def _mean_variance(covariance: NDArray[np.float64]) -> float:
    return float(np.diagonal(covariance, axis1=-2, axis2=-1).mean())


def factor_patches(
    *,
    rng: np.random.Generator,
    count: int = 2000,
    patch_size_px: int = 40,
    noise: float = 0.05,
    shift_sd_px: float = 2.0,
    intensity_range: tuple[float, float] = (0.7, 1.3),
    displacement_range_px: tuple[float, float] = (-2.0, 2.0),
    motif: Motif | None = None,
    electrons: float | None = None,
    background: float = 0.0,
) -> FactorPatches:
    """Patches with two hidden factors under a random shift: the model's reference task.

    Every patch holds one `Motif`: a central atom, whose intensity and displacement against its
    cage vary, and the cage. The whole pattern is shifted at random.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all randomness; the same state gives the same patches.
    count : int
        Number N of patches.
    patch_size_px : int
        Side P of the patches [px]; not used where `motif` is given.
    noise : float
        Standard deviation of the Gaussian noise, as a fraction of the central atom's mean peak.
    shift_sd_px : float
        Standard deviation of the shift along each axis [px]; cut off at 2.5 standard deviations so
        that the cage stays in the window.
    intensity_range : (float, float)
        Range of the uniformly distributed intensity of the central atom.
    displacement_range_px : (float, float)
        Range of its uniformly distributed displacement [px].
    motif : Motif, optional
        Geometry of the pattern.
    electrons : float, optional
        Counted in a pixel of intensity one: their Poisson noise is there instead of the Gaussian.
    background : float
        Intensity beneath the patterns.

    Returns
    -------
    FactorPatches

    Examples
    --------
    >>> task = factor_patches(rng=np.random.default_rng(0), count=100)
    >>> task.patches.shape, round(task.bound_shift_px, 3)
    ((100, 40, 40), 0.017)
    """
    if count < 1:
        raise InputError(f"count is {count}; ask for at least one patch.")
    if not noise > 0:
        raise InputError(f"noise is {noise}; give a positive fraction of the peak.")
    if electrons is not None and not (electrons > 0 and background > 0):
        raise InputError(
            f"electrons is {electrons} and background {background}; give positive numbers, for a "
            "pixel without any electron has no noise."
        )
    motif = Motif(patch_size_px=patch_size_px) if motif is None else motif
    limit = 2.5 * shift_sd_px
    shift = np.clip(rng.normal(0, shift_sd_px, (count, 2)), -limit, limit)
    factors = np.column_stack(
        [rng.uniform(*intensity_range, count), rng.uniform(*displacement_range_px, count)]
    )
    parameters = np.column_stack([shift, factors])  # (N, 4)
    sigma = noise * float(np.mean(intensity_range))
    patches = rng.standard_normal((count, motif.patch_size_px, motif.patch_size_px), np.float32)
    patches *= np.float32(sigma)
    covariance = np.empty((count, 4, 4))
    mean_variance = np.full(count, sigma**2)
    for start in range(0, count, CHUNK):
        rows = slice(start, start + CHUNK)
        clean = motif.render(parameters[rows]) + background
        derivatives = motif.derivatives(parameters[rows])
        if electrons is None:
            patches[rows] += clean
            covariance[rows] = cramer_rao(derivatives, sigma)
        else:
            patches[rows] = rng.poisson(electrons * clean) / electrons
            variance = clean / electrons
            mean_variance[rows] = variance.mean(axis=(1, 2))
            covariance[rows] = cramer_rao(derivatives / np.sqrt(variance)[:, None], 1.0)
    return FactorPatches(
        patches=patches,
        shift_yx_px=shift,
        central_yx_px=shift + factors[:, 1:] * motif.unit_yx,
        factors=factors,
        direction_yx=motif.unit_yx,
        noise_sigma=float(np.sqrt(mean_variance.mean())),
        covariance=covariance,
    )
