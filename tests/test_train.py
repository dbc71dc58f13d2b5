"""Training: it reports in time, learns, stops and goes on, and is the same every time."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_shiftvae.core import train as train_module
from napari_shiftvae.core.adam import Adam
from napari_shiftvae.core.bound import evidence, judged
from napari_shiftvae.core.diagnostics import seed_agreement
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.infer import encode
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.patches import extract_patches, stack_patches
from napari_shiftvae.core.simulate import Motif, factor_patches
from napari_shiftvae.core.stopping import CHECK_EVERY, WORTH_NAT, Ending, Pace, hold_out
from napari_shiftvae.core.train import FEWEST_PATCHES, TrainConfig, start, train

MOTIF = Motif(patch_size_px=16, sigma_px=1.1, cage_half_diagonal_px=5.6)


def make_task(count):
    rng = np.random.default_rng(4)
    return factor_patches(
        rng=rng, count=count, motif=MOTIF, shift_sd_px=0.8, displacement_range_px=(-0.8, 0.8)
    )


def make_model(seed=0, **settings):
    config = ModelConfig(
        patch_size_px=16,
        separation_px=5.6,
        shift_prior_px=0.8,
        band_limit=0.4,
        hidden=48,
        **settings,
    )
    return ShiftVAE(config, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def patches():
    return stack_patches(make_task(100).patches)


@pytest.fixture
def slow_steps(monkeypatch):
    """Set how long a step seems to take [s]."""

    now = [0.0]
    step = train_module._step

    def set_duration(seconds):
        def slow(*args, **kwargs):
            now[0] += seconds
            return step(*args, **kwargs)

        clock = SimpleNamespace(perf_counter=lambda: now[0])
        monkeypatch.setattr(train_module, "time", clock)
        monkeypatch.setattr(train_module, "_step", slow)
        return now

    return set_duration


def same_weights(first, second):
    first, second = first.state_dict(), second.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


# --- reports -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step_s", [0.004, 0.03, 0.3])
def test_reports_come_at_least_every_half_second_and_at_the_end(patches, slow_steps, step_s):
    slow_steps(step_s)
    reports = list(train(make_model(), patches, TrainConfig(epochs=20)))
    times = np.array([0.0] + [report.seconds for report in reports])
    assert np.diff(times).max() <= max(0.2, step_s) + 1e-9
    if step_s < 0.05:
        assert np.diff(times)[:-1].min() > 0.05  # nor a flood of them
    last = reports[-1]
    assert (last.epoch, last.epochs) == (20, 20)
    assert last.step == 20 * 7  # 100 patches, 16 at a time
    assert last.seconds_left == 0


def test_time_left_is_foreseen(patches, slow_steps):
    slow_steps(0.3)
    reports = list(train(make_model(), patches, TrainConfig(epochs=4)))
    assert [r.seconds + r.seconds_left for r in reports] == pytest.approx([28 * 0.3] * 28)
    assert [r.epoch for r in reports] == [step // 7 for step in range(1, 29)]


def test_what_is_done_with_reports_is_no_training(patches, slow_steps):
    now = slow_steps(0.3)
    seconds = []
    for report in train(make_model(), patches, TrainConfig(epochs=2)):
        seconds.append(report.seconds)
        now[0] += 5.0
    assert seconds == pytest.approx(0.3 * np.arange(1, 15))


def test_reported_latents_are_those_of_the_encoder():
    """In the picks' own order; shifts count from the pick, not from the window's centre."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(80, 80)).astype(np.float32)
    grid = np.stack(np.meshgrid(*2 * [np.arange(12, 70, 8)], indexing="ij"), -1).reshape(-1, 2)
    patches = extract_patches(image, grid + rng.uniform(-0.5, 0.5, grid.shape), 16)
    model = make_model()
    *_, report = train(model, patches, TrainConfig(epochs=1, learning_rate=1e-6))
    fit = encode(model, patches)
    assert np.abs(patches.remainder_yx_px).max() > 0.3
    np.testing.assert_allclose(report.latents, fit.z, atol=1e-3)
    np.testing.assert_allclose(
        report.shift_yx_px, fit.pose.numpy() - patches.remainder_yx_px, atol=1e-3
    )


def test_patches_not_seen_yet_have_no_latents(patches, slow_steps):
    slow_steps(0.3)
    reports = train(make_model(), patches, TrainConfig(epochs=2))
    first = next(reports)
    seen = np.isfinite(first.latents).all(axis=1)
    assert seen.sum() in {14, 15}
    assert np.array_equal(seen, np.isfinite(first.shift_yx_px).all(axis=1))
    before = first.latents.copy()
    *_, last = reports
    assert np.isfinite(last.latents).all()
    np.testing.assert_array_equal(first.latents, before)  # a report is a copy


def test_reported_terms_are_those_of_the_bound(slow_steps):
    """One batch, known encoder: the KL divergences by their formula, the loss their sum."""
    slow_steps(0.3)
    rng = np.random.default_rng(1)
    image = rng.normal(size=(80, 80)).astype(np.float32)
    patches = extract_patches(image, rng.uniform(20, 60, (16, 2)), 16)
    model = make_model()
    with torch.no_grad():
        q = model.encode(patches.gather())
    off = (q.pose - torch.from_numpy(patches.remainder_yx_px)) / 0.8
    spread = q.log_sd_pose.exp() / 0.8
    kl_shift = 0.5 * (off**2 + spread**2 - 1 - 2 * spread.log()).sum(dim=1).mean()
    spread = q.log_sd_z.exp()
    kl_latents = 0.5 * (q.z**2 + spread**2 - 1 - 2 * spread.log()).mean(dim=0)
    report = next(train(model, patches, TrainConfig(epochs=3)))
    assert report.kl_shift == pytest.approx(float(kl_shift), rel=1e-4)
    np.testing.assert_allclose(report.kl_latents, kl_latents, rtol=1e-4)
    # At the first step the variance is the mean square residual itself.
    variance = report.reconstruction**2
    likelihood = 0.5 * 256 * (1 + math.log(2 * math.pi * variance))
    assert report.loss == pytest.approx(
        likelihood + report.kl_shift + report.kl_latents.sum(), rel=1e-4
    )


# --- learning ----------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["fourier", "coordinate"])
def test_loss_falls(patches, slow_steps, decoder):
    slow_steps(0.3)
    config = TrainConfig(epochs=30, learning_rate=5e-3)
    reports = list(train(make_model(decoder=decoder), patches, config))
    loss = np.array([report.loss for report in reports])
    assert np.median(loss[-20:]) < np.median(loss[:7]) - 50
    rms = np.array([report.reconstruction for report in reports])
    assert np.median(rms[-20:]) < 0.8 * np.median(rms[:7])


def test_noise_is_learned():
    task = make_task(300)
    patches = stack_patches(task.patches)
    model = make_model()
    for _ in train(model, patches, TrainConfig(epochs=40, learning_rate=6e-3)):
        pass
    noise = float(model.variance.sqrt()) * float(patches.scale[0])
    assert noise == pytest.approx(task.noise_sigma, rel=0.3)


@pytest.mark.parametrize(("name", "term"), [("kl_shift", "kl_shift"), ("kl_content", "kl_latents")])
def test_kl_weights_act(patches, name, term):
    found = []
    for weight in (0.0, 1.0, 300.0):
        config = TrainConfig(epochs=15, learning_rate=5e-3, **{name: weight})
        *_, report = train(make_model(), patches, config)
        found.append(float(np.sum(getattr(report, term))))
    free, bound, crushed = found
    assert free > 1.05 * bound > 0
    assert crushed < 0.1 * bound


# --- stopping, going on, repeating -------------------------------------------------------------


@pytest.mark.parametrize("stops", [(1,), (5, 7, 20)])
def test_stop_and_resume_equals_going_through(patches, slow_steps, stops):
    """Stopped inside epochs and between them, to the last digit."""
    slow_steps(0.3)  # a report for every step
    config = TrainConfig(epochs=4, seed=9)
    through = make_model()
    *_, expected = train(through, patches, config)

    stopped = make_model()
    state = start(stopped, config)
    for stop in stops:
        for report in train(stopped, patches, config, state):
            if report.step == stop:
                break
    assert not same_weights(stopped, through)
    *_, report = train(stopped, patches, config, state)
    assert same_weights(stopped, through)
    assert (report.step, report.loss) == (expected.step, expected.loss)
    assert report.seconds == pytest.approx(expected.seconds)


def test_nothing_is_left_to_do_after_the_end(patches):
    config = TrainConfig(epochs=2)
    model = make_model()
    state = start(model, config)
    *_, _ = train(model, patches, config, state)
    again = make_model()
    again.load_state_dict(model.state_dict())
    assert list(train(model, patches, config, state)) == []
    assert same_weights(model, again)


def test_seed_decides_everything(patches):
    def trained(seed):
        model = make_model()
        *_, report = train(model, patches, TrainConfig(epochs=2, seed=seed))
        return model, report

    torch.manual_seed(1)
    first, report = trained(5)
    torch.manual_seed(2)  # the global generator has no say
    again, same = trained(5)
    other, _ = trained(6)
    assert same_weights(first, again)
    assert report.loss == same.loss
    assert not same_weights(first, other)


# --- settings ----------------------------------------------------------------------------------


def test_too_few_patches_are_refused_before_any_work():
    stack = np.random.default_rng(0).normal(size=(FEWEST_PATCHES, 16, 16)).astype(np.float32)
    config = TrainConfig(epochs=1)
    model = make_model()
    with pytest.raises(
        InputError, match=r"There are 15 patches .* at least 16: find or click more"
    ):
        next(train(model, stack_patches(stack[:-1]), config))
    assert same_weights(model, make_model())
    assert next(train(model, stack_patches(stack), config)).epoch == 1


@pytest.mark.parametrize("count", [16, 100, 600, 2000, 100_000])
def test_default_epochs_make_a_fixed_amount_of_work(count):
    config = TrainConfig()
    steps = config.epochs_for(count) * math.ceil(count / config.batch_for(count))
    assert config.epochs_for(count) <= 400
    assert 400 <= steps < 4000 + math.ceil(count / 64)
    if 20 < config.epochs_for(count) < 400:
        assert steps == pytest.approx(1000 if count < 1000 else 600, rel=0.05)
    elif count < 10_000:
        assert config.epochs_for(count) in {20, 400}
    assert TrainConfig(epochs=7).epochs_for(count) == 7
    assert 1 < config.batch_for(count) <= min(64, count)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),
        ("learning_rate", 0.0),
        ("learning_rate", 1.0),
        ("kl_shift", -0.1),
        ("kl_content", float("nan")),
        ("seed", -1),
    ],
)
def test_bad_settings_are_refused_by_name(name, value):
    with pytest.raises(InputError, match=rf"{name} is {value}: choose one from"):
        TrainConfig(**{name: value})


# --- patches held out, and when to stop --------------------------------------------------------


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
    assert [step for step in range(301) if pace.is_due(step, 600)] == [180, 240, 300]
    loss, small = 50.0, 0.9 * WORTH_NAT
    for step, gain, waiting in (
        (180, math.nan, False),  # too early to decide
        (240, 1.0, False),
        (300, 1.0, True),
        (360, small, True),  # once may be chance
        (420, 2.0, True),
        (480, small, True),
        (540, -1.0, False),
    ):
        assert pace.is_due(step, 600)
        loss -= gain if step > 180 else 0.0
        pace.judge(loss, step, 600)
        assert pace.waiting == waiting
        assert pace.gain == pytest.approx(gain, nan_ok=True)
        pace.waited += waiting * CHECK_EVERY
    assert pace.over
    assert not pace.is_due(600, 600)


def test_schedule_goes_on_at_once_where_nothing_is_gained_by_half_of_it():
    pace = Pace()
    for step in (180, 240, 300):
        pace.judge(50.0, step, 600)
    assert (pace.waited, pace.waiting, pace.over) == (0, False, True)


@pytest.mark.parametrize(
    ("losses", "waits"),
    [((0.0, 1.0, 1.0), 1), ((0.0, -5.0, -9.0, -9.1, -9.2), 3), (range(0, -99, -1), 8)],
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
    assert "still gained 0.5 nat" in replace(ending, gain_nat=0.5).sentence


# --- agreement of seeds ------------------------------------------------------------------------


def test_seeds_agree_on_what_both_found():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(500, 2))
    turned = shared @ [[0.8, -0.6], [0.6, 0.8]] + 3
    assert seed_agreement(shared, turned).r2 == (1.0, 1.0)
    own = np.column_stack([shared[:, 0], rng.normal(size=500)])
    other = np.column_stack([rng.normal(size=500), -shared[:, 0] + 0.5 * rng.normal(size=500)])
    other[7] = np.nan
    found = seed_agreement(own, other)
    assert found.r2 == pytest.approx((0.8, 0.0), abs=0.05)
    assert "z1 0.8" in found.sentence
    assert "depends on the seed" in found.sentence
    assert "does not matter" in seed_agreement(shared, turned).sentence
    with pytest.raises(InputError, match="two runs of the same atoms"):
        seed_agreement(own, other[:-1])
    with pytest.raises(InputError, match="5 atoms in common: too few"):
        seed_agreement(own[:5], other[:5])
