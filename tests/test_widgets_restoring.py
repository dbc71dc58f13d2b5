"""Runs opened again: with their image, layers and settings, after a crash too."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
from qtpy.QtCore import QSettings
from qtpy.QtWidgets import QFileDialog

from driving import press
from napari_shiftvae import jobs
from napari_shiftvae.core import train
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.checkpoint import Autosave, runs_folder
from napari_shiftvae.core.images import Calibration, MicroscopeImage, read_image
from napari_shiftvae.core.runfile import load_run, save_run
from napari_shiftvae.core.runs import Run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig
from napari_shiftvae.docks import has_dock
from napari_shiftvae.settings import FindSettings, TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget
from napari_shiftvae.widgets.runs_folder import chosen_folder

CONFIG = AnalysisConfig(latent_dim=3, dark=False, train=TrainConfig(epochs=3, seed=5))


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("images") / "made.tif"
    tifffile.imwrite(path, perovskite(rng=np.random.default_rng(0), shape=(150, 170)).image)
    return path


@pytest.fixture(scope="module")
def run(file) -> Run:
    size = Calibration(pixel_size_nm=(0.015, 0.02))
    image = MicroscopeImage(data=read_image(file).data, name="made", path=file, calibration=size)
    return finish(analyse(image, CONFIG))


@pytest.fixture
def stopped(file, monkeypatch) -> Run:
    """What a crash leaves, after the first step."""
    monkeypatch.setattr(train, "REPORT_EVERY_S", 0.0)
    image = MicroscopeImage(data=read_image(file).data, name="made", path=file)
    for progress in analyse(image, CONFIG):
        if progress.snapshot is not None:
            return progress.snapshot()
    raise AssertionError("no training")


@pytest.fixture
def dock(viewer: napari.Viewer, open_dock) -> ShiftVAEWidget:
    return open_dock(viewer, epochs=None)


def wait_restored(qtbot, dock: ShiftVAEWidget) -> None:
    qtbot.waitUntil(lambda: dock.session.run is not None)


def names(viewer: napari.Viewer) -> list[str]:
    return [layer.name for layer in viewer.layers]


def test_own_run_comes_back_whole(qtbot, viewer, dock, run, file) -> None:
    """Image, layers that lie on it, their colours, picks and settings."""
    where = Autosave.of("made")
    where.folder.mkdir(parents=True, exist_ok=True)
    save_run(run, where.finished)
    viewer.open(str(where.finished), plugin="napari-shiftvae")
    wait_restored(qtbot, dock)
    assert names(viewer) == ["made", "made z1", "made z2", "made z3", "made atoms", "made shift"]
    image, atoms = viewer.layers["made"], viewer.layers["made atoms"]
    np.testing.assert_array_equal(image.data, read_image(file).data)
    for layer in viewer.layers:
        np.testing.assert_allclose(layer.data_to_world((3, 4)), (0.045, 0.08))
        assert [str(unit) for unit in layer.units] == ["nanometer", "nanometer"]
    assert len(np.unique(atoms.face_color, axis=0)) > 20
    assert len(dock.session.picks) == len(run.atoms)
    np.testing.assert_allclose(dock.session.run.atoms["z1"], run.atoms["z1"], rtol=1e-6)
    assert dock.train.form.value() == TrainSettings(latent_dim=3, epochs=3, seed=5)
    assert dock.atoms.form.value() == FindSettings()
    assert not dock.notice.buttons
    dock.train.form.setValue(TrainSettings(latent_dim=3, epochs=5, seed=5))
    press(qtbot, dock.train.resume)  # the file holds the state of the training
    qtbot.waitUntil(lambda: dock.session.run.epochs == 5)
    assert dock.session.run.image.path == str(file)


def test_strangers_run_asks_before_a_path_is_opened(
    qtbot, viewer, dock, run, tmp_path, file, monkeypatch
) -> None:
    read = []
    original = jobs.read_image
    monkeypatch.setattr(jobs, "read_image", lambda path: read.append(path) or original(path))
    path = save_run(run, tmp_path / "theirs")
    viewer.open(str(path), plugin="napari-shiftvae")
    qtbot.wait(50)
    assert not read
    assert "made" not in names(viewer)
    assert str(file) in dock.notice.sentence.text()
    assert list(dock.notice.buttons) == ["Open_it", "Choose_file", "Without"]
    press(qtbot, dock.notice.buttons["Open_it"])
    wait_restored(qtbot, dock)
    assert names(viewer)[0] == "made"


def test_image_that_was_moved_is_asked_for_and_compared(
    qtbot, viewer, dock, run, tmp_path, file, monkeypatch
) -> None:
    path = save_run(run, tmp_path / "theirs")
    viewer.open(str(path), plugin="napari-shiftvae")
    other = tmp_path / "other.tif"
    tifffile.imwrite(other, read_image(file).data + 1)
    wrong = {other: "its pixels are others", tmp_path / "missing.tif": "There is no file"}
    for chosen, sentence in wrong.items():
        monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_, c=chosen: (str(c), ""))
        press(qtbot, dock.notice.buttons["Choose_file"])
        qtbot.waitUntil(lambda: bool(dock.notice.buttons))
        assert sentence in dock.notice.sentence.text()
        assert sentence in dock.header.message.text()
        assert dock.session.run is None
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(file), ""))
    press(qtbot, dock.notice.buttons["Choose_file"])
    wait_restored(qtbot, dock)


def test_image_that_is_open_is_found_among_others(viewer, dock, run, tmp_path, file) -> None:
    data = read_image(file).data
    viewer.add_image(data, name="again", translate=(5, 6), scale=(2, 3))
    viewer.add_image(data[:, :-3], name="another")
    dock.header.chooser.choose(viewer.layers["another"])
    viewer.open(str(save_run(run, tmp_path / "made")), plugin="napari-shiftvae")
    assert dock.header.chooser.current is viewer.layers["again"]
    assert dock.session.run is not None
    for name in ("made z1", "made atoms", "made shift"):
        np.testing.assert_allclose(viewer.layers[name].data_to_world((3, 4)), (11, 18))


def test_interrupted_analysis_is_offered_and_goes_on(qtbot, viewer, runs, stopped) -> None:
    left = Autosave.of("made").checkpoint
    left = left.with_name(left.name.replace(f" {os.getpid()}.", " 999999999."))  # of a dead process
    left.parent.mkdir(parents=True, exist_ok=True)
    save_run(stopped, left)
    dock = ShiftVAEWidget(viewer)
    viewer.window.add_dock_widget(dock)
    assert "'made', begun" in dock.notice.sentence.text()
    press(qtbot, dock.notice.buttons["Discard"])
    press(qtbot, dock.notice.buttons["Keep"])
    assert left.exists()
    press(qtbot, dock.notice.buttons["Restore"])
    wait_restored(qtbot, dock)
    assert "is at epoch" in dock.notice.sentence.text()
    press(qtbot, dock.notice.buttons["Resume"])
    qtbot.waitUntil(lambda: dock.session.activity == "idle")
    assert dock.session.run.finished, dock.header.message.text()
    assert not left.exists()
    (saved,) = runs.iterdir()
    assert load_run(saved).finished
    again = ShiftVAEWidget(viewer)
    qtbot.addWidget(again)
    assert not again.notice.buttons
    for one in (dock, again):
        one.restoring.close()
        one.training.close()
        one.atoms_control.close()
        one.pixel_size.close()


def test_what_was_left_can_be_deleted(qtbot, viewer, stopped) -> None:
    left = runs_folder() / "made 2026-01-02 03.04.05 999999999.checkpoint.shiftvae"
    left.parent.mkdir(parents=True, exist_ok=True)
    save_run(stopped, left)
    dock = ShiftVAEWidget(viewer)
    viewer.window.add_dock_widget(dock)
    assert "begun 2026-01-02 03:04:05" in dock.notice.sentence.text()
    press(qtbot, dock.notice.buttons["Discard"])
    press(qtbot, dock.notice.buttons["Delete"])
    assert not left.exists()
    dock.restoring.close()
    dock.atoms_control.close()


def test_runs_are_saved_in_the_folder_that_was_chosen(
    qtbot, viewer, dock, file, tmp_path, tmp_path_factory, monkeypatch
) -> None:
    remembered = str(tmp_path_factory.mktemp("settings") / "dock.ini")  # this test's own
    monkeypatch.setattr(
        "napari_shiftvae.widgets.runs_folder._settings",
        lambda: QSettings(remembered, QSettings.Format.IniFormat),
    )
    viewer.open(str(file))
    dock.train.form.setValue(TrainSettings(epochs=3))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    press(qtbot, dock.train.folder.change)
    assert str(tmp_path) in dock.train.folder.text.text()
    assert chosen_folder() == tmp_path  # also of the next dock, and of the next session
    press(qtbot, dock.header.quick_run)
    qtbot.waitUntil(lambda: dock.session.activity == "idle")
    (saved,) = tmp_path.iterdir()
    viewer.layers.clear()
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(saved), ""))
    press(qtbot, dock.train.folder.open)
    wait_restored(qtbot, dock)
    assert names(viewer)[0] == "made"


def test_a_run_opened_without_the_dock_opens_it(viewer, run, tmp_path) -> None:
    viewer.open(str(save_run(run, tmp_path / "made")), plugin="napari-shiftvae")
    assert has_dock(viewer)
    _, dock = viewer.window.add_plugin_dock_widget("napari-shiftvae", "Shift-VAE")  # that one
    assert list(dock.notice.buttons) == ["Open_it", "Choose_file", "Without"]
