"""One atom as it was seen, as the model has it, and what is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.colormaps import ensure_colormap
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPainter, QPaintEvent, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae.core.manifold import AtomView

SIDE_PX = 100
RESIDUAL_SD = 4.0
TITLES = ("patch", "model", f"residual ± {RESIDUAL_SD:.0f} s.d.")
DRAGGED_TITLES = ("nearest atom", "decoded", "")


class Picture(QWidget):
    """A small grey or coloured picture of an array.

    Not a label: a new picture in a label lays the whole window out anew, which takes longer than
    all else when the mouse is followed.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFixedSize(SIDE_PX, SIDE_PX)
        self.pixels: NDArray[np.float32] | None = None
        self._image = QImage()

    def show_pixels(
        self, pixels: NDArray[np.float32] | None, limits: tuple[float, float], colormap: str
    ) -> None:
        """Draw an array (P, P) between two limits; None for nothing."""
        self.pixels = pixels
        if pixels is None:
            self._image = QImage()
        else:
            low, high = limits
            scaled = np.clip((pixels - low) / max(high - low, 1e-12), 0, 1)
            colours = np.asarray(ensure_colormap(colormap).map(scaled.ravel()))[:, :3]
            picture = (colours * 255).astype(np.uint8).reshape(*pixels.shape, 3)
            height, width = pixels.shape
            kind = QImage.Format.Format_RGB888
            self._image = QImage(picture.tobytes(), width, height, 3 * width, kind).copy()
        self.update()

    def pixmap(self) -> QPixmap:
        """What is drawn, for an icon."""
        return QPixmap.fromImage(self._image).scaled(SIDE_PX, SIDE_PX)

    def paintEvent(self, _: QPaintEvent | None) -> None:
        """Draw the array over the whole widget."""
        if not self._image.isNull():
            painter = QPainter(self)
            painter.drawImage(self.rect(), self._image)
            painter.end()


class Line(QWidget):
    """Up to two lines of text, which may change without laying anything out anew."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text = ""
        self.setFixedHeight(2 * self.fontMetrics().lineSpacing() + 4)

    def text(self) -> str:
        """What is said."""
        return self._text

    def setText(self, text: str) -> None:
        """Say something else."""
        self._text = text
        self.setToolTip(text)
        self.update()

    def paintEvent(self, _: QPaintEvent | None) -> None:
        """Draw the text, wrapped."""
        painter = QPainter(self)
        painter.setPen(self.palette().color(self.foregroundRole()))
        painter.drawText(self.rect(), Qt.TextFlag.TextWordWrap, self._text)
        painter.end()


class AtomCard(QWidget):
    """Three pictures side by side, and a line about the atom."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.patch, self.model, self.residual = (Picture() for _ in TITLES)
        self.note = Line()
        self.note.setText("Point at a dot, or at an atom in the image.")
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
        nearest: NDArray[np.float32] | None,
        text: str,
    ) -> None:
        """Show what the decoder makes of a place in latent space, beside the atom next to it.

        Parameters
        ----------
        pattern : (P, P) array
        limits : tuple of float
            Black and white, the same for all places: one may be brighter than another.
        nearest : (P, P) array or None
            Patch of the atom.
        text : str
        """
        self._title(DRAGGED_TITLES)
        own = (0.0, 1.0) if nearest is None else (float(nearest.min()), float(nearest.max()))
        self.patch.show_pixels(nearest, own, "gray")
        self.residual.show_pixels(None, (0, 1), "gray")
        self.model.show_pixels(pattern, limits, "gray")
        self.note.setText(text)

    def clear(self, text: str) -> None:
        """Show nothing but a sentence."""
        for picture in (self.patch, self.model, self.residual):
            picture.show_pixels(None, (0, 1), "gray")
        self.note.setText(text)
