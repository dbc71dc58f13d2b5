"""Scale bar and colour bar on napari's canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_shiftvae.widgets.fields_panel import FieldsPanel


class CanvasBars(QObject):
    """Shows napari's scale bar, and the colour bar of the map with its quantity and unit.

    napari's colour bar has no title: the text of the canvas says it, where it is not used for
    something else.

    Parameters
    ----------
    panel : FieldsPanel
    viewer : napari.viewer.Viewer
    """

    def __init__(self, panel: FieldsPanel, viewer: napari.viewer.Viewer) -> None:
        super().__init__(panel)
        self._panel = panel
        self._overlays = viewer.canvas.overlays
        self._layer: Image | None = None
        self._title = ""
        self._written: str | None = None  # text that is on the canvas
        self._before: Any = None  # where the text was
        panel.scale_bar.toggled.connect(self._on_scale_bar)
        panel.canvas_bar.toggled.connect(self._show)
        self._overlays.scale_bar.events.visible.connect(self._follow_scale_bar)
        self._follow_scale_bar()

    def close(self) -> None:
        """Stop listening. What is on the canvas stays: the canvas may be gone."""
        self._overlays.scale_bar.events.visible.disconnect(self._follow_scale_bar)

    def of(self, layer: Image | None) -> None:
        """Show the bar of another map."""
        if self._layer is not None and layer is not self._layer:
            self._layer.colorbar.visible = False
        self._layer = layer
        self._show()

    def entitle(self, title: str) -> None:
        """Say what the colours of the map stand for."""
        self._title = title
        self._show()

    def _show(self, _: object = None) -> None:
        shown = self._layer is not None and self._panel.canvas_bar.isChecked()
        if self._layer is not None:
            self._layer.colorbar.visible = shown
        text = self._overlays.text
        mine = self._written is not None and text.text == self._written
        if shown and (mine or not text.visible):
            if not mine:
                self._before = text.position
            text.text, text.position = self._title, self._layer.colorbar.position  # type: ignore[union-attr]
            text.visible, self._written = True, self._title
        elif mine and not shown:
            text.text, text.position, text.visible = "", self._before, False
            self._written = None

    def _follow_scale_bar(self, _: object = None) -> None:
        self._panel.scale_bar.setChecked(self._overlays.scale_bar.visible)

    def _on_scale_bar(self, shown: bool) -> None:
        self._overlays.scale_bar.visible = shown
