"""The whole image as the model of a run has it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_shiftvae.core.infer import batches
from napari_shiftvae.core.manifold import posterior_means
from napari_shiftvae.core.patches import Patches
from napari_shiftvae.core.runs import Run

Pixels = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """An image from decoded patches.

    Attributes
    ----------
    image : (H, W) float32 array
        In the intensity of the image; NaN where no patch reaches.
    residual : (H, W) float32 array
        Image minus reconstruction, in units of the noise's standard deviation.
    """

    image: Pixels
    residual: Pixels


def reconstruct(run: Run, patches: Patches, pixels: Pixels) -> Reconstruction:
    """Lay the decoded patches of a run over each other.

    Where patches overlap their mean is taken, weighted by a window that falls to the edge of each
    patch, so that no seams are seen.

    Parameters
    ----------
    run : Run
    patches : Patches
        Of the run.
    pixels : (H, W) float32 array
        The image that was analysed.

    Returns
    -------
    Reconstruction
    """
    size = patches.patch_size_px
    taper = np.sin(np.pi * (np.arange(size) + 0.5) / size)
    window = np.outer(taper, taper).astype(np.float32)
    total, weight = np.zeros(pixels.shape), np.zeros(pixels.shape)
    step = np.arange(size)
    for rows in batches(len(patches)):
        own = rows.numpy()
        with torch.no_grad():
            decoded = run.model.decode(*posterior_means(run, patches, own)).cpu().numpy()
        decoded = decoded * patches.scale[own, None, None] + patches.offset[own, None, None]
        y = (patches.corner_yx[own, :1] + step)[:, :, None]  # (B, P, 1)
        x = (patches.corner_yx[own, 1:] + step)[:, None, :]
        np.add.at(total, (y, x), decoded * window)
        np.add.at(weight, (y, x), np.broadcast_to(window, decoded.shape))
    with np.errstate(invalid="ignore", divide="ignore"):
        flat = np.where(weight > 0, total / weight, np.nan)
    background = pixels - patches.frames[0]  # what was taken off the image before
    image = (flat + background).astype(np.float32)
    residual = (pixels - image) / np.float32(run.diagnostics.noise_sigma)
    return Reconstruction(image=image, residual=residual)
