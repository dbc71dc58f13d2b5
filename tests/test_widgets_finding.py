"""The Atoms tab: atoms that are found, picks by hand, undo, windows on a grid."""

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")


from driving import press, run, wait_idle
from napari_shiftvae.picks import Picks
from napari_shiftvae.settings import FindSettings
from napari_shiftvae.widgets.find_form import FindForm


def test_find_fills_the_atoms_layer_and_counts(qtbot, viewer, dock) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    atoms = viewer.layers["made atoms"]
    assert len(atoms.data) > 40
    counted = f"<b>{len(atoms.data)}</b> atoms"
    qtbot.waitUntil(lambda: counted in dock.atoms.count.text())
    qtbot.waitUntil(lambda: "too near the border" in dock.atoms.count.text())
    assert (atoms.features["set_aside"] == "border").any()
    # separation in pixels and nm
    assert "nm" in dock.atoms.form.separation_note.text()


def test_the_threshold_slider_shows_its_spots_at_once(qtbot, viewer, dock) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    atoms, slider = viewer.layers["made atoms"], dock.atoms.form.threshold
    found = len(atoms.data)
    counts = []
    for threshold in (0.5, 0.7, 0.9):
        slider.setValue(threshold)
        assert dock.session.activity == "idle"  # no thread: it is fast enough
        counts.append(len(atoms.data))
    assert found > counts[1] > counts[2]
    press(qtbot, dock.atoms.undo)
    assert len(atoms.data) == found
    press(qtbot, dock.atoms.redo)
    assert len(atoms.data) == counts[2]


def test_picks_by_hand_outlive_finding(qtbot, viewer, dock) -> None:
    dock.session.change_picks(Picks.none().added((75.5, 80.25)))
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    atoms = viewer.layers["made atoms"]
    assert (75.5, 80.25) in set(map(tuple, atoms.data))
    assert atoms.features["by_hand"].sum() == 1
    qtbot.waitUntil(lambda: "1 of them by hand" in dock.atoms.count.text())


def test_what_napari_s_own_tools_do_is_taken_over_and_undone(qtbot, viewer, dock) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    atoms = viewer.layers["made atoms"]
    before = atoms.data.copy()
    atoms.selected_data = {0, 1, 2}
    atoms.remove_selected()
    atoms.add([20.0, 30.0])
    assert len(dock.session.picks) == len(before) - 2
    assert dock.session.picks.by_hand.tolist()[-1]
    press(qtbot, dock.atoms.undo)
    press(qtbot, dock.atoms.undo)
    np.testing.assert_array_equal(atoms.data, before)


def test_a_deleted_atoms_layer_comes_back_with_undo(qtbot, viewer, dock) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    before = viewer.layers["made atoms"].data.copy()
    del viewer.layers["made atoms"]
    assert len(dock.session.picks) == 0
    press(qtbot, dock.atoms.undo)
    np.testing.assert_array_equal(viewer.layers["made atoms"].data, before)


def test_windows_on_a_grid_need_no_atoms(qtbot, viewer, dock) -> None:
    dock.atoms.form.setValue(FindSettings(sampling="grid", count=150))
    run(qtbot, dock)
    assert dock.session.run.config.sampling == "grid"
    np.testing.assert_array_equal(viewer.layers["made atoms"].data, dock.session.run.picks_yx)


def test_windows_on_a_grid_leave_the_picks_alone(qtbot, viewer, dock) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    picks = viewer.layers["made atoms"].data.copy()
    dock.atoms.form.setValue(FindSettings(sampling="grid", count=150))
    run(qtbot, dock)
    np.testing.assert_array_equal(viewer.layers["made atoms"].data, picks)
    assert "z1" in viewer.layers["made atoms [1]"].features


def test_find_form_round_trip(qtbot) -> None:
    form = FindForm()
    qtbot.addWidget(form)
    settings = FindSettings(
        dark=True, separation_px=12.5, threshold=0.4, sampling="grid", count=300
    )
    with qtbot.waitSignal(form.valueChanged) as heard:
        form.setValue(settings)
    assert form.value() == settings == heard.args[0]
    form.setValue(FindSettings())
    assert form.value() == FindSettings()
