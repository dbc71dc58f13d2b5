"""The demonstration: napari on sample data, with the whole analysis run by the dock itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import napari
from qtpy.QtCore import QTimer

from napari_shiftvae.core.errors import InputError

if TYPE_CHECKING:
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.widgets import ShiftVAEWidget

WINDOW = (1366, 768)
SETTLE_MS = 1500  # for layers and plots to be drawn before the picture is taken


def demo(screenshot: Path | None = None) -> None:
    """Open napari, load the sample perovskite, press Quick run, and show what was found.

    Parameters
    ----------
    screenshot : Path, optional
        Where to write a picture of the window as PNG; napari closes afterwards.

    Raises
    ------
    InputError
        If the analysis or the picture failed.
    """
    viewer = napari.Viewer(title="napari-shiftvae", show=True)
    viewer.window.resize(*WINDOW)
    viewer.open_sample("napari-shiftvae", "perovskite")
    _, widget = viewer.window.add_plugin_dock_widget("napari-shiftvae", "Shift-VAE")
    failures: list[str] = []

    def close() -> None:
        viewer.close()

    def take_picture() -> None:
        try:
            screenshot.parent.mkdir(parents=True, exist_ok=True)
            viewer.screenshot(str(screenshot), canvas_only=False, flash=False)
        except OSError as error:
            failures.append(f"{screenshot} could not be written ({error.strerror or error}).")
        close()

    def show(run: Run | None) -> None:
        if run is None:
            return
        _arrange(widget)
        if screenshot is not None:
            QTimer.singleShot(SETTLE_MS, take_picture)

    def note(sentence: str, wrong: bool) -> None:
        if wrong and screenshot is not None:
            failures.append(sentence)
            QTimer.singleShot(0, close)

    widget.session.run_changed.connect(show)
    widget.session.said.connect(note)
    QTimer.singleShot(0, widget.header.quick_run.click)
    napari.run()
    if failures:
        raise InputError(failures[0])
    if screenshot is not None:
        print(f"Wrote {screenshot.resolve()}")


def _arrange(widget: ShiftVAEWidget) -> None:
    """Show the fields: arrows on the atoms, which are coloured by the first latent."""
    widget.tabs.setCurrentIndex(widget.tabs.count() - 1)
