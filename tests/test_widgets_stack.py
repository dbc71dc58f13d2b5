"""A stack of frames in the dock: one model for all, each frame shown with napari's slider."""

import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

from napari.layers import Image, Points, Vectors

from driving import hold, press, wait_idle
from napari_shiftvae import sequence_jobs
from napari_shiftvae.cli import main
from napari_shiftvae.core import frames
from napari_shiftvae.core.analyse import analyse
from napari_shiftvae.core.images import Calibration, MicroscopeImage
from napari_shiftvae.core.progress import finish
from napari_shiftvae.core.readout import Options, read_out
from napari_shiftvae.core.runfile import save_run
from napari_shiftvae.core.sequence import analyse_sequence
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig
from napari_shiftvae.field_layers import vectors_look
from napari_shiftvae.layers import RUN
from napari_shiftvae.picks import Picks
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget

FRAMES = 4


@pytest.fixture(scope="module")
def stack() -> np.ndarray:
    return np.stack(
        [perovskite(rng=np.random.default_rng(n), shape=(150, 170)).image for n in range(FRAMES)]
    )


@pytest.fixture
def dock(viewer, stack, tmp_path, open_dock) -> ShiftVAEWidget:
    units = ("s", "nm", "nm")
    viewer.add_image(stack, name="movie", scale=(2.0, 0.015, 0.015), units=units)
    widget = open_dock(viewer, epochs=5)
    widget.tabs.setCurrentIndex(1)
    widget.train.stack.share.setValue(50)
    widget.train.stack.set_folder(tmp_path / "movie")
    return widget


def expected(stack, folder) -> pd.DataFrame:
    config = AnalysisConfig(train=TrainConfig(epochs=5))
    size = Calibration(pixel_size_nm=(0.015, 0.015))
    return finish(analyse_sequence(stack, config, folder, share=0.5, calibration=size)).atoms


def test_frames_are_shown_in_step(qtbot, viewer, dock, stack, tmp_path) -> None:
    assert not dock.train.stack.isHidden()
    press(qtbot, dock.train.run)
    wait_idle(qtbot, dock)
    assert f"in {FRAMES} frames, kept in {tmp_path / 'movie'}" in dock.header.message.text()
    made = {layer.name: layer for layer in viewer.layers}
    kinds = {"atoms": Points, "z1": Image, "z2": Image, "shift": Vectors}
    for name, kind in kinds.items():
        layer = made[f"movie {name}"]
        assert isinstance(layer, kind)
        np.testing.assert_allclose(
            layer.data_to_world((1, 12, 34)), viewer.layers["movie"].data_to_world((1, 12, 34))
        )
    atoms = made["movie atoms"]
    table = expected(stack, tmp_path / "script")
    numbers = table.select_dtypes("number")
    np.testing.assert_array_equal(atoms.features[numbers.columns], numbers)
    maps = made["movie z1"].data
    assert not atoms.visible  # those of the frame are
    atoms.visible = True
    assert maps.shape == stack.shape
    for t in range(FRAMES):
        viewer.dims.set_current_step(0, t)
        here = atoms._view_data
        assert len(here) == (table["t"] == t).sum() > 20
        used = table[(table["t"] == t) & (table["set_aside"] == "")]
        rows, columns = used[["y_px", "x_px"]].round().astype(int).to_numpy().T
        there = np.isfinite(maps[t][rows, columns])  # not at the corners of the hull
        assert there.mean() > 0.6
        np.testing.assert_allclose(maps[t][rows, columns][there], used["z1"][there], rtol=1e-5)
    assert not made["movie z1"].visible
    assert "Learned from frames 0, 3." in dock.train.findings.text()
    assert dock.train.model.choice.count() == 2  # its model can read single images


@pytest.fixture
def go_on(monkeypatch) -> threading.Event:
    """Set to have frames after the first read; until then they wait."""
    event, original = threading.Event(), frames.encode_steps

    def held(run, image, *arguments, **options):
        assert image.name == "frame 0" or event.wait(60)  # s; it would hang where a test fails
        return original(run, image, *arguments, **options)

    monkeypatch.setattr(frames, "encode_steps", held)
    return event


def wait_first_frame(qtbot, dock) -> None:
    """Start, and wait until the first frame has been read."""
    done = []
    dock.stack.job.progressed.connect(lambda progress: done.append(getattr(progress, "done", 0)))
    press(qtbot, dock.train.run)
    qtbot.waitUntil(lambda: 1 in done)


def test_stopped_between_frames_it_goes_on(qtbot, dock, stack, tmp_path, go_on) -> None:
    wait_first_frame(qtbot, dock)
    press(qtbot, dock.train.stop)
    go_on.set()
    wait_idle(qtbot, dock)
    assert f"of {FRAMES} frames, kept in" in dock.header.message.text()
    assert "Start it again to read the others" in dock.header.message.text()
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "movie").glob("f*.csv")}
    assert 1 <= len(written) < FRAMES
    press(qtbot, dock.train.run)
    wait_idle(qtbot, dock)
    for name, moment in written.items():
        assert (tmp_path / "movie" / name).stat().st_mtime_ns == moment
    table = pd.read_csv(tmp_path / "movie" / "atoms.csv").fillna({"set_aside": ""})
    again = expected(stack, tmp_path / "script")
    pd.testing.assert_frame_equal(table, again, check_dtype=False)


def test_atoms_found_in_all_frames_are_used(qtbot, dock) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    dock.session.change_picks(dock.session.picks.without([0]))
    press(qtbot, dock.train.run)
    wait_idle(qtbot, dock)
    table = dock.overlay.runs.of_run(dock.stack.frames._sequence, Points)[0].features
    picks = dock.session.picks.positions_tyx
    np.testing.assert_allclose(table[["t", "y_px", "x_px"]], picks, rtol=1e-9)
    assert not dock.overlay.atoms.visible


def test_trained_model_reads_the_frames_as_on_the_command_line(
    qtbot, dock, stack, tmp_path
) -> None:
    config = AnalysisConfig(train=TrainConfig(epochs=3))
    size = Calibration(pixel_size_nm=(0.015, 0.015))
    run = finish(analyse(MicroscopeImage(data=stack[0], name="one", calibration=size), config))
    path = save_run(run, tmp_path / "one")
    dock.model_control.open(str(path))
    qtbot.waitUntil(lambda: dock.model_control.chosen() is not None)
    press(qtbot, dock.train.run)
    wait_idle(qtbot, dock)
    assert "Read with the model of 'one'" in dock.train.findings.text()
    np.save(tmp_path / "stack.npy", stack)
    command = ["encode", str(path), str(tmp_path / "stack.npy"), "--output", str(tmp_path / "cli")]
    assert main([*command, "--pixel-size", "15", "--unit", "pm"]) == 0
    made = (tmp_path / "movie" / "atoms.csv").read_bytes()
    assert made == (tmp_path / "cli" / "atoms.csv").read_bytes()
    assert sum(row.startswith(b"3,") for row in made.splitlines()) > 20


def test_sublattices_of_a_stack_are_told_to_the_model(qtbot, dock, stack, tmp_path) -> None:
    """As on the command line: the same table to the last byte."""
    truth = [
        perovskite(rng=np.random.default_rng(n), shape=(150, 170)).truth.assign(t=n)
        for n in range(FRAMES)
    ]
    table = pd.concat(truth, ignore_index=True)
    dock.session.change_picks(Picks.read(table, by_hand=True))
    dock.train.form.setValue(TrainSettings(epochs=3, sublattices="given"))
    press(qtbot, dock.train.run)
    wait_idle(qtbot, dock)
    table.to_csv(tmp_path / "picks.csv", index=False)
    np.save(tmp_path / "stack.npy", stack)
    command = ["sequence", str(tmp_path / "stack.npy"), "--output", str(tmp_path / "cli")]
    command += ["--positions", str(tmp_path / "picks.csv"), "--condition", "sublattice"]
    command += ["--epochs", "3", "--share", "0.5", "--pixel-size", "15", "--unit", "pm"]
    assert main(command) == 0
    made = (tmp_path / "movie" / "atoms.csv").read_bytes()
    assert made == (tmp_path / "cli" / "atoms.csv").read_bytes()
    assert b"given_class" in made


def test_sublattices_are_missing(qtbot, dock) -> None:
    dock.train.form.setValue(TrainSettings(epochs=3, sublattices="examples"))
    press(qtbot, dock.train.run)
    wait_idle(qtbot, dock)
    assert "The atoms are in no sublattices" in dock.header.message.text()


def test_cancel_in_the_activity_dock_keeps_the_frames_that_are_read(
    qtbot, viewer, dock, tmp_path, go_on
) -> None:
    dock.stack.job.cancelled.connect(go_on.set)
    before = len(viewer.layers)
    wait_first_frame(qtbot, dock)
    qtbot.waitUntil(lambda: dock.stack.job._bar._bar is not None)
    dock.stack.job._bar._bar.cancel()
    wait_idle(qtbot, dock)
    assert "Cancelled; frames that were read are kept" in dock.header.message.text()
    assert len(viewer.layers) == before
    assert (tmp_path / "movie" / "frame-00000.csv").exists()
    assert not (tmp_path / "movie" / "atoms.csv").exists()


def wait_frame(qtbot, dock, frame: int) -> Points:
    view = dock.stack.frames
    dock._viewer.dims.set_current_step(0, frame)
    qtbot.waitUntil(lambda: view._shown is not None and view._shown.frame == frame)
    qtbot.waitUntil(lambda: not dock.fields_control._reads.runner.busy)
    return dock._viewer.layers["movie frame atoms"]


def _shown_by(viewer, name: str) -> list[object]:
    return [layer.metadata[RUN] for layer in viewer.layers if layer.name == name]


def _shows(layer: Image, drawn: np.ndarray) -> bool:
    return np.array_equal(layer.data, drawn, equal_nan=True)


def test_explore_and_fields_show_the_frame_that_the_slider_is_at(
    qtbot, viewer, dock, stack
) -> None:
    """Atoms, arrows and maps of each frame are those of its own run, as of an image alone."""
    press(qtbot, dock.train.run)
    wait_idle(qtbot, dock)
    wait_frame(qtbot, dock, 0)
    qtbot.waitUntil(lambda: dock.session.run is not None)
    dock.fields.vectors.setCurrentText("displacement from the lattice")
    dock.fields.map.setCurrentText("exx")
    sequence = dock.stack.frames._sequence
    for frame in (2, 1):
        atoms = wait_frame(qtbot, dock, frame)
        run = dock.session.run
        qtbot.waitUntil(lambda run=run: run in _shown_by(viewer, "movie exx"))
        table = sequence.atoms[sequence.atoms["t"] == frame]
        np.testing.assert_array_equal(run.atoms["z1"], table["z1"])
        np.testing.assert_array_equal(atoms.data, table[["y_px", "x_px"]])
        there = viewer.layers["movie"].data_to_world((frame, *atoms.data[3]))[1:]
        np.testing.assert_allclose(atoms.data_to_world(atoms.data[3]), there)
        assert len(dock.explore.table) == len(table)
        expected = read_out(run, Options(vectors="displacement from the lattice"))
        drawn = expected.scalars["exx"].on_pixels(run)
        map_layer = viewer.layers["movie exx"]
        qtbot.waitUntil(partial(_shows, map_layer, drawn))
        arrows = viewer.layers["movie frame shift"]
        assert arrows.metadata[RUN] is run
        np.testing.assert_allclose(
            arrows.data[:, 0],
            vectors_look(expected.field, dock.fields_control._look())["data"][:, 0],
        )
        row = int(np.flatnonzero(run.used)[5])
        patch = dock.explore_control._patch_of(row)
        patches = dock.explore_control._patches[1]
        y, x = patches.corner_yx[patches.index == row][0]
        here = stack[frame][y : y + len(patch), x : x + len(patch)]
        assert np.corrcoef(patch.ravel(), here.ravel())[0, 1] > 0.95


def test_a_map_that_is_chosen_is_shown_of_the_frame_that_the_slider_goes_to_meanwhile(
    qtbot, viewer, dock
) -> None:
    press(qtbot, dock.train.run)
    wait_idle(qtbot, dock)
    wait_frame(qtbot, dock, 0)
    draws = dock.fields_control._draws
    go_on = hold(draws)
    dock.fields.map.setCurrentText("exx")
    assert draws.runner.busy
    wait_frame(qtbot, dock, 2)
    go_on.set()
    run = dock.session.run
    qtbot.waitUntil(lambda: run in _shown_by(viewer, "movie exx"))
    assert dock.fields.map.currentText() == "exx"


def test_a_frame_that_takes_long_does_not_show_the_one_before(qtbot, dock) -> None:
    press(qtbot, dock.train.run)
    wait_idle(qtbot, dock)
    atoms = wait_frame(qtbot, dock, 1)
    go_on = hold(dock.stack.frames._reads)
    dock._viewer.dims.set_current_step(0, 2)
    qtbot.waitUntil(lambda: not atoms.visible)
    assert dock.stack.frames.frame == 1  # which all that is read still belongs to
    go_on.set()
    wait_frame(qtbot, dock, 2)
    assert atoms.visible


def test_selection_and_classes_of_a_frame(qtbot, dock) -> None:
    press(qtbot, dock.train.run)
    wait_idle(qtbot, dock)
    atoms = wait_frame(qtbot, dock, 1)
    dock.explore.scatter.picked.emit(np.array([2, 3]), False)
    assert atoms.selected_data == {2, 3}
    dock.fields.model_layers.click()
    qtbot.waitUntil(lambda: "movie residual" in dock._viewer.layers)
    residual = dock._viewer.layers["movie residual"]
    run = dock.session.run
    classed = replace(run, atoms=run.atoms.assign(**{"class": 0}))
    dock.overlay.runs.replace(run, classed)
    dock.session.replace_run(classed)
    wait_frame(qtbot, dock, 0)
    assert atoms.selected_data == set()
    assert residual not in dock._viewer.layers  # it told of the frame before
    assert "class" not in dock.session.run.atoms
    wait_frame(qtbot, dock, 1)
    assert dock.session.run is classed
    assert atoms.features["class"].eq(0).all()


def test_atoms_of_one_frame_alone_are_not_enough(qtbot, dock) -> None:
    dock.session.change_picks(Picks.of([[40, 40], [60, 60]], by_hand=True, t=1))
    press(qtbot, dock.train.run)
    assert "atoms in frame 1 only: press Find" in dock.header.message.text()


def test_image_has_no_questions_about_frames(viewer, dock, stack) -> None:
    viewer.add_image(stack[0], name="still")
    dock.header.chooser.setCurrentText("still")
    assert dock.train.stack.isHidden()
    dock.header.chooser.setCurrentText("movie")
    dock.train.spectra.setCurrentIndex(1)
    assert dock.train.stack.isHidden()


def test_large_maps_are_drawn_when_they_are_shown(stack, tmp_path, monkeypatch) -> None:
    config = AnalysisConfig(train=TrainConfig(epochs=1), refine=False)
    made = finish(analyse_sequence(stack, config, tmp_path, share=0.5))
    whole = sequence_jobs.maps(made, stack.shape)
    monkeypatch.setattr(sequence_jobs, "DRAW_AT_ONCE_BYTES", 0)
    lazy = sequence_jobs.maps(made, stack.shape)
    assert not isinstance(lazy["z2"], np.ndarray)
    np.testing.assert_array_equal(np.asarray(lazy["z2"][1]), whole["z2"][1])
