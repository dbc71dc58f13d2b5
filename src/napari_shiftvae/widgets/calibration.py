"""The size of the chosen image's pixels: from the layer, from its file, or typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject, Signal

from napari_shiftvae import jobs
from napari_shiftvae.placement import calibrate, pixel_size_nm, source_path
from napari_shiftvae.widgets.worker import Latest

if TYPE_CHECKING:
    from pathlib import Path

    import napari
    from napari.layers import Image

    from napari_shiftvae.core.images import Calibration
    from napari_shiftvae.widgets.header import PixelSize


class PixelSizeKeeper(QObject):
    """Keeps the field in the header in step with the image layer.

    A layer with units of length counts; where it has none, what its file says does.
    """

    changed = Signal()
    applied = Signal()

    def __init__(self, viewer: napari.viewer.Viewer, field: PixelSize, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._field = field
        self._layer: Image | None = None
        self._path: Path | None = None
        self.in_file: Calibration | None = None
        self._reading = Latest("reading the size of the pixels", jobs.calibration_in, self)
        self._reading.succeeded.connect(self._on_read)
        field.edited.connect(self._on_edited)

    @property
    def size_nm(self) -> tuple[float, float] | None:
        """Height and width (y, x) of a pixel [nm], None where unknown."""
        if self._layer is None:
            return None
        of_layer = pixel_size_nm(self._layer)
        if of_layer is None and self.in_file is not None:
            return self.in_file.pixel_size_nm
        return of_layer

    @property
    def mean_nm(self) -> float | None:
        """Mean size of a pixel [nm], for lengths that have no direction."""
        size = self.size_nm
        return None if size is None else (size[0] * size[1]) ** 0.5

    def follow(self, layer: Image | None) -> None:
        """Turn to another image layer."""
        if self._layer is not None:
            self._layer.events.scale.disconnect(self._show)
            self._layer.events.units.disconnect(self._show)
        self._layer, self.in_file, self._path = layer, None, None
        if layer is not None:
            layer.events.scale.connect(self._show)
            layer.events.units.connect(self._show)
            self._path = source_path(layer)
            if self._path is not None and pixel_size_nm(layer) is None:
                self._reading.ask(self._path)
        self._show()

    def close(self) -> None:
        """End the thread and stop listening."""
        self._reading.close()
        if self._layer is not None:
            self._layer.events.scale.disconnect(self._show)
            self._layer.events.units.disconnect(self._show)

    def _on_read(self, result: tuple[Path, Calibration | None]) -> None:
        path, calibration = result
        if path == self._path:
            self.in_file = calibration
            self._show()

    def _on_edited(self, size_nm: tuple[float, float]) -> None:
        if self._layer is not None:
            calibrate(self._layer, size_nm, self._viewer.layers)
            self._viewer.reset_view()
            self.applied.emit()

    def _show(self, _: object = None) -> None:
        layer = self._layer
        self._field.setEnabled(layer is not None and layer.ndim == 2)
        from_file = self.in_file is not None and layer is not None and pixel_size_nm(layer) is None
        self._field.show_size(self.size_nm, "(from the file)" if from_file else "")
        self.changed.emit()
