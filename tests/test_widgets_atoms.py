"""The Atoms tab, driven as a person drives it: refine, group, regions, files, stacks."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import KDTree

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
from napari.layers import Shapes
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QColorDialog, QFileDialog, QInputDialog

from driving import work
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.placement import spatial
from napari_shiftvae.widgets import ShiftVAEWidget

PLACE = {
    "scale": (0.02, 0.02),
    "rotate": 20.0,
    "translate": (3.0, -7.0),
    "units": ("nm", "nm"),
}
MADE = perovskite(rng=np.random.default_rng(0), shape=(150, 170), pixel_size_nm=0.02, noise=0.03)
TRUTH = MADE.truth[["y_px", "x_px"]].to_numpy()


@pytest.fixture
def make_dock(viewer: napari.Viewer, open_dock) -> Callable[..., ShiftVAEWidget]:
    def make(data: np.ndarray, **place) -> ShiftVAEWidget:
        viewer.add_image(data, name="made", **place)
        return open_dock(viewer, epochs=2)

    return make


@pytest.fixture
def dock(make_dock) -> ShiftVAEWidget:
    return make_dock(MADE.image, **PLACE)


def atoms(viewer: napari.Viewer) -> napari.layers.Points:
    return viewer.layers["made atoms"]


def errors(dock: ShiftVAEWidget) -> np.ndarray:
    return KDTree(TRUTH).query(dock.session.picks.positions_yx)[0]


def test_refine_brings_atoms_to_the_truth_and_fills_the_table(qtbot, viewer, dock) -> None:
    work(qtbot, dock, dock.atoms.find)
    before = np.median(errors(dock))
    work(qtbot, dock, dock.atoms.refine)
    features = atoms(viewer).features
    good = (features["flag"] == "").to_numpy()
    assert good.mean() > 0.85
    assert np.median(errors(dock)[good]) < 0.8 * before
    columns = {"amplitude", "sigma_major_px", "sigma_minor_px", "ellipticity", "angle_rad"}
    assert columns | {"background", "y_sd_px", "x_sd_px"} <= set(features)
    assert features.loc[good, "amplitude"].gt(0).all()
    assert "Refined" in dock.header.message.text()
    # why some were not
    qtbot.waitUntil(lambda: "border" in dock.atoms.count.text())
    work(qtbot, dock, dock.atoms.undo)
    assert "amplitude" not in dock.session.picks.table


def test_flagged_atoms_stay_where_they_were(qtbot, dock) -> None:
    work(qtbot, dock, dock.atoms.find)
    dock.session.change_picks(dock.session.picks.added((0.0, 85.0)))
    work(qtbot, dock, dock.atoms.refine)
    last = dock.session.picks.table.iloc[-1]
    assert last["flag"] != ""
    assert (last["y_px"], last["x_px"]) == (0.0, 85.0)


def test_sublattices_are_grouped_named_coloured_and_analysed_alone(
    qtbot, viewer, dock, monkeypatch
) -> None:
    work(qtbot, dock, dock.atoms.find)
    work(qtbot, dock, dock.atoms.group)
    picks = dock.session.picks
    assert {"A", "B"} <= set(picks.sublattices)
    kinds = KDTree(TRUTH).query(picks.positions_yx)[1]
    named = picks.sublattice != ""
    true = MADE.truth["sublattice"].to_numpy()[kinds]
    assert np.mean(true[named] == picks.sublattice[named]) > 0.99
    rings = atoms(viewer).border_color
    one, other = (rings[picks.sublattice == name] for name in "AB")
    assert not np.allclose(one[0], other[0])

    edit = dock.atoms.sublattices.names["B"]
    edit.selectAll()
    qtbot.keyClicks(edit, "Ti")
    qtbot.keyClick(edit, Qt.Key.Key_Return)
    assert dock.session.picks.sublattices == ["A", "Ti"]

    monkeypatch.setattr(QColorDialog, "getColor", lambda *_, **__: QColor("#ff0000"))
    dock.atoms.sublattices.swatches["Ti"].click()
    is_ti = dock.session.picks.sublattice == "Ti"
    np.testing.assert_allclose(atoms(viewer).border_color[is_ti], [[1, 0, 0, 1]] * is_ti.sum())

    for name, check in dock.atoms.sublattices.checks.items():
        check.setChecked(name == "Ti")
    work(qtbot, dock, dock.header.quick_run)
    run = dock.session.run
    assert len(run.atoms) == is_ti.sum()
    assert len(dock.session.picks) == len(picks)  # all are still there
    layer = viewer.layers["made atoms [1]"]
    assert "z1" in layer.features
    assert set(layer.features["sublattice"]) == {"Ti"}
    np.testing.assert_allclose(
        layer.data_to_world((5, 6)), viewer.layers["made"].data_to_world((5, 6))
    )


def test_nothing_ticked_is_refused(qtbot, dock) -> None:
    work(qtbot, dock, dock.atoms.find)
    work(qtbot, dock, dock.atoms.group)
    for check in dock.atoms.sublattices.checks.values():
        check.setChecked(False)
    dock.header.quick_run.click()
    assert "tick what to analyse" in dock.header.message.text()
    assert dock.session.activity == "idle"


def test_selected_atoms_get_a_name(qtbot, viewer, dock, monkeypatch) -> None:
    work(qtbot, dock, dock.atoms.find)
    dock.atoms.assign.click()
    assert "No atom is selected" in dock.header.message.text()
    atoms(viewer).selected_data = {1, 3}
    monkeypatch.setattr(QInputDialog, "getText", lambda *_: ("wall", True))
    dock.atoms.assign.click()
    assert np.flatnonzero(dock.session.picks.sublattice == "wall").tolist() == [1, 3]


def test_atoms_in_a_region_only(qtbot, viewer, dock) -> None:
    image = viewer.layers["made"]
    box = np.array([[40, 50], [40, 130], [100, 130], [100, 50]])
    viewer.add_layer(Shapes([box], name="here", **spatial(image)))
    dock.atoms.region.setCurrentText("here")
    work(qtbot, dock, dock.atoms.find)
    found = dock.session.picks.positions_yx
    inside = ((TRUTH > [40.5, 50.5]) & (TRUTH < [99.5, 129.5])).all(axis=1)
    assert len(found) == pytest.approx(inside.sum(), abs=6)
    assert ((found >= [39.5, 49.5]) & (found <= [100.5, 130.5])).all()
    viewer.layers.remove("here")
    assert dock.atoms.chosen_region() is None


def test_a_region_beside_the_image_is_refused(viewer, dock) -> None:
    viewer.add_shapes([[[500, 500], [510, 510]]], name="away", units=("nm", "nm"))
    dock.atoms.region.setCurrentText("away")
    dock.atoms.find.click()
    assert "encloses nothing" in dock.header.message.text()
    assert len(dock.session.picks) == 0


def test_atoms_are_exported_and_imported(qtbot, dock, tmp_path, monkeypatch) -> None:
    work(qtbot, dock, dock.atoms.find)
    work(qtbot, dock, dock.atoms.refine)
    path = tmp_path / "table"  # the ending is added
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    dock.atoms.save.click()
    table = pd.read_csv(f"{path}.csv")
    picks = dock.session.picks
    np.testing.assert_allclose(table[["y_px", "x_px"]], picks.positions_yx)
    np.testing.assert_allclose(table["y_nm"], table["y_px"] * 0.02)
    dock.session.change_picks(picks.without(range(10)))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (f"{path}.csv", ""))
    dock.atoms.load.click()
    assert len(dock.session.picks) == len(picks)
    assert "Added 10" in dock.header.message.text()
    assert dock.session.picks.table["amplitude"].notna().sum() == table["amplitude"].notna().sum()


def test_a_file_that_is_no_table_changes_nothing(qtbot, dock, tmp_path, monkeypatch) -> None:
    work(qtbot, dock, dock.atoms.find)
    before = dock.session.picks
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "bad.csv"), ""))
    dock.atoms.load.click()
    assert "no columns y_px and x_px" in dock.header.message.text()
    assert dock.session.picks is before


@pytest.mark.parametrize("name", ["refine", "group", "beneath", "similar", "save"])
def test_without_atoms_every_button_says_what_to_do(dock, name) -> None:
    getattr(dock.atoms, name).click()
    assert "no atoms" in dock.header.message.text()
    assert dock.session.activity == "idle"


def test_the_lattice_is_told_with_its_vacancies(qtbot, viewer, dock) -> None:
    work(qtbot, dock, dock.atoms.find)
    positions = dock.session.picks.positions_yx
    inner = int(np.linalg.norm(positions - [75, 85], axis=1).argmin())
    gone = positions[inner]
    dock.session.change_picks(dock.session.picks.without([inner]))
    work(qtbot, dock, dock.atoms.fit_lattice)
    note = dock.atoms.lattice_note.text()
    assert "2 atoms per cell" in note
    assert "20.0" in note  # 0.40 nm of 0.02 nm pixels
    assert "0.40" in note
    vacancies = viewer.layers["made vacancies"]
    assert np.linalg.norm(vacancies.data - gone, axis=1).min() < 2
    assert vacancies.units == viewer.layers["made"].units
    assert dock.session.picks.table["lattice_a"].notna().mean() > 0.9
    work(qtbot, dock, dock.atoms.fit_lattice)
    assert sum("vacancies" in layer.name for layer in viewer.layers) == 1


def test_one_click_finds_the_rest_of_its_kind(qtbot, viewer, dock) -> None:
    sites = MADE.truth[(MADE.truth["sublattice"] == "B")][["y_px", "x_px"]].to_numpy()
    click = sites[np.linalg.norm(sites - [75, 85], axis=1).argmin()] + [0.8, -0.6]
    dock.session.change_picks(dock.session.picks.added(click))
    atoms(viewer).selected_data = {0}
    work(qtbot, dock, dock.atoms.similar)
    picks = dock.session.picks
    assert picks.sublattices == ["A"]  # the first free letter
    distance, _ = KDTree(sites).query(picks.positions_yx)
    assert np.mean(distance < 2) > 0.97
    inner = ((sites > 15) & (sites < [134, 154])).all(axis=1)
    assert np.mean(KDTree(picks.positions_yx).query(sites[inner])[0] < 2) > 0.97
    # the slider follows, as one step for undo
    before = len(picks)
    dock.atoms.score.setValue(0.99)
    assert len(dock.session.picks) < before
    dock.atoms.score.setValue(0.3)
    assert len(dock.session.picks) >= before
    work(qtbot, dock, dock.atoms.undo)
    assert len(dock.session.picks) == 1
    assert not dock.atoms.score.isEnabled()


def test_similar_needs_an_example(qtbot, dock) -> None:
    work(qtbot, dock, dock.atoms.find)
    dock.atoms.similar.click()
    assert "No atom is selected" in dock.header.message.text()


@pytest.fixture
def movie(make_dock) -> ShiftVAEWidget:
    """Three frames, each two pixels lower than the one before, in nm."""
    frames = np.stack([np.roll(MADE.image, 2 * t, axis=0) for t in range(3)])
    place = {"scale": (1, 0.02, 0.02), "units": ("pixel", "nm", "nm"), "translate": (0, 1, 2)}
    return make_dock(frames, **place)


def test_atoms_of_all_frames_in_one_table(qtbot, viewer, movie) -> None:
    work(qtbot, movie, movie.atoms.find)
    layer = atoms(viewer)
    assert layer.ndim == 3
    np.testing.assert_allclose(
        layer.data_to_world((2, 5, 6)), viewer.layers["made"].data_to_world((2, 5, 6))
    )
    picks = movie.session.picks
    np.testing.assert_array_equal(layer.data, picks.positions_tyx)
    for t in range(3):
        mine = picks.positions_yx[picks.t == t] - [2 * t, 0]
        mine = mine[mine[:, 0] > 8]
        assert np.median(KDTree(TRUTH).query(mine)[0]) < 0.5
    qtbot.waitUntil(lambda: "in 3 frames" in movie.atoms.count.text())


def test_the_threshold_previews_the_frame_that_is_shown(qtbot, viewer, movie) -> None:
    work(qtbot, movie, movie.atoms.find)
    before = movie.session.picks
    viewer.dims.set_current_step(0, 1)
    movie.atoms.form.threshold.setValue(0.9)
    qtbot.waitUntil(lambda: movie.session.activity == "idle")
    after = movie.session.picks
    assert (after.t == 1).sum() < (before.t == 1).sum()
    for t in (0, 2):
        assert (after.t == t).sum() == (before.t == t).sum()


def test_refining_a_stack_measures_every_frame(qtbot, movie) -> None:
    work(qtbot, movie, movie.atoms.find)
    work(qtbot, movie, movie.atoms.refine)
    table = movie.session.picks.table
    good = table[table["flag"] == ""]
    assert good.groupby("t").size().min() > 60
    assert good["amplitude"].notna().all()


def test_a_stack_is_exported_with_frames(qtbot, movie, tmp_path) -> None:
    work(qtbot, movie, movie.atoms.find)
    movie.atoms_control.save(str(tmp_path / "atoms.csv"))
    table = pd.read_csv(tmp_path / "atoms.csv")
    assert list(table.columns[:3]) == ["t", "y_px", "x_px"]
    count = len(table)
    movie.session.change_picks(movie.session.picks.without(range(count)))
    movie.atoms_control.load(str(tmp_path / "atoms.csv"))
    assert len(movie.session.picks) == count
    (tmp_path / "later.csv").write_text("t,y_px,x_px\n7,10,10\n")
    movie.atoms_control.load(str(tmp_path / "later.csv"))
    assert "frames up to 7" in movie.header.message.text()
