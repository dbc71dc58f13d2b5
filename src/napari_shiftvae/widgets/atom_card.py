"""One atom as it was seen, as the model has it, and what is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.colormaps import ensure_colormap
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_shiftvae.widgets.form import label

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae.core.manifold import AtomView

SIDE_PX = 108
RESIDUAL_SD = 4.0
TITLES = ("patch", "model", f"residual ± {RESIDUAL_SD:.0f} s.d.")
DRAGGED_TITLES = ("nearest atom", "decoded", "")


class Picture(QLabel):
    """A small grey or coloured picture of an array."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedSize(SIDE_PX, SIDE_PX)
        self.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.pixels: NDArray[np.float32] | None = None

    def show_pixels(
        self, pixels: NDArray[np.float32] | None, limits: tuple[float, float], colormap: str
    ) -> None:
        """Draw an array (P, P) between two limits; None for nothing."""
        self.pixels = pixels
        if pixels is None:
            self.clear()
            return
        low, high = limits
        scaled = np.clip((pixels - low) / max(high - low, 1e-12), 0, 1)
        colours = np.asarray(ensure_colormap(colormap).map(scaled.ravel()))[:, :3]
        picture = np.ascontiguousarray((colours * 255).astype(np.uint8).reshape(*pixels.shape, 3))
        height, width = pixels.shape
        image = QImage(picture.data, width, height, 3 * width, QImage.Format.Format_RGB888)
        self.setPixmap(
            QPixmap.fromImage(image).scaled(SIDE_PX, SIDE_PX, Qt.AspectRatioMode.KeepAspectRatio)
        )


class AtomCard(QWidget):
    """Three pictures side by side, and a line about the atom."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.patch, self.model, self.residual = (Picture() for _ in TITLES)
        self.note = label("Point at a dot, or at an atom in the image.")
        self._titles = [QLabel(title) for title in TITLES]
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for column, (picture, title) in enumerate(
            zip((self.patch, self.model, self.residual), self._titles, strict=True)
        ):
            title.setAlignment(Qt.AlignmentFlag.AlignCenter)
            layout.addWidget(title, 0, column)
            layout.addWidget(picture, 1, column)
        layout.addWidget(self.note, 2, 0, 1, 3)

    def _title(self, titles: Sequence[str]) -> None:
        for field, title in zip(self._titles, titles, strict=True):
            if field.text() != title:
                field.setText(title)

    def show_atom(self, view: AtomView, text: str) -> None:
        """Show an atom; patch and model have one scale."""
        self._title(TITLES)
        limits = float(view.patch.min()), float(view.patch.max())
        self.patch.show_pixels(view.patch, limits, "gray")
        self.model.show_pixels(view.reconstruction, limits, "gray")
        self.residual.show_pixels(view.residual, (-RESIDUAL_SD, RESIDUAL_SD), "PiYG")
        self.note.setText(text)

    def show_pattern(
        self,
        pattern: NDArray[np.float32],
        limits: tuple[float, float],
        nearest: AtomView | None,
        text: str,
    ) -> None:
        """Show what the decoder makes of a place in latent space, beside the atom next to it.

        Parameters
        ----------
        pattern : (P, P) array
        limits : tuple of float
            Black and white, the same for all places: one may be brighter than another.
        nearest : AtomView or None
        text : str
        """
        self._title(DRAGGED_TITLES)
        patch = None if nearest is None else nearest.patch
        own = (0.0, 1.0) if patch is None else (float(patch.min()), float(patch.max()))
        self.patch.show_pixels(patch, own, "gray")
        self.residual.show_pixels(None, (0, 1), "gray")
        self.model.show_pixels(pattern, limits, "gray")
        self.note.setText(text)

    def clear(self, text: str) -> None:
        """Show nothing but a sentence."""
        for picture in (self.patch, self.model, self.residual):
            picture.show_pixels(None, (0, 1), "gray")
        self.note.setText(text)
