"""Copy as Python in the dock: the code on the clipboard makes the numbers of the run."""

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import tifffile

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
from qtpy.QtWidgets import QApplication

from driving import press, wait_idle
from mouse import Mouse
from napari_shiftvae.cli import main
from napari_shiftvae.core.runfile import atoms_csv, load_run
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.settings import FindSettings, TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "film.tif"
    tifffile.imwrite(path, perovskite(rng=np.random.default_rng(0), shape=(150, 170)).image)
    return path


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., napari.Viewer], image_file) -> napari.Viewer:
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1366, 768)
    viewer.open(image_file, plugin="napari")
    return viewer


@pytest.fixture
def dock(viewer, qtbot, open_dock) -> ShiftVAEWidget:
    widget = open_dock(viewer)
    qtbot.wait(200)
    viewer.reset_view()
    return widget


def copied(qtbot, dock: ShiftVAEWidget) -> str:
    with qtbot.waitSignal(dock.copying.copied):
        press(qtbot, dock.train.copy)
    return QApplication.clipboard().text()


def test_clicks_and_a_run_as_code(qtbot, viewer, dock, tmp_path) -> None:
    """Found, one atom clicked, one deleted, trained: pasted into a file, the same atoms.csv."""
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    found = dock.session.picks.positions_yx
    dock.atoms.edit.setChecked(True)
    hole = found[20] + (found[21] - found[20]) / 2
    Mouse(qtbot, viewer, viewer.layers["film"]).click(hole)
    qtbot.waitUntil(lambda: len(dock.session.picks) == len(found) + 1)
    dock.overlay.picks.select([30])
    dock.pick_tool.delete_selected()
    dock.tabs.setCurrentIndex(1)
    press(qtbot, dock.train.run)
    wait_idle(qtbot, dock)
    code = copied(qtbot, dock)
    assert "Copied" in dock.header.message.text()
    assert "np.delete(picks, [30], axis=0)" in code
    assert "np.insert(" in code
    assert "read_out(run, Options())" in code  # as the Fields tab is set
    (tmp_path / "pasted.py").write_text(code, encoding="utf-8")
    subprocess.run(
        [sys.executable, "pasted.py"], cwd=tmp_path, check=True, env={**os.environ}, timeout=300
    )
    made = load_run(tmp_path / "film.shiftvae")
    assert atoms_csv(made.atoms) == atoms_csv(dock.session.run.atoms)


def test_nothing_to_copy(qtbot, dock) -> None:
    dock.tabs.setCurrentIndex(1)
    press(qtbot, dock.train.copy)
    assert "nothing to copy yet: find atoms" in dock.header.message.text()


def test_atoms_without_a_run(qtbot, dock, tmp_path, monkeypatch) -> None:
    press(qtbot, dock.atoms.find)
    wait_idle(qtbot, dock)
    dock.tabs.setCurrentIndex(1)
    monkeypatch.chdir(tmp_path)
    exec(copied(qtbot, dock), {"__name__": "copied"})  # noqa: S102 - what is tested
    made = np.loadtxt(tmp_path / "film atoms.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(made, dock.session.picks.positions_yx, rtol=1e-15)


SETTINGS = [
    (
        FindSettings(),
        TrainSettings(epochs=3, latent_dim=3, patch_size_px=21, seed=7, smoothness=0.5),
        ["--latent-dim", "3", "--patch-size", "21", "--seed", "7", "--smoothness", "0.5"],
    ),
    (
        FindSettings(),
        TrainSettings(epochs=3, classes=2, invariances=("shift", "scale")),
        ["--classes", "2", "--invariances", "shift,scale"],
    ),
    (
        FindSettings(sampling="grid", count=200),
        TrainSettings(epochs=3, decoder="coordinate", patch_size_px=14),
        ["--sampling=grid", "--count=200", "--decoder=coordinate", "--patch-size=14"],
    ),
    (FindSettings(dark=True), TrainSettings(epochs=3, invariances=()), ["--dark"]),
]


@pytest.mark.parametrize(("find", "settings", "options"), SETTINGS)
def test_the_dock_and_the_command_line_give_the_same_table(
    qtbot, dock, image_file, tmp_path, find, settings, options
) -> None:
    """Byte by byte, whatever is set."""
    dock.atoms.form.setValue(find)
    dock.train.form.setValue(settings)
    press(qtbot, dock.header.quick_run)
    wait_idle(qtbot, dock)
    if not settings.invariances:
        options = [*options, "--invariances", "none"]
    output = tmp_path / "run.shiftvae"
    assert main(["run", str(image_file), "--output", str(output), "--epochs", "3", *options]) == 0
    assert atoms_csv(load_run(output).atoms) == atoms_csv(dock.session.run.atoms)
