"""Analyses of small images with known truth."""

import numpy as np
from scipy.spatial import cKDTree

from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig

FAST = TrainConfig(epochs=60, learning_rate=4e-3)
BRIEF = TrainConfig(epochs=6, learning_rate=4e-3)


def as_image(data, **more):
    return MicroscopeImage(data=data, name="made", **more)


def small(seed=0):
    return perovskite(rng=np.random.default_rng(seed), shape=(180, 170))


def played(steps, stop_at=None):
    """Run an analysis to its end; return the run and all progress."""
    seen, sent = [], None
    try:
        while True:
            progress = steps.send(sent)
            seen.append(progress)
            report = progress.report
            sent = "stop" if stop_at and report and report.epoch >= stop_at else None
    except StopIteration as end:
        return end.value, seen


def until_training(steps):
    while next(steps).stage != "train":
        pass


def columns(run, *names):
    return run.atoms.loc[run.used, list(names)].to_numpy()


def atom_error(run, truth):
    """Error (N, 2) of the central atoms [px], and the row of the truth for each."""
    atoms = columns(run, "atom_y_px", "atom_x_px")
    places = truth[["y_px", "x_px"]].to_numpy()
    row = cKDTree(places).query(atoms)[1]
    return atoms - places[row], row


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))
