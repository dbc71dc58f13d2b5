"""Memory that runs out, numbers that are none, defects: in the training of a real dock."""

import threading
import time
import warnings

import numpy as np
import pytest

pytest.importorskip("napari.qt")
pytest.importorskip("pytestqt")

import torch
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QObject

from aftermath import assert_usable, raises
from driving import press, wait_idle
from napari_shiftvae.core.errors import OUT_OF_MEMORY, InputError, tell
from napari_shiftvae.widgets.worker import Latest, Runner
from seen import said


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
    with said() as sentences, qtbot.waitSignal(runner.ended):
        runner.start("telling", job)
    assert sentences == ["Memory ran out."]
    assert results == ["result"]


def test_what_came_of_older_arguments_is_not_told(qtbot) -> None:
    go_on = threading.Event()

    def job(what: str) -> str:
        if what == "newer":
            return what
        assert go_on.wait(60)  # s; it would hang where the test fails
        raise InputError(what)

    parent, told = QObject(), []
    latest = Latest("working", job, parent)
    latest.succeeded.connect(told.append)
    latest.refused.connect(told.append)
    latest.ask("older")
    latest.ask("newer")
    go_on.set()
    qtbot.waitUntil(lambda: "newer" in told)
    latest.ask("wrong")
    qtbot.waitUntil(lambda: told == ["newer", "wrong"])
    qtbot.waitUntil(lambda: not latest.runner.busy)


def test_a_late_progress_does_not_hide_what_went_wrong(qtbot, dock, in_step) -> None:
    dock.training._pace._next = time.perf_counter() + 600  # so that one waits
    dock.training._runner.refused.connect(dock.training._pace.catch_up)
    in_step(lambda *_: raises(MemoryError()))
    press(qtbot, dock.header.quick_run)
    wait_idle(qtbot, dock)
    assert OUT_OF_MEMORY in dock.header.message.text()


def test_jobs_at_once_put_back_the_filters_of_warnings(qtbot) -> None:
    begun, may_end = {}, {}

    def job(name: str) -> str:
        begun[name].set()
        may_end[name].wait(120)
        warnings.warn("Of a library, to nobody.", stacklevel=1)
        return name

    before = warnings.showwarning, list(warnings.filters)
    parent, results = QObject(), []
    runners = {name: Runner(parent) for name in ("first", "second")}
    for name, runner in runners.items():
        begun[name], may_end[name] = threading.Event(), threading.Event()
        runner.succeeded.connect(results.append)
        runner.start(name, job, name)
        assert begun[name].wait(120)
    for name, runner in runners.items():
        with qtbot.waitSignal(runner.ended):
            may_end[name].set()
    assert results == ["first", "second"]
    assert (warnings.showwarning, warnings.filters) == before


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
