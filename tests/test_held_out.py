"""Patches that are held out, and when training stops."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from few_patches import make_model, make_task, same_weights
from napari_shiftvae.core import train as train_module
from napari_shiftvae.core.adam import Adam
from napari_shiftvae.core.bound import evidence, judged
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.infer import encode
from napari_shiftvae.core.patches import stack_patches
from napari_shiftvae.core.stopping import CHECK_EVERY, WORTH_NAT, Ending, Pace, hold_out
from napari_shiftvae.core.train import TrainConfig, start, train


@pytest.fixture(scope="module")
def patches():
    return stack_patches(make_task(100).patches)


def test_held_out_patches_never_touch_the_weights():
    """Noise in their place changes nothing but what is said of them."""
    task = make_task(100)
    config = TrainConfig(epochs=3, validation=0.2)
    _, judge = hold_out(100, 0.2, config.seed)
    other = task.patches.copy()
    patches, spoilt = stack_patches(task.patches), stack_patches(other)
    other[judge] = np.random.default_rng(1).normal(size=other[judge].shape)
    spoilt = replace(spoilt, offset=patches.offset, scale=patches.scale)
    models, reports = [make_model(), make_model()], []
    for model, stack in zip(models, (patches, spoilt), strict=True):
        *_, report = train(model, stack, config)
        reports.append(report)
    assert same_weights(*models)
    learned = np.setdiff1d(np.arange(100), judge)
    np.testing.assert_array_equal(reports[0].latents[learned], reports[1].latents[learned])
    assert reports[1].validation > reports[0].validation + 10
    *_, report = train(make_model(), spoilt, TrainConfig(epochs=3))
    assert report.loss != reports[1].loss  # without validation they do
    assert math.isnan(report.validation)


def test_bound_on_held_out_patches_tells_overfitting(patches):
    """An encoder of 70 patches knows these better than the others."""
    config = TrainConfig(epochs=20, validation=0.3)
    model = make_model()
    *_, report = train(model, patches, config)
    learn, judge = hold_out(100, 0.3, config.seed)
    assert np.isfinite(report.latents).all()
    fit = encode(model, patches)
    np.testing.assert_allclose(report.latents[judge], fit.z[judge], atol=1e-5)
    np.testing.assert_allclose(report.shift_yx_px[judge], fit.pose[judge], atol=1e-5)
    before = float(model.variance)
    assert report.validation == pytest.approx(judged(model, patches, judge)[0])
    assert float(model.variance) == before
    assert report.validation > judged(model, patches, learn)[0] + 5


def test_evidence_is_the_density_of_the_pixels():
    """Of a pattern that is known, with the noise and the shift integrated out on a grid."""
    model = make_model()
    with torch.no_grad():
        model.decoder.net[0].weight.zero_()  # patterns do not depend on the latents
    clean = model.decode(torch.zeros(1, 2), torch.tensor([[0.3, -0.4]])).detach()
    sigma = 0.3 * float(clean.std())
    model.variance.fill_(sigma**2)
    seen = clean + sigma * torch.randn(100, 16, 16, generator=torch.Generator().manual_seed(0))
    patches = replace(stack_patches(seen.numpy()), offset=np.zeros(100), scale=np.ones(100))

    axis = torch.linspace(-2.4, 2.4, 97)
    grid = torch.cartesian_prod(axis, axis)
    shown = model.decode(torch.zeros(len(grid), 2), grid).detach().flatten(1).double()
    square = torch.cdist(seen.flatten(1).double(), shown).square() / sigma**2
    prior = (grid / 0.8).square().sum(dim=1) + 2 * math.log(2 * math.pi * 0.8**2)
    log = -0.5 * (square + prior) + 2 * math.log(0.05)
    noise = 256 * math.log(math.sqrt(2 * math.pi) * sigma)
    expected = noise - float(log.logsumexp(dim=1).mean())
    assert evidence(model, patches, torch.arange(100)) == pytest.approx(expected, abs=0.05)


def test_evidence_of_other_weights_leaves_the_model_alone(patches):
    model, other = make_model(), make_model(seed=1)
    weights = [parameter.detach().clone() for parameter in other.decoder.parameters()]
    rows = torch.arange(20)
    own, with_others = (evidence(model, patches, rows, these) for these in (None, weights))
    assert same_weights(model, make_model())
    model.decoder = other.decoder
    assert own != with_others == evidence(model, patches, rows)


def test_schedule_waits_while_held_out_patches_gain():
    pace = Pace()
    assert [step for step in range(301) if pace.is_due(step, 600)] == [120, 180, 240, 300]
    loss, small = 50.0, 0.9 * WORTH_NAT
    for step, gain, waiting in (
        (120, math.nan, False),  # too early to decide
        (180, 1.0, False),
        (240, 1.0, False),
        (300, 1.0, True),
        (360, small, True),
        (420, small, True),  # twice may be chance
        (480, 2.0, True),
        (540, small, True),
        (600, -1.0, True),
        (660, small, False),
    ):
        assert pace.is_due(step, 600)
        loss -= gain if step > 120 else 0.0
        pace.judge(loss, step, 600)
        assert pace.waiting == waiting
        assert pace.gain == pytest.approx(gain, nan_ok=True)
        pace.waited += waiting * CHECK_EVERY
    assert pace.over
    assert not pace.is_due(720, 600)


def test_schedule_goes_on_at_once_where_nothing_is_gained_by_half_of_it():
    pace = Pace()
    for step in (120, 180, 240, 300):
        pace.judge(50.0, step, 600)
    assert (pace.waited, pace.waiting, pace.over) == (0, False, True)


@pytest.mark.parametrize(
    ("losses", "waits"),
    [((0.0, 1.0, 1.0, 1.0), 2), ((0, -5, -9, -9.1, -9.2, -9.2), 4), (range(0, -99, -1), 8)],
)
def test_training_takes_as_long_as_held_out_patches_ask_for(
    patches, monkeypatch, slow_steps, losses, waits
):
    """At least 240 steps of it, at most three times as many, at the peak rate while it waits."""
    slow_steps(0.3)
    told, rates = iter(losses), []
    monkeypatch.setattr(train_module, "evidence", lambda *_: float(next(told)))
    monkeypatch.setattr(TrainConfig, "epochs_for", lambda *_: 40)
    own = Adam.step
    monkeypatch.setattr(Adam, "step", lambda self, rate: (rates.append(rate), own(self, rate)))
    reports = list(train(make_model(), patches, TrainConfig(validation=0.05, learning_rate=1e-3)))
    last, steps = reports[-1], 240 + waits * CHECK_EVERY
    assert (last.step, last.epoch, last.epochs) == (steps, steps // 6, steps // 6)
    assert last.seconds_left == 0
    assert not reports[118].pace.over
    assert last.pace.over
    assert rates.count(1e-3) == 1 + waits * CHECK_EVERY  # once when it has risen
    assert rates[-1] < 2e-5
    done = [report.epoch / report.epochs for report in reports]
    assert done == sorted(done)


def test_latents_are_cheap_while_the_schedule_waits():
    state = start(make_model(), config := TrainConfig())
    state.step = 400
    assert train_module._price(state, 600, config) == 1
    state.pace.waiting = True
    assert train_module._price(state, 600, config) == train_module.WHILE_WAITING
    assert train_module._price(state, 600, TrainConfig(kl_begin=1.0)) == 1


def test_patches_are_held_out_where_their_number_allows_it():
    config = TrainConfig()
    held_out = {n: len(hold_out(n, config.share_for(n), 0)[1]) for n in (499, 500, 700, 10_000)}
    assert held_out == {499: 0, 500: 25, 700: 35, 10_000: 64}
    assert not config.is_open(499)
    assert config.is_open(500)
    assert TrainConfig(epochs=20).share_for(2000) == 0
    assert not TrainConfig(epochs=20, validation=0.1).is_open(2000)
    with pytest.raises(InputError, match=r"validation is 0\.9"):
        TrainConfig(validation=0.9)


def test_why_training_ended_is_told_in_words():
    ending = Ending(epochs=20, added=0, held_out=50, gain_nat=0.1, decided=True)
    assert "20 epochs, the least: halfway, 50 held-out patches" in ending.sentence
    assert "13 more than the least: until" in replace(ending, epochs=33, added=13).sentence
    assert "still described better" in replace(ending, gain_nat=0.5).sentence
