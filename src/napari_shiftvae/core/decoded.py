"""Polar displacement that each point of latent space stands for, read from the decoder."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.infer import batches
from napari_shiftvae.core.landmarks import applied, find_landmarks
from napari_shiftvae.core.model import ShiftVAE

__all__ = ["decoded_displacement"]


@torch.no_grad()
def decoded_displacement(model: ShiftVAE, z: ArrayLike) -> NDArray[np.float64]:
    """Central atom of decoded patterns against the mean of its nearest neighbours.

    On a grid of latents it tells what each point stands for. For the atoms of a run
    ``run.polar_yx`` is nearer to the truth: it adds what their residuals tell. Where the windows
    are too small for the neighbours it is the central atom against the whole pattern, and holds
    the constant that the gauge leaves open.

    Parameters
    ----------
    model : ShiftVAE
        Of images, its gauge fixed: ``run.model``.
    z : (M, K) array-like
        Latents as in the table of atoms: ``z1, z2, ...``; at most the latents of the model.

    Returns
    -------
    (M, 2) array
        (y, x) [px]; NaN where the pattern has no central atom, or a latent is NaN.

    Raises
    ------
    InputError
        The latents are not those of the model, or it is a model of spectra.

    Examples
    --------
    >>> from napari_shiftvae.core.model import ModelConfig
    >>> model = ShiftVAE(ModelConfig(patch_size_px=16, separation_px=9.0), torch.Generator())
    >>> decoded_displacement(model, np.zeros((3, model.config.latent_dim))).shape
    (3, 2)
    """
    latents = np.asarray(z, dtype=np.float32)
    if latents.ndim != 2 or latents.shape[1] != model.config.latent_dim:
        raise InputError(
            f"z has the shape {latents.shape}; give the {model.config.latent_dim} latents of the "
            "model in columns."
        )
    if model.config.dimensions != 2:
        raise InputError("The model is of spectra, which have no central atom.")
    found = np.full((len(latents), 2), np.nan)
    known = np.flatnonzero(np.isfinite(latents).all(axis=1))
    for rows in batches(len(known)):
        some = torch.from_numpy(latents[known[rows.numpy()]]).to(model.template.device)
        marks = find_landmarks(model, some, derivative=False)
        polar, cage = marks.polar, marks.cage
        if not polar.isfinite().any():
            origin = model.of_class(model.origin, some)[..., None]
            if cage.shape[1] > 2:
                origin = applied(model.turn(cage[:, 2:]), origin)
            polar = marks.atom - cage[:, :2] - origin[..., 0]
        found[known[rows.numpy()]] = polar.cpu().numpy()
    return found
