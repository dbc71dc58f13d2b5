"""Geometric phase analysis: strain of a lattice image from the phases of two Bragg spots.

M. J. Hytch, E. Snoeck, R. Kilaas, Ultramicroscopy 74, 131 (1998),
doi:10.1016/S0304-3991(98)00035-7. For comparison only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def gradient(image: Floats, vectors_yx: Floats, mask: float = 0.25) -> Floats:
    """Displacement gradient (H, W, 2, 2) of every pixel, ``d u_i / d x_j`` in the order (y, x).

    The lattice of `vectors_yx` (2, 2) [px] is the reference. The derivatives are with respect to
    the image. Each spot is cut out by a Gaussian of standard deviation `mask` times the shortest
    reciprocal vector, so that strain is averaged over ``1 / (2 pi mask)`` planes.
    """
    height, width = image.shape
    window = np.hanning(height)[:, None] ** 0.1 * np.hanning(width) ** 0.1  # fades at the border
    spectrum = np.fft.fft2((image - image.mean()) * window)
    frequency = np.stack(
        np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij"), axis=-1
    )
    reciprocal = np.linalg.inv(vectors_yx).T  # rows g with g_i . a_j = delta_ij [1/px]
    width_g = mask * np.linalg.norm(reciprocal, axis=1).min()
    slopes = []
    for g in reciprocal:
        away = np.sum((frequency - g) ** 2, axis=-1)
        part = spectrum * np.exp(-away / (2 * width_g**2))
        beam = np.fft.ifft2(part)
        # Phase slopes without unwrapping: Im(conj(beam) d beam) / |beam|^2, less the carrier's.
        slope = [
            np.imag(np.conj(beam) * np.fft.ifft2(2j * np.pi * frequency[..., k] * part))
            / np.maximum(np.abs(beam) ** 2, 1e-30)
            for k in range(2)
        ]
        slopes.append(np.stack(slope, axis=-1) - 2 * np.pi * g)
    # The phase is -2 pi g . u.
    phase_slope = np.stack(slopes, axis=-2)  # (H, W, 2, 2): spot, derivative
    return np.asarray(-np.linalg.inv(reciprocal) @ phase_slope / (2 * np.pi))
