"""From a fit to a run: positions, diagnostics, maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_shiftvae.core.diagnostics import diagnose
from napari_shiftvae.core.given import Told
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.infer import Fit
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.patches import Patches
from napari_shiftvae.core.reading import read
from napari_shiftvae.core.runs import ImageInfo, Run, atoms_table
from napari_shiftvae.core.settings import AnalysisConfig

__all__ = ["conclude"]


def conclude(
    model: ShiftVAE,
    patches: Patches,
    fit: Fit,
    *,
    picks_yx: NDArray[np.float64],
    told: Told | None = None,
    image: MicroscopeImage,
    config: AnalysisConfig,
    noise_sigma: float,
    epochs: int,
    seconds: dict[str, float],
) -> Run:
    """Read a fit and put the run together.

    Parameters
    ----------
    model : ShiftVAE
        With its gauge fixed.
    patches : Patches
        Of N of the picks.
    fit : Fit
        Of the same N.
    picks_yx : (M, 2) array
        All picks (y, x) [px].
    told : Told, optional
        What is told of the picks.
    image : MicroscopeImage
    config : AnalysisConfig
    noise_sigma : float
        By the power spectrum, in normalised intensity.
    epochs : int
        Epochs trained.
    seconds : dict of str to float
        Time of each stage so far.

    Returns
    -------
    Run
    """
    reading = read(model, patches, fit)
    unit = float(patches.scale.mean())
    diagnostics = diagnose(
        patches,
        fit,
        reading,
        noise_sigma=float(model.variance.sqrt()) * unit,
        noise_sigma_independent=noise_sigma * unit,
        separation_px=model.config.separation_px,
    )
    atoms = atoms_table(picks_yx, patches, reading, image.calibration)
    if told is not None:
        atoms = told.into(atoms)
        sentences = (*diagnostics.sentences, *told.sentences)
        diagnostics = replace(diagnostics, sentences=sentences)
    one_scale = config.normalisation != "patch"
    return Run(
        atoms=atoms,
        model=model,
        config=config,
        image=ImageInfo.of(image),
        diagnostics=diagnostics,
        epochs=epochs,
        device=model.variance.device.type,
        seconds=seconds,
        peak_memory_mb=None,
        intensity=(float(patches.offset[0]), float(patches.scale[0])) if one_scale else None,
        fit=fit,
    )
