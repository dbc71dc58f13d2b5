"""Part of the Train tab: whose model the run takes, a new one or that of an earlier run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_shiftvae.widgets.form import button, choice, in_line, label, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

NEW = "train a new one"


class ModelBox(QWidget):
    """Chooses a trained model, and how an image is read with it."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.choice = choice(
            [NEW],
            "Train a new model, or read the image with the model of an earlier run: its latents "
            "then mean the same in both images.",
        )
        self.open = button("Open ...", "Take the model of a run file (*.shiftvae).")
        self.open.setFixedWidth(76)
        self.resample = QCheckBox("resample")
        self.resample.setToolTip(
            "Interpolate the image to the size of the pixels that the model was trained with. "
            "Results are in pixels of the image as it is."
        )
        self.own_intensity = QCheckBox("own intensity")
        self.own_intensity.setToolTip(
            "Normalise by the image's own mean and contrast instead of those that the model was "
            "trained on: for another exposure of the same kind of sample."
        )
        self.note = label("", "How the image differs from the one that the model was trained on.")
        self._how = QWidget()
        how = rows(self._how)
        how.addRow("", in_line(self.resample, self.own_intensity))
        how.addRow(self.note)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        line = rows()
        line.addRow("Model", in_line(self.choice, self.open))
        layout.addLayout(line)
        layout.addWidget(self._how)
        self._how.hide()
        self.choice.currentIndexChanged.connect(self._on_choice)
        self.resample.toggled.connect(lambda _: self.changed.emit())

    @property
    def index(self) -> int | None:
        """Which of the names is chosen, None for a new model."""
        index = self.choice.currentIndex()
        return index - 1 if index > 0 else None

    def show_names(self, names: Sequence[str], chosen: int | None) -> None:
        """Offer models by the names of their images."""
        with QSignalBlocker(self.choice):
            self.choice.clear()
            self.choice.addItems([NEW, *(f"of {name}" for name in names)])
            self.choice.setCurrentIndex(0 if chosen is None else chosen + 1)
        self._on_choice()

    def show_note(self, sentence: str) -> None:
        """Say how the image differs from the one that the model was trained on."""
        self.note.setText(f"⚠ {sentence}" if sentence else "")
        self.note.setVisible(bool(sentence))

    def _on_choice(self) -> None:
        self._how.setVisible(self.index is not None)
        self.changed.emit()
