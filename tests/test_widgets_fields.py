"""The Fields tab driven by a person's mouse, on an image that lies turned, with oblong pixels."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import tifffile

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
from napari.layers import Shapes
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication, QCheckBox, QFileDialog
from scipy.spatial import KDTree

from driving import hold
from mouse import Mouse
from napari_shiftvae.core.formats import read_signals
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.widgets import ShiftVAEWidget

LEFT, NO_KEY = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
MADE = perovskite(rng=np.random.default_rng(0), shape=(150, 170), pixel_size_nm=0.02)
PLACE = {
    "scale": (0.016, 0.02),
    "rotate": 30.0,
    "translate": (3.0, -7.0),
    "units": ("nm", "nm"),
}
PX_PM = 1000 * np.sqrt(0.016 * 0.02)


@pytest.fixture
def dock(finished_dock: Callable[..., ShiftVAEWidget]) -> ShiftVAEWidget:
    """A dock with a finished run, on the Fields tab."""
    return finished_dock(MADE.image, tab=3, epochs=6, **PLACE)


@pytest.fixture
def viewer(dock: ShiftVAEWidget) -> napari.Viewer:
    return dock.overlay.viewer


def tick(qtbot, box: QCheckBox) -> None:
    """Click a box where it is drawn."""
    qtbot.mouseClick(box, LEFT, NO_KEY, QPoint(8, box.height() // 2))


def wait_fields(qtbot, dock) -> None:
    """Wait until fields are worked out and the map is drawn."""
    control = dock.fields_control
    qtbot.waitUntil(lambda: not (control._reads.runner.busy or control._draws.runner.busy))


def shown_map(qtbot, viewer, dock, name: str, unit: str) -> napari.layers.Image:
    """Choose a map and a unit, and wait for the layer."""
    dock.fields.map.setCurrentText(name)
    dock.fields.unit.setCurrentText(unit)
    wait_fields(qtbot, dock)
    layer = viewer.layers[f"made {name}"]
    assert layer.visible
    assert f"({unit})" in dock.fields.map_bar.toolTip()
    assert dock.fields_control._scales.map is layer
    return layer


def test_lengths_are_those_of_the_sample_in_the_unit_that_is_chosen(qtbot, viewer, dock) -> None:
    arrows = viewer.layers["made shift"].data
    true_pm = np.linalg.norm(arrows[:, 1] * PLACE["scale"], axis=1) * 1000
    y, x = np.rint(arrows[:, 0]).astype(int).T
    for unit, per_pm in (("pm", 1.0), ("nm", 1e-3), ("angstrom", 1e-2), ("px", 1 / PX_PM)):
        drawn = shown_map(qtbot, viewer, dock, "length", unit).data[y, x]
        there = np.isfinite(drawn)
        assert there.mean() > 0.6
        # pixels of the nearest atom: some arrows start beside their pick
        ratio = drawn[there] / (per_pm * true_pm[there])
        assert np.median(ratio) == pytest.approx(1, abs=1e-4)
        assert f"({unit})" in dock.fields.arrow_bar.toolTip()


def test_the_scale_of_a_map_is_in_the_unit_that_it_is_drawn_in(qtbot, viewer, dock) -> None:
    shown_map(qtbot, viewer, dock, "length", "pm")
    go_on = hold(dock.fields_control._draws)
    dock.fields.unit.setCurrentText("nm")
    qtbot.waitUntil(lambda: "(nm)" in dock.fields.arrow_bar.toolTip())
    assert "(pm)" in dock.fields.map_bar.toolTip()
    go_on.set()
    qtbot.waitUntil(lambda: "(nm)" in dock.fields.map_bar.toolTip())


@pytest.mark.parametrize("what", ["unit", "vectors"])
def test_a_map_that_is_seen_again_is_what_is_chosen_now(qtbot, viewer, dock, what) -> None:
    """By its eye, after something has changed of which it was not drawn."""
    length = shown_map(qtbot, viewer, dock, "length", "pm")
    before = length.data.copy()
    exx = shown_map(qtbot, viewer, dock, "exx", "%")
    if what == "unit":
        dock.fields.unit.setCurrentText("nm")
    else:
        dock.fields.vectors.setCurrentText("displacement from the lattice")
    wait_fields(qtbot, dock)
    exx.visible = False
    length.visible = True
    wait_fields(qtbot, dock)
    there = np.isfinite(length.data)
    scalar = dock.fields_control._readout.scalars["length"].given_in(dock.fields_control._ruler)
    np.testing.assert_array_equal(length.data, scalar.on_pixels(dock.session.run))
    assert not np.allclose(length.data[there], before[there], equal_nan=True)
    assert scalar.label in dock.fields.map_bar.toolTip()
    assert tuple(length.contrast_limits) == pytest.approx(scalar.limits)


def test_what_was_taken_off_is_told_in_the_unit_that_is_chosen(qtbot, dock) -> None:
    dock.fields.vectors.setCurrentText("displacement from the lattice")
    dock.fields.trend.setCurrentText("shift and rotation")
    for unit in ("px", "pm"):
        dock.fields.unit.setCurrentText(unit)
        qtbot.waitUntil(lambda unit=unit: f") {unit} (y, x)" in dock.fields.note.text())


def test_arrows_that_are_hidden_are_counted(qtbot, viewer, dock) -> None:
    dock.fields.vectors.setCurrentText("displacement from the neighbours")  # of which there is none
    qtbot.waitUntil(lambda: "opposite neighbours" in dock.fields.note.text())
    known = len(viewer.layers["made shift"].data)
    tick(qtbot, dock.fields.hide_noise)
    hidden = known - len(viewer.layers["made shift"].data)
    assert hidden > 0.5 * known
    assert f"{hidden} of {known} arrows are hidden." in dock.fields.note.text()
    tick(qtbot, dock.fields.hide_noise)
    assert "hidden" not in dock.fields.note.text()


def test_the_scale_of_a_map_is_never_that_of_another(qtbot, viewer, dock) -> None:
    shown_map(qtbot, viewer, dock, "exx", "%")
    before = dock.fields.map_bar.toolTip()
    seen = []
    dock.fields.map.setCurrentText("rotation")
    while "rotation" not in dock.fields.map_bar.toolTip():
        seen.append(dock.fields.map_bar.toolTip())
        qtbot.wait(5)
    assert set(seen) <= {before}
    low, high = viewer.layers["made rotation"].contrast_limits
    assert dock.fields.map_bar.toolTip() == f"rotation (degree): from {low:.3g} to {high:.3g}"


def test_every_map_has_its_standard_deviation(qtbot, viewer, dock) -> None:
    atoms = dock.session.run.atoms
    tick(qtbot, dock.fields.deviation)
    assert dock.fields.deviation.isChecked() or not dock.fields.deviation.isEnabled()
    for name in ("z1", "exx", "along y"):
        dock.fields.map.setCurrentText(name)
        dock.fields.deviation.setChecked(True)
        layer = f"made {name} s.d."
        qtbot.waitUntil(lambda layer=layer: layer in viewer.layers)
        assert viewer.layers[layer].visible
        assert np.nanmin(viewer.layers[layer].data) > 0
    z1_sd = viewer.layers["made z1 s.d."].data
    y, x = atoms.loc[dock.session.run.used, ["y_px", "x_px"]].round().to_numpy().astype(int).T
    drawn, table = z1_sd[y, x], atoms.loc[dock.session.run.used, "z1_sd"].to_numpy()
    np.testing.assert_allclose(drawn[np.isfinite(drawn)], table[np.isfinite(drawn)], rtol=1e-5)
    dock.fields.map.setCurrentText("residual")
    qtbot.waitUntil(lambda: "Noise alone gives 1 ±" in dock.fields.map_note.text())


def test_the_wheel_shows_directions_as_they_are_on_the_canvas(viewer, dock) -> None:
    dock.fields.colour.setCurrentText("angle")
    wheel, arrows = dock.fields.wheel, viewer.layers["made shift"]
    assert wheel.isVisibleTo(dock.fields)
    picture = wheel.grab().toImage()
    ratio = picture.width() / wheel.width()
    middle = np.array([wheel.height(), wheel.width()]) / 2
    for at in range(0, len(arrows.data), 5):
        start, along = arrows.data[at]
        world = np.subtract(arrows.data_to_world(start + along), arrows.data_to_world(start))
        seen = middle + 27 * world / np.linalg.norm(world)
        colour = picture.pixelColor(*(int(part * ratio) for part in seen[::-1]))
        drawn = 255 * arrows.edge_color[at][:3]
        np.testing.assert_allclose([colour.red(), colour.green(), colour.blue()], drawn, atol=16)


def test_a_region_is_drawn_by_the_mouse_and_is_the_reference(qtbot, viewer, dock) -> None:
    fields, control = dock.fields, dock.fields_control
    fields.reference.setCurrentIndex(1)
    layer = viewer.layers["made reference"]
    assert isinstance(layer, Shapes)
    qtbot.waitUntil(lambda: not control._reads.runner.busy)
    assert "Draw a rectangle" in dock.header.message.text()  # until one is drawn
    mouse = Mouse(qtbot, viewer, viewer.layers["made"])
    with qtbot.waitSignal(control.read):
        mouse.drag((30, 30), (110, 90))
    # arrows of polar displacement, which are shown, need no reference
    qtbot.waitUntil(lambda: "reference region" in dock.header.message.text())
    fields.vectors.setCurrentText("displacement from the lattice")
    qtbot.waitUntil(lambda: "reference region" in fields.note.text())
    few = int(fields.note.text().split("lattice of ")[1].split(" atoms")[0])
    qtbot.keyClick(fields.reference, Qt.Key.Key_Up)
    assert fields.reference.currentText() == "lattice of the whole image"
    qtbot.keyClick(fields.reference, Qt.Key.Key_Down)
    assert fields.reference.currentText() == "made reference"
    layer.name = "mine"
    assert fields.reference.currentText() == "mine"
    with qtbot.waitSignal(control.read):
        layer.data = [np.array([[20, 20], [20, 140], [130, 140], [130, 20]])]
    more = int(fields.note.text().split("lattice of ")[1].split(" atoms")[0])
    assert more > few >= 6
    with qtbot.waitSignal(control.read):
        viewer.layers.remove(layer)
    assert fields.reference.currentText() == "lattice of the whole image"
    assert "fitted to" in fields.note.text()


def test_the_figure_in_view_is_copied_and_saved(qtbot, viewer, dock, tmp_path, monkeypatch) -> None:
    shown_map(qtbot, viewer, dock, "along y", "pm")
    qtbot.mouseClick(dock.fields.copy_figure, LEFT)
    qtbot.waitUntil(lambda: "Copied" in dock.header.message.text())
    copied = QApplication.clipboard().mimeData()
    assert copied.hasImage()
    svg = bytes(copied.data("image/svg+xml")).decode()
    for words in (
        "along y (pm)",
        f"arrow (pm), {dock.fields.gain.value()}-fold",
        " nm<",
        "<polygon",
        "data:image/png",
    ):
        assert words in svg
    for kind, ending in (("PNG (*.png)", ".png"), ("TIFF with its scale (*.tif)", ".tif")):
        answer = (str(tmp_path / "figure"), kind)
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, answer=answer: answer)
        qtbot.waitUntil(dock.fields.save_figure.isEnabled)
        qtbot.mouseClick(dock.fields.save_figure, LEFT)
        path = tmp_path / f"figure{ending}"
        qtbot.waitUntil(lambda path=path: str(path) in dock.header.message.text())
        assert path.stat().st_size > 10_000
    with tifffile.TiffFile(tmp_path / "figure.tif") as file:
        assert file.asarray().shape[2] == 3
    (opened,) = read_signals(tmp_path / "figure.tif")  # at the scale of the sample, in any program
    per_pm = [1000 * axis.scale for axis in opened.axes[:2]]
    assert [axis.unit for axis in opened.axes[:2]] == ["nm", "nm"]
    assert per_pm[0] == pytest.approx(per_pm[1], rel=1e-3)
    assert 0.1 * PX_PM < per_pm[0] < PX_PM


def test_bars_on_the_canvas_and_the_atoms_follow_their_boxes(qtbot, viewer, dock) -> None:
    fields, bar = dock.fields, viewer.canvas.overlays.scale_bar
    for there in (True, False):
        tick(qtbot, fields.scale_bar)
        assert bar.visible == there
    bar.visible = True
    assert fields.scale_bar.isChecked()
    tick(qtbot, fields.canvas_bar)
    layer = shown_map(qtbot, viewer, dock, "along y", "pm")
    assert layer.colorbar.visible
    title = viewer.canvas.overlays.text
    assert title.visible
    assert title.text == "along y (pm)"
    layer.contrast_limits = (-5, 5)
    assert "from -5 to 5" in fields.map_bar.toolTip()
    z1 = viewer.layers["made z1"]
    fields.map.setCurrentText("z1")
    assert z1.colorbar.visible
    assert title.text == "z1"
    assert not layer.colorbar.visible
    tick(qtbot, fields.canvas_bar)
    assert not title.visible
    title.text, title.visible = "mine", True
    tick(qtbot, fields.canvas_bar)
    assert title.text == "mine"
    tick(qtbot, fields.atoms)
    assert not viewer.layers["made atoms"].visible


def test_boxes_follow_the_eyes_of_layers_and_eyes_the_boxes(qtbot, viewer, dock) -> None:
    fields = dock.fields
    for box, name in ((fields.atoms, "made atoms"), (fields.arrows, "made shift")):
        layer = viewer.layers[name]
        before = layer.visible
        assert box.isChecked() == before
        layer.visible = not before
        assert box.isChecked() != before
        tick(qtbot, box)
        assert layer.visible == before
        tick(qtbot, box)
        assert layer.visible != before
        # vispy, painted by the processor, dies of a deleted layer that was hidden (napari #6472)
        layer.visible = True
        qtbot.wait(100)
        viewer.layers.remove(layer)
        assert not box.isChecked()
        tick(qtbot, box)  # and it is made anew
        assert viewer.layers[name].visible
        viewer.layers[name].visible = False
        assert not box.isChecked()


def test_the_choice_of_map_follows_the_eyes_of_maps(qtbot, viewer, dock) -> None:
    fields = dock.fields
    exx = shown_map(qtbot, viewer, dock, "exx", "%")
    exx.visible = False
    assert fields.map.currentText() == "none"
    assert fields.map_bar.isHidden()
    exx.visible = True
    assert fields.map.currentText() == "exx"
    viewer.layers["made z1"].visible = True
    fields.map.setCurrentText("z2")
    assert [one.name for one in viewer.layers if "latent" in one.metadata and one.visible] == [
        "made z2"
    ]
    assert fields.map.currentText() == "z2"
    viewer.layers.remove("made z2")
    assert fields.map.currentText() == "none"
    fields.map.setCurrentText("z2")  # drawn anew
    qtbot.waitUntil(lambda: "made z2" in viewer.layers)
    tick(qtbot, fields.deviation)
    qtbot.waitUntil(lambda: "made z2 s.d." in viewer.layers)
    viewer.layers["made z2 s.d."].visible = False
    viewer.layers["made z2"].visible = True
    assert fields.map.currentText() == "z2"
    assert not fields.deviation.isChecked()
    viewer.layers["made z2"].visible = False
    viewer.layers["made z2 s.d."].visible = True
    assert fields.map.currentText() == "z2"
    assert fields.deviation.isChecked()


def test_a_map_lies_over_its_image_where_the_atoms_do_not(qtbot, viewer, dock) -> None:
    viewer.layers.move(viewer.layers.index("made atoms"), 0)
    exx = shown_map(qtbot, viewer, dock, "exx", "%")
    assert viewer.layers.index(exx) > viewer.layers.index("made")
    viewer.layers.move(0, len(viewer.layers))
    rotation = shown_map(qtbot, viewer, dock, "rotation", "degree")
    atoms, image = viewer.layers.index("made atoms"), viewer.layers.index("made")
    assert image < viewer.layers.index(rotation) < atoms


def test_colours_of_atoms_stay_when_the_map_is_of_something_else(qtbot, viewer, dock) -> None:
    dock.explore.colour.setCurrentText("residual")
    shown_map(qtbot, viewer, dock, "exx", "%")
    dock.fields.map.setCurrentText("none")
    assert dock.explore.colour.currentText() == "residual"
    dock.fields.map.setCurrentText("z2")  # dots of another latent would mislead
    assert dock.explore.colour.currentText() == "z2"


def test_of_the_image_by_the_model_the_residual_is_hidden_at_first(qtbot, viewer, dock) -> None:
    shown_map(qtbot, viewer, dock, "exx", "%")
    qtbot.mouseClick(dock.fields.model_layers, LEFT)
    qtbot.waitUntil(lambda: "Added the" in dock.header.message.text())
    qtbot.wait(500)  # layers become visible one after the other
    seen = [one.name for one in viewer.layers if "latent" in one.metadata and one.visible]
    assert seen == ["made reconstruction"]
    assert dock.fields.map.currentText() == "none"
    dock.fields.map.setCurrentText("residual")  # of the atoms
    qtbot.waitUntil(lambda: "made residual of atoms" in viewer.layers)
    assert not viewer.layers["made residual"].visible


def test_the_gain_obeys_keys(qtbot, viewer, dock) -> None:
    gain, arrows = dock.fields.gain, viewer.layers["made shift"]
    gain.setValue(20)
    for key, expected in ((Qt.Key.Key_Right, 21), (Qt.Key.Key_Left, 20), (Qt.Key.Key_PageUp, 30)):
        qtbot.keyClick(gain._slider, key)
        assert gain.value() == arrows.length == expected


def test_what_cannot_be_worked_out_shows_no_arrows(qtbot, viewer, dock) -> None:
    fields, arrows = dock.fields, viewer.layers["made shift"]
    fields.vectors.setCurrentText("displacement from the lattice")
    qtbot.waitUntil(lambda: "fitted to" in fields.note.text())
    qtbot.keyClick(fields.vectors, Qt.Key.Key_Up)  # between sublattices, of which there are none
    qtbot.waitUntil(lambda: "no two sublattices" in fields.note.text())
    assert not fields.arrows.isChecked()
    assert not arrows.visible
    site = KDTree(MADE.truth[["y_px", "x_px"]]).query(dock.session.picks.positions_yx)[1]
    names = MADE.truth["sublattice"].to_numpy(dtype=object)[site]
    table = pd.DataFrame({"sublattice": names})
    dock.session.change_picks(dock.session.picks.with_measured(table))  # as Group in Atoms does
    qtbot.waitUntil(lambda: "nearest neighbours" in fields.note.text())
    assert arrows.visible
    tick(qtbot, fields.arrows)
    assert not arrows.visible
    qtbot.keyClick(fields.vectors, Qt.Key.Key_Down)  # who chooses arrows wants to see them
    qtbot.waitUntil(lambda: "fitted to" in fields.note.text())
    assert arrows.visible
