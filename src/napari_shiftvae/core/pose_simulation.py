"""Patches of a motif that is shifted, turned and magnified, and the bounds on finding that."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_shiftvae.core.bounds import cramer_rao
from napari_shiftvae.core.errors import InputError

__all__ = ["PosePatches", "pose_patches"]

CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class PosePatches:
    """Noisy patches, the truth behind them, and the bounds on recovering it.

    The parameters of a patch are, in this order: shift y, shift x [px], rotation [rad], logarithm
    of the scale, intensity of the central atom.

    Attributes
    ----------
    patches : (N, P, P) float32 array
    truth : (N, 5) array
    noise_sigma : float
        Standard deviation of the noise [intensity].
    covariance : (N, A, A) array
        Cramer-Rao bound of those parameters that vary, in order.
    varied : tuple of int
        Which these are.
    """

    patches: NDArray[np.float32]
    truth: NDArray[np.float64]
    noise_sigma: float
    covariance: NDArray[np.float64] = field(repr=False)
    varied: tuple[int, ...] = (0, 1, 2, 3, 4)

    def bound(self, *parameters: int) -> float:
        """Smallest RMS error of some parameters, over all patches."""
        at = [self.varied.index(parameter) for parameter in parameters]
        return float(np.sqrt(self.covariance[:, at, at].mean()))


def render_poses(
    parameters: NDArray[np.float64], patch_size_px: int, sigma_px: float, ring_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw an atom in a lopsided ring of three, and the derivatives by the five parameters.

    Parameters
    ----------
    parameters : (N, 5) array
        As of `PosePatches`.
    patch_size_px : int
        Side P.
    sigma_px : float
        Standard deviation of each atom at scale one [px].
    ring_px : float
        Distance of the three atoms from the centre at scale one [px].

    Returns
    -------
    patterns : (N, P, P) array
    derivatives : (N, 5, P, P) array
    """
    # Unequal angles and heights: no rotation takes the motif into itself.
    angle = np.array([0.0, 0.0, 2.3, 4.0])
    place = (
        ring_px * np.array([0.0, 1, 1, 1])[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    )
    shift, rotation, scale = parameters[:, :2], parameters[:, 2], np.exp(parameters[:, 3])
    cos, sin = np.cos(rotation), np.sin(rotation)
    turn = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)  # (N, 2, 2)
    arm = np.einsum("nij,aj->nai", turn * scale[:, None, None], place)  # (N, 4, 2)
    height = np.broadcast_to([1.0, 1.1, 0.8, 1.0], arm.shape[:2]).copy()
    height[:, 0] = parameters[:, 4]
    sigma = (sigma_px * scale)[:, None]
    pixel = np.arange(patch_size_px) - (patch_size_px - 1) / 2
    away = pixel - (shift[:, None] + arm)[..., None]  # (N, 4, 2, P)
    profile = np.exp(-0.5 * (away / sigma[..., None, None]) ** 2)
    y, x = away[:, :, 0, :, None], away[:, :, 1, None, :]
    bell = profile[:, :, 0, :, None] * profile[:, :, 1, None, :]  # (N, 4, P, P)
    atom = height[..., None, None] * bell
    slope = atom / sigma[..., None, None] ** 2
    by_y, by_x = slope * y, slope * x
    arm_y, arm_x = arm[..., 0, None, None], arm[..., 1, None, None]
    derivatives = np.stack(
        [
            by_y.sum(axis=1),
            by_x.sum(axis=1),
            (by_y * arm_x - by_x * arm_y).sum(axis=1),
            (by_y * (y + arm_y) + by_x * (x + arm_x)).sum(axis=1),
            bell[:, 0],
        ],
        axis=1,
    )
    return atom.sum(axis=1), derivatives


def pose_patches(
    *,
    rng: np.random.Generator,
    count: int = 2000,
    patch_size_px: int = 40,
    sigma_px: float = 2.7,
    ring_px: float = 12.0,
    noise: float = 0.05,
    shift_sd_px: float = 1.5,
    rotation_rad: float = 0.4,
    log_scale: float = 0.0,
    intensity_range: tuple[float, float] = (0.7, 1.3),
) -> PosePatches:
    """Patches of a central atom in a ring of three, at random poses.

    Parameters
    ----------
    rng : numpy.random.Generator
    count : int
        Number N of patches.
    patch_size_px : int
        Side P [px].
    sigma_px, ring_px : float
        Standard deviation of the atoms, and radius of the ring [px].
    noise : float
        Standard deviation of the white noise; the central atom's mean height is one.
    shift_sd_px : float
        Standard deviation of the shift along each axis [px], cut off at 2.5 times that.
    rotation_rad : float
        Rotations are uniform within plus and minus this [rad], positive from right to down.
    log_scale : float
        Logarithms of the scale are uniform within plus and minus this.
    intensity_range : (float, float)
        Range of the central atom's height: the one content factor.

    Returns
    -------
    PosePatches

    Examples
    --------
    >>> task = pose_patches(rng=np.random.default_rng(0), count=100)
    >>> task.patches.shape, round(task.bound(2), 4)
    ((100, 40, 40), 0.002)
    """
    if not noise > 0:
        raise InputError(f"noise is {noise}; give a positive number.")
    limit = 2.5 * shift_sd_px
    truth = np.column_stack(
        [
            np.clip(rng.normal(0, shift_sd_px, (count, 2)), -limit, limit),
            rng.uniform(-rotation_rad, rotation_rad, count),
            rng.uniform(-log_scale, log_scale, count),
            rng.uniform(*intensity_range, count),
        ]
    )
    spans = (shift_sd_px, shift_sd_px, rotation_rad, log_scale, np.ptp(intensity_range))
    varied = tuple(at for at, span in enumerate(spans) if span > 0)
    patches = np.empty((count, patch_size_px, patch_size_px), dtype=np.float32)
    covariance = np.empty((count, len(varied), len(varied)))
    for start in range(0, count, CHUNK):
        rows = slice(start, start + CHUNK)
        pattern, by = render_poses(truth[rows], patch_size_px, sigma_px, ring_px)
        patches[rows] = pattern
        covariance[rows] = cramer_rao(by[:, varied], noise)
    patches += np.float32(noise) * rng.standard_normal(patches.shape, np.float32)
    return PosePatches(
        patches=patches, truth=truth, noise_sigma=noise, covariance=covariance, varied=varied
    )
