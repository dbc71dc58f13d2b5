"""Saving while training: what a crash leaves, and what saves itself."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cut_short import CONFIG, IMAGE, interrupted, whole_run
from napari_shiftvae.core import checkpoint, runfile, train
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.checkpoint import (
    Autosave,
    autosaved,
    latest_checkpoint,
    runs_folder,
    with_checkpoints,
)
from napari_shiftvae.core.errors import Cancelled, Notice
from napari_shiftvae.core.runfile import atoms_csv, load_run, save_run


@pytest.fixture(scope="module")
def image():
    return IMAGE


@pytest.fixture(scope="module")
def whole():
    return whole_run()


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(train, "REPORT_EVERY_S", 0.0)


# --- autosave ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("every_step")
def test_finished_run_is_saved_and_its_checkpoint_removed(image, whole, tmp_path):
    where = Autosave.of("a/b: c", tmp_path / "new" / "runs")
    steps = autosaved(analyse(image, CONFIG), where, every_s=0.0)
    seen = []
    while True:
        try:
            next(steps)
        except StopIteration as end:
            run = end.value
            break
        seen.append(where.checkpoint.exists())
        assert latest_checkpoint(where.folder) is None  # this process is at work on it
    assert any(seen)
    assert [path.name for path in where.folder.iterdir()] == [where.finished.name]
    assert where.name.startswith("a_b_ c ")
    assert load_run(where.finished).finished
    assert run.atoms.equals(whole.atoms)
    if os.name == "posix":
        assert where.folder.stat().st_mode & 0o077 == 0


@pytest.mark.usefixtures("every_step")
def test_closing_leaves_a_checkpoint(image, tmp_path):
    path = tmp_path / "made.checkpoint.shiftvae"
    steps = with_checkpoints(analyse(image, CONFIG), path)
    interrupted(steps, 5)
    assert not path.exists()
    steps.close()
    assert int(load_run(path).paused["step"]) == 5


@pytest.mark.usefixtures("every_step")
def test_checkpoint_that_is_gone_on_from_is_the_first_of_the_new_analysis(image, tmp_path):
    """It stays if that is cancelled, and goes when it is finished."""
    snapshot = interrupted(analyse(image, CONFIG), 5).snapshot()
    where = [Autosave(folder=tmp_path, name=f"made {index}") for index in range(3)]
    save_run(snapshot, where[0].checkpoint)
    for before, after in itertools.pairwise(where):
        resume = load_run(before.checkpoint)
        steps = autosaved(analyse(image, CONFIG, resume=resume), after, continues=before.checkpoint)
        next(steps)
        assert not before.checkpoint.exists()
        assert int(load_run(after.checkpoint).paused["step"]) == 5
        if after is not where[-1]:
            with pytest.raises(Cancelled):
                steps.throw(Cancelled)
    finish(steps)
    assert [path.name for path in tmp_path.iterdir()] == [where[-1].finished.name]


@pytest.mark.usefixtures("every_step")
def test_stop_reaches_the_analysis(image, tmp_path):
    steps = autosaved(analyse(image, CONFIG), Autosave.of("made", tmp_path))
    interrupted(steps, 3)
    steps.send("stop")
    assert not finish(steps).finished


@pytest.mark.usefixtures("every_step")
def test_folder_that_cannot_be_written_stops_nothing(image, whole, tmp_path):
    (tmp_path / "file").write_text("")
    where = Autosave.of("made", tmp_path / "file" / "runs")
    with pytest.warns(UserWarning, match="The run is not being saved"):
        run = finish(autosaved(analyse(image, CONFIG), where, every_s=0.0))
    assert run.atoms.equals(whole.atoms)


# --- beside the training -----------------------------------------------------------------------


@pytest.fixture
def slow_disk(monkeypatch):
    """Events: writing has begun; it may go on."""
    began, may_go_on = threading.Event(), threading.Event()

    def save(run, path):
        began.set()
        assert may_go_on.wait(60)
        return save_run(run, path)

    monkeypatch.setattr(runfile, "save_run", save)
    yield began, may_go_on
    may_go_on.set()


@pytest.fixture
def executor():
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.mark.usefixtures("every_step")
def test_stop_does_not_wait_for_a_checkpoint(image, tmp_path, executor, slow_disk):
    path, (began, may_go_on) = tmp_path / "made.checkpoint.shiftvae", slow_disk
    steps = with_checkpoints(analyse(image, CONFIG), path, every_s=0.0, executor=executor)
    interrupted(steps, 2)
    assert began.wait(60)
    interrupted(steps, 4)  # nor does the training
    assert steps.send("stop").stage == "refine"
    assert not path.exists()
    may_go_on.set()
    finish(steps)
    assert int(load_run(path).paused["step"]) == 1  # as it was when it was begun


@pytest.mark.usefixtures("every_step")
def test_checkpoints_beside_the_training_change_no_number(image, whole, tmp_path, executor):
    where = Autosave.of("made", tmp_path)
    run = finish(autosaved(analyse(image, CONFIG), where, every_s=0.0, executor=executor))
    assert run.atoms.equals(whole.atoms)
    assert [path.name for path in tmp_path.iterdir()] == [where.finished.name]


@pytest.mark.usefixtures("every_step")
def test_cancelled_analysis_leaves_no_checkpoint_that_was_being_written(
    image, tmp_path, executor, slow_disk
):
    path, (began, may_go_on) = tmp_path / "made.checkpoint.shiftvae", slow_disk
    steps = with_checkpoints(analyse(image, CONFIG), path, every_s=0.0, executor=executor)
    interrupted(steps, 2)
    assert began.wait(60)
    threading.Timer(0.1, may_go_on.set).start()
    with pytest.raises(Cancelled):
        steps.throw(Cancelled)
    executor.shutdown()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("every_step")
def test_disk_that_fails_beside_the_training_is_said(image, whole, tmp_path, executor):
    path = tmp_path / "missing" / "made.checkpoint.shiftvae"
    with pytest.warns(Notice, match="The run is not being saved"):
        run = finish(with_checkpoints(analyse(image, CONFIG), path, every_s=0.0, executor=executor))
    assert run.atoms.equals(whole.atoms)


def test_newest_checkpoint_of_a_process_that_ended_is_found(tmp_path):
    assert latest_checkpoint(tmp_path / "missing") is None
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for age, name in enumerate(("a 1", f"b {os.getpid()}", f"c {ended.pid}", f"d {ended.pid}")):
        path = tmp_path / f"{name}.checkpoint.shiftvae"
        path.write_bytes(b"")
        os.utime(path, (1e9 - age, 1e9 - age))
    (tmp_path / "finished.shiftvae").write_bytes(b"")
    assert latest_checkpoint(tmp_path).name == f"c {ended.pid}.checkpoint.shiftvae"


def test_parts_that_a_killed_process_left_are_swept_up(image, tmp_path):
    for name, age in (("old", 2 * checkpoint.ABANDONED_S), ("new", 0)):
        path = tmp_path / f"{name}.part"
        path.write_bytes(b"")
        os.utime(path, (time.time() - age,) * 2)
    next(autosaved(analyse(image, CONFIG), Autosave.of("made", tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["new.part"]


def test_folder_of_runs_is_the_user_s_own(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert runs_folder() == tmp_path / "napari-shiftvae" / "runs"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert runs_folder().is_relative_to(Path.home())


# --- kill -9 -----------------------------------------------------------------------------------

TRAINING = """
import sys
import numpy as np
from napari_shiftvae.core import analyse as analysis
from napari_shiftvae.core import checkpoint, train
from napari_shiftvae.cli import main
train.REPORT_EVERY_S = 0.0
checkpoint.with_checkpoints.__kwdefaults__["every_s"] = 0.0
sys.exit(main(sys.argv[1:]))
"""

SAVING = """
import sys
from napari_shiftvae.core.runfile import load_run, save_run
run = load_run(sys.argv[1])
print("ready", flush=True)
while True:
    save_run(run, sys.argv[2])
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_killed_training_is_taken_up_by_the_command_line(image, tmp_path):
    """With real processes; what was resumed has the numbers of a run that was not killed."""
    np.save(tmp_path / "made.npy", image.data)
    command = [sys.executable, "-c", TRAINING, "run", "made.npy", "--epochs", "15"]
    command += ["--seed", "3", "--output"]
    left = tmp_path / "cut.checkpoint.shiftvae"
    process = subprocess.Popen([*command, "cut"], cwd=tmp_path)  # noqa: S603
    deadline = time.monotonic() + 600
    while not left.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "cut.shiftvae").exists()
    begun = load_run(left)
    assert int(begun.paused["step"]) > 0
    assert not begun.finished

    from napari_shiftvae.cli import main

    make = ["run", str(tmp_path / "made.npy"), "--output"]
    assert main([*make, str(tmp_path / "cut")]) == 2  # not overwritten by accident
    assert load_run(left).epochs == begun.epochs
    assert main([*make, str(tmp_path / "cut"), "--resume", str(left)]) == 0
    assert not left.exists()
    assert main([*make, str(tmp_path / "whole"), "--epochs", "15", "--seed", "3"]) == 0
    cut, whole = (load_run(tmp_path / f"{name}.shiftvae") for name in ("cut", "whole"))
    assert atoms_csv(cut.atoms) == atoms_csv(whole.atoms)
    assert cut.config == whole.config


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_killed_saving_leaves_a_whole_file(whole, tmp_path):
    good = save_run(whole, tmp_path / "good.shiftvae")
    path = tmp_path / "made.shiftvae"
    expected = json.dumps(load_run(good).diagnostics.sentences)
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", SAVING, str(good), str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    while not path.exists():
        time.sleep(0.01)
    pauses = np.random.default_rng(0).uniform(0.02, 0.1, 3)
    for pause in pauses:
        time.sleep(pause)
        process.send_signal(signal.SIGSTOP)  # as it would be found after a cut of power
        assert json.dumps(load_run(path).diagnostics.sentences) == expected
        process.send_signal(signal.SIGCONT)
    time.sleep(0.2)
    process.kill()
    process.wait()
    process.stdout.close()
    assert json.dumps(load_run(path).diagnostics.sentences) == expected
