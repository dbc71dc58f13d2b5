"""Classes in the Explore tab: found, named, handed over, forgotten."""

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
from qtpy.QtCore import Qt

from explored import MADE, PLACE, layer
from napari_shiftvae.widgets import ShiftVAEWidget

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def dock(finished_dock: Callable[..., ShiftVAEWidget]) -> ShiftVAEWidget:
    """A dock with a finished run, on the Explore tab."""
    return finished_dock(MADE.image, tab=2, epochs=12, **PLACE)


@pytest.fixture
def viewer(dock: ShiftVAEWidget) -> napari.Viewer:
    return dock.overlay.viewer


def scroll_to(dock: ShiftVAEWidget, widget) -> None:
    dock.explore.parentWidget().parentWidget().ensureWidgetVisible(widget)


def wait_for_classes(qtbot, dock) -> None:
    """Wait until there are classes, and its buttons do something again."""
    box = dock.explore.classes
    qtbot.waitUntil(lambda: "class" in dock.session.run.atoms and box.find.isEnabled())


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
    qtbot.waitUntil(lambda: dock.session.activity == "idle" and dock.session.run is not before)
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
    qtbot.waitUntil(lambda: "class" in dock.session.run.atoms)
    np.testing.assert_array_equal(np.flatnonzero(dock.session.run.atoms["class"] == 0), rows)
    assert box.table.item(0, 1).text() == "odd"
    assert layer(viewer).features["class_name"][rows[0]] == "odd"


def test_sublattices_that_are_grouped_after_a_run_are_colours(qtbot, viewer, dock) -> None:
    before = list(viewer.layers)
    dock.atoms.group.click()
    qtbot.waitUntil(lambda: "Sublattices by" in dock.header.message.text())
    assert list(viewer.layers) == before  # atoms of the run stay where they are
    dock.explore.colour.setCurrentText("sublattice")
    assert {name for name, _ in dock.explore.bar.kinds} >= {"A", "B"}
    assert len(np.unique(layer(viewer).face_color[dock.session.run.used], axis=0)) >= 2
