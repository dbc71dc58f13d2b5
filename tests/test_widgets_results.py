"""Plots, arrows, maps and files of a finished run."""

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")


from qtpy.QtWidgets import QFileDialog

from driving import press, read, run
from napari_shiftvae.core.runfile import load_run
from napari_shiftvae.layers import latent_colours
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets.patterns_box import GAP


def test_explore_shows_the_run(finished_dock, made) -> None:
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
    each = side + GAP
    assert dock.explore.patterns.grid.pixels.shape == (9 * each, 9 * each, 2)


def test_fields_drive_the_layers(qtbot, viewer, dock) -> None:
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
    run(qtbot, dock)
    dock.fields.map.setCurrentText("along y")
    qtbot.waitUntil(lambda: "made along y" in viewer.layers)
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
    run(qtbot, dock)
    arrows = viewer.layers["made shift"]
    everything = len(arrows.data)
    dock.fields.colour.setCurrentText("angle")
    assert arrows.edge_contrast_limits == (-180, 180)
    y, x = (arrows.data[:, 1] * viewer.layers["made"].scale).T  # the pixels are not square
    angle = np.rad2deg(np.arctan2(y, x))
    np.testing.assert_allclose(arrows.features["angle_degree"], angle)
    assert dock.fields.wheel.isVisibleTo(dock.fields)
    assert not dock.fields.arrow_bar.isVisibleTo(dock.fields)
    dock.fields.hide_noise.setChecked(True)
    assert len(arrows.data) <= everything


def test_what_cannot_be_worked_out_is_said_and_the_rest_stays(qtbot, viewer, dock) -> None:
    run(qtbot, dock)
    before = viewer.layers["made shift"].data.copy()
    dock.fields.vectors.setCurrentText("polar displacement between sublattices")
    qtbot.waitUntil(lambda: "press Group" in dock.header.message.text())
    np.testing.assert_array_equal(viewer.layers["made shift"].data, before)


def test_reconstruction_and_residual_are_layers(qtbot, viewer, dock) -> None:
    dock.train.form.setValue(TrainSettings(epochs=25))
    run(qtbot, dock)
    press(qtbot, dock.fields.model_layers)
    qtbot.waitUntil(lambda: "made residual" in viewer.layers)
    drawn = viewer.layers["made reconstruction"].data
    image = viewer.layers["made"].data
    there = np.isfinite(drawn)
    assert there.mean() > 0.5
    assert np.corrcoef(drawn[there], image[there])[0, 1] > 0.8


def test_a_run_is_saved_and_exported_from_the_fields(qtbot, dock, tmp_path, monkeypatch) -> None:
    run(qtbot, dock)
    assert "Saved: made" in dock.header.message.text()
    path = tmp_path / "mine"  # the ending is added
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    press(qtbot, dock.fields.save)
    qtbot.waitUntil(lambda: "Wrote" in dock.header.message.text())
    again = load_run(tmp_path / "mine.shiftvae")
    numbers = dock.session.run.atoms.select_dtypes("number")
    np.testing.assert_allclose(again.atoms[numbers.columns], numbers)
    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    press(qtbot, dock.fields.export)
    qtbot.waitUntil(lambda: "files into" in dock.header.message.text())
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


def test_fields_survive_deleted_layers(qtbot, viewer, dock) -> None:
    run(qtbot, dock)
    for name in ("made shift", "made z1", "made z2", "made atoms"):
        del viewer.layers[name]
    dock.fields.map.setCurrentText("z1")
    dock.fields.gain.setValue(12)
    dock.fields.arrows.setChecked(False)
    dock.fields.arrows.setChecked(True)
    assert viewer.layers["made shift"].length == 12
