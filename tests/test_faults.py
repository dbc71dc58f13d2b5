"""Faults in mid-run, in a real viewer: nothing hangs, nothing is lost, the dock goes on."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import napari
import torch
from napari.layers import Points
from napari.utils.notifications import notification_manager
from napari.utils.progress import progress
from qtpy.QtCore import QObject, Qt, QThreadPool
from qtpy.QtGui import QMovie
from qtpy.QtWidgets import QFileDialog, QLabel

from napari_shiftvae.core import runfile
from napari_shiftvae.core import train as train_module
from napari_shiftvae.core.checkpoint import runs_folder
from napari_shiftvae.core.errors import tell
from napari_shiftvae.core.runfile import load_run
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.settings import TrainSettings
from napari_shiftvae.widgets import ShiftVAEWidget
from napari_shiftvae.widgets.worker import Runner
from seen import said, state

WAIT_MS = 120_000
FOR_EVER = TrainSettings(epochs=100_000)
SHORT = TrainSettings(epochs=3)
NO_SPACE = OSError(28, "No space left on device")


@pytest.fixture(scope="module")
def made() -> np.ndarray:
    return perovskite(rng=np.random.default_rng(0), shape=(150, 170)).image


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Folder of the runs that save themselves, this test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    return runs_folder()


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., napari.Viewer]) -> napari.Viewer:
    return make_napari_viewer()


@pytest.fixture
def dock(qtbot, viewer: napari.Viewer, made: np.ndarray, folder) -> Iterator[ShiftVAEWidget]:
    viewer.add_image(made.copy(), name="made", scale=(0.015, 0.02), units=("nm", "nm"))
    widget = ShiftVAEWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.train.form.setValue(SHORT)
    yield widget
    for part in (widget.training, widget.atoms_control, widget.pixel_size, widget.fields_control):
        part.close()
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=WAIT_MS)
    assert not list(folder.glob("*.part"))  # half-written


def press(qtbot, button) -> None:
    qtbot.waitUntil(button.isEnabled, timeout=WAIT_MS)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def wait_idle(qtbot, dock: ShiftVAEWidget) -> None:
    qtbot.waitUntil(lambda: dock.session.activity == "idle", timeout=WAIT_MS)


def wait_for(qtbot, dock: ShiftVAEWidget, words: str) -> None:
    """Wait until the Fields tab has said something, and its thread has ended."""
    said = dock.header.message
    qtbot.waitUntil(
        lambda: words in said.text() and not dock.fields_control._results._runner.busy,
        timeout=WAIT_MS,
    )


def begin(qtbot, dock: ShiftVAEWidget) -> None:
    """Start a training that would go on for ever, and wait until it is under way."""
    dock.train.form.setValue(FOR_EVER)
    press(qtbot, dock.train.run)
    qtbot.waitUntil(lambda: len(dock.session.losses) > 1, timeout=WAIT_MS)


def stop(qtbot, dock: ShiftVAEWidget) -> None:
    press(qtbot, dock.train.stop)
    wait_idle(qtbot, dock)


def assert_usable(qtbot, dock: ShiftVAEWidget) -> None:
    """Every button is alive, no progress is left standing, and a new run ends well."""
    assert dock.session.activity == "idle"
    assert not [bar for bar in progress._all_instances if "Shift-VAE" in bar.desc]
    assert dock.header.progress.value() == 0
    assert dock.header.chooser.isEnabled()
    assert not dock.train.stop.isEnabled()
    dock.train.form.setValue(SHORT)
    before = dock.session.run
    press(qtbot, dock.header.quick_run)
    wait_idle(qtbot, dock)
    assert dock.session.run is not before
    assert dock.header.message.text().startswith("Done")


# --- layers ------------------------------------------------------------------------------------


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
    press(qtbot, dock.train.stop)
    wait_idle(qtbot, dock)
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


# --- viewer ------------------------------------------------------------------------------------


def test_viewer_closed_asks_stops_and_saves_a_checkpoint(qtbot, viewer, dock, folder) -> None:
    begin(qtbot, dock)
    asked = " ".join(viewer.window._task_status_manager.get_status())
    assert "shift-VAE analysis of 'made'" in asked
    worker = dock.training._runner._worker
    viewer.close()
    qtbot.waitUntil(lambda: not worker.is_running, timeout=WAIT_MS)
    (left,) = folder.iterdir()
    assert left.name.endswith(".checkpoint.shiftvae")
    assert load_run(left).resumable


def test_nothing_moves_in_the_window_while_a_model_is_trained(qtbot, dock) -> None:
    """Each picture of napari's moving sign of activity would have the whole window painted."""
    begin(qtbot, dock)
    qtbot.waitUntil(lambda: any("Shift-VAE" in bar.desc for bar in progress._all_instances))
    labels = dock.window().findChildren(QLabel)
    movies = [label.movie() for label in labels if label.movie() is not None]
    assert movies
    assert not [movie for movie in movies if movie.state() == QMovie.MovieState.Running]
    stop(qtbot, dock)


def test_second_run_is_not_started(qtbot, dock) -> None:
    begin(qtbot, dock)
    for button in (dock.header.quick_run, dock.train.run, dock.train.resume, dock.atoms.find):
        assert not button.isEnabled() or not button.isVisible()
    worker = dock.training._runner._worker
    dock.quick_run()
    assert dock.training._runner._worker is worker
    stop(qtbot, dock)
    assert_usable(qtbot, dock)


def test_cancelled_run_leaves_nothing(qtbot, viewer, dock, folder) -> None:
    begin(qtbot, dock)
    (bar,) = [one for one in progress._all_instances if "Shift-VAE" in one.desc]
    bar.cancel()
    wait_idle(qtbot, dock)
    assert "Cancelled" in dock.header.message.text()
    assert list(folder.iterdir()) == []
    assert "z1" not in viewer.layers["made atoms"].features
    assert_usable(qtbot, dock)


@pytest.mark.parametrize("end", ["cancelled", "refused"])
def test_earlier_run_is_shown_again(qtbot, viewer, dock, in_step, end) -> None:
    """Where the next one, which it made room for, has no result."""
    with qtbot.waitSignal(dock.fields_control.read, timeout=WAIT_MS):
        press(qtbot, dock.header.quick_run)
    wait_idle(qtbot, dock)
    run, picks = dock.session.run, dock.session.picks
    dock.explore.colour.setCurrentText("z2")
    qtbot.waitUntil(lambda: viewer.layers["made shift"].visible, timeout=WAIT_MS)
    before = state(viewer)
    if end == "refused":
        in_step(lambda *_: raises(MemoryError()))
        press(qtbot, dock.header.quick_run)
    else:
        begin(qtbot, dock)
        assert not viewer.layers["made shift"].visible
        dock.training.cancel()
    wait_idle(qtbot, dock)
    assert state(viewer) == before
    assert dock.session.run is run
    assert dock.session.picks is picks
    dock.session.change_picks(picks.without([0]))  # the layer is that of the picks once more
    assert len(dock.overlay.atoms.data) == len(picks) - 1


# --- memory and numbers ------------------------------------------------------------------------


@pytest.fixture
def in_step(monkeypatch):
    """Have something happen before each step of training, given its number, model and batch."""
    own, number = train_module._step, iter(range(10**9))

    def set_up(happens) -> None:
        def step(model, x, *arguments, **keywords):
            happens(next(number), model, x)
            return own(model, x, *arguments, **keywords)

        monkeypatch.setattr(train_module, "_step", step)

    return set_up


def raises(error: Exception) -> None:
    raise error


def test_batches_are_halved_where_memory_runs_out(qtbot, dock, in_step) -> None:
    in_step(
        lambda number, _, x: (
            raises(RuntimeError("CUDA out of memory")) if number > 5 and len(x) > 8 else None
        )
    )
    with said() as sentences:
        press(qtbot, dock.header.quick_run)
        wait_idle(qtbot, dock)
    words = "Memory ran out: training goes on with batches of 8 instead of 16."
    assert words in sentences
    assert words in dock.session.run.diagnostics.sentences
    assert words in dock.train.findings.text() + dock.explore.findings.text()
    assert dock.session.run.config.train.batch_size == 8
    assert dock.session.run.epochs == 3
    assert_usable(qtbot, dock)


def test_what_is_told_does_not_depend_on_filters_of_warnings(qtbot) -> None:
    """They belong to the process, and another thread may set them at any moment."""

    def job() -> str:
        warnings.simplefilter("error")  # in what the worker restores at its end
        tell("Memory ran out.")
        return "result"

    parent, results = QObject(), []
    runner = Runner(parent)
    runner.succeeded.connect(results.append)
    with said() as sentences, qtbot.waitSignal(runner.ended, timeout=WAIT_MS):
        runner.start("telling", job)
    assert sentences == ["Memory ran out."]
    assert results == ["result"]


def test_memory_that_never_suffices_is_one_sentence(qtbot, viewer, dock, in_step) -> None:
    in_step(lambda *_: raises(MemoryError()))
    press(qtbot, dock.header.quick_run)
    wait_idle(qtbot, dock)
    assert "The memory does not suffice: close other programs" in dock.header.message.text()
    assert dock.session.run is None
    assert [layer.name for layer in viewer.layers] == ["made", "made atoms"]


def test_lost_loss_is_said_and_training_goes_on(qtbot, dock, in_step) -> None:
    def spoil(number, model, _) -> None:
        if number == 8:
            with torch.no_grad():
                next(model.parameters()).fill_(torch.nan)

    in_step(spoil)
    with said() as sentences:
        press(qtbot, dock.header.quick_run)
        wait_idle(qtbot, dock)
    assert any("went back to its last good state" in sentence for sentence in sentences)
    assert np.isfinite(dock.session.run.atoms.loc[dock.session.run.used, "z1"]).all()
    assert "went back to its last good state" in "".join(dock.session.run.diagnostics.sentences)
    assert_usable(qtbot, dock)


@pytest.mark.parametrize("kind", [RuntimeError, ZeroDivisionError])
def test_defect_in_mid_run_is_shown_with_its_traceback(
    qtbot, viewer, dock, in_step, monkeypatch, kind
) -> None:
    """Napari's worker swallows RuntimeError, and torch raises it for everything."""
    shown = []
    monkeypatch.setattr(notification_manager, "receive_error", lambda *error: shown.append(error))
    in_step(lambda number, *_: raises(kind("a defect")) if number == 8 else None)
    press(qtbot, dock.header.quick_run)
    wait_idle(qtbot, dock)
    assert "The analysis failed: a defect" in dock.header.message.text()
    assert [error[0] for error in shown] == [kind]
    assert [layer.name for layer in viewer.layers] == ["made", "made atoms"]
    assert_usable(qtbot, dock)


# --- disk --------------------------------------------------------------------------------------


def no_space(file, _) -> None:
    file.write(b"PK")  # some of it still fitted
    raise NO_SPACE


def test_disk_full_while_a_run_saves_itself(qtbot, dock, folder, monkeypatch) -> None:
    monkeypatch.setattr(runfile, "_pack", no_space)
    with said() as sentences:
        press(qtbot, dock.header.quick_run)
        wait_idle(qtbot, dock)
    assert dock.header.message.text().startswith("Done")
    assert "Saved" not in dock.header.message.text()
    assert any("is not being saved" in one and "No space left" in one for one in sentences)
    assert list(folder.iterdir()) == []
    monkeypatch.undo()
    assert_usable(qtbot, dock)


def test_disk_full_while_saving_keeps_the_old_file(qtbot, dock, tmp_path, monkeypatch) -> None:
    with qtbot.waitSignal(dock.fields_control.read, timeout=WAIT_MS):
        press(qtbot, dock.header.quick_run)
    wait_idle(qtbot, dock)
    path = tmp_path / "mine.shiftvae"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    press(qtbot, dock.fields.save)
    wait_for(qtbot, dock, "Wrote")
    old = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(runfile, "_pack", no_space)
        press(qtbot, dock.fields.save)
        wait_for(qtbot, dock, "No space left")
    assert path.read_bytes() == old
    assert list(tmp_path.glob("*.part")) == []
    press(qtbot, dock.fields.save)
    wait_for(qtbot, dock, "Wrote")
    assert_usable(qtbot, dock)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_folder_that_is_read_only(qtbot, dock, tmp_path, monkeypatch) -> None:
    with qtbot.waitSignal(dock.fields_control.read, timeout=WAIT_MS):
        press(qtbot, dock.header.quick_run)
    wait_idle(qtbot, dock)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *_: (str(locked / "mine.shiftvae"), "")
    )
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(locked))
    with without_privileges():
        for button in (dock.fields.save, dock.fields.export):
            dock.header.say("")
            press(qtbot, button)
            wait_for(qtbot, dock, "denied")
            assert "choose another" in dock.header.message.text()
    assert list(locked.iterdir()) == []
    assert_usable(qtbot, dock)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Nothing is read-only for root: be nobody meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
