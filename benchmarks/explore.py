"""What the Explore tab takes to follow the mouse: main-thread time of each step.

A run of about 600 atoms with windows of about 40 px. The mouse holds the handle and moves, which
decodes the pattern there, finds the nearest atom and draws both; pointing at a dot draws its patch,
model and residual. Between two moves of the mouse there is a pause, as a hand makes it.

python benchmarks/explore.py
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import napari
import numpy as np
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from machine import on_this_machine, print_table
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget
from napari_shiftvae.widgets.scatter import LatentScatter

STEPS = 300
PAUSE_S = 0.016
EXPLORE_TAB = 2
TARGET_MS = 30


def settle() -> None:
    """Have everything painted that is to be painted."""
    end = time.perf_counter() + 0.5
    while time.perf_counter() < end:
        QApplication.processEvents()


def pixel(plot: LatentScatter, x: float, y: float) -> QPoint:
    """Pixel of a plot where a place in it is drawn."""
    return plot.mapFromScene(plot.plotItem.vb.mapViewToScene(QPointF(x, y)))


def hold(plot: LatentScatter) -> None:
    """Press the mouse on the handle, and move it so far that it is a drag."""
    start = pixel(plot, *plot.handle.pos())
    QTest.mousePress(plot.viewport(), Qt.MouseButton.LeftButton, pos=start)
    for step in range(1, 12):
        QTest.mouseMove(plot.viewport(), start + QPoint(2 * step, 0))
        time.sleep(PAUSE_S)
        QApplication.processEvents()
    if not plot.handle.moving:
        raise RuntimeError("the mouse does not hold the handle")


def moves_of_the_mouse(plot: LatentScatter) -> Iterator[Callable[[], None]]:
    """Go along a winding line through the plot."""
    (x0, x1), (y0, y1) = plot.plotItem.vb.viewRange()
    turn = np.linspace(0, 20, STEPS)
    x = (x0 + x1) / 2 + 0.45 * (x1 - x0) * np.sin(turn)
    y = (y0 + y1) / 2 + 0.45 * (y1 - y0) * np.sin(1.7 * turn)
    for place in zip(x, y, strict=True):
        yield partial(QTest.mouseMove, plot.viewport(), pixel(plot, *place))
    QTest.mouseRelease(plot.viewport(), Qt.MouseButton.LeftButton, pos=pixel(plot, x[-1], y[-1]))


def main() -> None:
    """Drive a window that has a finished run, in steps that are each painted."""
    viewer = napari.Viewer(show_welcome_screen=False)
    viewer.window.resize(1366, 768)
    viewer.add_image(perovskite(rng=np.random.default_rng(0), shape=(512, 512)).image, name="made")
    dock = ShiftVAEWidget(viewer)
    viewer.window.add_dock_widget(dock)
    dock.train.form.setValue(TrainSettings(epochs=10))
    dock.quick_run()
    while dock.session.activity != "idle" or not dock.fields.note.text():  # fields are worked out
        QApplication.processEvents()
        time.sleep(0.01)
    dock.tabs.setCurrentIndex(EXPLORE_TAB)
    settle()
    explore, run = dock.explore, dock.session.run
    if run is None:
        raise RuntimeError(dock.header.message.text())
    used = np.flatnonzero(run.used)
    rng = np.random.default_rng(1)
    explore.drag.click()
    settle()
    hold(explore.scatter)
    steps: dict[str, Iterator[Callable[[], None]]] = {
        "drag the handle": moves_of_the_mouse(explore.scatter),
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
                time.sleep(PAUSE_S)
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
                    "99 % within CPU ms": f"{np.percentile(cpu, 99):.1f}",
                }
            )
        print_table(f"{len(used)} atoms, target {TARGET_MS} ms for the handle", rows)
    viewer.close()


if __name__ == "__main__":
    main()
