"""Going on from a run that was interrupted: to the last digit, or refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cut_short import CONFIG, IMAGE, interrupted, whole_run
from napari_shiftvae.core import analyse as analysis
from napari_shiftvae.core import train
from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.runfile import atoms_csv, load_run, save_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.train import TrainConfig

MOMENT = "training.moments.encoder.2.0.weight.exp_avg"


@pytest.fixture(scope="module")
def image():
    return IMAGE


@pytest.fixture(scope="module")
def whole():
    return whole_run()


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(train, "REPORT_EVERY_S", 0.0)


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
            phase = (pace.waited > 2, pace.over)
            if phase not in phases:
                phases[phase] = progress.snapshot()
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
    config = replace(CONFIG, train=replace(CONFIG.train, epochs=5))
    assert finish(analyse(image, config, resume=loaded)).epochs == 5


def test_picks_are_kept_to_the_last_digit(image, tmp_path):
    picks = np.random.default_rng(0).uniform(30, 110, (40, 2)) + 1 / 3
    run = finish(analyse(image, CONFIG, positions_yx=picks))
    loaded = load_run(save_run(run, tmp_path / "made"))
    np.testing.assert_array_equal(loaded.picks_yx, picks)


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
