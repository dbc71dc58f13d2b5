"""The head of the dock: the image that is chosen, the size of its pixels, what is said."""

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")


import tifffile

from driving import press, run, wait_idle


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


def test_pixel_size_in_the_file_is_found_and_used(qtbot, viewer, open_dock, made, tmp_path) -> None:
    path = tmp_path / "film.ome.tif"
    pixel = {"PhysicalSizeX": 15.0, "PhysicalSizeY": 20.0}
    pixel |= {"PhysicalSizeXUnit": "pm", "PhysicalSizeYUnit": "pm"}
    tifffile.imwrite(path, made, metadata={"axes": "YX", **pixel})
    viewer.open(path, plugin="napari")
    widget = open_dock(viewer)
    field = widget.header.pixel_size.text
    qtbot.waitUntil(lambda: field.text() == "20 × 15 pm (from the file)")
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


def test_without_an_image_the_dock_says_what_to_do(viewer, open_dock) -> None:
    widget = open_dock(viewer)
    assert "Open an image first" in widget.header.message.text()
    assert not widget.header.quick_run.isEnabled()
    viewer.add_labels(np.eye(9, dtype=int), name="cells")
    widget.quick_run()
    assert "Convert to Image" in widget.header.message.text()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (np.zeros((8, 64, 64)), "constant"),
        (np.zeros((2, 8, 64, 64)), "4 dimensions"),
    ],
)
def test_stacks_that_cannot_be_analysed_get_one_sentence(
    qtbot, viewer, open_dock, data, sentence
) -> None:
    viewer.add_image(data, name="bad")
    widget = open_dock(viewer)
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
