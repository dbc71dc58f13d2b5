"""The line that is drawn around atoms to select them. No Qt."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.measure import points_in_poly

from napari_shiftvae.placement import in_pixels, spatial

if TYPE_CHECKING:
    from napari.layers import Image, Shapes
    from numpy.typing import NDArray

    from napari_shiftvae.overlay import Overlay

NAME = "lasso"
WIDTH_PX = 2  # on the canvas


class Lasso:
    """A line that grows while it is being drawn, in a layer of its own that goes with it.

    Parameters
    ----------
    overlay : Overlay
        With an image chosen.
    zoom : float
        Canvas pixels per world unit.
    start_yx : (2,) array
        Where the line begins [px].

    Attributes
    ----------
    frame : int
        Frame of a stack that it is drawn on, 0 of an image.
    """

    def __init__(self, overlay: Overlay, zoom: float, start_yx: NDArray[np.float64]) -> None:
        self._overlay = overlay
        self.frame = overlay.frame
        self._outline = [start_yx]
        image: Image = overlay.image
        look = {
            "name": NAME,
            "shape_type": "path",
            "edge_color": "white",
            "edge_width": WIDTH_PX / zoom / abs(float(image.scale[-1])),
        }
        self._line: Shapes
        (self._line,) = overlay.runs.add([([self._path()], {**look, **spatial(image)}, "shapes")])

    def extend(self, position_yx: NDArray[np.float64]) -> None:
        """Draw on to a position [px]."""
        self._outline.append(position_yx)
        self._line.data = [self._path()]

    def end(self) -> None:
        """Take the line away."""
        self._overlay.runs.remove(self._line)

    def around(self, positions_yx: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether the line goes around each of some positions (N, 2) [px]."""
        if len(self._outline) < 3:
            return np.zeros(len(positions_yx), dtype=bool)
        return np.asarray(points_in_poly(positions_yx, self._outline), dtype=bool)

    def _path(self) -> NDArray[np.float64]:
        path = np.array([*self._outline, self._outline[0]])  # closed, so that the inside shows
        if self._overlay.image.ndim == 2:
            return path
        return np.column_stack([np.full(len(path), self.frame), path])


def drawn_by(event: Any, overlay: Overlay) -> Generator[None, None, Lasso]:
    """Let a drag of the mouse on the canvas draw a line around atoms, and return it."""
    viewer, image = overlay.viewer, overlay.image

    def place() -> NDArray[np.float64]:
        return in_pixels(image, event.position, viewer.layers.units)

    lasso = Lasso(overlay, viewer.scene.camera.zoom, place())
    try:
        yield
        while event.type == "mouse_move":
            event.handled = True  # or the canvas would pan
            lasso.extend(place())
            yield
    finally:
        lasso.end()
    return lasso
