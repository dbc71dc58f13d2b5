"""Training goes on where memory runs out or the loss is lost."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from napari_shiftvae.core import train as train_module
from napari_shiftvae.core.bound import judged
from napari_shiftvae.core.errors import InputError, is_out_of_memory
from napari_shiftvae.core.infer import encode, refine
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.patches import stack_patches
from napari_shiftvae.core.simulate import Motif, factor_patches
from napari_shiftvae.core.train import TrainConfig, train

MOTIF = Motif(patch_size_px=16, sigma_px=1.1, cage_half_diagonal_px=5.6)
COUNT = 200


@pytest.fixture(scope="module")
def patches():
    rng = np.random.default_rng(4)
    made = factor_patches(
        rng=rng, count=COUNT, motif=MOTIF, shift_sd_px=0.8, displacement_range_px=(-0.8, 0.8)
    )
    return stack_patches(made.patches)


@pytest.fixture
def model():
    config = ModelConfig(
        patch_size_px=16, separation_px=5.6, shift_prior_px=0.8, band_limit=0.4, hidden=48
    )
    return ShiftVAE(config, torch.Generator().manual_seed(0))


@pytest.fixture
def every_step(monkeypatch):
    """Have each step reported, and the state kept after it."""
    monkeypatch.setattr("napari_shiftvae.core.recovery.COPY_EVERY_S", 0.0)
    monkeypatch.setattr(train_module, "REPORT_EVERY_S", 0.0)


def no_memory(*_):
    raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")


def spoil(model):
    """What a step does that is too large."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.nan)


def loss_of(model, patches) -> float:
    return judged(model.eval(), patches, torch.arange(COUNT))[0]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_memory_that_runs_out_is_known_by_its_words(error):
    assert is_out_of_memory(error)
    assert not is_out_of_memory(ValueError(str(error)))


def test_batches_are_halved_where_memory_runs_out(model, patches, in_step):
    seen, before = [], loss_of(model, patches)

    def happens(_, __, x):
        seen.append(len(x))
        if len(x) > 10:
            no_memory()

    in_step(happens)
    with pytest.warns(UserWarning, match="Memory ran out") as warned:
        *_, report = train(model, patches, TrainConfig(epochs=10))
    assert [str(one.message) for one in warned] == list(report.mishaps)
    assert "batches of 6 instead of 12" in report.mishaps[-1]
    assert seen[:3] == [25, 12, 6]  # 200 / 8, halved twice
    assert max(seen[2:]) <= 6
    assert (report.epoch, report.epochs) == (10, 10)
    assert report.config.batch_size == 6
    assert loss_of(model, patches) < before - 50


@pytest.mark.usefixtures("every_step")
def test_memory_that_runs_out_later_costs_no_epoch(model, patches, in_step):
    in_step(lambda number, _, __: no_memory() if number == 45 else None)
    with pytest.warns(UserWarning, match="Memory ran out"):
        reports = list(train(model, patches, TrainConfig(epochs=20)))
    epochs = [report.epoch for report in reports]
    assert all(later >= epoch - 2 for epoch, later in pairwise(epochs))
    last = reports[-1]
    assert (last.epoch, last.epochs) == (20, 20)
    assert last.step == 20 * 17  # 200 patches, 12 at a time


def test_memory_that_never_suffices_is_said(model, patches, in_step):
    in_step(no_memory)
    with (
        pytest.warns(UserWarning, match="Memory ran out"),
        pytest.raises(InputError, match="The memory does not suffice: close other programs"),
    ):
        list(train(model, patches, TrainConfig(epochs=2)))


def test_other_errors_are_not_taken_for_it(model, patches, in_step):
    def broken(*_):
        raise RuntimeError("shape '[2]' is invalid for input of size 3")

    in_step(broken)
    with pytest.raises(RuntimeError, match="is invalid"):
        list(train(model, patches, TrainConfig(epochs=2)))


@pytest.mark.usefixtures("every_step")
def test_lost_loss_goes_back_to_the_last_good_state(model, patches, in_step):
    in_step(lambda number, model, _: spoil(model) if number == 100 else None)
    with pytest.warns(UserWarning, match="learning rate of 0.0005 instead of 0.002"):
        reports = list(train(model, patches, TrainConfig(epochs=25, learning_rate=2e-3)))
    steps = [report.step for report in reports]
    assert steps[99:101] == [100, 101]  # one step was done again, none was lost
    assert all(np.isfinite(report.loss) for report in reports)
    assert reports[-1].config.learning_rate == pytest.approx(0.0005)
    assert reports[-1].epoch == 25
    losses = [report.loss for report in reports]
    gained = losses[0] - losses[99]
    assert losses[100] == pytest.approx(losses[99], abs=0.2 * gained)


@pytest.mark.usefixtures("every_step")
def test_state_that_leads_there_again_is_given_up_for_the_first(model, patches, in_step):
    in_step(lambda number, model, _: spoil(model) if number in {100, 101} else None)
    with pytest.warns(UserWarning, match="no finite number"):
        steps = [report.step for report in train(model, patches, TrainConfig(epochs=20))]
    assert steps[100] == 1
    assert steps[-1] == 160


def test_loss_that_stays_lost_is_said(model, patches, in_step):
    in_step(lambda _, model, __: spoil(model))
    with (
        pytest.warns(UserWarning, match="no finite number"),
        pytest.raises(InputError, match="The loss is no finite number, even with a learning rate"),
    ):
        list(train(model, patches, TrainConfig(epochs=2)))


def test_undisturbed_training_is_as_it_was(model, patches):
    *_, report = train(model, patches, TrainConfig(epochs=2))
    assert report.config is None
    assert report.mishaps == ()


@pytest.mark.parametrize("part", ["encode", "linearise"])
def test_patches_are_read_in_halves_where_memory_runs_out(model, patches, monkeypatch, part):
    list(train(model, patches, TrainConfig(epochs=3)))
    model.eval()
    own, seen, noise = getattr(model, part), [], model.variance.clone()

    def read():
        model.variance.copy_(noise)
        *pieces, fit = refine(model, patches, encode(model, patches), uneven=False)
        return pieces, fit

    def short_of_memory(x, *more):
        seen.append(len(x))
        if len(x) > 60:
            no_memory()
        return own(x, *more)

    pieces, expected = read()
    assert len(pieces) == 1
    monkeypatch.setattr(model, part, short_of_memory)
    with pytest.warns(UserWarning, match="Memory ran out") as warned:
        pieces, fit = read()
    assert "read 100 at a time instead of 200." in str(warned[0].message)
    assert "read 50 at a time instead of 100." in str(warned[1].message)
    assert seen[:3] == [200, 100, 50]
    assert max(seen[2:]) == 50
    assert len(pieces) == (4 if part == "linearise" else 1)
    for name in ("z", "pose", "covariance", "mean_square"):
        torch.testing.assert_close(
            getattr(fit, name), getattr(expected, name), rtol=1e-3, atol=1e-5
        )


def test_memory_that_never_suffices_for_reading_is_told_as_it_is(model, patches, monkeypatch):
    monkeypatch.setattr(model, "encode", no_memory)
    with pytest.warns(UserWarning, match="Memory ran out"), pytest.raises(RuntimeError) as raised:
        encode(model.eval(), patches)
    assert is_out_of_memory(raised.value)
