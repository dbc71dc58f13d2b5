"""A run to be saved and opened again."""

import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np

from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.images import Calibration, MicroscopeImage
from napari_shiftvae.core.runfile import save_run
from napari_shiftvae.core.runs import Run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig


@cache
def run_with_all() -> Run:
    """A run of a calibrated image whose picks repeat and whose name is odd."""
    made = perovskite(rng=np.random.default_rng(0), shape=(160, 150))
    picks = made.truth[["y_px", "x_px"]].to_numpy()
    middle = np.abs(picks - 80).max(axis=1).argmin()
    image = MicroscopeImage(
        data=made.image,
        name="Müller's sample, 2",
        calibration=Calibration(pixel_size_nm=(0.01, 0.02)),
    )
    config = AnalysisConfig(latent_dim=3, train=TrainConfig(epochs=4, seed=7))
    return finish(analyse(image, config, positions_yx=np.vstack([picks, picks[middle]])))


@cache
def members() -> dict[str, bytes]:
    """Members of its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = save_run(run_with_all(), Path(folder) / "good.shiftvae")
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
