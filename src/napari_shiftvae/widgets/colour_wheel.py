"""A wheel of colours: which direction each colour of an arrow stands for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QRectF, Qt
from qtpy.QtGui import QImage, QPainter, QPaintEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_shiftvae.core.palettes import wheel

SIZE = 76


class ColourWheel(QWidget):
    """Shows the colours of directions as these appear on the canvas."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shown = np.eye(2)
        self.setFixedHeight(SIZE + 4)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Each colour lies where arrows of that colour point to on the canvas. The column "
            "angle_degree of the layer counts from x towards y of the image."
        )

    def set_directions(self, shown: NDArray[np.float64]) -> None:
        """Follow how the image lies on the canvas.

        Parameters
        ----------
        shown : (2, 2) array
            Direction (y, x) on the canvas for each direction (y, x) in the image.
        """
        self._shown = shown
        self.update()

    def paintEvent(self, _: QPaintEvent | None) -> None:
        """Draw the wheel and, beside it, what it is."""
        painter = QPainter(self)
        ratio = self.devicePixelRatioF()
        pixels = np.ascontiguousarray(wheel(round(SIZE * ratio), self._shown))
        size = len(pixels)
        image = QImage(pixels.data, size, size, 4 * size, QImage.Format.Format_RGBA8888)
        left = (self.width() - SIZE) / 2
        painter.drawImage(QRectF(left, 2, SIZE, SIZE), image)
        painter.setPen(self.palette().color(self.foregroundRole()))
        beside = QRectF(0, 0, left - 8, self.height())
        centre = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignRight
        painter.drawText(beside, centre, "direction\nof arrow")
        painter.end()
