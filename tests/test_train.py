"""Training: it reports in time, learns, stops and goes on, and is the same every time."""

import math

import numpy as np
import pytest
import torch

from few_patches import make_model, make_task, same_weights
from napari_shiftvae.core.diagnostics import seed_agreement
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.infer import encode
from napari_shiftvae.core.patches import extract_patches, stack_patches
from napari_shiftvae.core.train import FEWEST_PATCHES, TrainConfig, start, train


@pytest.fixture(scope="module")
def patches():
    return stack_patches(make_task(100).patches)


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
