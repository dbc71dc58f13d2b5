"""The dock over time: it opens without torch, Stop is obeyed at once, many runs leave nothing."""

import gc
import subprocess
import sys
import weakref
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication

from driving import press, wait_idle
from napari_shiftvae import garbage
from napari_shiftvae.layers import RUN
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget

RUNS = 4
OPEN_DOCK = """
import sys, threading, warnings
warnings.simplefilter("ignore")
imported_in = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            imported_in.append(threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Watch())
import napari
viewer = napari.Viewer(show=False)
import numpy as np
viewer.add_image(np.zeros((32, 32)))
from napari_shiftvae.widgets import ShiftVAEWidget
viewer.window.add_dock_widget(ShiftVAEWidget(viewer))
for thread in threading.enumerate():
    if thread.name == "loading torch":
        thread.join()
print(set(imported_in), "napari_shiftvae.core.analyse" in sys.modules)
viewer.close()
"""


class Pixels(np.ndarray):
    """Can be watched over."""


@pytest.fixture
def dock(viewer: napari.Viewer, made, open_dock) -> ShiftVAEWidget:
    viewer.add_image(made.copy(), name="made")
    return open_dock(viewer, epochs=2)


def test_opening_the_dock_loads_torch_in_another_thread() -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", OPEN_DOCK], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.stdout.split("\n")[0] == "{False} True", done.stdout + done.stderr


def test_stop_is_obeyed_within_two_steps(qtbot, dock, monkeypatch) -> None:
    from napari_shiftvae.core import train

    steps, step = [], train._step

    def counted(*args, **more):
        steps.append(1)
        return step(*args, **more)

    monkeypatch.setattr(train, "_step", counted)
    monkeypatch.setattr(train, "REPORT_EVERY_S", 0.0)  # it listens at each report
    dock.train.form.setValue(TrainSettings(epochs=100_000))
    press(qtbot, dock.header.quick_run)
    qtbot.waitUntil(lambda: len(steps) > 10)
    press(qtbot, dock.train.stop)
    pressed = len(steps)
    assert dock.session.activity == "stopping"
    wait_idle(qtbot, dock)
    assert len(steps) - pressed <= 2
    assert dock.session.run is not None


def test_layers_of_a_run_appear_one_in_a_turn(qtbot, viewer, dock) -> None:
    counts: list[int] = []  # of layers, after each turn of the event loop: the window is painted
    dock.training._turns._timer.timeout.connect(lambda: counts.append(len(viewer.layers)))
    press(qtbot, dock.header.quick_run)
    wait_idle(qtbot, dock)
    assert counts[-1] == 5
    assert max(after - before for before, after in pairwise(counts)) == 1


def test_a_layer_has_its_first_picture_before_the_window_is_painted(
    qtbot, make_napari_viewer, open_dock, made, monkeypatch
) -> None:
    """Programs are built for it then: window and layer each have a turn of the event loop."""
    viewer = make_napari_viewer(show=True)
    viewer.add_image(made, name="made")
    dock = open_dock(viewer)
    window = viewer.window._qt_window
    pictures: list[tuple[bool, bool]] = []
    picture = QOpenGLWidget.grabFramebuffer

    def noted_picture(canvas: QOpenGLWidget) -> object:
        pictures.append((viewer.layers[-1].visible, window.updatesEnabled()))
        return picture(canvas)

    with monkeypatch.context() as patch:
        patch.setattr(QOpenGLWidget, "grabFramebuffer", noted_picture)
        dock.overlay.runs.add([(np.ones((3, 2)), {"name": "dots"}, "points")])
        assert not window.updatesEnabled()
        qtbot.waitUntil(lambda: bool(pictures))
    assert pictures == [(True, False)]
    qtbot.waitUntil(window.updatesEnabled)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_window_is_painted_again_where_the_dock_is_closed_before(
    qtbot, viewer, open_dock, at
) -> None:
    dock = open_dock(viewer)
    window = viewer.window._qt_window
    dock.overlay.runs.add([(np.ones((3, 2)), {"name": "dots"}, "points")])
    for _ in range(at):
        dock.appearing._turns._on_timer()
    assert not window.updatesEnabled()
    viewer.window.remove_dock_widget(dock)
    dock.appearing.close()
    qtbot.waitUntil(window.updatesEnabled)


def test_runs_leave_nothing_when_their_layers_are_deleted(qtbot, viewer, dock) -> None:
    gone, widgets = [], []
    for _ in range(RUNS):
        press(qtbot, dock.header.quick_run)
        wait_idle(qtbot, dock)
        made = [layer for layer in viewer.layers if RUN in layer.metadata]
        gone += [weakref.ref(dock.session.run.model), *map(weakref.ref, made)]
        for layer in made:
            viewer.layers.remove(layer)
        del made, layer
        qtbot.wait(50)
        gc.collect()
        widgets.append(len(QApplication.allWidgets()))
    alive = [ref() for ref in gone[: -(1 + 4)] if ref() is not None]  # the last run may be open
    assert len(alive) <= 1  # a thread may still hold what it worked on last
    assert widgets[-1] <= widgets[1]


@pytest.mark.usefixtures("dock")
def test_an_image_that_was_deleted_is_forgotten_with_the_dock_open(qtbot, viewer) -> None:
    """What is there for long is left out of the searches for garbage, but not for good."""
    pixels = np.zeros((64, 64)).view(Pixels)
    viewer.add_image(pixels, name="other")
    left = weakref.ref(pixels)
    del pixels
    gc.unfreeze()
    garbage.thaw()
    gc.collect()
    assert gc.get_freeze_count() > 0
    viewer.layers.remove("other")
    qtbot.wait(50)
    gc.collect()
    assert left() is None
