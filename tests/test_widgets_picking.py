"""Atoms added, moved and deleted by real mouse events on a real canvas."""

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
from qtpy.QtCore import Qt

from mouse import Mouse
from napari_shiftvae.widgets import ShiftVAEWidget

PLACES = {
    "pixels": {},
    "oblong, turned, moved, in nm": {
        "scale": (0.015, 0.02),
        "rotate": 20.0,
        "translate": (3.0, -7.0),
        "units": ("nm", "nm"),
    },
    "frame of a stack": {"scale": (1.0, 0.5, 0.5), "translate": (0.0, 3.0, -7.0)},
}


@pytest.fixture(params=PLACES)
def viewer(
    request: pytest.FixtureRequest, make_napari_viewer: Callable[..., napari.Viewer]
) -> napari.Viewer:
    made = make_napari_viewer(show=True)
    frames = (3,) if "stack" in request.param else ()
    data = np.random.default_rng(0).normal(size=(*frames, 90, 120))
    made.add_image(data, **PLACES[request.param])
    made.dims.set_current_step(0, 1)
    return made


@pytest.fixture
def dock(viewer: napari.Viewer, qtbot, open_dock) -> ShiftVAEWidget:
    widget = open_dock(viewer)
    qtbot.wait(50)
    viewer.reset_view()
    widget.atoms.edit.setChecked(True)
    return widget


@pytest.fixture
def mouse(qtbot, viewer: napari.Viewer, dock: ShiftVAEWidget) -> Mouse:
    return Mouse(qtbot, viewer, dock.overlay.image)


def picks(dock: ShiftVAEWidget) -> np.ndarray:
    return dock.session.picks.positions_yx


def near(position_yx) -> object:
    """Canvas pixels are larger than those of the image may be."""
    return pytest.approx(np.array(position_yx), abs=1.0)


def test_click_drag_and_shift_click(mouse, dock) -> None:
    mouse.click((30, 40))
    mouse.click((60, 90))
    assert picks(dock)[0] == near((30, 40))
    assert picks(dock)[1] == near((60, 90))
    assert set(dock.session.picks.t) == {dock.overlay.frame}
    mouse.drag((30, 40), (20, 70))
    assert len(picks(dock)) == 2
    assert picks(dock)[0] == near((20, 70))
    mouse.click((60, 90), Qt.KeyboardModifier.ShiftModifier)
    assert len(picks(dock)) == 1
    for expected in (2, 2, 1, 0):  # deletion, drag, second and first click
        dock.atoms.undo.click()
        assert len(picks(dock)) == expected


def test_click_on_an_atom_selects_it_for_deletion(mouse, dock) -> None:
    mouse.click((30, 40))
    mouse.click((60, 90))
    mouse.click((30, 40))
    assert dock.overlay.picks.selected() == [0]
    dock.atoms.delete.click()
    assert len(picks(dock)) == 1
    assert picks(dock)[0] == near((60, 90))


def test_dragging_where_no_atom_is_pans(viewer, mouse, dock) -> None:
    before = viewer.scene.camera.center
    mouse.drag((30, 40), (50, 60))
    assert len(picks(dock)) == 0
    assert viewer.scene.camera.center != before


def test_dragging_an_atom_does_not_pan(viewer, mouse, dock) -> None:
    mouse.click((30, 40))
    before = viewer.scene.camera.center
    mouse.drag((30, 40), (50, 60))
    assert picks(dock)[0] == near((50, 60))
    assert viewer.scene.camera.center == before


def test_clicks_outside_the_image_and_with_the_tool_off_add_nothing(mouse, dock) -> None:
    mouse.click((-4, 40))
    assert len(picks(dock)) == 0
    assert "outside the image" in dock.header.message.text()
    dock.atoms.edit.setChecked(False)
    mouse.click((30, 40))
    assert len(picks(dock)) == 0


def test_clicks_are_right_beside_a_layer_in_other_units(viewer, mouse, dock) -> None:
    if str(viewer.layers[0].units[-1]) != "nanometer":
        pytest.skip("pixels cannot be mixed with lengths")
    viewer.add_image(np.eye(4), units=("angstrom", "angstrom"), visible=False)
    viewer.reset_view()
    mouse.click((30, 40))
    assert picks(dock)[0] == near((30, 40))


def around(middle_yx, radius: float) -> list[tuple[float, float]]:
    y, x = middle_yx
    angles = np.linspace(0, 2 * np.pi, 12)
    return [(y + radius * np.sin(angle), x + radius * np.cos(angle)) for angle in angles]


def test_the_lasso_selects_what_it_goes_around(viewer, mouse, dock) -> None:
    for place in ((30, 40), (36, 44), (60, 90)):
        mouse.click(place)
    before = viewer.scene.camera.center
    dock.atoms.lasso.setChecked(True)
    assert not dock.atoms.edit.isChecked()
    mouse.draw(around((33, 42), 12))
    assert dock.overlay.picks.selected() == [0, 1]
    assert viewer.scene.camera.center == before  # drawing does not pan
    assert "lasso" not in viewer.layers  # the line goes when it is done
    mouse.draw(around((60, 90), 8), Qt.KeyboardModifier.ShiftModifier)
    assert dock.overlay.picks.selected() == [0, 1, 2]
    mouse.draw(around((33, 42), 12))
    dock.atoms.delete.click()
    assert picks(dock)[0] == near((60, 90))
    assert len(picks(dock)) == 1
    dock.atoms.undo.click()
    assert len(picks(dock)) == 3
