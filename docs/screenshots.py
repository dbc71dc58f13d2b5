"""Take the pictures of docs/images from the real window, driven as a person would.

Run with `make screenshots`. All are of simulated images, which anyone may pass on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import napari
from PIL import Image
from qtpy.QtWidgets import QApplication, QFileDialog, QWidget
from superqt import QCollapsible

from napari_shiftvae.widgets import ShiftVAEWidget

HERE = Path(__file__).parent
IMAGES = HERE / "images"
WINDOW = (1366, 768)  # the smallest laptop the dock is made for
PATIENCE_S = 900
ATOMS, TRAIN, EXPLORE, FIELDS = range(4)


def pump(seconds: float = 0.5) -> None:
    """Let Qt work for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.005)


def wait_until(ready: Callable[[], bool]) -> None:
    """Let Qt work until something is so."""
    end = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError("the dock did not get ready")
        pump(0.05)


def take(viewer: napari.Viewer, name: str) -> None:
    """Write a picture of the whole window."""
    pump(1.0)
    pixels = viewer.screenshot(canvas_only=False, flash=False)[..., :3]
    Image.fromarray(pixels).save(IMAGES / f"{name}.png", optimize=True)
    print(f"docs/images/{name}.png")


def opened(sample: str) -> tuple[napari.Viewer, ShiftVAEWidget]:
    """Open a window with a sample and the dock."""
    viewer = napari.Viewer(show=True, show_welcome_screen=False)
    viewer.window.resize(*WINDOW)
    viewer.open_sample("napari-shiftvae", sample)
    _, dock = viewer.window.add_plugin_dock_widget("napari-shiftvae", "Shift-VAE")
    viewer.canvas.overlays.scale_bar.visible = True
    pump()
    viewer.reset_view()
    return viewer, dock


def idle(dock: ShiftVAEWidget) -> Callable[[], bool]:
    """Make a test for whether the dock has nothing to do."""
    return lambda: dock.session.activity == "idle"


def unfold(panel: QWidget, *titles: str) -> None:
    """Open the folded parts of a tab that have these titles."""
    for part in panel.findChildren(QCollapsible):
        if part.text() in titles:
            part.expand(animate=False)
    pump()


def scroll(panel: QWidget) -> None:
    """Scroll a tab to its end."""
    bar = panel.parentWidget().parentWidget().verticalScrollBar()
    bar.setValue(bar.maximum())
    pump()


def classify(dock: ShiftVAEWidget) -> None:
    """Press Find classes."""
    dock.explore.classes.find.click()
    wait_until(lambda: "class" in dock.session.run.atoms)


def save_figure(dock: ShiftVAEWidget, name: str) -> None:
    """Press Save figure, answer its dialog, and write the figure at half its size."""
    path = IMAGES / f"{name}.png"
    ask = QFileDialog.getSaveFileName
    QFileDialog.getSaveFileName = lambda *_: (str(path), "")
    try:
        dock.fields.save_figure.click()
    finally:
        QFileDialog.getSaveFileName = ask
    wait_until(lambda: str(path) in dock.header.message.text())
    with Image.open(path) as figure:
        figure.reduce(2).save(path, optimize=True)
    print(f"docs/images/{name}.png")


def draw_reference(viewer: napari.Viewer, dock: ShiftVAEWidget) -> None:
    """Draw a reference region in one of the domains, and show displacements from its lattice."""
    fields, image = dock.fields, dock.overlay.image
    fields.vectors.setCurrentText("displacement from the lattice")
    fields.reference.setCurrentIndex(fields.reference.count() - 1)
    region = viewer.layers[f"{image.name} reference"]
    height, width = image.data.shape
    (top, bottom), (left, right) = (0.15 * height, 0.85 * height), (0.62 * width, 0.82 * width)
    region.add_rectangles([[top, left], [top, right], [bottom, right], [bottom, left]])
    region.mode = "select"
    wait_until(lambda: "reference region" in fields.note.text())
    fields.map.setCurrentText("none")


def show_part(dock: ShiftVAEWidget, part: QWidget) -> None:
    """Scroll the Explore tab to one of its parts."""
    area = dock.explore.parentWidget().parentWidget()
    area.verticalScrollBar().setValue(part.mapTo(dock.explore, part.rect().topLeft()).y() - 40)
    pump()


def graphene() -> None:
    """Tell the atoms of doped graphene apart, and name one of the classes."""
    viewer, dock = opened("graphene")
    dock.header.quick_run.click()
    wait_until(idle(dock))
    dock.tabs.setCurrentIndex(EXPLORE)
    dock.fields.arrows.setChecked(False)
    classify(dock)
    brightest = dock.explore.classes.table.rowCount() - 1
    dock.explore.classes.table.item(brightest, 1).setText("dopant")
    show_part(dock, dock.explore.classes)
    take(viewer, "graphene_classes")
    viewer.close()


def tour() -> None:
    """Go through the four tabs on the sample."""
    viewer, dock = opened("perovskite")
    dock.atoms.find.click()
    wait_until(idle(dock))
    dock.atoms.group.click()
    wait_until(idle(dock))
    dock.atoms.fit_lattice.click()
    wait_until(idle(dock))
    unfold(dock.atoms, "Sublattices", "Lattice")
    scroll(dock.atoms)
    take(viewer, "atoms")
    dock.tabs.setCurrentIndex(TRAIN)
    dock.train.run.click()
    wait_until(lambda: bool(dock.session.losses) and dock.session.losses[-1].epoch > 25)
    take(viewer, "train")
    wait_until(idle(dock))
    dock.tabs.setCurrentIndex(EXPLORE)
    dock.fields.arrows.setChecked(False)
    classify(dock)
    chosen = dock.session.run.atoms.index[dock.session.run.atoms["class"] == 1]
    dock.explore.scatter.picked.emit(chosen.to_numpy()[:60], False)
    dock.explore.scatter.picked.emit(chosen.to_numpy()[60:61], True)
    take(viewer, "explore")
    dock.explore.drag.click()
    show_part(dock, dock.explore.patterns)
    take(viewer, "explore_patterns")
    dock.explore.drag.click()
    dock.explore.scatter.picked.emit(chosen.to_numpy()[:0], False)
    dock.fields.arrows.setChecked(True)
    dock.tabs.setCurrentIndex(FIELDS)
    dock.fields.atoms.setChecked(False)
    dock.fields.colour.setCurrentText("angle")
    dock.fields.canvas_bar.setChecked(True)
    dock.fields.map.setCurrentText("length")
    wait_until(lambda: f"{dock.overlay.image.name} length" in viewer.layers)
    take(viewer, "fields")
    save_figure(dock, "figure")
    dock.fields.colour.setCurrentText("length")
    draw_reference(viewer, dock)
    take(viewer, "fields_region")
    viewer.layers.remove(f"{dock.overlay.image.name} reference")
    dock.fields.atoms.setChecked(True)
    dock.fields.canvas_bar.setChecked(False)
    dock.fields.arrows.setChecked(False)
    dock.fields.map.setCurrentText("z2")
    take(viewer, "demo")
    viewer.close()


def main() -> None:
    """Take all pictures, or those named on the command line."""
    pictures: dict[str, Callable[[], None]] = {
        "tour": tour,
        "graphene": graphene,
    }
    IMAGES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or pictures:
        pictures[name]()


if __name__ == "__main__":
    main()
