"""Top of the dock: image, size of its pixels, device, Quick run, and what is going on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari.layers import Labels
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLineEdit,
    QProgressBar,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.run_images import image_layers
from napari_shiftvae.widgets.form import button, choice, label, rows
from napari_shiftvae.widgets.message_line import MessageLine

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

NM_PER = {"pm": 1e-3, "nm": 1.0, "angstrom": 0.1}


class ImageChooser(QComboBox):
    """The viewer's image layers that can be analysed, kept up to date."""

    chosen = Signal(object)  # Image or None
    hinted = Signal(str)  # what to do, where there is no image

    def __init__(self, viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._images: list[Image] = []
        self._current: Image | None = None
        self._frozen = False
        self.setToolTip("The image to analyse.")
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.currentIndexChanged.connect(self._on_index)
        viewer.layers.events.inserted.connect(self.refresh)
        viewer.layers.events.removed.connect(self.refresh)
        viewer.layers.events.reordered.connect(self.refresh)
        self.refresh()

    def let_go(self) -> None:
        """Stop listening to the viewer."""
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.disconnect(self.refresh)
        for image in self._images:
            image.events.name.disconnect(self.refresh)

    @property
    def current(self) -> Image | None:
        """The chosen image layer."""
        return self._current

    def choose(self, image: Image) -> None:
        """Turn to an image layer."""
        if image in self._images:
            self.setCurrentIndex(self._images.index(image))

    def freeze(self, frozen: bool) -> None:
        """Keep the choice while a run is at work, even if the image is deleted."""
        self._frozen = frozen
        self.setEnabled(not frozen)
        if not frozen:
            self.refresh()

    def refresh(self, _: object = None) -> None:
        """Read the layer list again."""
        if self._frozen:
            return
        for image in self._images:
            image.events.name.disconnect(self.refresh)
        self._images = list(image_layers(self._viewer))
        for image in self._images:
            image.events.name.connect(self.refresh)
        with QSignalBlocker(self):
            self.clear()
            self.addItems([image.name for image in self._images] or ["no image open"])
            if self._current in self._images:
                self.setCurrentIndex(self._images.index(self._current))
        self._on_index()
        if self._current is None:
            self.hinted.emit(self.hint())

    def _on_index(self) -> None:
        index = self.currentIndex()
        image = self._images[index] if 0 <= index < len(self._images) else None
        if image is not self._current:
            self._current = image
            self.chosen.emit(image)

    def hint(self) -> str:
        """What to do where there is no image."""
        labels = [layer.name for layer in self._viewer.layers if isinstance(layer, Labels)]
        if labels:
            return (
                f"'{labels[0]}' is a Labels layer: right-click it and choose "
                "'Convert to Image' to analyse it."
            )
        return "Open an image first: File > Open, or drag a file into the window."


class PixelSize(QWidget):
    """Says the size of a pixel; 'edit' changes it."""

    edited = Signal(tuple)  # (height, width) in nm

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.text = label("", "How large a pixel is, and where this is known from.")
        self.edit = button("edit", "Type the size of a pixel; the layer gets it as its scale.")
        self.edit.setCheckable(True)
        self.edit.setFixedWidth(48)
        self.number = QLineEdit()
        self.number.setPlaceholderText("14.997")
        self.number.setToolTip("Size of a pixel; for oblong ones height x width, as in 15 x 12.5.")
        self.unit = choice(list(NM_PER), "Unit of the number.")
        self.unit.setFixedWidth(72)
        self.unit.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.apply = button("Apply", "Give the image layer this scale, in nm.")
        self.apply.setFixedWidth(60)
        self._editor = QWidget()
        editor = QHBoxLayout(self._editor)
        editor.setContentsMargins(0, 0, 0, 0)
        for one in (self.number, self.unit, self.apply):
            editor.addWidget(one)
        line = QHBoxLayout()
        line.addWidget(self.text, 1)
        line.addWidget(self.edit)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self._editor)
        self._editor.hide()
        self.edit.toggled.connect(self._editor.setVisible)
        self.number.returnPressed.connect(self._on_apply)
        self.apply.clicked.connect(self._on_apply)
        self.refused = lambda _sentence: None

    def show_size(self, size_nm: tuple[float, float] | None, source: str) -> None:
        """Show a size (height, width) [nm] and where it comes from, or None for unknown."""
        self.edit.setChecked(False)
        if size_nm is None:
            self.text.setText("not calibrated")
            return
        y, x = (size * 1000 for size in size_nm)
        one = f"{y:.5g} pm" if abs(y - x) < 1e-6 * y else f"{y:.5g} × {x:.5g} pm"
        self.text.setText(f"{one} {source}".strip())
        self.number.setText(one.removesuffix(" pm").replace("×", "x"))
        self.unit.setCurrentText("pm")

    def _on_apply(self) -> None:
        try:
            size = parse_pixel_size(self.number.text(), self.unit.currentText())
        except InputError as error:
            self.refused(str(error))
            return
        self.edit.setChecked(False)
        self.edited.emit(size)


def parse_pixel_size(text: str, unit: str) -> tuple[float, float]:
    """Read "15" or "15 x 12.5" in a unit as (height, width) in nm.

    Examples
    --------
    >>> parse_pixel_size("1,5 x 2", "angstrom")
    (0.15000000000000002, 0.2)
    """
    pieces = re.split(r"\s*[x×*]\s*", text.strip().replace(",", "."))
    try:
        sizes = [float(piece) * NM_PER[unit] for piece in pieces]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 2) or not all(1e-9 < size < 1e9 for size in sizes):
        raise InputError(f"'{text}' is no pixel size; type a number above zero, such as 14.997.")
    return sizes[0], sizes[-1]


class Header(QWidget):
    """Everything above the tabs."""

    quick_run_asked = Signal()

    def __init__(self, viewer: napari.viewer.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.chooser = ImageChooser(viewer)
        self.pixel_size = PixelSize()
        self.pixel_size.refused = lambda sentence: self.say(sentence, wrong=True)
        self.device = choice(
            ["auto", "cpu", "cuda", "mps"],
            "Where to compute. 'auto' takes the graphics card where there is one.",
        )
        self.quick_run = button(
            "Quick run",
            "Does everything with the settings as they are: finds the atoms (unless there are "
            "some), trains, refines, and lays the result over the image.",
        )
        self.progress = QProgressBar()
        self.progress.setRange(0, 1000)
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(6)
        self.message = label()
        self.message.setMinimumHeight(2 * self.message.fontMetrics().height() + 4)
        self.message.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        form = rows()
        form.addRow("Image", self.chooser)
        form.addRow("Pixel size", self.pixel_size)
        line = QHBoxLayout()
        line.addWidget(self.device, 1)
        line.addWidget(self.quick_run, 2)
        form.addRow("Device", line)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 0)
        layout.addLayout(form)
        layout.addWidget(self.progress)
        layout.addWidget(MessageLine(self.message))
        self.quick_run.clicked.connect(self.quick_run_asked)

    def show_fraction(self, fraction: float) -> None:
        """Move the progress bar, 0 to 1."""
        self.progress.setValue(round(1000 * fraction))

    def say(self, sentence: str, *, wrong: bool = False) -> None:
        """Put a sentence on the message line."""
        self.message.setText(f"⚠ {sentence}" if wrong else sentence)
        style = "font-weight: bold;" if wrong else ""
        if style != self.message.styleSheet():  # each setting lays the window out anew
            self.message.setStyleSheet(style)
