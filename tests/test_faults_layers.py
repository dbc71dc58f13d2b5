"""Layers that are changed in mid-run, in a real viewer: nothing is lost, the dock goes on."""

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

from napari.layers import Points
from napari.utils.notifications import notification_manager

from aftermath import assert_usable, raises
from driving import begin, stop
from seen import state


def test_image_deleted(qtbot, viewer, dock, made) -> None:
    begin(qtbot, dock)
    del viewer.layers["made"]
    stop(qtbot, dock)
    assert {"made z1", "made atoms"} <= {layer.name for layer in viewer.layers}
    assert not dock.header.quick_run.isEnabled()
    assert "Open an image" in dock.header.message.text()
    viewer.add_image(made, name="again")
    assert_usable(qtbot, dock)


def test_image_renamed(qtbot, viewer, dock) -> None:
    begin(qtbot, dock)
    viewer.layers["made"].name = "film"
    stop(qtbot, dock)
    assert {"film", "film z1", "film shift"} <= {layer.name for layer in viewer.layers}
    assert dock.header.chooser.currentText() == "film"
    assert_usable(qtbot, dock)


@pytest.mark.parametrize("shape", ["same", "smaller"])
def test_data_of_the_image_replaced(qtbot, viewer, dock, made, shape) -> None:
    begin(qtbot, dock)
    image = viewer.layers["made"]
    image.data = made[:, ::-1].copy() if shape == "same" else made[:140, :130].copy()
    stop(qtbot, dock)
    assert viewer.layers["made z1"].data.shape == made.shape  # of the image as it was
    assert "was changed meanwhile" in dock.header.message.text()
    if shape == "smaller":
        dock.session.change_picks(dock.session.picks.edited(np.empty((0, 2))))
    assert_usable(qtbot, dock)
    assert viewer.layers["made z1 [1]"].data.shape == image.data.shape


def test_image_becomes_a_stack(qtbot, viewer, dock, made) -> None:
    begin(qtbot, dock)
    viewer.layers["made"].data = np.stack([made, made])
    stop(qtbot, dock)
    assert "was changed meanwhile" in dock.header.message.text()
    assert viewer.layers["made z1"].data.shape == made.shape
    np.testing.assert_allclose(viewer.layers["made z1"].scale, (0.015, 0.02))
    assert dock.session.run is not None
    viewer.layers.clear()
    viewer.add_image(made, name="again")
    assert_usable(qtbot, dock)


def test_layers_that_napari_cannot_make(qtbot, viewer, dock, monkeypatch) -> None:
    """Another plugin that listens may fail, too: the run is kept, and can be saved."""
    shown = []
    monkeypatch.setattr(notification_manager, "receive_error", lambda kind, *_: shown.append(kind))
    begin(qtbot, dock)
    before = state(viewer)
    with monkeypatch.context() as patched:
        patched.setattr(
            dock.overlay.runs, "adding", lambda *_, **__: raises(OverflowError("too far"))
        )
        stop(qtbot, dock)
    assert shown == [OverflowError]
    said_at_last = dock.header.message.text()
    assert said_at_last.startswith("⚠ Done")
    assert "Not all layers of it could be made (too far); save it" in said_at_last
    assert dock.session.run is not None
    assert dock.fields.save.isEnabled()
    assert state(viewer)["made"] == before["made"]
    assert_usable(qtbot, dock)


def test_pixels_changed_in_place_do_not_reach_the_run(qtbot, viewer, dock, made) -> None:
    from napari_shiftvae.core.images import checksum

    image = viewer.layers["made"]
    expected = checksum(image.data)
    begin(qtbot, dock)
    image.data[:] = 7.0
    image.refresh()
    stop(qtbot, dock)
    assert dock.session.run.image.sha256 == expected
    image.data[:] = made
    assert_usable(qtbot, dock)


def test_atoms_deleted(qtbot, viewer, dock) -> None:
    begin(qtbot, dock)
    del viewer.layers["made atoms"]
    stop(qtbot, dock)
    assert "z1" in viewer.layers["made atoms"].features
    assert_usable(qtbot, dock)


def test_atoms_edited(qtbot, viewer, dock) -> None:
    begin(qtbot, dock)
    atoms = viewer.layers["made atoms"]
    atoms.selected_data = {0, 1, 2}
    atoms.remove_selected()
    atoms.add([40.0, 41.0])
    edited = atoms.data.copy()
    stop(qtbot, dock)
    np.testing.assert_array_equal(atoms.data, edited)  # the user's edits stay
    assert len(dock.session.run.atoms) == len(edited) + 2
    results = [
        layer for layer in viewer.layers if isinstance(layer, Points) and "z1" in layer.features
    ]
    assert [len(layer.data) for layer in results] == [len(edited) + 2]
    assert_usable(qtbot, dock)


def test_all_layers_deleted(qtbot, viewer, dock, made) -> None:
    begin(qtbot, dock)
    viewer.layers.clear()
    stop(qtbot, dock)
    viewer.add_image(made, name="again")
    assert_usable(qtbot, dock)
