"""How soon the circles on a 2048 x 2048 image follow the slider of the threshold.

python benchmarks/preview.py
"""

from __future__ import annotations

import time

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from machine import on_this_machine, print_table
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.widgets import ShiftVAEWidget

SIDE_PX = 2048
THRESHOLDS = (0.8, 0.1, 0.7, 0.2, 0.6, 0.15, 0.75, 0.12)  # the weaker sublattice comes and goes


def pump(seconds: float) -> None:
    """Let Qt work for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.002)


def main() -> None:
    """Drag the slider in a real window and time each step until the window is painted."""
    with on_this_machine():
        made = perovskite(rng=np.random.default_rng(0), shape=(SIDE_PX, SIDE_PX))
        viewer = napari.Viewer(show=True, show_welcome_screen=False)
        viewer.window.resize(1366, 768)
        viewer.add_image(made.image, name="made")
        _, dock = viewer.window.add_plugin_dock_widget("napari-shiftvae", "Shift-VAE")
        assert isinstance(dock, ShiftVAEWidget)  # noqa: S101
        pump(1.0)
        began = time.perf_counter()
        dock.atoms.find.click()
        while dock.session.activity != "idle":
            pump(0.01)
        found = time.perf_counter() - began
        pump(2.0)
        rows = []
        for threshold in THRESHOLDS:
            began, own = time.perf_counter(), time.process_time()
            dock.atoms.form.threshold.setValue(threshold)
            QApplication.processEvents()
            took, spent = time.perf_counter() - began, time.process_time() - own
            rows.append(
                {
                    "threshold": f"{threshold:.2f}",
                    "atoms shown": f"{len(dock.session.picks):,}",
                    "ms": f"{1e3 * took:.0f}",
                    "processor ms": f"{1e3 * spent:.0f}",
                }
            )
            pump(0.6)
        print(f"Found {len(made.truth)} columns of {SIDE_PX} x {SIDE_PX} px in {found:.2f} s.")
        print_table("From the move of the slider until the window is painted", rows)
        viewer.close()


if __name__ == "__main__":
    main()
