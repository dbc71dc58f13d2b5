"""The plot of the Explore tab, and what of an image and its run is seen there."""

import napari
import numpy as np
from qtpy.QtCore import QPoint, QPointF

from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.widgets import ShiftVAEWidget

MADE = perovskite(rng=np.random.default_rng(0), shape=(150, 170), pixel_size_nm=0.02)
PLACE = {  # oblong pixels, turned and sheared: what is linked must not depend on it
    "scale": (0.016, 0.02),
    "rotate": 30.0,
    "translate": (3.0, -7.0),
    "affine": [[1.1, 0.2, 1.0], [0.0, 0.9, 2.0], [0.0, 0.0, 1.0]],
    "units": ("nm", "nm"),
}


def at(dock: ShiftVAEWidget, x: float, y: float) -> QPoint:
    """Pixel of the plot's viewport where a place of the plot is."""
    scatter = dock.explore.scatter
    return scatter.mapFromScene(scatter.plotItem.vb.mapViewToScene(QPointF(x, y)))


def latents(dock: ShiftVAEWidget) -> np.ndarray:
    return dock.session.run.atoms[["z1", "z2"]].to_numpy(dtype=float)


def layer(viewer: napari.Viewer) -> napari.layers.Points:
    return viewer.layers["made atoms"]


def marked(dock: ShiftVAEWidget) -> np.ndarray:
    """Values of z1 of the dots that are ringed, sorted."""
    return np.sort(dock.explore.scatter.marks.getData()[0])
