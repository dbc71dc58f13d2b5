"""Regions that the user draws, to be taken as undisplaced and unstrained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Shapes
from qtpy.QtCore import QObject, Signal

from napari_shiftvae.lasso import NAME as LASSO
from napari_shiftvae.placement import spatial

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_shiftvae.overlay import Overlay
    from napari_shiftvae.widgets.fields_panel import FieldsPanel

FINISHED = {"added", "changed", "removed"}  # of napari's actions on shapes; others are under way
COLOUR = "#56b4e9"


class References(QObject):
    """Offers the layers of shapes as references, follows the one that is chosen, makes new ones.

    Parameters
    ----------
    panel : FieldsPanel
    viewer : napari.viewer.Viewer
    overlay : Overlay
    """

    changed = Signal()  # another region, or the chosen one drawn otherwise
    drawing = Signal()  # the user is to draw

    def __init__(self, panel: FieldsPanel, viewer: napari.viewer.Viewer, overlay: Overlay) -> None:
        super().__init__(panel)
        self._panel = panel
        self._viewer = viewer
        self._overlay = overlay
        self._offered: list[Shapes] = []
        self.layer: Shapes | None = None
        panel.reference.currentIndexChanged.connect(self._on_chosen)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            event.connect(self._show)
        self._show()

    def close(self) -> None:
        """Stop listening."""
        for event in (self._viewer.layers.events.inserted, self._viewer.layers.events.removed):
            event.disconnect(self._show)
        for layer in self._offered:
            self._let_go(layer)
        self._offered = []

    def _show(self, _: object = None) -> None:
        there = [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Shapes) and layer.editable and layer.name != LASSO
        ]
        for layer in self._offered:
            if layer not in there:
                self._let_go(layer)
        for layer in there:
            if layer not in self._offered:
                layer.events.name.connect(self._show)
                layer.events.data.connect(self._on_drawn)
        self._offered = there
        gone = self.layer is not None and self.layer not in there
        if gone:
            self.layer = None
        chosen = None if self.layer is None else there.index(self.layer)
        self._panel.show_references([layer.name for layer in there], chosen)
        if gone:
            self.changed.emit()

    def _let_go(self, layer: Shapes) -> None:
        layer.events.name.disconnect(self._show)
        layer.events.data.disconnect(self._on_drawn)

    def _on_chosen(self, index: int) -> None:
        if index > len(self._offered):
            self._draw()
            return
        layer = self._offered[index - 1] if index else None
        if layer is not self.layer:
            self.layer = layer
            self.changed.emit()

    def _draw(self) -> None:
        """Give the user an empty layer to draw a rectangle in."""
        image = self._overlay.image
        if image is None:
            self._show()
            return
        layer = next((one for one in self._offered if not len(one.data)), None)
        if layer is None:
            layer = self._new_layer(image)
        self._viewer.layers.selection.active = layer
        layer.mode = "add_rectangle"
        self.layer = layer
        self._show()
        self.drawing.emit()

    def _new_layer(self, image: Image) -> Shapes:
        zoom = self._viewer.scene.camera.zoom
        layer = Shapes(
            [],
            name=f"{image.name} reference",
            edge_color=COLOUR,
            edge_width=2 / zoom / abs(float(image.scale[-1])),
            face_color="transparent",
            **spatial(image),
        )
        self._overlay.runs.insert(layer)  # visible at once: it is to be drawn in
        return layer

    def _on_drawn(self, event: Any) -> None:
        if event.source is self.layer and str(getattr(event, "action", "changed")) in FINISHED:
            self.changed.emit()
