"""Spectra in the dock: an axis is named, maps lie on the scan."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
from qtpy.QtCore import Qt

from aftermath import raises
from driving import press
from napari_shiftvae.core import train
from napari_shiftvae.core.checkpoint import runs_folder
from napari_shiftvae.core.errors import OUT_OF_MEMORY
from napari_shiftvae.core.progress import finish
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.spectra_run import analyse_spectra
from napari_shiftvae.core.train import TrainConfig
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget

PLACE = {"scale": (0.5, 2.0, 3.0), "translate": (100.0, 7.0, -4.0), "units": ("eV", "nm", "nm")}


@pytest.fixture
def scan() -> tuple[np.ndarray, np.ndarray]:
    """Peaks whose place falls along x; the energy axis comes first."""
    rng = np.random.default_rng(0)
    energy = np.arange(60.0)
    place = 28 + np.linspace(-4, 4, 14)[None, :] + np.zeros((12, 1))
    spectra = np.exp(-0.5 * ((energy[:, None, None] - place) / 4) ** 2)
    return (spectra + 0.02 * rng.standard_normal(spectra.shape)).astype(np.float32), place


@pytest.fixture
def dock(viewer: napari.Viewer, scan, open_dock) -> ShiftVAEWidget:
    viewer.add_image(scan[0], name="scan", axis_labels=("energy", "y", "x"), **PLACE)
    return open_dock(viewer, epochs=None)


def test_maps_of_shift_and_latents_lie_on_the_scan(qtbot, dock, scan) -> None:
    viewer = dock._viewer
    assert [dock.train.spectra.itemText(i) for i in range(4)][1:] == [
        "axis energy",
        "axis y",
        "axis x",
    ]
    dock.train.spectra.setCurrentText("axis energy")
    qtbot.mouseClick(dock.header.quick_run, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: dock.session.activity == "idle")
    layer = viewer.layers["scan shift (eV)"]
    shift = layer.data
    expected = 0.5 * (scan[1] - scan[1].mean())  # half an eV a step
    assert np.sqrt(np.mean((shift - shift.mean() - expected) ** 2)) < 0.05
    whole = viewer.layers["scan"].data_to_world((0, 5, 6))
    np.testing.assert_allclose(layer.data_to_world((5, 6)), whole[1:])
    assert [str(unit) for unit in layer.units] == ["nanometer", "nanometer"]
    assert {"scan z1", "scan z2"} <= {one.name for one in viewer.layers}
    assert "shifts are in eV" in dock.header.message.text()
    assert dock.header.quick_run.isEnabled()
    name = dock.header.message.text().partition("Saved: ")[2]
    viewer.layers.clear()
    viewer.open(str(runs_folder() / name), plugin="napari-shiftvae")
    assert [one.name for one in viewer.layers] == ["scan shift (eV)", "scan z1", "scan z2"]
    np.testing.assert_allclose(viewer.layers["scan shift (eV)"].data, shift, rtol=1e-6)


def test_an_image_offers_no_axis_of_spectra(qtbot, dock) -> None:
    dock._viewer.add_image(np.eye(9), name="flat")
    dock.header.chooser.setCurrentText("flat")
    assert dock.train._spectra_row.isHidden()
    assert dock.spectra.axis() is None
    dock.header.chooser.setCurrentText("scan")
    qtbot.wait(10)
    assert not dock.train._spectra_row.isHidden()


def test_stop_ends_the_training_of_spectra(qtbot, dock) -> None:
    dock.train.form.setValue(TrainSettings(epochs=100_000))
    dock.train.spectra.setCurrentText("axis energy")
    dock.quick_run()
    qtbot.waitUntil(lambda: len(dock.session.losses) > 2)
    dock.train.stop.click()
    qtbot.waitUntil(lambda: dock.session.activity == "idle")
    assert any("shift" in layer.name for layer in dock._viewer.layers)


def test_a_late_progress_does_not_hide_what_went_wrong(qtbot, dock, in_step) -> None:
    control = dock.spectra
    control._pace._next = time.perf_counter() + 600  # so that one waits
    control.job.runner.refused.connect(control._pace.catch_up)
    in_step(lambda *_: raises(MemoryError()))
    dock.train.spectra.setCurrentText("axis energy")
    press(qtbot, dock.header.quick_run)
    qtbot.waitUntil(lambda: dock.session.activity == "idle")
    assert OUT_OF_MEMORY in dock.header.message.text()


def test_a_training_that_a_closed_dock_interrupted_goes_on(
    qtbot, viewer, dock, scan, open_dock, in_step, monkeypatch
) -> None:
    """In the middle, and in another napari; the numbers stay the same."""
    monkeypatch.setattr(train, "REPORT_EVERY_S", 0.0)
    at_work = []

    def held(number: int, *_: object) -> None:
        """Go no further than eight steps, within the first part, before the dock is closed."""
        give_up = time.monotonic() + 60
        while number >= 8 and not (at_work and at_work[0].abort_requested):
            assert time.monotonic() < give_up
            time.sleep(0.005)

    in_step(held)
    dock.train.form.setValue(TrainSettings(epochs=40))
    dock.train.spectra.setCurrentText("axis energy")
    dock.quick_run()
    at_work.append(dock.spectra.job.runner._worker)
    qtbot.waitUntil(lambda: len(dock.session.losses) > 2)
    viewer.window.remove_dock_widget(dock.parent())
    dock.deleteLater()
    qtbot.waitUntil(lambda: not at_work[0].is_running)
    left = checkpoint_as_of_a_dead_process()
    again = open_dock(viewer, epochs=40)
    assert not again.train.resume.isEnabled()
    press(qtbot, again.notice.buttons["Restore"])
    assert "choose axis 0" in again.header.message.text()
    again.header.chooser.setCurrentText("scan")
    again.train.spectra.setCurrentText("axis energy")
    qtbot.waitUntil(again.train.resume.isEnabled)
    press(qtbot, again.train.resume)
    qtbot.waitUntil(lambda: again.session.activity == "idle")
    assert "40 epochs" in again.header.message.text()
    assert not left.exists()
    config = AnalysisConfig(train=TrainConfig(epochs=40))
    whole = finish(analyse_spectra(scan[0], 0, config, axis_scale=0.5, axis_unit="eV"))
    made = [one for one in viewer.layers if one.name.startswith("scan shift")][-1]
    np.testing.assert_array_equal(made.data, whole.maps["shift"])


def checkpoint_as_of_a_dead_process() -> Path:
    """That of this process counts as at work."""
    (left,) = runs_folder().glob("scan*.checkpoint.shiftvae")
    return left.rename(left.with_name(left.name.replace(f" {os.getpid()}.", " 999999999.")))
