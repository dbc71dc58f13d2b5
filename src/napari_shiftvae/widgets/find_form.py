"""The form that says how atoms are found."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QRadioButton, QWidget
from superqt import QLabeledDoubleSlider

from napari_shiftvae.settings import FindSettings
from napari_shiftvae.widgets.form import choice, label, optional, real, rows, set_optional, whole

SAMPLINGS = {"atoms": "around atoms", "grid": "on a grid", "random": "at random"}


class FindForm(QWidget):
    """Edits one `FindSettings`."""

    valueChanged = Signal(object)  # FindSettings

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._threshold: float | None = None
        self.bright = QRadioButton("bright")
        self.bright.setToolTip("Atoms are bright on dark, as in HAADF and ADF images.")
        self.dark = QRadioButton("dark")
        self.dark.setToolTip("Atoms are dark on bright, as in ABF images.")
        self._contrast = QButtonGroup(self)
        contrast = QHBoxLayout()
        for one in (self.bright, self.dark):
            self._contrast.addButton(one)
            contrast.addWidget(one)
        contrast.addStretch(1)
        self.separation = real(
            2.0,
            500.0,
            0.5,
            "Distance between neighbouring atoms. 'auto' estimates it from the image.",
            unit="px",
            auto=True,
        )
        self.separation_note = label()
        self.threshold = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.threshold.setRange(0.0, 1.0)
        self.threshold.setSingleStep(0.01)
        self.threshold.setDecimals(2)
        self.threshold.setToolTip(
            "How strong a spot must be to count as an atom, as a fraction of the strongest ones. "
            "The circles on the image follow while you drag. Chosen automatically until you do."
        )
        self.threshold.setEnabled(False)
        self.sampling = choice(
            list(SAMPLINGS.values()),
            "Where patches are cut. Around atoms is the most precise. On a grid or at random needs "
            "no atoms: the patches are then moved onto the pattern they share, and those that "
            "meet are merged; for structures without clear atoms.",
        )
        self.count = whole(
            16, 1_000_000, "How many patches are cut on the grid or at random, before merging."
        )
        layout = rows(self)
        layout.addRow("Patches", self.sampling)
        layout.addRow("Number", self.count)
        self._count_row = (layout.labelForField(self.count), self.count)
        layout.addRow("Atoms are", contrast)
        layout.addRow("Separation", self.separation)
        layout.addRow("", self.separation_note)
        layout.addRow("Threshold", self.threshold)
        self.setValue(FindSettings())
        self.sampling.currentIndexChanged.connect(self._on_sampling)
        self.count.valueChanged.connect(self._on_changed)
        self.dark.toggled.connect(self._on_changed)
        self.separation.valueChanged.connect(self._on_changed)
        self.threshold.valueChanged.connect(self._on_threshold)

    def value(self) -> FindSettings:
        """Settings as they stand in the form."""
        return FindSettings(
            sampling=list(SAMPLINGS)[self.sampling.currentIndex()],
            count=self.count.value(),
            dark=self.dark.isChecked(),
            separation_px=optional(self.separation),
            threshold=self._threshold,
        )

    def setValue(self, settings: FindSettings) -> None:
        """Show other settings, with one `valueChanged` where they are others."""
        before = self.value()
        with QSignalBlocker(self):
            self.sampling.setCurrentText(SAMPLINGS[settings.sampling])
            self.count.setValue(settings.count)
            (self.dark if settings.dark else self.bright).setChecked(True)
            set_optional(self.separation, settings.separation_px)
            if settings.threshold is not None:
                self.threshold.setValue(settings.threshold)
            self._threshold = settings.threshold
        self._show_count_row()
        if self.value() != before:
            self.valueChanged.emit(self.value())

    def show_used(self, threshold: float) -> None:
        """Put the slider where an automatic threshold was found, without fixing it there."""
        self.threshold.setEnabled(True)
        with QSignalBlocker(self.threshold):
            self.threshold.setValue(threshold)

    def _show_count_row(self) -> None:
        anywhere = self.value().sampling != "atoms"
        for part in self._count_row:
            part.setVisible(anywhere)

    def _on_sampling(self) -> None:
        self._show_count_row()
        self._on_changed()

    def _on_threshold(self, threshold: float) -> None:
        self._threshold = threshold
        self._on_changed()

    def _on_changed(self) -> None:
        self.valueChanged.emit(self.value())
