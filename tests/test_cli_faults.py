"""Faults in mid-run on the command line: said in one line, and what was there before stays."""

import numpy as np
import pytest
import torch

from napari_shiftvae.cli import main
from napari_shiftvae.core import images, runfile
from napari_shiftvae.core.runfile import load_run

pytestmark = pytest.mark.filterwarnings("default")  # what is told is printed


@pytest.fixture
def run(made, tmp_path):
    """Run the command on a small image; its status."""
    np.save(tmp_path / "made.npy", made)
    words = ["run", str(tmp_path / "made.npy"), "--output", str(tmp_path / "made.shiftvae")]
    return lambda *more: main([*words, "--epochs", "2", *more])


def fail(error: Exception) -> None:
    raise error


def test_batches_are_halved_where_memory_runs_out(run, in_step, tmp_path, capsys) -> None:
    in_step(lambda number, _, x: fail(MemoryError()) if number > 2 and len(x) > 8 else None)
    assert run() == 0
    words = "Memory ran out: training goes on with batches of 8 instead of 16."
    printed = capsys.readouterr()
    assert f"napari-shiftvae: {words}" in printed.err.splitlines()
    assert words in printed.out.splitlines()
    assert load_run(tmp_path / "made.shiftvae").config.train.batch_size == 8


def test_memory_that_never_suffices(run, in_step, tmp_path, capsys) -> None:
    in_step(lambda *_: fail(RuntimeError("CUDA out of memory")))
    assert run() == 2
    *halved, last = capsys.readouterr().err.splitlines()
    assert last.startswith("napari-shiftvae: The memory does not suffice: close other programs")
    assert all("Memory ran out" in line for line in halved)
    assert [path.name for path in tmp_path.iterdir()] == ["made.npy"]


def test_lost_loss_is_said_and_training_goes_on(run, in_step, tmp_path, capsys) -> None:
    def spoil(number, model, _) -> None:
        if number == 5:
            with torch.no_grad():
                next(model.parameters()).fill_(torch.nan)

    in_step(spoil)
    assert run() == 0
    assert "went back to its last good state" in capsys.readouterr().err
    made = load_run(tmp_path / "made.shiftvae")
    assert np.isfinite(made.atoms.loc[made.used, "z1"]).all()


def test_disk_full_at_the_end_keeps_the_old_file(run, tmp_path, capsys, monkeypatch) -> None:
    def pack(file, _) -> None:
        file.write(b"PK")  # some of it still fitted
        raise OSError(28, "No space left on device")

    assert run() == 0
    old = (tmp_path / "made.shiftvae").read_bytes()
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(runfile, "_pack", pack)
        assert run("--seed", "1") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "No space left" in line
    assert (tmp_path / "made.shiftvae").read_bytes() == old
    assert {path.name for path in tmp_path.iterdir()} == {"made.npy", "made.shiftvae"}


def test_memory_that_does_not_suffice_for_the_image(run, capsys, monkeypatch) -> None:
    monkeypatch.setattr(images, "read_image", lambda *_, **__: fail(MemoryError()))
    assert run() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("napari-shiftvae: The memory does not suffice: close other programs")
