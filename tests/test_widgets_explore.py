"""The Explore tab linked with the image, driven by the mouse in the plot and on the canvas."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtWidgets import QFileDialog

from mouse import Mouse
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget

WAIT_MS = 60_000
LEFT = Qt.MouseButton.LeftButton
MADE = perovskite(rng=np.random.default_rng(0), shape=(150, 170), pixel_size_nm=0.02)
PLACE = {"scale": (0.02, 0.02), "translate": (3.0, -7.0), "units": ("nm", "nm")}


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., napari.Viewer]) -> napari.Viewer:
    return make_napari_viewer(show=True)


@pytest.fixture
def dock(qtbot, viewer: napari.Viewer) -> Iterator[ShiftVAEWidget]:
    """A dock with a finished run, on the Explore tab."""
    viewer.add_image(MADE.image, name="made", **PLACE)
    widget = ShiftVAEWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.train.form.setValue(TrainSettings(epochs=12))
    widget.quick_run()
    qtbot.waitUntil(lambda: widget.session.activity == "idle", timeout=WAIT_MS)
    widget.tabs.setCurrentIndex(2)
    qtbot.wait(50)
    yield widget
    widget.training.close()
    widget.atoms_control.close()
    widget.explore_control.close()
    widget.pixel_size.close()


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


def latents(dock: ShiftVAEWidget) -> np.ndarray:
    return dock.session.run.atoms[["z1", "z2"]].to_numpy(dtype=float)


def layer(viewer: napari.Viewer) -> napari.layers.Points:
    return viewer.layers["made atoms"]


def box_around(values: np.ndarray) -> list[tuple[float, float]]:
    """Corners of a box around the lower half of z1."""
    (x0, y0), (x1, y1) = np.nanmin(values, axis=0) - 0.1, np.nanmax(values, axis=0) + 0.1
    middle = float(np.nanmedian(values[:, 0]))
    del x1
    return [(x0, y0), (middle, y0), (middle, y1), (x0, y1), (x0, y0)]


def test_a_lasso_in_the_plot_selects_atoms_in_the_image(qtbot, viewer, dock) -> None:
    z = latents(dock)
    corners = np.array(box_around(z))
    path = np.concatenate([np.linspace(a, b, 5) for a, b in pairwise(corners)])
    draw(qtbot, dock, path)
    expected = np.flatnonzero(z[:, 0] < corners[1, 0])
    chosen = np.array(sorted(layer(viewer).selected_data))
    assert len(np.setxor1d(chosen, expected)) <= 2  # a dot on the line
    marked, _ = dock.explore.scatter.marks.getData()
    np.testing.assert_allclose(np.sort(marked), np.sort(z[chosen, 0]))
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
    right = [(corners[1][0], corners[0][1]), (z[:, 0][np.isfinite(z[:, 0])].max() + 0.1, 99)]
    right[1] = (right[1][0], corners[2][1])
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
    y, x = np.rint(layer(viewer).data[row]).astype(int)
    middle = card.patch.pixels.shape[0] // 2
    ring = MADE.image[y - 3 : y + 4, x - 3 : x + 4]
    own = card.patch.pixels[middle - 3 : middle + 4, middle - 3 : middle + 4]
    assert np.corrcoef(ring.ravel(), own.ravel())[0, 1] > 0.5  # the patch of that atom


def test_pointing_at_an_atom_in_the_image_shows_it(qtbot, viewer, dock) -> None:
    viewer.reset_view()
    mouse = Mouse(qtbot, viewer, viewer.layers["made"])
    row = int(np.flatnonzero(dock.session.run.used)[7])
    mouse.move(layer(viewer).data[row])
    qtbot.waitUntil(lambda: dock.explore.card.note.text().startswith(f"Atom {row}:"))


def test_selecting_atoms_in_the_image_marks_their_dots(viewer, dock) -> None:
    rows = np.flatnonzero(dock.session.run.used)[3:6]
    layer(viewer).selected_data = set(rows.tolist())
    marked, _ = dock.explore.scatter.marks.getData()
    np.testing.assert_allclose(np.sort(marked), np.sort(latents(dock)[rows, 0]))


def test_a_double_click_goes_there_and_outliers_are_stepped_through(qtbot, viewer, dock) -> None:
    z = latents(dock)
    row = int(np.nanargmin(z[:, 1]))
    port = dock.explore.scatter.viewport()
    qtbot.mouseClick(port, LEFT, pos=at(dock, *z[row]))
    qtbot.mouseDClick(port, LEFT, pos=at(dock, *z[row]))
    qtbot.mouseRelease(port, LEFT, pos=at(dock, *z[row]))  # which a hand does, too
    world = layer(viewer).data_to_world(layer(viewer).data[row])
    qtbot.waitUntil(lambda: np.allclose(viewer.scene.camera.center[-2:], world))
    residual = dock.session.run.atoms["residual"].to_numpy()
    order = np.argsort(-np.nan_to_num(residual, nan=-1))
    for expected in order[:2]:
        dock.explore.outlier.click()
        assert layer(viewer).selected_data == {int(expected)}
    assert "Outlier 2 of" in dock.header.message.text()


def test_the_pattern_follows_the_handle(dock) -> None:
    dock.explore.drag.click()
    first = dock.explore.card.model.pixels.copy()
    dock.explore.scatter.handle.setPos(2.0, -1.0)
    assert not np.allclose(dock.explore.card.model.pixels, first)
    assert "z1 = 2.00, z2 = -1.00" in dock.explore.card.note.text()
    dock.explore.y.setCurrentText("residual")
    assert not dock.explore.drag.isChecked()
    dock.explore.drag.click()
    assert "Choose latents" in dock.header.message.text()


@pytest.mark.parametrize("method", ["gaussian mixture", "k-means"])
def test_classes_become_a_column_and_colours(qtbot, viewer, dock, method) -> None:
    box = dock.explore.classes
    box.method.setCurrentText(method)
    box.count.setValue(2)
    box.find.click()
    qtbot.waitUntil(lambda: "class" in dock.session.run.atoms, timeout=WAIT_MS)
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
    # the class of a line is selected by a click on it
    box.table.cellClicked.emit(1, 1)
    assert layer(viewer).selected_data == set(np.flatnonzero(labels == 1).tolist())


def test_a_class_of_ones_own_from_the_selection(qtbot, viewer, dock) -> None:
    dock.explore.classes.assign.click()
    assert "No atom is selected" in dock.header.message.text()
    rows = np.flatnonzero(dock.session.run.used)[:4]
    layer(viewer).selected_data = set(rows.tolist())
    dock.explore.classes.assign.click()
    qtbot.waitUntil(lambda: "class" in dock.session.run.atoms, timeout=WAIT_MS)
    np.testing.assert_array_equal(np.flatnonzero(dock.session.run.atoms["class"] == 0), rows)


def test_a_traverse_is_saved(dock, tmp_path, monkeypatch) -> None:
    path = tmp_path / "z1.gif"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    dock.explore.save_strip.click()
    assert path.read_bytes()[:3] == b"GIF"


def test_the_tab_survives_the_loss_of_its_layer(viewer, dock) -> None:
    viewer.layers.remove("made atoms")
    dock.explore.scatter.picked.emit(np.array([1, 2]), False)
    assert "gone" in dock.header.message.text()
    dock.explore.colour.setCurrentText("z2")
    dock.explore.outlier.click()
