"""An analysis that is interrupted, and the same that is not."""

from functools import cache

import numpy as np

from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.runs import Run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig

CONFIG = AnalysisConfig(train=TrainConfig(epochs=3, seed=3))
IMAGE = MicroscopeImage(
    data=perovskite(rng=np.random.default_rng(0), shape=(160, 150)).image, name="made"
)


@cache
def whole_run() -> Run:
    """The analysis without an interruption."""
    return finish(analyse(IMAGE, CONFIG))


def interrupted(steps, after):
    """Iterate until some reports of the training were made; return the last one's progress."""
    for progress in steps:
        if progress.report is not None and progress.report.step == after:
            return progress
    raise AssertionError("the training was over before")
