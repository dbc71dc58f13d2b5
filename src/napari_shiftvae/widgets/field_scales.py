"""Scales of the Fields tab: what the colours of arrows and of the map stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_shiftvae import field_layers
from napari_shiftvae.layers import arrow_colormap
from napari_shiftvae.widgets.canvas_bars import CanvasBars
from napari_shiftvae.widgets.fields_panel import COLOURS

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_shiftvae.core.lengths import Ruler
    from napari_shiftvae.core.scalars import Scalar
    from napari_shiftvae.core.vector_field import VectorField
    from napari_shiftvae.widgets.fields_panel import FieldsPanel


class FieldScales(QObject):
    """Shows colour bars and colour wheel, in the panel and on the canvas.

    Parameters
    ----------
    panel : FieldsPanel
    viewer : napari.viewer.Viewer
    """

    limits_changed = Signal()  # of the map that is followed, as in napari's layer controls

    def __init__(self, panel: FieldsPanel, viewer: napari.viewer.Viewer) -> None:
        super().__init__(panel)
        self._panel = panel
        self._canvas = CanvasBars(panel, viewer)
        self.map: Image | None = None  # whose colours the bars show

    def close(self) -> None:
        """Stop listening. The canvas may be gone: the bar on it is left as it is."""
        if self.map is not None:
            self.map.events.contrast_limits.disconnect(self._on_limits)
        self._canvas.close()

    def follow(self, layer: Image | None) -> None:
        """Let the colour bars be those of a map."""
        if layer is self.map:
            return
        if self.map is not None:
            self.map.events.contrast_limits.disconnect(self._on_limits)
        self.map = layer
        if layer is not None:
            layer.events.contrast_limits.connect(self._on_limits)
        self._canvas.of(layer)

    def show_arrows(self, field: VectorField, image: Image | None, ruler: Ruler) -> None:
        """Show the length of arrows, or their directions on the screen, whichever colours tell."""
        panel = self._panel
        colour = COLOURS[panel.colour.currentText()]
        panel.wheel.setVisible(colour == field_layers.ANGLE)
        panel.arrow_bar.setVisible(colour == field_layers.LENGTH)
        if image is not None:
            panel.wheel.set_directions(field_layers.directions_on_screen(image, field.square_yx))
        longest = ruler.per_px * field_layers.longest_px(field)
        title = f"length of arrow ({ruler.unit})"
        panel.arrow_bar.set_scale(title, arrow_colormap(), (0.0, longest))

    def show_map(self, scalar: Scalar | None, drawn: Image | None, remark: str) -> None:
        """Show the scale of a map, once it is drawn, and what is to be said of it."""
        panel = self._panel
        panel.map_bar.setVisible(scalar is not None)
        panel.map_note.hide()
        if scalar is None or drawn is None or drawn is not self.map:
            return
        limits = tuple(drawn.contrast_limits) if drawn.visible else scalar.limits
        self._canvas.entitle(scalar.label)
        panel.map_bar.set_scale(scalar.label, field_layers.colormap(scalar), limits)
        said = scalar.note or _deviation_in_words(scalar, wanted=panel.deviation.isChecked())
        panel.map_note.setText("\n".join(filter(None, [said, remark])))
        panel.map_note.setVisible(bool(panel.map_note.text()))

    def _on_limits(self, _: object = None) -> None:
        self.limits_changed.emit()


def _deviation_in_words(scalar: Scalar, *, wanted: bool) -> str:
    """Tell the standard deviation of a map, or that there is none where it is wanted."""
    if np.isfinite(scalar.sd).any():
        sd = f"{np.nanmedian(scalar.sd):.2g} {scalar.unit}".rstrip()
        return f"Standard deviation of an atom: {sd} (median)"
    if wanted and not scalar.name.endswith("s.d."):
        return f"No standard deviation is known of '{scalar.name}'."
    return ""
