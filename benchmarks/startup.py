"""What it takes to start: the package, napari's plugin discovery, the dock, and torch behind it.

xvfb-run -a -s "-screen 0 1366x768x24" python benchmarks/startup.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

REPEATS = 5
SETTLE_MS = 2000
BEAT_MS = 5
LOADED = "print(int('torch' in __import__('sys').modules))"


def fresh(code: str) -> str:
    """Run code in a Python of its own; what it printed."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def import_milliseconds() -> float:
    """Shortest time to import the package."""
    code = (
        "import time; began = time.perf_counter(); import napari_shiftvae; "
        "print(1e3 * (time.perf_counter() - began))"
    )
    return min(float(fresh(code)) for _ in range(REPEATS))


def discovery_loads_torch() -> bool:
    """Whether napari's search for plugins loads torch."""
    code = "import npe2; npe2.PluginManager.instance().discover(); " + LOADED
    return fresh(code) == "1"


def open_dock() -> None:
    """Open the dock in a window, twice; prints what it took. For a fresh Python."""
    import threading

    import napari
    from qtpy.QtCore import QEventLoop, Qt, QTimer
    from qtpy.QtWidgets import QApplication

    def wait(milliseconds: int) -> None:
        loop = QEventLoop()
        QTimer.singleShot(milliseconds, loop.quit)
        loop.exec()

    viewer = napari.Viewer()
    viewer.window.resize(1366, 768)
    wait(SETTLE_MS)
    rows = []
    for number, name in enumerate(("first time, torch is not loaded", "again, torch is loaded")):
        began, worked = time.perf_counter(), time.thread_time()
        from napari_shiftvae.widgets import ShiftVAEWidget

        widget = ShiftVAEWidget(viewer)
        frame = viewer.window.add_dock_widget(widget, name="Shift-VAE")
        QApplication.processEvents()
        row = {
            "dock": name,
            "open after ms": f"{1e3 * (time.perf_counter() - began):.0f}",
            "own work ms": f"{1e3 * (time.thread_time() - worked):.0f}",
        }
        late, last = [], [time.perf_counter()]

        def beat(late: list[float] = late, last: list[float] = last) -> None:
            now = time.perf_counter()
            late.append(1e3 * (now - last[0]) - BEAT_MS)
            last[0] = now

        timer = QTimer()
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.timeout.connect(beat)
        timer.start(BEAT_MS)
        while any(thread.name == "loading torch" for thread in threading.enumerate()):
            wait(50)
        row["torch after s"] = f"{time.perf_counter() - began:.1f}"
        wait(SETTLE_MS)
        timer.stop()
        row["window stood still ms"] = f"{max(late):.0f}"
        rows.append(row)
        if number == 0:
            viewer.window.remove_dock_widget(frame)
            widget.deleteLater()
            wait(SETTLE_MS)
    viewer.close()
    print(json.dumps(rows))


def main() -> None:
    """Measure and print."""
    from machine import print_table

    print(f"\n  import napari_shiftvae: {import_milliseconds():.1f} ms, shortest of {REPEATS}")
    print(f"  napari's plugin discovery loads torch: {'yes' if discovery_loads_torch() else 'no'}")
    command = [sys.executable, __file__, "--dock"]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    print_table("The dock in a window", json.loads(printed.splitlines()[-1]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dock", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().dock:
        open_dock()
    else:
        from machine import on_this_machine  # loads torch

        with on_this_machine():
            main()
