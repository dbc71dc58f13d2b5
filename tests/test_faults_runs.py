"""Runs that are cut short, refused or doubled: the dock and earlier runs stay as they were."""

import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

from napari.utils.progress import progress
from qtpy.QtGui import QMovie
from qtpy.QtWidgets import QLabel

from aftermath import assert_usable, raises
from driving import begin, press, run, stop, wait_idle
from napari_shiftvae.core.runfile import load_run
from seen import state


def test_viewer_closed_asks_stops_and_saves_a_checkpoint(qtbot, viewer, dock, runs) -> None:
    begin(qtbot, dock)
    asked = " ".join(viewer.window._task_status_manager.get_status())
    assert "shift-VAE analysis of 'made'" in asked
    worker = dock.training._runner._worker
    viewer.close()
    qtbot.waitUntil(lambda: not worker.is_running)
    (left,) = runs.iterdir()
    assert left.name.endswith(".checkpoint.shiftvae")
    assert load_run(left).resumable


def test_second_run_is_not_started(qtbot, dock) -> None:
    begin(qtbot, dock)
    for button in (dock.header.quick_run, dock.train.run, dock.train.resume, dock.atoms.find):
        assert not button.isEnabled() or not button.isVisible()
    worker = dock.training._runner._worker
    dock.quick_run()
    assert dock.training._runner._worker is worker
    stop(qtbot, dock)
    assert_usable(qtbot, dock)


def test_cancelled_run_leaves_nothing(qtbot, viewer, dock, runs) -> None:
    begin(qtbot, dock)
    (bar,) = [one for one in progress._all_instances if "Shift-VAE" in one.desc]
    bar.cancel()
    wait_idle(qtbot, dock)
    assert "Cancelled" in dock.header.message.text()
    assert list(runs.iterdir()) == []
    assert "z1" not in viewer.layers["made atoms"].features
    assert_usable(qtbot, dock)


@pytest.mark.parametrize("end", ["cancelled", "refused"])
def test_earlier_run_is_shown_again(qtbot, viewer, dock, in_step, end) -> None:
    """Where the next one, which it made room for, has no result."""
    run(qtbot, dock)
    earlier, picks = dock.session.run, dock.session.picks
    dock.explore.colour.setCurrentText("z2")
    qtbot.waitUntil(lambda: viewer.layers["made shift"].visible)
    before = state(viewer)
    if end == "refused":
        in_step(lambda *_: raises(MemoryError()))
        press(qtbot, dock.header.quick_run)
    else:
        begin(qtbot, dock)
        qtbot.waitUntil(lambda: not viewer.layers["made shift"].visible)
        dock.training.cancel()
    wait_idle(qtbot, dock)
    assert state(viewer) == before
    assert dock.session.run is earlier
    assert dock.session.picks is picks
    dock.session.change_picks(picks.without([0]))  # the layer is that of the picks once more
    assert len(dock.overlay.atoms.data) == len(picks) - 1


def test_nothing_moves_in_the_window_while_a_model_is_trained(qtbot, dock) -> None:
    """Each picture of napari's moving sign of activity would have the whole window painted."""
    begin(qtbot, dock)
    qtbot.waitUntil(lambda: any("Shift-VAE" in bar.desc for bar in progress._all_instances))
    labels = dock.window().findChildren(QLabel)
    movies = [label.movie() for label in labels if label.movie() is not None]
    assert movies
    assert not [movie for movie in movies if movie.state() == QMovie.MovieState.Running]
    stop(qtbot, dock)
