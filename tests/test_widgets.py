"""The dock: a run by its button, the layers that appear, and what is left once it is closed."""

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")


from napari.layers import Image, Points, Vectors
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QApplication, QComboBox, QLineEdit

from driving import begin, press, run, wait_idle
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.images import Calibration, MicroscopeImage
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.train import TrainConfig
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget


def test_quick_run_makes_all_layers_on_the_image(qtbot, viewer, dock) -> None:
    run(qtbot, dock)
    kinds = {layer.name: type(layer) for layer in viewer.layers}
    assert kinds == {
        "made": Image,
        "made z1": Image,
        "made z2": Image,
        "made shift": Vectors,
        "made atoms": Points,
    }
    image = viewer.layers["made"]
    for layer in viewer.layers:
        np.testing.assert_allclose(layer.data_to_world((12, 34)), image.data_to_world((12, 34)))
        assert layer.units == image.units
    atoms = viewer.layers["made atoms"]
    columns = list(dock.session.run.atoms.columns)
    assert list(atoms.features.columns)[: len(columns)] == columns
    assert "Done" in dock.header.message.text()
    assert list(viewer.layers.selection) == [image]


@pytest.mark.parametrize("find_first", [False, True])
def test_the_dock_and_a_script_give_the_same_numbers(qtbot, dock, made, find_first) -> None:
    if find_first:
        press(qtbot, dock.atoms.find)
        wait_idle(qtbot, dock)
    run(qtbot, dock)
    image = MicroscopeImage(
        data=made, name="made", calibration=Calibration(pixel_size_nm=(0.015, 0.02))
    )
    script = finish(analyse(image, AnalysisConfig(train=TrainConfig(epochs=3))))
    by_dock = dock.session.run.atoms
    assert list(by_dock.columns) == list(script.atoms.columns)
    numbers = by_dock.select_dtypes("number")
    np.testing.assert_array_equal(numbers, script.atoms.select_dtypes("number"))


def test_a_result_stays_until_there_is_another(qtbot, viewer, dock) -> None:
    run(qtbot, dock)
    first, shown = viewer.layers["made atoms"], []
    dock.session.progressed.connect(lambda _: shown.append(first.visible))
    dock.train.model.choice.setCurrentIndex(1)  # the model just trained: nothing to show meanwhile
    run(qtbot, dock)
    assert len(shown) > 1
    assert all(shown)
    assert not first.visible
    assert dock.overlay.atoms is not first
    assert dock.overlay.atoms.visible


def test_a_second_run_makes_new_layers_and_leaves_the_first_alone(qtbot, viewer, dock) -> None:
    run(qtbot, dock)
    first = {layer.name: layer for layer in viewer.layers}
    z1 = first["made atoms"].features["z1"].copy()
    colours = first["made atoms"].face_color.copy()
    dock.train.form.setValue(TrainSettings(epochs=2, seed=5))
    run(qtbot, dock)
    assert len(viewer.layers) == 9
    assert all(layer in viewer.layers for layer in first.values())
    np.testing.assert_array_equal(first["made atoms"].features["z1"], z1)
    np.testing.assert_array_equal(first["made atoms"].face_color, colours)
    assert not first["made atoms"].visible
    assert dock.overlay.atoms is not first["made atoms"]


def test_closing_the_dock_in_mid_run_leaves_no_thread(qtbot, viewer, dock) -> None:
    begin(qtbot, dock)
    worker = dock.training._runner._worker
    frame = dock.parent()
    viewer.window.remove_dock_widget(frame)
    dock.deleteLater()
    qtbot.waitUntil(lambda: not worker.is_running)
    assert not any("Ctrl+Z" in str(keys) for keys in viewer.keymap)


def test_a_closed_dock_leaves_nothing_behind(qtbot, viewer, made) -> None:
    viewer.add_image(made, name="made")
    gc.collect()
    before = set(QApplication.topLevelWidgets())
    widget = ShiftVAEWidget(viewer)
    frame = viewer.window.add_dock_widget(widget)
    press(qtbot, widget.atoms.find)
    wait_idle(qtbot, widget)
    gone = weakref.ref(widget)
    del viewer.layers["made atoms"]  # napari's own controls of a layer are none of ours
    viewer.window.remove_dock_widget(frame)
    widget.deleteLater()
    del widget, frame
    qtbot.waitUntil(lambda: gc.collect() >= 0 and gone() is None)  # a thread may have to end first
    assert set(QApplication.topLevelWidgets()) <= before
    viewer.layers["made"].name = "still there"
    viewer.layers.clear()


def _up_to(child, panel) -> Iterator:
    """A tooltip may be that of the slider or heading which a control is a part of."""
    while child is not panel:
        yield child
        child = child.parent()


def test_every_control_explains_itself(dock) -> None:
    own = (dock.header, dock.atoms, dock.train, dock.explore, dock.fields)
    silent = [
        type(child).__name__
        for panel in own
        for kind in (QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit)
        for child in panel.findChildren(kind)
        if not any(widget.toolTip() for widget in _up_to(child, panel))
    ]
    assert silent == []


def test_importing_the_widgets_loads_neither_qt_nor_torch() -> None:
    code = (
        "import sys, napari_shiftvae.widgets\n"
        "assert not {'torch', 'qtpy', 'napari'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603


def test_opening_the_dock_loads_no_torch() -> None:
    code = (
        "import sys, napari_shiftvae.widgets.dock\n"
        "assert 'torch' not in sys.modules, sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603


def test_no_tab_is_wider_than_the_dock(qtbot, make_napari_viewer, made) -> None:
    """What is too wide is cut off at the right, without a bar to scroll it."""
    viewer = make_napari_viewer(show=True)  # napari's style makes fields wider
    viewer.add_image(made, name="made")
    dock = ShiftVAEWidget(viewer)
    viewer.window.add_dock_widget(dock)
    qtbot.waitUntil(lambda: dock.window().windowHandle().isExposed())
    for index in range(dock.tabs.count()):
        dock.tabs.setCurrentIndex(index)
        qtbot.wait(50)
        area = dock.tabs.widget(index)
        room = area.width() - area.verticalScrollBar().sizeHint().width()
        assert area.widget().minimumSizeHint().width() <= room, dock.tabs.tabText(index)
