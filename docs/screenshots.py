"""Take the pictures of docs/images from the real window, driven as a person would.

Run with `make screenshots`. The measured images are not part of this project: their pictures are
left as they are where the folder of images (SHIFTVAE_DATA, or ../shared/data) is absent.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication, QWidget
from superqt import QCollapsible

from napari_shiftvae.widgets import ShiftVAEWidget

HERE = Path(__file__).parent
IMAGES = HERE / "images"
DATA = Path(os.environ.get("SHIFTVAE_DATA", HERE.parents[1] / "shared" / "data"))
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
    viewer.screenshot(str(IMAGES / f"{name}.png"), canvas_only=False, flash=False)
    print(f"docs/images/{name}.png")


def opened(path: Path | None = None) -> tuple[napari.Viewer, ShiftVAEWidget]:
    """Open a window with an image, or the sample, and the dock."""
    viewer = napari.Viewer(show=True, show_welcome_screen=False)
    viewer.window.resize(*WINDOW)
    if path is None:
        viewer.open_sample("napari-shiftvae", "perovskite")
    else:
        plugin = "napari-shiftvae" if path.suffix == ".dm3" else "napari"
        viewer.open(path, plugin=plugin)
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


def show_part(dock: ShiftVAEWidget, part: QWidget) -> None:
    """Scroll the Explore tab to one of its parts."""
    area = dock.explore.parentWidget().parentWidget()
    area.verticalScrollBar().setValue(part.mapTo(dock.explore, part.rect().topLeft()).y() - 40)
    pump()


def substituted() -> None:
    """Find the brighter sites of an image in which some atoms were substituted."""
    finished = measured_window("se_implanted_mos2.dm3", "se_mos2")
    if finished is None:
        return
    viewer, dock = finished
    dock.tabs.setCurrentIndex(EXPLORE)
    dock.fields.arrows.setChecked(False)
    classify(dock)
    brightest_of_few = dock.session.run.atoms["class"].max()
    dock.explore.classes.table.item(int(brightest_of_few), 1).setText("substituted")
    viewer.scene.camera.zoom *= 2.5
    take(viewer, "se_mos2")
    show_part(dock, dock.explore.classes)
    take(viewer, "se_mos2_classes")
    viewer.close()


def tour() -> None:
    """Go through the four tabs on the sample."""
    viewer, dock = opened()
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
    dock.fields.atoms.setChecked(True)
    dock.fields.canvas_bar.setChecked(False)
    dock.fields.arrows.setChecked(False)
    dock.fields.map.setCurrentText("z2")
    take(viewer, "demo")
    viewer.close()


def measured_window(file: str, name: str) -> tuple[napari.Viewer, ShiftVAEWidget] | None:
    """Press Quick run on a measured image, where it is there."""
    path = DATA / file
    if not path.is_file():
        print(f"docs/images/{name}.png stays as it is: {path} is not here", file=sys.stderr)
        return None
    viewer, dock = opened(path)
    if dock.pixel_size.in_file is not None:  # let the layer have it too, for the scale bar
        dock.header.pixel_size.edit.click()
        dock.header.pixel_size.apply.click()
    dock.header.quick_run.click()
    wait_until(idle(dock))
    if dock.session.run is None:
        raise RuntimeError(f"{file}: {dock.header.message.text()}")
    return viewer, dock


def measured(file: str, name: str, *, zoom: float, tab: int, shown_map: str) -> None:
    """Take a picture of a measured image after Quick run."""
    finished = measured_window(file, name)
    if finished is None:
        return
    viewer, dock = finished
    dock.tabs.setCurrentIndex(tab)
    dock.fields.map.setCurrentText(shown_map)
    viewer.scene.camera.zoom *= zoom
    take(viewer, name)
    viewer.close()


def main() -> None:
    """Take all pictures, or those named on the command line."""
    pictures: dict[str, Callable[[], None]] = {
        "tour": tour,
        "pto_sro": lambda: measured(
            "pto_sro_haadf.ome.tif", "pto_sro", zoom=2.5, tab=FIELDS, shown_map="none"
        ),
        "se_mos2": substituted,
        "perovskite_adf": lambda: measured(
            "perovskite_adf.ome.tif", "perovskite_adf", zoom=1.0, tab=FIELDS, shown_map="z1"
        ),
    }
    IMAGES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or pictures:
        pictures[name]()


if __name__ == "__main__":
    main()
