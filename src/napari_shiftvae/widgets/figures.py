"""What is in view as a figure: to the clipboard, or into a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QMimeData, QObject
from qtpy.QtGui import QImage
from qtpy.QtWidgets import QApplication, QFileDialog

from napari_shiftvae import fields_jobs
from napari_shiftvae.widgets.worker import Runner

if TYPE_CHECKING:
    from napari_shiftvae.session import Session
    from napari_shiftvae.widgets.fields_panel import FieldsPanel

ENDINGS = {
    "PNG (*.png)": ".png",
    "SVG (*.svg)": ".svg",
    "TIFF with its scale (*.tif)": ".tif",
}


class Figures(QObject):
    """Copies and saves what the Fields tab shows.

    Parameters
    ----------
    panel : FieldsPanel
    session : Session
    shown : callable
        Gives the name of the image and the arguments of `fields_jobs.figure`, None where nothing
        can be shown.
    """

    def __init__(
        self,
        panel: FieldsPanel,
        session: Session,
        shown: Callable[[], tuple[str, tuple[Any, ...]] | None],
    ) -> None:
        super().__init__(panel)
        self._panel = panel
        self._session = session
        self._shown = shown
        self._runner = Runner(self)
        self._runner.succeeded.connect(self._on_made)
        self._runner.refused.connect(lambda sentence: session.say(sentence, wrong=True))
        self._runner.failed.connect(lambda error: session.say(f"It failed: {error}", wrong=True))
        self._runner.disable_meanwhile(panel.copy_figure, panel.save_figure)
        panel.copy_figure.clicked.connect(self._on_copy)
        panel.save_figure.clicked.connect(self._on_save)

    def close(self) -> None:
        """End the thread."""
        self._runner.close()

    def _on_copy(self) -> None:
        shown = self._shown()
        if shown is not None:
            self._session.say("Drawing the figure ...")
            self._runner.start("drawing the figure", fields_jobs.figure_to_copy, *shown[1])

    def _on_save(self) -> None:
        shown = self._shown()
        if shown is None:
            return
        name, what = shown
        path, kind = QFileDialog.getSaveFileName(
            self._panel.window(), "Save figure", f"{name}.png", ";;".join(ENDINGS)
        )
        if not path:
            return
        if not path.lower().endswith((*ENDINGS.values(), ".tiff")):
            path += ENDINGS.get(kind, ".png")
        self._session.say("Drawing the figure ...")
        self._runner.start("drawing the figure", fields_jobs.save_figure, path, *what)

    def _on_made(self, made: str | tuple[bytes, bytes]) -> None:
        if isinstance(made, str):
            self._session.say(made)
            return
        png, svg = made
        content = QMimeData()
        content.setImageData(QImage.fromData(png))
        content.setData("image/svg+xml", svg)
        QApplication.clipboard().setMimeData(content)
        self._session.say("Copied the figure: paste it into a document.")
