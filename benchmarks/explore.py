"""What the Explore tab takes to follow the mouse: main-thread time of each step.

A run of 590 atoms with windows of about 40 px. Dragging the handle decodes the pattern there, finds
the nearest atom and draws both; pointing at a dot draws its patch, model and residual.

python benchmarks/explore.py
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from machine import on_this_machine, print_table
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget

STEPS = 200
EXPLORE_TAB = 2
TARGET_MS = 30


def main() -> None:
    """Drive a window that has a finished run, in steps that are each painted."""
    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.window.resize(1366, 768)
    viewer.add_image(perovskite(rng=np.random.default_rng(0), shape=(512, 512)).image, name="made")
    dock = ShiftVAEWidget(viewer)
    viewer.window.add_dock_widget(dock)
    dock.train.form.setValue(TrainSettings(epochs=10))
    dock.quick_run()
    while dock.session.activity != "idle":
        QApplication.processEvents()
        time.sleep(0.01)
    dock.tabs.setCurrentIndex(EXPLORE_TAB)
    QApplication.processEvents()
    explore, run = dock.explore, dock.session.run
    if run is None:
        raise RuntimeError(dock.header.message.text())
    used = np.flatnonzero(run.used)
    rng = np.random.default_rng(1)
    places = rng.standard_normal((STEPS, 2)).tolist()
    explore.drag.click()
    steps: dict[str, Iterator[Callable[[], None]]] = {
        "drag the handle": (lambda p=place: explore.scatter.handle.setPos(*p) for place in places),
        "point at a dot": (
            lambda r=row: explore.scatter.pointed.emit(int(r)) for row in rng.choice(used, STEPS)
        ),
        "decoder grid over other columns": (
            lambda n=name: explore.x.setCurrentText(n) for name in ("z2", "z1") * 5
        ),
    }
    with on_this_machine():
        rows = []
        for name, moves in steps.items():
            spent = []
            for move in moves:
                began = time.perf_counter(), time.process_time()
                move()
                QApplication.processEvents()
                spent.append((time.perf_counter() - began[0], time.process_time() - began[1]))
            wall, cpu = 1e3 * np.array(spent).T
            rows.append(
                {
                    "step": name,
                    "median ms": f"{np.median(wall):.1f}",
                    "99 % within ms": f"{np.percentile(wall, 99):.1f}",
                    "median CPU ms": f"{np.median(cpu):.1f}",
                }
            )
        print_table(f"{len(used)} atoms, target {TARGET_MS} ms for the handle", rows)
    viewer.close()


if __name__ == "__main__":
    main()
