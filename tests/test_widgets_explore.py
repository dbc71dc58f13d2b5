"""The Explore tab linked with the image, driven by the mouse in the plot and on the canvas."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtWidgets import QFileDialog

from mouse import Mouse
from napari_shiftvae.colouring import colouring
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.docks import has_dock
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget
from napari_shiftvae.widgets.patterns_box import GAP
from napari_shiftvae.widgets.scatter import LatentScatter

EDGE = 0.02  # of their range: so far from the outermost dots the plot still goes
WAIT_MS = 60_000
LEFT = Qt.MouseButton.LeftButton
MADE = perovskite(rng=np.random.default_rng(0), shape=(150, 170), pixel_size_nm=0.02)
PLACE = {  # oblong pixels, turned and sheared: what is linked must not depend on it
    "scale": (0.016, 0.02),
    "rotate": 30.0,
    "translate": (3.0, -7.0),
    "affine": [[1.1, 0.2, 1.0], [0.0, 0.9, 2.0], [0.0, 0.0, 1.0]],
    "units": ("nm", "nm"),
}


@pytest.fixture
def dock(finished_dock: Callable[..., ShiftVAEWidget]) -> ShiftVAEWidget:
    """A dock with a finished run, on the Explore tab."""
    return finished_dock(MADE.image, tab=2, epochs=12, **PLACE)


@pytest.fixture
def viewer(dock: ShiftVAEWidget) -> napari.Viewer:
    return dock.overlay.viewer


def at(dock: ShiftVAEWidget, x: float, y: float) -> QPoint:
    """Pixel of the plot's viewport where a place of the plot is."""
    scatter = dock.explore.scatter
    return scatter.mapFromScene(scatter.plotItem.vb.mapViewToScene(QPointF(x, y)))


def draw(qtbot, dock, corners, key=Qt.KeyboardModifier.NoModifier) -> None:
    port = dock.explore.scatter.viewport()
    points = [at(dock, *corner) for corner in corners]
    qtbot.mousePress(port, LEFT, key, points[0])
    for point in points[1:]:
        qtbot.mouseMove(port, point)
        qtbot.wait(5)
    qtbot.mouseRelease(port, LEFT, key, points[-1])
    qtbot.wait(20)


def scroll_to(dock: ShiftVAEWidget, widget) -> None:
    dock.explore.parentWidget().parentWidget().ensureWidgetVisible(widget)


def latents(dock: ShiftVAEWidget) -> np.ndarray:
    return dock.session.run.atoms[["z1", "z2"]].to_numpy(dtype=float)


def layer(viewer: napari.Viewer) -> napari.layers.Points:
    return viewer.layers["made atoms"]


def box_around(values: np.ndarray) -> list[tuple[float, float]]:
    """Corners of a box around the lower half of z1."""
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    (x0, y0), (_, y1) = low - EDGE * (high - low), high + EDGE * (high - low)
    middle = float(np.nanmedian(values[:, 0]))
    return [(x0, y0), (middle, y0), (middle, y1), (x0, y1), (x0, y0)]


def test_a_lasso_in_the_plot_selects_atoms_in_the_image(qtbot, viewer, dock) -> None:
    z = latents(dock)
    corners = np.array(box_around(z))
    path = np.concatenate([np.linspace(a, b, 5) for a, b in pairwise(corners)])
    draw(qtbot, dock, path)
    expected = np.flatnonzero(z[:, 0] < corners[1, 0])
    chosen = np.array(sorted(layer(viewer).selected_data))
    assert len(np.setxor1d(chosen, expected)) <= 2  # a dot on the line
    np.testing.assert_allclose(marked(dock), np.sort(z[chosen, 0]))
    assert (layer(viewer).border_width[chosen] > 0).all()
    others = np.setdiff1d(np.arange(len(z)), chosen)
    assert (layer(viewer).border_width[others] == 0).all()


def test_a_rectangle_and_shift_add(qtbot, viewer, dock) -> None:
    z = latents(dock)
    corners = box_around(z)
    ctrl, shift = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
    draw(qtbot, dock, [corners[0], corners[1], corners[2]], ctrl)
    half = len(layer(viewer).selected_data)
    assert 0.4 < half / np.isfinite(z[:, 0]).sum() < 0.6
    span = np.nanmax(z[:, 0]) - np.nanmin(z[:, 0])
    right = [(corners[1][0], corners[0][1]), (np.nanmax(z[:, 0]) + EDGE * span, corners[2][1])]
    draw(qtbot, dock, [right[0], right[1]], ctrl | shift)
    assert len(layer(viewer).selected_data) == np.isfinite(z[:, 0]).sum()


def test_a_click_on_a_dot_shows_its_atom(qtbot, viewer, dock) -> None:
    z = latents(dock)
    row = int(np.nanargmax(z[:, 0]))
    qtbot.mouseClick(dock.explore.scatter.viewport(), LEFT, pos=at(dock, *z[row]))
    qtbot.waitUntil(lambda: layer(viewer).selected_data == {row})
    card = dock.explore.card
    assert card.note.text().startswith(f"Atom {row}:")
    assert "noise s.d." in card.note.text()
    assert card.patch.pixels.shape == card.model.pixels.shape == card.residual.pixels.shape
    size = len(card.patch.pixels)
    y, x = np.rint(layer(viewer).data[row] - (size - 1) / 2).astype(int)
    around = MADE.image[y : y + size, x : x + size]  # the patch has its slow background taken off
    assert np.corrcoef(around.ravel(), card.patch.pixels.ravel())[0, 1] > 0.95


def test_pointing_at_an_atom_in_the_image_shows_it(qtbot, viewer, dock) -> None:
    viewer.reset_view()
    mouse = Mouse(qtbot, viewer, viewer.layers["made"])
    row = int(np.flatnonzero(dock.session.run.used)[7])
    mouse.move(layer(viewer).data[row])
    qtbot.waitUntil(lambda: dock.explore.card.note.text().startswith(f"Atom {row}:"))


def marked(dock: ShiftVAEWidget) -> np.ndarray:
    """Values of z1 of the dots that are ringed, sorted."""
    return np.sort(dock.explore.scatter.marks.getData()[0])


def test_atoms_clicked_in_the_image_are_marked_in_the_plot(qtbot, viewer, dock) -> None:
    viewer.reset_view()
    mouse = Mouse(qtbot, viewer, viewer.layers["made"])
    one, other = (int(row) for row in np.flatnonzero(dock.session.run.used)[[5, 40]])
    picks, z1 = dock.session.run.picks_yx, latents(dock)[:, 0]
    mouse.click(picks[one])
    qtbot.waitUntil(lambda: layer(viewer).selected_data == {one})
    np.testing.assert_allclose(marked(dock), z1[[one]])
    mouse.click(picks[other], Qt.KeyboardModifier.ShiftModifier)
    qtbot.waitUntil(lambda: layer(viewer).selected_data == {one, other})
    np.testing.assert_allclose(marked(dock), np.sort(z1[[one, other]]))
    assert (layer(viewer).border_width[[one, other]] > 0).all()
    zoom, centre = viewer.scene.camera.zoom, viewer.scene.camera.center
    mouse.click(picks[one] + (picks[other] - picks[one]) / 40 + 4)  # beside it
    mouse.drag(picks[one], picks[other])  # pans as always
    assert viewer.scene.camera.center != centre
    assert viewer.scene.camera.zoom == zoom


def test_a_lasso_on_the_canvas_marks_dots(qtbot, viewer, dock) -> None:
    viewer.reset_view()
    mouse = Mouse(qtbot, viewer, viewer.layers["made"])
    dock.explore.lasso.click()
    corners = [(30, 30), (30, 120), (110, 120), (110, 30), (30, 30)]
    mouse.draw(np.concatenate([np.linspace(a, b, 4) for a, b in pairwise(corners)]))
    y, x = dock.session.run.picks_yx.T
    inside = (y > 30) & (y < 110) & (x > 30) & (x < 120) & dock.session.run.used
    chosen = np.array(sorted(layer(viewer).selected_data))
    assert len(np.setxor1d(chosen, np.flatnonzero(inside))) <= 2
    np.testing.assert_allclose(marked(dock), np.sort(latents(dock)[chosen, 0]))
    assert "lasso" not in viewer.layers
    dock.tabs.setCurrentIndex(0)
    assert not dock.explore.lasso.isChecked()


def test_selecting_with_naparis_own_tool_marks_dots(viewer, dock) -> None:
    rows = np.flatnonzero(dock.session.run.used)[3:6]
    layer(viewer).selected_data = set(rows.tolist())
    np.testing.assert_allclose(marked(dock), np.sort(latents(dock)[rows, 0]))


def test_a_double_click_on_the_canvas_goes_to_the_atom(qtbot, viewer, dock) -> None:
    viewer.reset_view()
    mouse = Mouse(qtbot, viewer, viewer.layers["made"])
    row = int(np.flatnonzero(dock.session.run.used)[11])
    mouse.double_click(dock.session.run.picks_yx[row] + 1.0)
    world = layer(viewer).data_to_world(layer(viewer).data[row])
    qtbot.waitUntil(lambda: np.allclose(viewer.scene.camera.center[-2:], world))
    assert layer(viewer).selected_data == {row}


def test_a_double_click_goes_there_and_outliers_are_stepped_through(qtbot, viewer, dock) -> None:
    z = latents(dock)
    row = int(np.nanargmin(z[:, 1]))
    port = dock.explore.scatter.viewport()
    qtbot.mouseClick(port, LEFT, pos=at(dock, *z[row]))
    qtbot.mouseDClick(port, LEFT, pos=at(dock, *z[row]))
    qtbot.mouseRelease(port, LEFT, pos=at(dock, *z[row]))  # which a hand does, too
    world = layer(viewer).data_to_world(layer(viewer).data[row])
    qtbot.waitUntil(lambda: np.allclose(viewer.scene.camera.center[-2:], world))
    zoom = viewer.scene.camera.zoom = 0.1 * viewer.scene.camera.zoom
    residual = dock.session.run.atoms["residual"].to_numpy()
    order = np.argsort(-np.nan_to_num(residual, nan=-1))
    for expected in order[:2]:
        dock.explore.outlier.click()
        assert layer(viewer).selected_data == {int(expected)}
    assert f"Atom {order[1]}, number 2 of" in dock.header.message.text()
    assert viewer.scene.camera.zoom > zoom  # a patch of few pixels says nothing of a defect


def test_the_pattern_follows_the_handle(qtbot, dock) -> None:
    dock.explore.drag.click()
    card, handle = dock.explore.card, dock.explore.scatter.handle
    first = card.model.pixels.copy()
    x, y = handle.pos()
    z = latents(dock)[dock.session.run.used]
    np.testing.assert_allclose((x, y), z.mean(axis=0))
    there = z[z[:, 0].argmax()]
    draw(qtbot, dock, np.linspace((x, y), there, 6))
    np.testing.assert_allclose(tuple(handle.pos()), there, atol=0.05)
    assert f"z1 = {handle.pos().x():.2f}, z2 = {handle.pos().y():.2f}" in card.note.text()
    from napari_shiftvae.core.manifold import decode

    np.testing.assert_allclose(
        card.model.pixels, decode(dock.session.run, tuple(handle.pos()))[0], atol=1e-5
    )
    assert not np.allclose(card.model.pixels, first)
    assert card.patch.pixels is not None  # the nearest atom beside it
    assert not layer(dock.overlay.viewer).selected_data  # no lasso was drawn meanwhile
    dock.explore.y.setCurrentText("residual")
    assert not dock.explore.drag.isChecked()
    dock.explore.drag.click()
    assert "Choose latents" in dock.header.message.text()


def test_grid_and_traverse_follow_what_is_chosen(dock) -> None:
    patterns = dock.explore.patterns
    first, strip = patterns.grid.pixels.copy(), patterns.strip.pixels.copy()
    dock.explore.x.setCurrentText("z2")
    dock.explore.y.setCurrentText("z1")
    assert patterns.note.text().startswith("z2 from")
    assert not np.array_equal(patterns.grid.pixels, first)
    patterns.along.setCurrentText("z2")
    assert not np.array_equal(patterns.strip.pixels, strip)
    side = dock.session.run.model.config.patch_size_px
    assert patterns.strip.pixels.shape == (side + GAP, 9 * (side + GAP), 2)
    assert (patterns.strip.pixels[:GAP, ..., 1] == 0).all()  # clear between the patterns
    assert patterns.strip_note.text().startswith("z2 from -")


def wait_for_classes(qtbot, dock) -> None:
    """Wait until there are classes, and its buttons do something again."""
    box = dock.explore.classes
    qtbot.waitUntil(
        lambda: "class" in dock.session.run.atoms and box.find.isEnabled(), timeout=WAIT_MS
    )


@pytest.mark.parametrize("method", ["gaussian mixture", "k-means"])
def test_classes_become_a_column_and_colours(qtbot, viewer, dock, method) -> None:
    box = dock.explore.classes
    box.method.setCurrentText(method)
    box.count.setValue(2)
    box.find.click()
    wait_for_classes(qtbot, dock)
    labels = dock.session.run.atoms["class"].to_numpy()
    assert set(labels[dock.session.run.used]) == {0, 1}
    assert (labels[~dock.session.run.used] == -1).all()
    kinds = MADE.truth["sublattice"].to_numpy()
    from scipy.spatial import KDTree

    near = KDTree(MADE.truth[["y_px", "x_px"]]).query(dock.session.run.picks_yx)[1]
    is_a = (kinds[near] == "A")[dock.session.run.used]
    agreement = np.mean((labels[dock.session.run.used] == 0) == is_a)
    assert max(agreement, 1 - agreement) > 0.97  # the two sublattices
    assert "class" in layer(viewer).features
    colours = layer(viewer).face_color
    assert len(np.unique(colours[dock.session.run.used], axis=0)) == 2
    assert box.table.rowCount() == 2
    assert box.table.item(0, 2).text() == str((labels == 0).sum())
    assert [name for name, _ in dock.explore.bar.kinds] == ["0", "1"]
    # the class of a line is selected by a click on it
    scroll_to(dock, box.table)
    cell = box.table.visualItemRect(box.table.item(1, 2)).center()
    qtbot.mouseClick(box.table.viewport(), LEFT, pos=cell)
    assert layer(viewer).selected_data == set(np.flatnonzero(labels == 1).tolist())


def test_classes_are_named_used_and_forgotten(qtbot, viewer, dock) -> None:
    box = dock.explore.classes
    box.count.setValue(2)
    box.split.setChecked(False)
    box.find.click()
    wait_for_classes(qtbot, dock)
    box.table.item(1, 1).setText("titanium")
    names = dock.session.run.atoms["class_name"]
    labels = dock.session.run.atoms["class"].to_numpy()
    np.testing.assert_array_equal(names == "titanium", labels == 1)
    assert [name for name, _ in dock.explore.bar.kinds] == ["0", "titanium"]
    box.table.item(0, 1).setText("titanium")
    assert "Another class is called titanium" in dock.header.message.text()
    box.use.click()
    sublattices = dock.session.picks.sublattice
    np.testing.assert_array_equal(sublattices == "titanium", labels == 1)
    np.testing.assert_array_equal(sublattices == "class 0", labels == 0)
    np.testing.assert_array_equal(sublattices == "", labels == -1)
    dock.explore.colour.setCurrentText("sublattice")  # words can be colours, too
    assert {name for name, _ in dock.explore.bar.kinds} == {"class 0", "titanium"}
    box.clear.click()
    assert not {"class", "class_name"} & set(dock.session.run.atoms.columns)
    assert not {"class", "class_name"} & set(layer(viewer).features.columns)
    assert box.table.isHidden()


def test_a_conditional_model_is_trained_of_classes_handed_over(qtbot, dock) -> None:
    box, patterns = dock.explore.classes, dock.explore.patterns
    assert patterns.given.isHidden()  # this model is not conditional
    box.count.setValue(2)
    box.split.setChecked(False)
    qtbot.mouseClick(box.find, LEFT)
    wait_for_classes(qtbot, dock)
    labels = dock.session.run.atoms["class"].to_numpy()
    qtbot.mouseClick(box.use, LEFT)
    dock.tabs.setCurrentIndex(1)
    dock.train.form.sublattices.setCurrentText("own patterns")
    before = dock.session.run
    qtbot.mouseClick(dock.train.run, LEFT)
    qtbot.waitUntil(
        lambda: dock.session.activity == "idle" and dock.session.run is not before, timeout=WAIT_MS
    )
    run = dock.session.run
    assert run.model.config.given == ("class 0", "class 1")
    by_pick = dict(zip(map(tuple, before.picks_yx), labels, strict=True))
    told = [f"class {by_pick[tuple(pick)]}" for pick in run.picks_yx]
    assert run.atoms["given_class"][run.used].tolist() == list(np.array(told)[run.used])
    dock.tabs.setCurrentIndex(2)
    scroll_to(dock, patterns.given)
    assert patterns.given.isVisible()
    first, strip = patterns.grid.pixels.copy(), patterns.strip.pixels.copy()
    qtbot.keyClick(patterns.given, Qt.Key.Key_Down)
    assert patterns.given.currentText() == "class 1"
    assert not np.array_equal(patterns.grid.pixels, first)
    assert not np.array_equal(patterns.strip.pixels, strip)
    from napari_shiftvae.core.manifold import decode

    dock.explore.drag.click()
    here, shown = tuple(dock.explore.scatter.handle.pos()), dock.explore.card.model.pixels
    np.testing.assert_allclose(shown, decode(run, here, "class 1")[0], atol=1e-5)
    assert not np.allclose(shown, decode(run, here, "class 0")[0], atol=1e-2)


def test_a_class_of_ones_own_from_the_selection(qtbot, viewer, dock) -> None:
    box = dock.explore.classes
    box.assign.click()
    assert "No atom is selected" in dock.header.message.text()
    rows = np.flatnonzero(dock.session.run.used)[:4]
    layer(viewer).selected_data = set(rows.tolist())
    qtbot.keyClicks(box.name, "odd")
    qtbot.keyClick(box.name, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: "class" in dock.session.run.atoms, timeout=WAIT_MS)
    np.testing.assert_array_equal(np.flatnonzero(dock.session.run.atoms["class"] == 0), rows)
    assert box.table.item(0, 1).text() == "odd"
    assert layer(viewer).features["class_name"][rows[0]] == "odd"


@pytest.mark.parametrize("name", ["z1.gif", "z1"])  # the kind of file may be chosen in the list
def test_a_traverse_is_saved(dock, tmp_path, monkeypatch, name) -> None:
    answer = (str(tmp_path / name), "GIF animation (*.gif)")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: answer)
    dock.explore.patterns.save.click()
    assert (tmp_path / "z1.gif").read_bytes()[:3] == b"GIF"


def test_sublattices_that_are_grouped_after_a_run_are_colours(qtbot, viewer, dock) -> None:
    before = list(viewer.layers)
    dock.atoms.group.click()
    qtbot.waitUntil(lambda: "Sublattices by" in dock.header.message.text(), timeout=WAIT_MS)
    assert list(viewer.layers) == before  # atoms of the run stay where they are
    dock.explore.colour.setCurrentText("sublattice")
    assert {name for name, _ in dock.explore.bar.kinds} >= {"A", "B"}
    assert len(np.unique(layer(viewer).face_color[dock.session.run.used], axis=0)) >= 2


def test_everything_of_an_atom_is_seen_at_once_on_a_small_screen(qtbot, viewer, dock) -> None:
    viewer.window._qt_window.resize(1366, 768)
    qtbot.wait(50)
    dock.session.say("Done: 800 of 900 atoms, 20 epochs, 10 s on cpu. " * 2)  # three lines
    qtbot.wait(50)
    card = dock.explore.card
    area = dock.explore.parentWidget()
    end = card.mapTo(area, card.rect().bottomLeft()).y()
    assert end <= area.height()


def test_a_deleted_layer_of_atoms_comes_back_when_it_is_needed(qtbot, viewer, dock) -> None:
    row = int(np.nanargmax(latents(dock)[:, 0]))
    layer(viewer).selected_data = {row}
    assert len(marked(dock)) == 1
    viewer.layers.remove("made atoms")
    assert not len(marked(dock))
    dock.explore.colour.setCurrentText("z2")
    qtbot.mouseClick(dock.explore.scatter.viewport(), LEFT, pos=at(dock, *latents(dock)[row]))
    qtbot.waitUntil(lambda: "made atoms" in viewer.layers)
    assert layer(viewer).selected_data == {row}
    np.testing.assert_allclose(marked(dock), latents(dock)[[row], 0])
    dock.explore.outlier.click()
    assert len(layer(viewer).selected_data) == 1


def test_renaming_and_reordering_layers_changes_nothing(qtbot, viewer, dock) -> None:
    atoms = layer(viewer)
    atoms.name = "my atoms"
    viewer.layers["made"].name = "my image"
    viewer.layers.reverse()
    viewer.layers.remove("made z1")
    row = int(np.nanargmax(latents(dock)[:, 0]))
    qtbot.mouseClick(dock.explore.scatter.viewport(), LEFT, pos=at(dock, *latents(dock)[row]))
    qtbot.waitUntil(lambda: atoms.selected_data == {row})
    dock.explore.colour.setCurrentText("residual")
    assert len(np.unique(atoms.face_color, axis=0)) > 10
    viewer.layers.remove("my image")
    assert not dock.explore.empty.isHidden()
    dock.explore.outlier.click()
    dock.explore.classes.find.click()


def test_the_users_colours_come_back(qtbot, viewer, dock) -> None:
    atoms = layer(viewer)
    atoms.face_color = "magenta"
    atoms.border_color = "yellow"
    atoms.border_width = 0.2
    dock.explore.colour.setCurrentText("z2")
    row = int(np.nanargmax(latents(dock)[:, 0]))
    qtbot.mouseClick(dock.explore.scatter.viewport(), LEFT, pos=at(dock, *latents(dock)[row]))
    qtbot.waitUntil(lambda: atoms.selected_data == {row})
    assert len(np.unique(atoms.face_color, axis=0)) > 10
    others = np.arange(len(atoms.data)) != row
    np.testing.assert_allclose(atoms.border_width[others], 0.2)  # of those not selected, kept
    dock.explore_control.close()
    np.testing.assert_allclose(atoms.face_color, np.tile([1, 0, 1, 1], (len(atoms.data), 1)))
    np.testing.assert_allclose(atoms.border_color, np.tile([1, 1, 0, 1], (len(atoms.data), 1)))
    np.testing.assert_allclose(atoms.border_width, 0.2)


def test_a_dock_that_is_closed_gives_colours_back_and_lets_go(qtbot, make_napari_viewer) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.add_image(MADE.image, name="made", **PLACE)
    widget = ShiftVAEWidget(viewer)
    frame = viewer.window.add_dock_widget(widget)
    widget.train.form.setValue(TrainSettings(epochs=3))
    with qtbot.waitSignal(widget.fields_control.read, timeout=WAIT_MS):
        widget.quick_run()
    qtbot.waitUntil(lambda: widget.session.activity == "idle", timeout=WAIT_MS)
    atoms = layer(viewer)
    atoms.face_color = "magenta"
    widget.explore.colour.setCurrentText("residual")
    assert len(np.unique(atoms.face_color, axis=0)) > 10
    assert has_dock(viewer)
    gone: list[object] = []
    widget.destroyed.connect(lambda *_: gone.append(True))
    frame.destroyOnClose()  # as the cross in its corner does
    qtbot.waitUntil(lambda: bool(gone), timeout=WAIT_MS)
    np.testing.assert_allclose(atoms.face_color, np.tile([1, 0, 1, 1], (len(atoms.data), 1)))
    assert not has_dock(viewer)


def test_a_run_from_a_file_is_explored_as_before(qtbot, viewer, dock, tmp_path) -> None:
    from napari_shiftvae.core.runfile import save_run

    path = save_run(dock.session.run, tmp_path / "made.shiftvae")
    viewer.layers.remove("made atoms")
    viewer.open(str(path), plugin="napari-shiftvae")
    assert dock.session.run.fit is None
    assert dock.explore.patterns.grid.pixels.size
    row = int(np.nanargmax(latents(dock)[:, 0]))
    qtbot.mouseClick(dock.explore.scatter.viewport(), LEFT, pos=at(dock, *latents(dock)[row]))
    qtbot.waitUntil(lambda: dock.explore.card.note.text().startswith(f"Atom {row}:"))
    assert dock.explore.card.model.pixels is not None


def test_many_dots_are_a_density_until_few_are_in_view(qtbot) -> None:
    rng = np.random.default_rng(5)
    right = rng.random(30_000) < 0.05
    x, y = rng.normal(np.where(right, 8, 0), 1), rng.normal(0, 1, len(right))
    plot = LatentScatter()
    qtbot.addWidget(plot)
    plot.resize(360, 250)
    plot.show()
    plot.set_points(x, y, colouring(pd.DataFrame({"x": x}), "x"))
    plot.show_all()
    assert plot.density.isVisible()
    assert not plot.dots.isVisible()
    picture = plot.density.image
    (x0, x1), _ = plot.plotItem.vb.viewRange()
    drawn = picture[..., 3] > 0
    column = ((x - x0) / (x1 - x0) * picture.shape[1]).astype(int)
    assert drawn[:, np.unique(column)].any(axis=0).all()  # every atom is in what is drawn
    assert not drawn[:, np.setdiff1d(np.arange(picture.shape[1]), column)].any()
    where = drawn.nonzero()
    green = picture[..., 1][where].astype(float)  # of viridis, which grows with x
    assert np.corrcoef(where[1], green)[0, 1] > 0.8
    plot.setRange(xRange=(5, 11), yRange=(-4, 4), padding=0)
    qtbot.waitUntil(plot.dots.isVisible)
    assert len(plot.dots.getData()[0]) == ((x >= 5) & (x <= 11) & (abs(y) <= 4)).sum()
    plot.show_all()
    qtbot.waitUntil(plot.density.isVisible)
    (x0, x1), _ = plot.plotItem.vb.viewRange()
    assert x0 <= x.min()
    assert x1 >= x.max()
