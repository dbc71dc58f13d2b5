"""Has what appears for the first time painted in small pieces."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QWidget

from napari_shiftvae.widgets.turns import Turns

if TYPE_CHECKING:
    import napari
    from napari.layers import Layer

LETTERS_MS = 300  # until the window is painted


class Appearing:
    """Makes layers visible that were added, in turns of the event loop.

    Adding a layer takes napari up to a tenth of a second, and so does painting it for the first
    time, when vispy builds programs for it; then Qt composes the window, which without a graphics
    card takes some 40 ms more. Here each has a turn of its own. A part is spent at once: for any
    text napari prepares some letters of its font, and every layer of points has one, if empty.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    dock : QWidget
        A part of the viewer's window, or about to be one.
    """

    def __init__(self, viewer: napari.viewer.Viewer, dock: QWidget) -> None:
        self._viewer = viewer
        self._dock = dock
        self._waiting: list[Layer] = []
        self._turns = Turns(dock)
        text = viewer.canvas.overlays.text
        if not text.visible and not text.text:
            text.text, text.visible = " ", True
            take_off = partial(_take_off, text)
            self._letters = QTimer(dock)
            self._letters.setSingleShot(True)
            self._letters.timeout.connect(take_off)
            self._letters.start(LETTERS_MS)
            dock.destroyed.connect(take_off)

    def close(self) -> None:
        """Leave what is not visible yet as it is, and have the window painted."""
        with suppress(RuntimeError):  # Qt may have deleted it before
            self._turns.forget()

    @contextmanager
    def unpainted(self) -> Iterator[None]:
        """Leave the window as it is meanwhile; it is painted after what waits in the event loop."""
        window = _window_of(self._dock)
        window.setUpdatesEnabled(False)
        try:
            yield
        finally:
            QTimer.singleShot(0, partial(_paint_again, weakref.ref(window)))

    def add(self, layer: Layer) -> None:
        """Make a layer visible in its turn, if nobody has shown, hidden or deleted it by then."""
        self._waiting.append(layer)
        layer.events.visible.connect(self._on_shown_or_hidden)
        if not self._turns.busy:
            self._turns.start(self._show_those_that_wait())

    def steps(self, layer: Layer) -> Iterator[None]:
        """Make a layer visible; paint it; have the window painted: a step for each."""
        with self.unpainted():
            layer.visible = True
            yield
            canvas = _window_of(self._dock).findChild(QOpenGLWidget)
            if canvas is not None and canvas.isVisible():
                canvas.grabFramebuffer()  # not to be seen: the next picture needs no new programs
        yield

    def _on_shown_or_hidden(self, event: Any) -> None:
        event.source.events.visible.disconnect(self._on_shown_or_hidden)
        self._waiting.remove(event.source)

    def _show_those_that_wait(self) -> Iterator[None]:
        while self._waiting:
            layer = self._waiting[0]
            if layer in self._viewer.layers:
                yield from self.steps(layer)  # of which the first takes it from those that wait
            else:
                self._waiting.remove(layer)


def _window_of(dock: QWidget) -> QWidget:
    """Find the window that holds a dock, floating or not."""
    window = dock
    while (above := window.parentWidget()) is not None:
        window = above
    return window


def _paint_again(wanted: weakref.ref[QWidget]) -> None:
    window = wanted()
    if window is not None:
        with suppress(RuntimeError):  # Qt has deleted it meanwhile
            window.setUpdatesEnabled(True)


def _take_off(text: Any, _: object = None) -> None:
    """Hide the text without a letter, unless somebody else has made something of it."""
    if text.text == " ":
        text.text, text.visible = "", False
