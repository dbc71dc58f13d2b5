"""Spectra whose training was interrupted go on with the numbers of one that was not."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from napari_shiftvae.cli import main
from napari_shiftvae.core.checkpoint import with_checkpoints
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.progress import finish
from napari_shiftvae.core.runfile import atoms_csv, load_spectra, save_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.spectra_run import analyse_spectra
from napari_shiftvae.core.spectra_simulation import peak_spectra
from napari_shiftvae.core.train import TrainConfig
from test_checkpoint import TRAINING

CONFIG = AnalysisConfig(train=TrainConfig(epochs=10))


@pytest.fixture(scope="module")
def cube() -> np.ndarray:
    made = peak_spectra(rng=np.random.default_rng(5), count=300)
    return made.spectra.reshape(15, 20, -1)


@pytest.fixture(scope="module")
def whole(cube):
    return finish(analyse_spectra(cube, -1, CONFIG))


@pytest.mark.parametrize("epoch", [1, 3, 6])
def test_in_either_part_or_between_them(cube, whole, tmp_path, monkeypatch, epoch) -> None:
    """The first part of ten epochs has three."""
    monkeypatch.setattr("napari_shiftvae.core.train.REPORT_EVERY_S", 0.0)
    path = tmp_path / "cut.checkpoint.shiftvae"
    for progress in (steps := with_checkpoints(analyse_spectra(cube, -1, CONFIG), path)):
        if progress.report is not None and progress.report.epoch == epoch:
            break
    steps.close()
    begun = load_spectra(path)
    assert begun.epochs == epoch
    assert 0 < np.isfinite(begun.atoms["z1"]).sum() <= 200
    made = finish(analyse_spectra(cube, -1, AnalysisConfig(), resume=begun))
    assert atoms_csv(made.atoms) == atoms_csv(whole.atoms)
    assert (made.epochs, made.config) == (whole.epochs, whole.config)


def test_checkpoint_beside_the_training_is_of_when_it_was_begun(
    cube, whole, tmp_path, monkeypatch
) -> None:
    """However far the training has come when it is written."""
    monkeypatch.setattr("napari_shiftvae.core.train.REPORT_EVERY_S", 0.0)
    path, may_go_on = tmp_path / "cut.checkpoint.shiftvae", threading.Event()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(may_go_on.wait, 60)  # all else waits behind it
        steps = analyse_spectra(cube, -1, CONFIG)
        steps = with_checkpoints(steps, path, every_s=0.0, executor=executor)
        reports = (progress.report for progress in steps if progress.report is not None)
        assert any(report.epoch == 5 for report in reports)
        assert not path.exists()
        may_go_on.set()
    begun = load_spectra(path)
    assert begun.epochs < 2
    made = finish(analyse_spectra(cube, -1, AnalysisConfig(), resume=begun))
    assert atoms_csv(made.atoms) == atoms_csv(whole.atoms)
    steps.close()


def test_other_spectra_and_finished_runs_are_refused(cube, whole, tmp_path) -> None:
    with pytest.raises(InputError, match="of other spectra"):
        finish(analyse_spectra(cube + 1, -1, CONFIG, resume=whole))
    again = load_spectra(save_run(whole, tmp_path / "whole"))
    with pytest.raises(InputError, match="does not hold the state of a training"):
        finish(analyse_spectra(cube, -1, CONFIG, resume=again))
    assert not again.resumable


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_killed_training_is_taken_up_by_the_command_line(cube, tmp_path) -> None:
    np.save(tmp_path / "made.npy", cube)
    command = [sys.executable, "-c", TRAINING, "run", "made.npy", "--spectra", "-1"]
    command += ["--epochs", "60", "--seed", "3", "--output"]
    left = tmp_path / "cut.checkpoint.shiftvae"
    process = subprocess.Popen([*command, "cut"], cwd=tmp_path)  # noqa: S603
    deadline = time.monotonic() + 600
    while not left.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "cut.shiftvae").exists()
    make = ["run", str(tmp_path / "made.npy"), "--spectra", "-1", "--output"]
    assert main([*make, str(tmp_path / "cut")]) == 2  # not overwritten by accident
    going_on = [*make, str(tmp_path / "cut"), "--resume", str(left)]
    assert main([*going_on, "--epochs", "70"]) == 2
    assert main(going_on) == 0
    assert not left.exists()
    assert main([*make, str(tmp_path / "whole"), "--epochs", "60", "--seed", "3"]) == 0
    cut, whole = (load_spectra(tmp_path / f"{name}.shiftvae") for name in ("cut", "whole"))
    pd.testing.assert_frame_equal(cut.atoms, whole.atoms, check_exact=True)
    assert cut.config == whole.config
