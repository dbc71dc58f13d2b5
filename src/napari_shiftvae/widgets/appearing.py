"""Has what appears for the first time painted in small pieces."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

from napari_shiftvae.widgets.turns import PAINT_MS

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

LETTERS_MS = 300  # until the window is painted


class Appearing(QObject):
    """Makes layers visible that were added, each in a turn of its own.

    Adding a layer takes napari up to a tenth of a second, and so does painting it for the first
    time. A part of that is spent here at once: for any text napari prepares some letters of its
    font, and every layer of points has one, if empty.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    parent : QObject
    """

    def __init__(self, viewer: napari.viewer.Viewer, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._waiting: list[Layer] = []
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PAINT_MS)
        self._timer.timeout.connect(self._on_timer)
        text = viewer.canvas.overlays.text
        if not text.visible and not text.text:
            text.text, text.visible = " ", True
            take_off = partial(_take_off, text)
            self._letters = QTimer(self)
            self._letters.setSingleShot(True)
            self._letters.timeout.connect(take_off)
            self._letters.start(LETTERS_MS)
            self.destroyed.connect(take_off)

    def add(self, layer: Layer) -> None:
        """Make a layer visible in its turn, if nobody has shown, hidden or deleted it by then."""
        self._waiting.append(layer)
        layer.events.visible.connect(self._on_shown_or_hidden)
        self._timer.start()

    def _on_shown_or_hidden(self, event: Any) -> None:
        event.source.events.visible.disconnect(self._on_shown_or_hidden)
        self._waiting.remove(event.source)

    def _on_timer(self) -> None:
        layer = next(iter(self._waiting), None)
        if layer in self._viewer.layers:
            layer.visible = True  # which takes it from those that wait
        elif layer is not None:
            self._waiting.remove(layer)
        if self._waiting:
            self._timer.start()


def _take_off(text: Any, _: object = None) -> None:
    """Hide the text without a letter, unless somebody else has made something of it."""
    if text.text == " ":
        text.text, text.visible = "", False
