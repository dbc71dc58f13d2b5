"""Explore goes with its layers: deleted, renamed, coloured by hand, opened from a file."""

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
from qtpy.QtCore import Qt

from explored import MADE, PLACE, at, latents, layer, marked
from napari_shiftvae.docks import has_dock
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def dock(finished_dock: Callable[..., ShiftVAEWidget]) -> ShiftVAEWidget:
    """A dock with a finished run, on the Explore tab."""
    return finished_dock(MADE.image, tab=2, epochs=12, **PLACE)


@pytest.fixture
def viewer(dock: ShiftVAEWidget) -> napari.Viewer:
    return dock.overlay.viewer


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
    with qtbot.waitSignal(widget.fields_control.read):
        widget.quick_run()
    qtbot.waitUntil(lambda: widget.session.activity == "idle")
    atoms = layer(viewer)
    atoms.face_color = "magenta"
    widget.explore.colour.setCurrentText("residual")
    assert len(np.unique(atoms.face_color, axis=0)) > 10
    assert has_dock(viewer)
    gone: list[object] = []
    widget.destroyed.connect(lambda *_: gone.append(True))
    frame.destroyOnClose()  # as the cross in its corner does
    qtbot.waitUntil(lambda: bool(gone))
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
