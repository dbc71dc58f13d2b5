"""Napari's window while the dock trains: how long it stands still, what it costs, when it stops.

xvfb-run -a -s "-screen 0 1366x768x24" python benchmarks/gui_stall.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections import defaultdict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import napari
import numpy as np
from qtpy.QtCore import QEventLoop, QObject, Qt, QTimer

from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.widgets import ShiftVAEWidget
from napari_shiftvae.widgets.worker import LOADING

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_shiftvae.core.progress import Progress
    from napari_shiftvae.core.runs import Run
    from napari_shiftvae.core.train import TrainReport

BEAT_MS = 5
SETTLE_MS = 2000
SHAPE = (1334, 1334)  # about 5,000 columns
WINDOW = (1366, 768)
ENCODE = "encode: "  # before the stages of a run that reads the image with the model there is
STAGES = (
    *("idle", "find", "train", "refine", "fields", "results"),
    *(f"{ENCODE}{stage}" for stage in ("find", "refine", "fields", "results")),
)
STOPS = 12
MANY_EPOCHS = 100_000


class Heartbeat(QObject):
    """A timer of the main thread that notes how late it is called, and the work since then."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = "idle"
        self.late_ms: dict[str, list[float]] = defaultdict(list)
        self.work_ms: dict[str, list[float]] = defaultdict(list)
        self._last, self._worked = time.perf_counter(), time.thread_time()
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(BEAT_MS)
        self._timer.timeout.connect(self._beat)
        self._timer.start()

    def stop(self) -> None:
        """Beat no more."""
        self._timer.stop()

    def _beat(self) -> None:
        now, worked = time.perf_counter(), time.thread_time()
        self.late_ms[self.stage].append(max(0.0, 1e3 * (now - self._last) - BEAT_MS))
        self.work_ms[self.stage].append(1e3 * (worked - self._worked))
        self._last, self._worked = now, worked


def epoch_seconds(reports: list[TrainReport]) -> float:
    """Seconds per epoch, without the first, in which memory is laid out."""
    later = [report for report in reports if report.epoch >= 1]
    first, last = later[0], later[-1]
    steps_per_epoch = last.step / last.epoch
    return (last.seconds - first.seconds) / (last.step - first.step) * steps_per_epoch


def wait(milliseconds: int) -> None:
    """Let the window live for a while."""
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def run_in_window(
    widget: ShiftVAEWidget, heartbeat: Heartbeat, prefix: str = ""
) -> tuple[Run, list[TrainReport]]:
    """Press Quick run and wait for the end: result, and reports of the training."""
    reports: list[TrainReport] = []
    loop = QEventLoop()

    def at_progress(progress: Progress) -> None:
        heartbeat.stage = prefix + progress.stage
        if progress.report is not None:
            reports.append(progress.report)

    def at_activity(activity: str) -> None:
        if activity == "idle":
            heartbeat.stage = f"{prefix}results"
            loop.quit()

    widget.session.progressed.connect(at_progress)
    widget.session.activity_changed.connect(at_activity)
    before = widget.session.run
    heartbeat.stage = f"{prefix}find"
    QTimer.singleShot(0, widget.header.quick_run.click)
    loop.exec()
    wait(SETTLE_MS)
    widget.session.progressed.disconnect(at_progress)
    widget.session.activity_changed.disconnect(at_activity)
    run = widget.session.run
    if run is None or run is before:
        raise RuntimeError(f"the run failed: {widget.header.message.text()}")
    return run, reports


def train_in_window(widget: ShiftVAEWidget) -> list[TrainReport]:
    """Train once more, without the heartbeat, which takes its share; reports of the training."""
    reports: list[TrainReport] = []
    loop = QEventLoop()

    def at_progress(progress: Progress) -> None:
        if progress.report is not None:
            reports.append(progress.report)
        elif progress.stage == "refine":
            widget.training.cancel()

    def at_activity(activity: str) -> None:
        if activity == "idle":
            loop.quit()

    widget.session.progressed.connect(at_progress)
    widget.session.activity_changed.connect(at_activity)
    QTimer.singleShot(0, widget.header.quick_run.click)
    loop.exec()
    widget.session.progressed.disconnect(at_progress)
    widget.session.activity_changed.disconnect(at_activity)
    return reports


def seconds_to_stop(widget: ShiftVAEWidget, after_ms: int) -> tuple[float, float]:
    """Press Stop in mid-training: seconds until the dock says so, and until training has ended.

    It is pressed some time after a report: at once, the training would have heard of it first.
    """
    loop = QEventLoop()
    times: dict[str, float] = {}

    def press() -> None:
        times["pressed"] = time.perf_counter()
        widget.train.stop.click()
        times["said"] = time.perf_counter()

    def at_progress(progress: Progress) -> None:
        if progress.report is not None and progress.report.step > 20 and "begun" not in times:
            times["begun"] = time.perf_counter()
            QTimer.singleShot(after_ms, press)
        elif progress.stage == "refine" and "ended" not in times:
            times["ended"] = time.perf_counter()
            widget.training.cancel()

    def at_activity(activity: str) -> None:
        if activity == "idle":
            loop.quit()

    widget.session.progressed.connect(at_progress)
    widget.session.activity_changed.connect(at_activity)
    QTimer.singleShot(0, widget.header.quick_run.click)
    loop.exec()
    widget.session.progressed.disconnect(at_progress)
    widget.session.activity_changed.disconnect(at_activity)
    return times["said"] - times["pressed"], times["ended"] - times["pressed"]


def run_on_main_thread(image: MicroscopeImage, run: Run) -> list[TrainReport]:
    """The same training without the window's event loop."""
    from napari_shiftvae.core.analyse import analyse

    reports: list[TrainReport] = []
    for progress in analyse(image, run.config, positions_yx=run.picks_yx):
        if progress.report is not None:
            reports.append(progress.report)
        elif reports:
            break
    return reports


def longest_wait(late_ms: list[float], share: float) -> float:
    """How long an event of the user waits [ms], at all but a share of the moments.

    Of a stall of L ms all moments but the last w ms wait for longer than w. The sum of
    max(0, L - w) over the stalls is that share of the time; it is solved for w. A percentile of the
    beats flatters: a stall, however long, is one beat where there should have been many.
    """
    total_ms = sum(late_ms) + len(late_ms) * BEAT_MS
    longest_first = np.sort(late_ms)[::-1]
    number = np.arange(1, len(longest_first) + 1)
    return float(max(0.0, ((np.cumsum(longest_first) - share * total_ms) / number).max()))


def row(name: str, stages: list[str], heartbeat: Heartbeat) -> dict[str, str]:
    """One line of the table."""
    late = [one for stage in stages for one in heartbeat.late_ms[stage]]
    work = [one for stage in stages for one in heartbeat.work_ms[stage]]
    return {
        "stage": name,
        "s": f"{(sum(late) + len(late) * BEAT_MS) / 1e3:.1f}",
        "p99 of beats": f"{np.percentile(late, 99):.1f}",
        "p99 of time": f"{longest_wait(late, 0.01):.1f}",
        "max": f"{max(late):.1f}",
        "own p99": f"{np.percentile(work, 99):.1f}",
        "own max": f"{max(work):.1f}",
    }


def rows(heartbeat: Heartbeat) -> list[dict[str, str]]:
    """Lines of the table: each stage, then all of a run together."""
    met = [stage for stage in STAGES if heartbeat.late_ms[stage]]
    encoding = [stage for stage in met if stage.startswith(ENCODE)]
    training = [stage for stage in met if stage != "idle" and stage not in encoding]
    return [
        *(row(stage, [stage], heartbeat) for stage in met),
        row("all of a run", training, heartbeat),
        row(f"{ENCODE}all", encoding, heartbeat),
    ]


def options() -> argparse.Namespace:
    """Read the command line; end where there is no display."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few epochs")
    parser.add_argument("--epochs", type=int, help="default: as the dock chooses them")
    chosen = parser.parse_args()
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        sys.exit("There is no display: use `make benchmark`, or put `xvfb-run -a` in front.")
    return chosen


def open_window(pixels: NDArray[np.float32]) -> tuple[napari.Viewer, ShiftVAEWidget]:
    """Open the dock in a window, and wait until it has loaded torch."""
    viewer = napari.Viewer()
    viewer.window.resize(*WINDOW)
    viewer.add_image(pixels, name="perovskite")
    widget = ShiftVAEWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Shift-VAE")
    while any(thread.name == LOADING for thread in threading.enumerate()):
        wait(50)
    wait(SETTLE_MS)
    return viewer, widget


def napari_alone(pixels: NDArray[np.float32], positions_yx: NDArray[np.float64]) -> Heartbeat:
    """Add one plain layer after the other to a viewer without the plugin.

    Hidden first and then shown: no call of napari's divides the work further.
    """
    viewer = napari.Viewer()
    viewer.window.resize(*WINDOW)
    viewer.add_image(pixels)
    arrows = np.stack([positions_yx, np.ones_like(positions_yx)], axis=1)
    heartbeat = Heartbeat()
    for name, add in (
        ("first points", partial(viewer.add_points, positions_yx)),
        ("points", partial(viewer.add_points, positions_yx)),
        ("map", partial(viewer.add_image, pixels[::-1].copy(), opacity=0.5)),
        ("arrows", partial(viewer.add_vectors, arrows)),
    ):
        for what, step in (
            ("added", partial(add, visible=False)),
            ("shown", lambda: setattr(viewer.layers[-1], "visible", True)),
        ):
            wait(SETTLE_MS)
            heartbeat.stage = f"{name} {what}"
            QTimer.singleShot(0, step)
            wait(SETTLE_MS)
            heartbeat.stage = "idle"
    heartbeat.stop()
    viewer.close()
    return heartbeat


def measure(
    chosen: argparse.Namespace,
    pixels: NDArray[np.float32],
    viewer: napari.Viewer,
    widget: ShiftVAEWidget,
) -> None:
    """Measure and print."""
    from machine import print_table
    from napari_shiftvae.core import checkpoint

    form = widget.train.form
    form.setValue(replace(form.value(), epochs=6 if chosen.quick else chosen.epochs))
    heartbeat = Heartbeat()
    wait(SETTLE_MS)
    run, reports = run_in_window(widget, heartbeat)
    widget.train.model.choice.setCurrentIndex(1)  # the model just trained
    run_in_window(widget, heartbeat, ENCODE)
    widget.train.model.choice.setCurrentIndex(0)
    heartbeat.stop()
    count = int(run.used.sum())
    print_table(
        f"Main thread: how late a heartbeat of {BEAT_MS} ms is [ms], {count:,} atoms, "
        f"{run.epochs} epochs. 'own' is the main thread's work; the rest it waited.",
        rows(heartbeat),
    )
    image = MicroscopeImage(data=pixels, name="perovskite")
    in_worker = epoch_seconds(train_in_window(widget))
    on_main = epoch_seconds(run_on_main_thread(image, run))
    print(
        f"\n  Seconds per epoch of {count:,} patches of {run.model.config.patch_size_px} px: "
        f"{in_worker:.3f} in the worker with the window alive, {on_main:.3f} on the main thread, "
        f"ratio {in_worker / on_main:.2f}; {epoch_seconds(reports):.3f} in the run above."
    )
    form.setValue(replace(form.value(), epochs=MANY_EPOCHS))
    for every_s, when in (
        (checkpoint.CHECKPOINT_EVERY_S, "in mid-training"),
        (0.0, "while a checkpoint is being written"),
    ):
        checkpoint.autosaved.__kwdefaults__["every_s"] = every_s
        moments = np.random.default_rng(0).integers(0, 500, STOPS).tolist()
        said, ended = zip(*(seconds_to_stop(widget, one) for one in moments), strict=True)
        print(
            f"  Stop, pressed {STOPS} times {when}: the dock answers after {1e3 * max(said):.0f} "
            f"ms at most, training has ended after {1e3 * max(ended):.0f} ms."
        )
    viewer.close()
    alone = napari_alone(pixels, run.picks_yx)
    print_table(
        "napari without the plugin, given plain layers of as many atoms, a map, their arrows",
        [row(stage, [stage], alone) for stage in alone.late_ms if stage != "idle"],
    )


def main() -> None:
    """Open the window and measure."""
    chosen = options()
    pixels = perovskite(rng=np.random.default_rng(0), shape=SHAPE).image
    window = open_window(pixels)
    from machine import on_this_machine  # loads torch, which so far was left to the dock

    with on_this_machine():
        measure(chosen, pixels, *window)


if __name__ == "__main__":
    main()
