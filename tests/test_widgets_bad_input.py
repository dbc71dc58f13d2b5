"""Atoms, settings and files that are no good: one sentence in the dock, and the same typed."""

import zipfile

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import pandas as pd

from driving import run, work
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.runfile import save_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.train import TrainConfig
from napari_shiftvae.picks import Picks
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget
from seen import refused, state

GRID = np.stack(np.meshgrid(np.arange(30, 121, 15.0), np.arange(30, 121, 15.0)), -1).reshape(-1, 2)


@pytest.fixture(scope="module")
def run_file(made, tmp_path_factory):
    config = AnalysisConfig(train=TrainConfig(epochs=2))
    run = finish(analyse(MicroscopeImage(data=made, name="made"), config))
    return save_run(run, tmp_path_factory.mktemp("runs") / "good.shiftvae")


@pytest.fixture
def dock(viewer, made, open_dock) -> ShiftVAEWidget:
    viewer.add_image(made, name="made", scale=(0.2, 0.3), rotate=20)
    return open_dock(viewer, epochs=2)


BAD_ATOMS = {
    "few": (GRID[:5], 12, "5 different positions and the model needs at least"),
    "large": (GRID, 160, "160"),
    "border": (np.column_stack([np.linspace(0, 149, 40), np.ones(40)]), 12, "too near the border"),
    "twice": (np.repeat(GRID[:5], 8, axis=0), 12, "5 different"),
    "outside": (GRID + 1000, 12, "too near the border"),
}


def test_atoms_and_patches_that_do_not_do(qtbot, dock, made, tmp_path, capsys) -> None:
    viewer = dock.overlay.viewer
    np.save(tmp_path / "made.npy", made)
    run(qtbot, dock)
    made_before, earlier = dock.session.run, state(viewer)
    for kind, (positions, size, words) in BAD_ATOMS.items():
        dock.session.change_picks(Picks.of(positions, by_hand=True))
        dock.train.form.setValue(TrainSettings(epochs=2, patch_size_px=size))
        picks, before = dock.session.picks, dock.overlay.atoms.data.copy()
        in_dock = work(qtbot, dock, dock.header.quick_run)
        assert in_dock.startswith("⚠"), (kind, in_dock)
        assert words in in_dock, (kind, in_dock)
        table = pd.DataFrame(positions, columns=["y_px", "x_px"])
        table.to_csv(tmp_path / "positions.csv", index=False)
        output = tmp_path / "run.shiftvae"
        options = ("--positions", tmp_path / "positions.csv", "--patch-size", size)
        said = refused(capsys, "run", tmp_path / "made.npy", "--output", output, *options)
        assert said == in_dock.removeprefix("⚠ "), kind
        assert not output.exists()
        assert dock.session.run is made_before
        assert dock.session.picks is picks
        np.testing.assert_array_equal(dock.overlay.atoms.data, before)
        dock.overlay.runs.remove(dock.overlay.atoms)
    now = state(viewer)
    for name, kept in earlier.items():
        assert now[name][:-1] == kept[:-1]  # hidden beneath the new atoms, but there


def spoilt(run_file, folder) -> dict[str, object]:
    """Run files that are none, by what is wrong with them."""
    whole = run_file.read_bytes()
    (folder / "cut.shiftvae").write_bytes(whole[: len(whole) // 2])
    (folder / "text.shiftvae").write_text("no zip at all")
    with zipfile.ZipFile(folder / "other.shiftvae", "w") as archive:
        archive.writestr("readme.txt", "somebody's archive")
    with zipfile.ZipFile(run_file) as good, zipfile.ZipFile(folder / "new.shiftvae", "w") as newer:
        for name in good.namelist():
            content = good.read(name)
            if name == "run.json":
                content = content.replace(b'"format_version": 2', b'"format_version": 99')
            newer.writestr(name, content)
    with zipfile.ZipFile(run_file) as good, zipfile.ZipFile(folder / "path.shiftvae", "w") as out:
        for name in good.namelist():
            out.writestr(name, good.read(name))
        out.writestr("../../escaped.txt", "written where it should not be")
    return {path.stem: path for path in sorted(folder.glob("*.shiftvae"))}


def test_run_files_that_are_none(qtbot, dock, run_file, tmp_path, capsys) -> None:
    viewer = dock.overlay.viewer
    folder = tmp_path / "strangers"
    folder.mkdir()
    before, there = state(viewer), set(tmp_path.rglob("*"))
    for kind, path in spoilt(run_file, folder).items():
        said = refused(capsys, "info", path)
        assert said.endswith("."), (kind, said)
        for opened in (dock.restoring.open, dock.model_control.open):
            dock.header.say("")
            opened(str(path))
            qtbot.waitUntil(lambda: dock.header.message.text() != "")
            qtbot.waitUntil(lambda: not dock.model_control._runner.busy)
            assert dock.header.message.text() == f"⚠ {said}", kind
    assert state(viewer) == before
    assert dock.session.run is None
    assert dock.train.model.index is None
    assert not list(tmp_path.parent.rglob("escaped.txt"))
    assert {path for path in tmp_path.rglob("*") if folder not in path.parents} - there <= {
        path for path in tmp_path.rglob("*") if "data" in path.parts
    }
    dock.model_control.open(str(run_file))  # a good one still opens
    qtbot.waitUntil(lambda: dock.train.model.choice.count() == 2)


BAD_TABLES = {
    "columns": ("row,column\n1,2\n", "no columns y_px and x_px"),
    "words": ("y_px,x_px\n1,two\n", "no numbers"),
    "nan": ("y_px,x_px\n1,2\n3,nan\n", "no finite position in line 3"),
    "empty": ("", "could not be read"),
    "far": ("y_px,x_px\n1,2\n1e300,5\n", "a position in line 3 that is beyond any image"),
}


def test_tables_of_positions_that_are_none(dock, made, tmp_path, capsys) -> None:
    viewer = dock.overlay.viewer
    np.save(tmp_path / "made.npy", made)
    dock.session.change_picks(Picks.of(GRID, by_hand=True))
    before, picks = state(viewer), dock.session.picks
    for kind, (text, words) in BAD_TABLES.items():
        table = tmp_path / f"{kind}.csv"
        table.write_text(text)
        dock.atoms_control.load(str(table))
        in_dock = dock.header.message.text()
        assert words in in_dock, kind
        options = ("--output", tmp_path / "run.shiftvae", "--positions", table)
        said = refused(capsys, "run", tmp_path / "made.npy", *options)
        assert f"⚠ {said}" == in_dock, kind
    assert state(viewer) == before
    assert dock.session.picks is picks
