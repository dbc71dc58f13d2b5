"""The Explore tab linked with the image, driven by the mouse in the plot and on the canvas."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from explored import MADE, PLACE, at, latents, layer, marked
from mouse import Mouse
from napari_shiftvae.colouring import colouring
from napari_shiftvae.widgets import ShiftVAEWidget
from napari_shiftvae.widgets.patterns_box import GAP
from napari_shiftvae.widgets.scatter import LatentScatter

LEFT = Qt.MouseButton.LeftButton
EDGE = 0.02  # of their range: so far from the outermost dots the plot still goes


@pytest.fixture
def dock(finished_dock: Callable[..., ShiftVAEWidget]) -> ShiftVAEWidget:
    """A dock with a finished run, on the Explore tab."""
    return finished_dock(MADE.image, tab=2, epochs=12, **PLACE)


@pytest.fixture
def viewer(dock: ShiftVAEWidget) -> napari.Viewer:
    return dock.overlay.viewer


def draw(qtbot, dock, corners, key=Qt.KeyboardModifier.NoModifier) -> None:
    port = dock.explore.scatter.viewport()
    points = [at(dock, *corner) for corner in corners]
    qtbot.mousePress(port, LEFT, key, points[0])
    for point in points[1:]:
        qtbot.mouseMove(port, point)
        qtbot.wait(5)
    qtbot.mouseRelease(port, LEFT, key, points[-1])
    qtbot.wait(20)


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


@pytest.mark.parametrize("name", ["z1.gif", "z1"])  # the kind of file may be chosen in the list
def test_a_traverse_is_saved(dock, tmp_path, monkeypatch, name) -> None:
    answer = (str(tmp_path / name), "GIF animation (*.gif)")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: answer)
    dock.explore.patterns.save.click()
    assert (tmp_path / "z1.gif").read_bytes()[:3] == b"GIF"


def test_everything_of_an_atom_is_seen_at_once_on_a_small_screen(qtbot, viewer, dock) -> None:
    viewer.window._qt_window.resize(1366, 768)
    qtbot.wait(50)
    dock.session.say("Done: 800 of 900 atoms, 20 epochs, 10 s on cpu. " * 2)  # three lines
    qtbot.wait(50)
    card = dock.explore.card
    area = dock.explore.parentWidget()
    end = card.mapTo(area, card.rect().bottomLeft()).y()
    assert end <= area.height()


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
