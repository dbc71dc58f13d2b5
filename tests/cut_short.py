"""An analysis that is interrupted."""

from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.train import TrainConfig

CONFIG = AnalysisConfig(train=TrainConfig(epochs=3, seed=3))


def interrupted(steps, after):
    """Iterate until some reports of the training were made; return the last one's progress."""
    for progress in steps:
        if progress.report is not None and progress.report.step == after:
            return progress
    raise AssertionError("the training was over before")
