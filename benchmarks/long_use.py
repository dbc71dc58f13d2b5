"""Fifty runs in one viewer: the memory they leave behind, and whether the last are slower.

xvfb-run -a -s "-screen 0 1366x768x24" python benchmarks/long_use.py [--runs 50]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import threading
import time
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import napari
import numpy as np
import psutil
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QApplication

from machine import on_this_machine, print_table
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.layers import RUN
from napari_shiftvae.widgets import ShiftVAEWidget

if TYPE_CHECKING:
    from collections.abc import Callable

WARM_UP = 5  # runs after which everything that is made once is there
SHAPE = (400, 400)
EPOCHS = 3
SETTLE_MS = 300


def wait(milliseconds: int) -> None:
    """Let the window live for a while."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def run_once(viewer: napari.Viewer, widget: ShiftVAEWidget, *, keep: bool) -> None:
    """Press Quick run, wait for the layers, and delete them unless they are to be kept."""
    loop = QEventLoop()

    def at_activity(activity: str) -> None:
        if activity == "idle":
            loop.quit()

    widget.session.activity_changed.connect(at_activity)
    QTimer.singleShot(0, widget.header.quick_run.click)
    loop.exec()
    widget.session.activity_changed.disconnect(at_activity)
    wait(SETTLE_MS)
    if not keep:
        for layer in [one for one in viewer.layers if RUN in one.metadata]:
            viewer.layers.remove(layer)
            # napari 0.9.2 crashes in Mesa when it paints after two layers went at once, also
            # without this plugin: an image and points are enough
            wait(SETTLE_MS)
    gc.collect()


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and processor time of some work [s]."""
    began, worked = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - worked


def main(runs: int, *, keep: bool) -> None:
    """Measure and print."""
    process = psutil.Process()
    viewer = napari.Viewer()
    viewer.window.resize(1366, 768)
    viewer.add_image(perovskite(rng=np.random.default_rng(0), shape=SHAPE).image, name="perovskite")
    widget = ShiftVAEWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Shift-VAE")
    form = widget.train.form
    form.setValue(replace(form.value(), epochs=EPOCHS))
    rows, megabytes, spent = [], [], []
    for number in range(1, runs + 1):
        wall, worked = seconds(lambda: run_once(viewer, widget, keep=keep))
        megabytes.append(process.memory_info().rss / 1e6)
        spent.append(worked)
        if number in {1, WARM_UP} or number % 10 == 0:
            rows.append(
                {
                    "run": str(number),
                    "s": f"{wall:.1f}",
                    "processor s": f"{worked:.1f}",
                    "resident MB": f"{megabytes[-1]:.0f}",
                    "layers": str(len(viewer.layers)),
                    "widgets": str(len(QApplication.allWidgets())),
                    "threads": str(threading.active_count()),
                    "objects": f"{len(gc.get_objects()) + gc.get_freeze_count():,}",
                }
            )
    kept = "kept" if keep else "deleted after each run"
    print_table(f"{runs} runs in one viewer, their layers {kept}", rows)
    some = max(1, min(5, runs // 2))
    growth = 100 * (megabytes[-1] / megabytes[min(WARM_UP, runs) - 1] - 1)
    slower = np.median(spent[-some:]) / np.median(spent[1 : some + 1])
    print(
        f"\n  From run {min(WARM_UP, runs)} to run {runs} the memory grew by {growth:.1f} % "
        f"(aim < 10 %); the last {some} runs took {slower:.2f} x the processor time of the first "
        f"{some} after run 1."
    )
    viewer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=50, metavar="N")
    parser.add_argument("--keep", action="store_true", help="keep the layers of all runs")
    chosen = parser.parse_args()
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        sys.exit("There is no display: use `make benchmark`, or put `xvfb-run -a` in front.")
    with TemporaryDirectory() as folder, on_this_machine():
        os.environ["XDG_DATA_HOME"] = folder  # runs save themselves
        main(chosen.runs, keep=chosen.keep)
