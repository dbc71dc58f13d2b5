"""What the decoder makes over the populated part of latent space, and along one latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from napari_shiftvae.widgets.form import button, choice, label

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae.core.manifold import DecoderGrid

WIDTH_PX = 332  # the dock's, less its margins and its scroll bar
HIGHEST_PX = 260
GAP = 2  # pixels of the patterns between them
EMPTY = 0.3  # opacity of patterns that no atom looks like


class Tiles(QLabel):
    """Patterns side by side and above each other, all on one grey scale."""

    def __init__(self, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setToolTip(tip)
        self.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.pixels = np.empty((0, 0, 2), dtype=np.uint8)

    def show_tiles(self, patterns: NDArray[np.float32], strength: NDArray[np.float64]) -> None:
        """Draw patterns (R, C, P, P), each with an opacity (R, C)."""
        rows, columns, size, _ = patterns.shape
        low, high = float(patterns.min()), float(patterns.max())
        grey = (patterns - low) / max(high - low, 1e-12)
        opacity = np.broadcast_to(strength[:, :, None, None], patterns.shape)
        both = np.stack([grey, opacity], axis=-1)
        both = np.pad(both, ((0, 0), (0, 0), (GAP, 0), (GAP, 0), (0, 0)))  # clear, to part them
        both = both.swapaxes(1, 2).reshape(rows * (size + GAP), columns * (size + GAP), 2)
        self.pixels = (both * 255).astype(np.uint8)
        picture = np.ascontiguousarray(self.pixels[..., [0, 0, 0, 1]])
        height, width = picture.shape[:2]
        image = QImage(picture.data, width, height, 4 * width, QImage.Format.Format_RGBA8888)
        pixmap = QPixmap.fromImage(image).scaled(
            WIDTH_PX,
            HIGHEST_PX,
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
        self.setPixmap(pixmap)
        self.setFixedHeight(pixmap.height())


class PatternsBox(QWidget):
    """Decoder grid over the latents of the plot, and a traverse along one of them."""

    along_changed = Signal(str)  # latent of the traverse
    given_changed = Signal()
    save_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.note = label()
        self.grid = Tiles(
            "What an atom with given latents looks like, as the decoder has it; the other latents "
            "are zero. Faint patterns are those that no atom is near to."
        )
        self.along = choice([], "Latent that changes from left to right; the others are zero.")
        self.strip_note = label()
        self.strip = Tiles("Decoded patterns from the 2nd to the 98th percentile of the latent.")
        self.save = button("Save …", "Save the traverse as a strip (PNG) or an animation (GIF).")
        self.given = choice(
            [], "Class of which the patterns are, of those that the model is conditional on."
        )
        line = QHBoxLayout()
        line.addWidget(QLabel("Traverse along"))
        line.addWidget(self.along, 1)
        line.addWidget(self.save)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self._of = QLabel("Patterns of")
        of = QHBoxLayout()
        of.addWidget(self._of)
        of.addWidget(self.given, 1)
        column.addLayout(of)
        column.addWidget(self.note)
        column.addWidget(self.grid)
        column.addLayout(line)
        column.addWidget(self.strip)
        column.addWidget(self.strip_note)
        self.along.currentTextChanged.connect(self._on_along)
        self.given.currentTextChanged.connect(self.given_changed)
        self.save.clicked.connect(self.save_asked)

    def offer(self, latents: Sequence[str], given: Sequence[str]) -> None:
        """Offer the latents and the given classes, if any, of another run."""
        for field, names in ((self.along, latents), (self.given, given)):
            kept = field.currentText()
            field.blockSignals(True)
            field.clear()
            field.addItems(list(names))
            if kept in names:
                field.setCurrentText(kept)
            field.blockSignals(False)
        for one in (self._of, self.given):
            one.setVisible(bool(given))

    def show_grid(self, grid: DecoderGrid, names: Sequence[str]) -> None:
        """Show decoded patterns over one or two latents."""
        said = f"{names[0]} from {_short(grid.across[0])} to {_short(grid.across[-1])} to the right"
        if len(names) > 1:
            said += f", {names[1]} from {_short(grid.up[-1])} to {_short(grid.up[0])} upwards"
        self.note.setText(f"{said}; faint where no atom is.")
        self.grid.show_tiles(grid.patterns, np.where(grid.atoms > 0, 1.0, EMPTY))

    def show_strip(
        self, patterns: NDArray[np.float32], name: str, steps: NDArray[np.float64]
    ) -> None:
        """Show patterns (n, P, P) at steps (n,) along one latent."""
        self.strip.show_tiles(patterns[None], np.ones((1, len(patterns))))
        self.strip_note.setText(f"{name} from {_short(steps[0])} to {_short(steps[-1])}")

    def _on_along(self, name: str) -> None:
        if name:
            self.along_changed.emit(name)


def _short(value: float) -> str:
    """One decimal, and no minus before a zero."""
    return f"{round(value, 1) + 0.0:.1f}"
