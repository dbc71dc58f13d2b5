"""A trained run used on another image, in the dock."""

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
from qtpy.QtCore import QPoint, Qt

from driving import press, wait_idle
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.apply import encode_steps
from napari_shiftvae.core.images import Calibration, MicroscopeImage
from napari_shiftvae.core.runfile import save_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget

PIXEL_NM, OTHER_NM = 0.015, 0.01


def as_image(pixels: np.ndarray, name: str, size_nm: float) -> MicroscopeImage:
    calibration = Calibration(pixel_size_nm=(size_nm, size_nm))
    return MicroscopeImage(data=pixels, name=name, calibration=calibration)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return [perovskite(rng=np.random.default_rng(n), shape=(150, 170)).image for n in range(2)]


@pytest.fixture(scope="module")
def run_file(images, tmp_path_factory):
    config = AnalysisConfig(train=TrainConfig(epochs=30))
    run = finish(analyse(as_image(images[0], "first", PIXEL_NM), config))
    return save_run(run, tmp_path_factory.mktemp("runs") / "first.shiftvae"), run


@pytest.fixture
def dock(viewer: napari.Viewer, images, open_dock) -> ShiftVAEWidget:
    viewer.add_image(images[1], name="second", scale=(OTHER_NM,) * 2, units=("nm", "nm"))
    widget = open_dock(viewer, epochs=None)
    widget.tabs.setCurrentIndex(1)
    return widget


def tick(qtbot, box) -> None:
    """Click where the mark is: the text may end before the middle."""
    qtbot.mouseClick(box, Qt.MouseButton.LeftButton, pos=QPoint(8, box.height() // 2))
    assert box.isChecked()


def choose_file(qtbot, dock: ShiftVAEWidget, path) -> None:
    dock.model_control.open(str(path))
    qtbot.waitUntil(lambda: dock.train.model.index is not None)


@pytest.mark.parametrize("resample", [False, True])
def test_image_is_read_with_the_model_of_a_run_file(
    qtbot, viewer, dock, images, run_file, resample
) -> None:
    path, first = run_file
    box = dock.train.model
    choose_file(qtbot, dock, path)
    assert box.choice.currentText() == "of first, first.shiftvae"
    assert "second are 0.01 x 0.01 nm and the model was trained with 0.015" in box.note.text()
    assert dock.train.form.isHidden()
    said: list[str] = []
    dock.session.progressed.connect(lambda progress: said.extend(progress.notes))
    if resample:
        tick(qtbot, box.resample)
        assert not box.note.text()
    tick(qtbot, box.own_intensity)
    press(qtbot, dock.train.run)
    wait_idle(qtbot, dock)
    assert any("resample the image" in note for note in said) is not resample
    run = dock.session.run
    image = as_image(images[1], "second", OTHER_NM)
    expected = finish(encode_steps(first, image, resample=resample, own_intensity=True))
    numbers = expected.atoms.select_dtypes("number")
    np.testing.assert_allclose(run.atoms.select_dtypes("number"), numbers, rtol=1e-6, atol=1e-9)
    assert run.trained_on.name == "first"
    assert "read with the model of 'first'" in dock.header.message.text()
    names = {layer.name for layer in viewer.layers}
    assert {"second atoms", "second z1", "second z2", "second shift"} <= names
    assert len(dock.session.picks) == len(run.atoms)
    assert not dock.train.resume.isEnabled()


def test_picks_by_hand_are_read(qtbot, dock, run_file) -> None:
    path, _ = run_file
    choose_file(qtbot, dock, path)
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    dock.session.change_picks(dock.session.picks.without([3, 5]))
    press(qtbot, dock.train.run)
    wait_idle(qtbot, dock)
    np.testing.assert_array_equal(dock.session.run.picks_yx, dock.session.picks.positions_yx)


def test_runs_in_the_viewer_are_offered_until_they_are_gone(qtbot, viewer, dock, images) -> None:
    box = dock.train.model
    assert box.choice.count() == 1
    dock.train.form.setValue(TrainSettings(epochs=2))
    press(qtbot, dock.train.run)
    wait_idle(qtbot, dock)
    assert box.choice.itemText(1) == "of second"
    assert not dock.train.form.isHidden()  # a new model is trained unless another is chosen
    viewer.add_image(images[0], name="first", scale=(OTHER_NM,) * 2, units=("nm", "nm"))
    dock.header.chooser.setCurrentText("first")
    box.choice.setCurrentIndex(1)
    assert box.note.text() == ""
    press(qtbot, dock.header.quick_run)
    wait_idle(qtbot, dock)
    assert dock.session.run.trained_on.name == "second"
    assert box.choice.count() == 2  # what was read is no model of its own
    for layer in list(viewer.layers):
        if layer.name.startswith("second "):
            viewer.layers.remove(layer)
    assert box.choice.count() == 1
    assert box.index is None
    assert not dock.train.form.isHidden()


def test_file_that_is_no_run_is_refused(qtbot, dock, tmp_path) -> None:
    (tmp_path / "a.shiftvae").write_bytes(b"no zip")
    dock.model_control.open(str(tmp_path / "a.shiftvae"))
    qtbot.waitUntil(lambda: "a.shiftvae" in dock.header.message.text())
    assert dock.train.model.choice.count() == 1
