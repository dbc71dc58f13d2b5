"""The dock, driven as a person drives it: buttons, fields, and the layers that appear."""

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import tifffile

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
from napari.layers import Image, Points, Shapes, Vectors
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.layers import latent_colours
from napari_shiftvae.picks import Picks
from napari_shiftvae.settings import FindSettings, TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget
from napari_shiftvae.widgets.find_form import FindForm
from napari_shiftvae.widgets.train_form import TrainForm

WAIT_MS = 60_000
PLACE = {
    "scale": (0.015, 0.02),
    "rotate": 20.0,
    "translate": (3.0, -7.0),
    "units": ("nm", "nm"),
    "axis_labels": ("y", "x"),
}


@pytest.fixture(scope="module")
def made() -> np.ndarray:
    return perovskite(rng=np.random.default_rng(0), shape=(150, 170)).image


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., napari.Viewer]) -> napari.Viewer:
    return make_napari_viewer()


@pytest.fixture
def dock(viewer: napari.Viewer, made: np.ndarray) -> Iterator[ShiftVAEWidget]:
    viewer.add_image(made, name="made", **PLACE)
    widget = ShiftVAEWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.train.form.setValue(TrainSettings(epochs=6))
    yield widget
    widget.training.close()
    widget.atoms_control.close()
    widget.pixel_size.close()


def press(qtbot, button) -> None:
    qtbot.waitUntil(button.isEnabled, timeout=WAIT_MS)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def wait_idle(qtbot, dock: ShiftVAEWidget) -> None:
    qtbot.waitUntil(lambda: dock.session.activity == "idle", timeout=WAIT_MS)


def run(qtbot, dock: ShiftVAEWidget) -> None:
    press(qtbot, dock.header.quick_run)
    wait_idle(qtbot, dock)


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
    from napari_shiftvae.core.analyse import analyse, finish
    from napari_shiftvae.core.images import Calibration, MicroscopeImage
    from napari_shiftvae.core.settings import AnalysisConfig
    from napari_shiftvae.core.train import TrainConfig

    if find_first:
        press(qtbot, dock.atoms.find)
        wait_idle(qtbot, dock)
    run(qtbot, dock)
    image = MicroscopeImage(
        data=made, name="made", calibration=Calibration(pixel_size_nm=(0.015, 0.02))
    )
    script = finish(analyse(image, AnalysisConfig(train=TrainConfig(epochs=6))))
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


def test_find_fills_the_atoms_layer_and_counts(qtbot, viewer, dock) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    atoms = viewer.layers["made atoms"]
    assert len(atoms.data) > 40
    counted = f"<b>{len(atoms.data)}</b> atoms"
    qtbot.waitUntil(lambda: counted in dock.atoms.count.text(), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: "too near the border" in dock.atoms.count.text(), timeout=WAIT_MS)
    assert (atoms.features["set_aside"] == "border").any()
    # separation in pixels and nm
    assert "nm" in dock.atoms.form.separation_note.text()


def test_the_threshold_slider_shows_its_spots_at_once(qtbot, viewer, dock) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    atoms, slider = viewer.layers["made atoms"], dock.atoms.form.threshold
    found = len(atoms.data)
    counts = []
    for threshold in (0.5, 0.7, 0.9):
        slider.setValue(threshold)
        assert dock.session.activity == "idle"  # no thread: it is fast enough
        counts.append(len(atoms.data))
    assert found > counts[1] > counts[2]
    press(qtbot, dock.atoms.undo)
    assert len(atoms.data) == found
    press(qtbot, dock.atoms.redo)
    assert len(atoms.data) == counts[2]


def test_picks_by_hand_outlive_finding(qtbot, viewer, dock) -> None:
    dock.session.change_picks(Picks.none().added((75.5, 80.25)))
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    atoms = viewer.layers["made atoms"]
    assert (75.5, 80.25) in set(map(tuple, atoms.data))
    assert atoms.features["by_hand"].sum() == 1
    qtbot.waitUntil(lambda: "1 of them by hand" in dock.atoms.count.text(), timeout=WAIT_MS)


def test_what_napari_s_own_tools_do_is_taken_over_and_undone(qtbot, viewer, dock) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    atoms = viewer.layers["made atoms"]
    before = atoms.data.copy()
    atoms.selected_data = {0, 1, 2}
    atoms.remove_selected()
    atoms.add([20.0, 30.0])
    assert len(dock.session.picks) == len(before) - 2
    assert dock.session.picks.by_hand.tolist()[-1]
    press(qtbot, dock.atoms.undo)
    press(qtbot, dock.atoms.undo)
    np.testing.assert_array_equal(atoms.data, before)


def test_a_deleted_atoms_layer_comes_back_with_undo(qtbot, viewer, dock) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    before = viewer.layers["made atoms"].data.copy()
    del viewer.layers["made atoms"]
    assert len(dock.session.picks) == 0
    press(qtbot, dock.atoms.undo)
    np.testing.assert_array_equal(viewer.layers["made atoms"].data, before)


def test_the_patch_square_is_drawn_while_the_train_tab_is_open(qtbot, viewer, dock) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    dock.tabs.setCurrentIndex(1)
    qtbot.waitUntil(lambda: "made patch" in viewer.layers, timeout=WAIT_MS)
    square, image = viewer.layers["made patch"], viewer.layers["made"]
    assert isinstance(square, Shapes)
    np.testing.assert_allclose(square.data_to_world((1, 2)), image.data_to_world((1, 2)))
    side = np.ptp(square.data[0][:, 0])
    np.testing.assert_allclose(square.edge_width, side / 20)  # a frame, wherever it is drawn
    dock.train.form.patch_size.setValue(24)
    qtbot.waitUntil(lambda: np.ptp(square.data[0][:, 0]) == 24, timeout=WAIT_MS)
    assert "24 px = " in dock.train.form.patch_note.text()
    centre = square.data[0].mean(axis=0)
    assert np.abs(viewer.layers["made atoms"].data - centre).max(axis=1).min() <= 0.5
    dock.tabs.setCurrentIndex(0)
    assert "made patch" not in viewer.layers


def test_atoms_are_recoloured_while_training_goes_on(qtbot, viewer, dock) -> None:
    dock.train.form.setValue(TrainSettings(epochs=100_000))
    press(qtbot, dock.header.quick_run)
    qtbot.waitUntil(lambda: "made atoms" in viewer.layers, timeout=WAIT_MS)
    atoms, seen = viewer.layers["made atoms"], []

    def coloured() -> bool:
        seen.append(atoms.face_color.copy())
        return len({colours.tobytes() for colours in seen if colours[:, 3].any()}) > 2

    qtbot.waitUntil(coloured, timeout=WAIT_MS)
    assert "left" in dock.train.status.text()
    press(qtbot, dock.train.stop)
    wait_idle(qtbot, dock)
    assert dock.session.run is not None
    assert dock.session.run.epochs < 100_000
    assert "z1" in atoms.features


def test_stop_before_training_has_begun_is_not_forgotten(qtbot, dock) -> None:
    dock.train.form.setValue(TrainSettings(epochs=100_000))
    press(qtbot, dock.train.run)
    press(qtbot, dock.train.stop)
    wait_idle(qtbot, dock)
    assert dock.session.run.epochs < 1000
    assert "stopped after" in dock.train.status.text()


def test_resume_goes_on_where_stop_stopped(qtbot, dock) -> None:
    dock.train.form.setValue(TrainSettings(epochs=100_000))
    press(qtbot, dock.train.run)
    qtbot.waitUntil(lambda: len(dock.session.losses) > 2, timeout=WAIT_MS)
    press(qtbot, dock.train.stop)
    wait_idle(qtbot, dock)
    first, losses = dock.session.run, len(dock.session.losses)
    press(qtbot, dock.train.resume)
    qtbot.waitUntil(lambda: len(dock.session.losses) > losses + 2, timeout=WAIT_MS)
    press(qtbot, dock.train.stop)
    wait_idle(qtbot, dock)
    assert dock.session.run.epochs >= first.epochs
    assert dock.session.losses[losses].epoch >= first.epochs


def test_cancel_in_the_activity_dock_ends_without_a_result(qtbot, viewer, dock) -> None:
    from napari.utils.progress import progress

    dock.train.form.setValue(TrainSettings(epochs=100_000))
    press(qtbot, dock.train.run)
    qtbot.waitUntil(lambda: len(dock.session.losses) > 2, timeout=WAIT_MS)
    (bar,) = [one for one in progress._all_instances if "made" in one.desc]
    bar.cancel()
    wait_idle(qtbot, dock)
    assert dock.session.run is None
    assert "Cancelled" in dock.header.message.text()
    assert (viewer.layers["made atoms"].face_color[:, 3] == 0).all()
    assert bar not in progress._all_instances


def test_one_run_at_a_time(qtbot, dock) -> None:
    dock.train.form.setValue(TrainSettings(epochs=100_000))
    press(qtbot, dock.train.run)
    assert not dock.header.quick_run.isEnabled()
    assert not dock.train.run.isEnabled()
    dock.quick_run()  # as a script would
    qtbot.waitUntil(lambda: len(dock.session.losses) > 0, timeout=WAIT_MS)
    press(qtbot, dock.train.stop)
    wait_idle(qtbot, dock)
    assert dock.header.quick_run.isEnabled()


def test_image_deleted_in_mid_run(qtbot, viewer, dock) -> None:
    dock.train.form.setValue(TrainSettings(epochs=100_000))
    press(qtbot, dock.train.run)
    qtbot.waitUntil(lambda: len(dock.session.losses) > 0, timeout=WAIT_MS)
    del viewer.layers["made"]
    press(qtbot, dock.train.stop)
    wait_idle(qtbot, dock)
    assert "made z1" in viewer.layers  # what was learned is not lost
    assert not dock.header.quick_run.isEnabled()
    assert "Open an image" in dock.header.message.text()


def test_atoms_deleted_in_mid_run(qtbot, viewer, dock) -> None:
    dock.train.form.setValue(TrainSettings(epochs=100_000))
    press(qtbot, dock.train.run)
    qtbot.waitUntil(lambda: len(dock.session.losses) > 0, timeout=WAIT_MS)
    del viewer.layers["made atoms"]
    press(qtbot, dock.train.stop)
    wait_idle(qtbot, dock)
    assert "z1" in viewer.layers["made atoms"].features


def test_closing_the_viewer_in_mid_run_leaves_no_thread(qtbot, viewer, dock) -> None:
    dock.train.form.setValue(TrainSettings(epochs=100_000))
    press(qtbot, dock.train.run)
    qtbot.waitUntil(lambda: len(dock.session.losses) > 0, timeout=WAIT_MS)
    worker = dock.training._runner._worker
    assert any("shift-VAE analysis of 'made'" in text for text in busy_with(viewer))
    viewer.close()
    qtbot.waitUntil(lambda: not worker.is_running, timeout=10_000)


def test_closing_the_dock_in_mid_run_leaves_no_thread(qtbot, viewer, dock) -> None:
    dock.train.form.setValue(TrainSettings(epochs=100_000))
    press(qtbot, dock.train.run)
    qtbot.waitUntil(lambda: len(dock.session.losses) > 0, timeout=WAIT_MS)
    worker = dock.training._runner._worker
    frame = dock.parent()
    viewer.window.remove_dock_widget(frame)
    dock.deleteLater()
    qtbot.waitUntil(lambda: not worker.is_running, timeout=10_000)
    assert not any("Ctrl+Z" in str(keys) for keys in viewer.keymap)


def test_a_closed_dock_leaves_nothing_behind(qtbot, viewer, made) -> None:
    viewer.add_image(made, name="made", **PLACE)
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


def busy_with(viewer: napari.Viewer) -> list[str]:
    """What napari lists in the question it asks on closing."""
    return viewer.window._task_status_manager.get_status()


def test_explore_shows_the_run(finished_dock) -> None:
    made = perovskite(rng=np.random.default_rng(0), shape=(150, 170)).image
    dock = finished_dock(made, tab=1, epochs=2)
    assert not dock.explore.content.isHidden()
    assert dock.explore.scatter.dots.getData()[0].size == 0  # nobody sees it yet
    dock.tabs.setCurrentIndex(2)
    used = int(dock.session.run.used.sum())
    x, _ = dock.explore.scatter.dots.getData()
    assert len(x) == used
    assert {dock.explore.x.itemText(i) for i in range(dock.explore.x.count())} >= {
        "z1",
        "shift_y_px",
        "residual",
    }
    dock.explore.y.setCurrentText("residual")
    np.testing.assert_allclose(
        np.sort(dock.explore.scatter.dots.getData()[1]),
        np.sort(dock.session.run.atoms["residual"].dropna()),
    )
    side = dock.session.run.model.config.patch_size_px
    assert dock.explore.patterns.grid.pixels.shape == (9 * side, 9 * side, 2)


def read(qtbot, dock, change: Callable[[], None] = lambda: None) -> None:
    """Change something in the Fields tab and wait until it is worked out."""
    with qtbot.waitSignal(dock.fields_control.read, timeout=WAIT_MS):
        change()


def test_fields_drive_the_layers(qtbot, viewer, dock) -> None:
    with qtbot.waitSignal(dock.fields_control.read, timeout=WAIT_MS):
        run(qtbot, dock)
    arrows, fields = viewer.layers["made shift"], dock.fields
    assert fields.arrows.isChecked() == arrows.visible
    fields.gain.setValue(33)
    assert arrows.length == 33
    vectors = arrows.data.copy()
    read(qtbot, dock, lambda: fields.vectors.setCurrentText("shift from the pick"))
    assert not np.array_equal(vectors, arrows.data)
    read(qtbot, dock, lambda: fields.position.setCurrentText("whole pattern"))
    atoms = dock.session.run.atoms.loc[dock.session.run.used]
    np.testing.assert_allclose(
        arrows.data[:, 1], atoms[["shift_y_px", "shift_x_px"]].to_numpy(), atol=1e-5
    )
    fields.map.setCurrentText("z2")
    assert [viewer.layers[f"made {name}"].visible for name in ("z1", "z2")] == [False, True]
    fields.map.setCurrentText("none")
    assert not viewer.layers["made z2"].visible
    fields.arrows.setChecked(not fields.arrows.isChecked())
    assert arrows.visible == fields.arrows.isChecked()
    assert "(pm)" in fields.arrow_bar.toolTip()


def test_maps_of_fields_are_layers_on_the_image_with_units(qtbot, viewer, dock) -> None:
    with qtbot.waitSignal(dock.fields_control.read, timeout=WAIT_MS):
        run(qtbot, dock)
    dock.fields.map.setCurrentText("along y")
    qtbot.waitUntil(lambda: "made along y" in viewer.layers, timeout=WAIT_MS)
    layer = viewer.layers["made along y"]
    image = viewer.layers["made"]
    np.testing.assert_allclose(layer.data_to_world((12, 34)), image.data_to_world((12, 34)))
    low, high = layer.contrast_limits
    assert low == pytest.approx(-high)  # zero is in the middle
    assert "along y (pm)" in dock.fields.map_bar.toolTip()
    assert "Standard deviation" in dock.fields.map_note.text()
    dock.fields.map.setCurrentText("z1")
    assert not layer.visible
    assert viewer.layers["made z1"].visible


def test_arrows_by_angle_and_without_noise(qtbot, viewer, dock) -> None:
    with qtbot.waitSignal(dock.fields_control.read, timeout=WAIT_MS):
        run(qtbot, dock)
    arrows = viewer.layers["made shift"]
    everything = len(arrows.data)
    dock.fields.colour.setCurrentText("angle")
    assert arrows.edge_contrast_limits == (-180, 180)
    y, x = (arrows.data[:, 1] * PLACE["scale"]).T  # the pixels are not square
    angle = np.rad2deg(np.arctan2(y, x))
    np.testing.assert_allclose(arrows.features["angle_degree"], angle)
    assert dock.fields.wheel.isVisibleTo(dock.fields)
    assert not dock.fields.arrow_bar.isVisibleTo(dock.fields)
    dock.fields.hide_noise.setChecked(True)
    assert len(arrows.data) <= everything


def test_what_cannot_be_worked_out_is_said_and_the_rest_stays(qtbot, viewer, dock) -> None:
    with qtbot.waitSignal(dock.fields_control.read, timeout=WAIT_MS):
        run(qtbot, dock)
    before = viewer.layers["made shift"].data.copy()
    dock.fields.vectors.setCurrentText("polar displacement between sublattices")
    qtbot.waitUntil(lambda: "press Group" in dock.header.message.text(), timeout=WAIT_MS)
    np.testing.assert_array_equal(viewer.layers["made shift"].data, before)


def test_reconstruction_and_residual_are_layers(qtbot, viewer, dock) -> None:
    dock.train.form.setValue(TrainSettings(epochs=25))
    run(qtbot, dock)
    press(qtbot, dock.fields.model_layers)
    qtbot.waitUntil(lambda: "made residual" in viewer.layers, timeout=WAIT_MS)
    drawn = viewer.layers["made reconstruction"].data
    image = viewer.layers["made"].data
    there = np.isfinite(drawn)
    assert there.mean() > 0.5
    assert np.corrcoef(drawn[there], image[there])[0, 1] > 0.8


def test_a_run_is_saved_and_exported_from_the_fields(qtbot, dock, tmp_path, monkeypatch) -> None:
    from qtpy.QtWidgets import QFileDialog

    from napari_shiftvae.core.runfile import load_run

    with qtbot.waitSignal(dock.fields_control.read, timeout=WAIT_MS):
        run(qtbot, dock)
    assert "Saved: made" in dock.header.message.text()
    path = tmp_path / "mine"  # the ending is added
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    press(qtbot, dock.fields.save)
    qtbot.waitUntil(lambda: "Wrote" in dock.header.message.text(), timeout=WAIT_MS)
    again = load_run(tmp_path / "mine.shiftvae")
    numbers = dock.session.run.atoms.select_dtypes("number")
    np.testing.assert_allclose(again.atoms[numbers.columns], numbers)
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    press(qtbot, dock.fields.export)
    qtbot.waitUntil(lambda: "files into" in dock.header.message.text(), timeout=WAIT_MS)
    names = {one.name for one in folder.iterdir()}
    assert {"atoms.csv", "reproduce.py"} <= names
    assert any(name.endswith(".tif") and "exx" in name for name in names)


def test_atoms_scatter_and_map_share_their_colours(qtbot, viewer, dock) -> None:
    run(qtbot, dock)
    atoms, used = viewer.layers["made atoms"], dock.session.run.used
    table = dock.session.run.atoms

    def shows(column: str) -> bool:
        expected = latent_colours(table[column])[used]
        return np.allclose(atoms.face_color[used], expected, atol=0.01)

    assert shows("z1")
    dock.explore.colour.setCurrentText("residual")
    assert shows("residual")
    dock.fields.map.setCurrentText("z2")
    assert shows("z2")
    assert dock.explore.colour.currentText() == "z2"


def test_windows_on_a_grid_need_no_atoms(qtbot, viewer, dock) -> None:
    dock.atoms.form.setValue(FindSettings(sampling="grid", count=150))
    run(qtbot, dock)
    assert dock.session.run.config.sampling == "grid"
    np.testing.assert_array_equal(viewer.layers["made atoms"].data, dock.session.run.picks_yx)


def test_windows_on_a_grid_leave_the_picks_alone(qtbot, viewer, dock) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    picks = viewer.layers["made atoms"].data.copy()
    dock.atoms.form.setValue(FindSettings(sampling="grid", count=150))
    run(qtbot, dock)
    np.testing.assert_array_equal(viewer.layers["made atoms"].data, picks)
    assert "z1" in viewer.layers["made atoms [1]"].features


def test_fields_survive_deleted_layers(qtbot, viewer, dock) -> None:
    with qtbot.waitSignal(dock.fields_control.read, timeout=WAIT_MS):
        run(qtbot, dock)
    for name in ("made shift", "made z1", "made z2", "made atoms"):
        del viewer.layers[name]
    dock.fields.map.setCurrentText("z1")
    dock.fields.gain.setValue(12)
    dock.fields.arrows.setChecked(False)
    dock.fields.arrows.setChecked(True)
    assert viewer.layers["made shift"].length == 12


@pytest.mark.parametrize(
    "settings",
    [
        TrainSettings(),
        TrainSettings(
            patch_size_px=31,
            latent_dim=4,
            sublattices="examples",
            invariances=("shift", "scale"),
            classes=3,
            smoothness=0.7,
            edge_preserving=False,
            decoder="coordinate",
            shift_prior_px=1.7,
            kl_shift=0.5,
            kl_content=4.0,
            epochs=12,
            batch_size=64,
            seed=9,
        ),
    ],
)
def test_train_form_round_trip(qtbot, settings) -> None:
    form = TrainForm()
    qtbot.addWidget(form)
    form.setValue(TrainSettings(seed=1))
    with qtbot.waitSignal(form.valueChanged) as heard:
        form.setValue(settings)
    assert form.value() == settings == heard.args[0]


def test_find_form_round_trip(qtbot) -> None:
    form = FindForm()
    qtbot.addWidget(form)
    settings = FindSettings(
        dark=True, separation_px=12.5, threshold=0.4, sampling="grid", count=300
    )
    with qtbot.waitSignal(form.valueChanged) as heard:
        form.setValue(settings)
    assert form.value() == settings == heard.args[0]
    form.setValue(FindSettings())
    assert form.value() == FindSettings()


def test_every_control_explains_itself(dock) -> None:
    from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit

    own = (dock.header, dock.atoms, dock.train, dock.explore, dock.fields)
    silent = [
        type(child).__name__
        for panel in own
        for kind in (QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit)
        for child in panel.findChildren(kind)
        if not any(widget.toolTip() for widget in _up_to(child, panel))
    ]
    assert silent == []


def _up_to(child, panel) -> Iterator:
    """A tooltip may be that of the slider or heading which a control is a part of."""
    while child is not panel:
        yield child
        child = child.parent()


def test_pixel_size_is_shown_and_edited(qtbot, viewer, dock) -> None:
    field = dock.header.pixel_size
    assert field.text.text() == "15 × 20 pm"
    run(qtbot, dock)
    press(qtbot, field.edit)
    field.number.setText("0.03")
    field.unit.setCurrentText("nm")
    press(qtbot, field.apply)
    assert field.text.text() == "30 pm"
    image = viewer.layers["made"]
    np.testing.assert_allclose(image.scale, (0.03, 0.03))
    for layer in viewer.layers:
        np.testing.assert_allclose(layer.data_to_world((12, 34)), image.data_to_world((12, 34)))


def test_pixel_size_in_the_file_is_found_and_used(qtbot, viewer, made, tmp_path) -> None:
    path = tmp_path / "film.ome.tif"
    pixel = {"PhysicalSizeX": 15.0, "PhysicalSizeY": 20.0}
    pixel |= {"PhysicalSizeXUnit": "pm", "PhysicalSizeYUnit": "pm"}
    tifffile.imwrite(path, made, metadata={"axes": "YX", **pixel})
    viewer.open(path, plugin="napari")
    widget = ShiftVAEWidget(viewer)
    viewer.window.add_dock_widget(widget)
    field = widget.header.pixel_size.text
    qtbot.waitUntil(lambda: field.text() == "20 × 15 pm (from the file)", timeout=WAIT_MS)
    widget.train.form.setValue(TrainSettings(epochs=1))
    run(qtbot, widget)
    atoms = widget.session.run.atoms
    np.testing.assert_allclose(atoms["y_nm"], 0.02 * atoms["y_px"])


def test_a_pixel_size_that_is_none_is_refused(qtbot, viewer, dock) -> None:
    field = dock.header.pixel_size
    press(qtbot, field.edit)
    for text in ("", "0", "-3", "abc", "1 x 2 x 3", "nan"):
        field.number.setText(text)
        press(qtbot, field.apply)
        assert "is no pixel size" in dock.header.message.text()
    np.testing.assert_allclose(viewer.layers["made"].scale, (0.015, 0.02))


def test_without_an_image_the_dock_says_what_to_do(viewer) -> None:
    widget = ShiftVAEWidget(viewer)
    viewer.window.add_dock_widget(widget)
    assert "Open an image first" in widget.header.message.text()
    assert not widget.header.quick_run.isEnabled()
    viewer.add_labels(np.eye(9, dtype=int), name="cells")
    widget.quick_run()
    assert "Convert to Image" in widget.header.message.text()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (np.ones((64, 64)), "constant"),
        (np.zeros((8, 64, 64)), "constant"),
        (np.zeros((2, 8, 64, 64)), "4 dimensions"),
        (np.zeros((64, 64, 3), np.uint8), "RGB"),
        (np.random.default_rng(0).normal(size=(64, 64)), "atoms"),
    ],
)
def test_bad_images_get_one_sentence(qtbot, viewer, data, sentence) -> None:
    viewer.add_image(data, name="bad", rgb=data.shape[-1] == 3)
    widget = ShiftVAEWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.quick_run()
    wait_idle(qtbot, widget)
    message = widget.header.message.text()
    assert message.startswith("⚠")
    assert sentence in message
    assert [layer.name for layer in viewer.layers] == ["bad"]
    assert widget.header.quick_run.isEnabled()


def test_another_image_has_its_own_picks(qtbot, viewer, dock, made) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    count = len(dock.session.picks)
    viewer.add_image(made[:, ::-1].copy(), name="other")
    dock.header.chooser.setCurrentText("other")
    assert len(dock.session.picks) == 0
    assert "not calibrated" in dock.header.pixel_size.text.text()
    dock.header.chooser.setCurrentText("made")
    assert len(dock.session.picks) == count


def test_renaming_the_image_is_followed(qtbot, viewer, dock) -> None:
    viewer.layers["made"].name = "film"
    assert dock.header.chooser.currentText() == "film"
    run(qtbot, dock)
    assert "film z1" in viewer.layers


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
    qtbot.waitExposed(dock)
    for index in range(dock.tabs.count()):
        dock.tabs.setCurrentIndex(index)
        qtbot.wait(50)
        area = dock.tabs.widget(index)
        room = area.width() - area.verticalScrollBar().sizeHint().width()
        assert area.widget().minimumSizeHint().width() <= room, dock.tabs.tabText(index)
