"""The square on the image that shows how large a patch is. No Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes

from napari_shiftvae.placement import spatial

if TYPE_CHECKING:
    import napari
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.session import Session


class PatchSquare:
    """Draws the patch at the selected atom, or at the one nearest to the centre of the image."""

    def __init__(self, viewer: napari.viewer.Viewer, session: Session, overlay: Overlay) -> None:
        self._viewer = viewer
        self._session = session
        self._overlay = overlay
        self._layer: Shapes | None = None
        viewer.layers.events.removed.connect(self._on_removed)

    def show(self, patch_size_px: int | None) -> None:
        """Draw a patch of a size; None takes the square away."""
        image = self._overlay.image
        if patch_size_px is None or image is None or image.ndim != 2:
            self._take_away()
            return
        corner = np.rint(self._centre(image) - (patch_size_px - 1) / 2) - 0.5
        box = corner + patch_size_px * np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
        if self._layer is not None and self._layer.name != _name(image):
            self._take_away()  # it was that of another image
        if self._layer is None:
            self._layer = self._make(image, box)
        elif not np.array_equal(self._layer.data[0], box):
            self._layer.data = [box]

    def close(self) -> None:
        """Take the square away and stop listening."""
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._take_away()

    def _make(self, image: Image, box: NDArray[np.float64]) -> Shapes:
        layer = Shapes(
            [box],
            name=_name(image),
            shape_type="rectangle",
            face_color="transparent",
            edge_color="white",
            edge_width=max(0.5, float(np.ptp(box[:, 0])) / 20),
            **spatial(image),
        )
        layer.editable = False
        selected = set(self._viewer.layers.selection)
        self._viewer.layers.append(layer)
        self._viewer.layers.selection = selected
        return layer

    def _centre(self, image: Image) -> NDArray[np.float64]:
        middle = (np.array(image.data.shape) - 1) / 2
        positions = self._session.picks.positions_yx
        chosen = [row for row in self._overlay.picks.selected() if row < len(positions)]
        if chosen:
            return positions[chosen[-1]]
        if len(positions):
            return positions[np.linalg.norm(positions - middle, axis=1).argmin()]
        return middle

    def _take_away(self) -> None:
        layer, self._layer = self._layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _on_removed(self, event: Any) -> None:
        if event.value is self._layer:
            self._layer = None


def _name(image: Image) -> str:
    return f"{image.name} patch"
