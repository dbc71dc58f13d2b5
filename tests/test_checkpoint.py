"""Saving while training: what a crash leaves, and going on from it with the same numbers."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from napari_shiftvae.core import analyse as analysis
from napari_shiftvae.core import checkpoint, runfile, train
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.checkpoint import (
    Autosave,
    autosaved,
    latest_checkpoint,
    runs_folder,
    with_checkpoints,
)
from napari_shiftvae.core.errors import Cancelled, InputError, Notice
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.runfile import atoms_csv, load_run, save_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.simulate import perovskite
from napari_shiftvae.core.train import TrainConfig

CONFIG = AnalysisConfig(train=TrainConfig(epochs=8, seed=3))


@pytest.fixture(scope="module")
def image():
    made = perovskite(rng=np.random.default_rng(0), shape=(160, 150))
    return MicroscopeImage(data=made.image, name="made")


@pytest.fixture(scope="module")
def whole(image):
    """The analysis without an interruption."""
    return finish(analyse(image, CONFIG))


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(train, "REPORT_EVERY_S", 0.0)


def interrupted(steps, after):
    """Iterate until some reports of the training were made; return the last one's progress."""
    for progress in steps:
        if progress.report is not None and progress.report.step == after:
            return progress
    raise AssertionError("the training was over before")


# --- going on ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("after", [1, 6])
def test_training_goes_on_from_a_file_with_the_same_numbers(image, whole, tmp_path, after):
    """In the middle of an epoch and at its end, to the last digit."""
    snapshot = interrupted(analyse(image, CONFIG), after).snapshot()
    loaded = load_run(save_run(snapshot, tmp_path / "made"))
    assert loaded.resumable
    assert not loaded.finished
    again = finish(analyse(image, CONFIG, resume=loaded))
    assert again.finished
    assert atoms_csv(again.atoms) == atoms_csv(whole.atoms)
    assert again.diagnostics.sentences == whole.diagnostics.sentences
    weights, expected = again.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


@pytest.mark.usefixtures("every_step")
@pytest.mark.parametrize("through_file", [False, True])
def test_stopped_and_refined_run_goes_on_with_the_same_numbers(
    image, whole, tmp_path, through_file
):
    """Refinement and gauge change the model; training goes on from before them."""
    steps, answer, stopped = analyse(image, CONFIG), None, None
    while stopped is None:
        try:
            progress = steps.send(answer)
        except StopIteration as end:
            stopped = end.value
        else:
            at = progress.report is not None and progress.report.step == 5
            answer = "stop" if at else None
    assert not stopped.finished
    if through_file:
        stopped = load_run(save_run(stopped, tmp_path / "made"))
    for _ in range(2):  # the stopped run itself stays as it is
        assert finish(analyse(image, CONFIG, resume=stopped)).atoms.equals(whole.atoms)


@pytest.mark.usefixtures("every_step")
def test_training_that_waits_for_held_out_patches_goes_on_with_the_same_numbers(
    image, tmp_path, monkeypatch
):
    """Cut off before the schedule waits, while it does, and after it."""
    monkeypatch.setattr("napari_shiftvae.core.stopping.CHECK_EVERY", 4)
    monkeypatch.setattr(TrainConfig, "epochs_for", lambda self, _: self.epochs or 6)
    config = replace(CONFIG, train=TrainConfig(validation=0.2))
    expected = finish(analyse(image, config))
    assert expected.epochs == expected.ending.epochs > 6
    assert expected.ending.sentence in expected.diagnostics.sentences
    assert (expected.finished, expected.ending.decided) == (True, True)
    phases = {}
    for progress in analyse(image, config):
        if progress.snapshot is not None:
            pace = progress.report.pace
            phases.setdefault((pace.waited > 2, pace.over), progress.snapshot())
    assert list(phases) == [(False, False), (True, False), (True, True)]
    for snapshot in phases.values():
        loaded = load_run(save_run(snapshot, tmp_path / "made"))
        assert not loaded.finished
        assert loaded.goal == loaded.ending.epochs
        assert (not loaded.ending.decided) == (not snapshot.paused["pace"][2])
        again = finish(analyse(image, config, resume=loaded))
        assert again.epochs == expected.epochs
        assert again.atoms.equals(expected.atoms)
        assert again.ending == expected.ending
    more = AnalysisConfig(train=TrainConfig(epochs=expected.epochs + 1))
    longer = finish(analyse(image, more, resume=expected))
    assert (longer.goals, longer.config.train.validation) == ((0,), 0.2)  # still held out


@pytest.mark.usefixtures("every_step")
def test_snapshot_of_many_atoms_shows_some_and_goes_on_with_all(
    image, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr(analysis, "MOST_SHOWN", 10)
    snapshot = interrupted(analyse(image, CONFIG), 5).snapshot()
    loaded = load_run(save_run(snapshot, tmp_path / "made"))
    assert loaded.atoms["z1"].notna().sum() == 10
    assert loaded.used.sum() == whole.used.sum()
    assert finish(analyse(image, CONFIG, resume=loaded)).atoms.equals(whole.atoms)


@pytest.mark.usefixtures("every_step")
def test_snapshot_leaves_the_training_alone(image, whole):
    for progress in (steps := analyse(image, CONFIG)):
        if progress.snapshot is not None and progress.report.step == 4:
            progress.snapshot()
            break
    assert finish(steps).atoms.equals(whole.atoms)


def test_state_survives_another_save(whole, tmp_path):
    first = load_run(save_run(whole, tmp_path / "first"))
    second = load_run(save_run(first, tmp_path / "second"))
    assert set(second.paused) == set(first.paused)
    for name, value in first.paused.items():
        np.testing.assert_array_equal(second.paused[name], value)


def test_loaded_run_may_train_longer(image, whole, tmp_path):
    loaded = load_run(save_run(whole, tmp_path / "made"))
    config = replace(CONFIG, train=replace(CONFIG.train, epochs=10))
    assert finish(analyse(image, config, resume=loaded)).epochs == 10


def test_picks_are_kept_to_the_last_digit(image, tmp_path):
    picks = np.random.default_rng(0).uniform(30, 110, (40, 2)) + 1 / 3
    run = finish(analyse(image, CONFIG, positions_yx=picks))
    loaded = load_run(save_run(run, tmp_path / "made"))
    np.testing.assert_array_equal(loaded.picks_yx, picks)


# --- states that are refused -------------------------------------------------------------------


@pytest.fixture
def spoil(whole, tmp_path):
    """Write a run file whose model.safetensors was changed."""
    import zipfile

    def written(change):
        path = save_run(whole, tmp_path / "made.shiftvae")
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        tensors = load_tensors(members["model.safetensors"])
        change(tensors)
        members["model.safetensors"] = save_tensors(tensors)
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path

    return written


MOMENT = "training.moments.encoder.2.0.weight.exp_avg"


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("training.generator"),
        lambda tensors: tensors.pop(MOMENT),
        lambda tensors: tensors.update({"training.more": torch.zeros(1)}),
        lambda tensors: tensors.update({MOMENT: torch.zeros(3)}),
        lambda tensors: tensors[MOMENT].fill_(torch.nan),
        lambda tensors: tensors["training.step"].fill_(-1),
        lambda tensors: tensors.update(
            {
                "training.order": torch.tensor([10**6]),
                "training.order_sizes": torch.tensor([1]),
            }
        ),
        lambda tensors: tensors.update({"training.order_sizes": torch.tensor([7])}),
    ],
)
def test_state_that_does_not_fit_is_refused(spoil, change):
    with pytest.raises(InputError, match="the state of its training does not fit its model"):
        load_run(spoil(change))


def test_nonsense_for_random_numbers_is_said(spoil, image):
    loaded = load_run(spoil(lambda tensors: tensors["training.generator"].fill_(255)))
    with pytest.raises(InputError, match="random numbers cannot be taken up again"):
        finish(analyse(image, CONFIG, resume=loaded))


def test_run_without_a_state_is_not_trained_on(spoil, image):
    def forget(tensors):
        for name in [name for name in tensors if name.startswith("training.")]:
            del tensors[name]

    loaded = load_run(spoil(forget))
    assert not loaded.resumable
    with pytest.raises(InputError, match="does not hold the state of a training"):
        finish(analyse(image, CONFIG, resume=loaded))


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
    command = [sys.executable, "-c", TRAINING, "run", "made.npy", "--epochs", "40"]
    command += ["--seed", "3", "--output"]
    left = tmp_path / "cut.checkpoint.shiftvae"
    process = subprocess.Popen([*command, "cut"], cwd=tmp_path)  # noqa: S603
    deadline = time.monotonic() + 60
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
    assert main([*make, str(tmp_path / "whole"), "--epochs", "40", "--seed", "3"]) == 0
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
