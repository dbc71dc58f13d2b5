"""Rotation and scale: exact in the decoders, found to the bound, honest about their error."""

import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.gauge import fix_gauge
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.infer import Fit, encode, refine
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.patches import stack_patches
from napari_shiftvae.core.pose_simulation import PosePatches, pose_patches, render_poses
from napari_shiftvae.core.reading import Reading, read
from napari_shiftvae.core.runfile import load_run, save_run
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.train import TrainConfig, train

SETS = [
    set_
    for count in range(4)
    for set_ in itertools.combinations(("shift", "rotation", "scale"), count)
]
SIZE, COUNT = 20, 400


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def made(decoder="fourier", *, size=17, invariances=("shift", "rotation", "scale")):
    """Make a model in double precision whose patterns are far from constant."""
    config = ModelConfig(
        patch_size_px=size, separation_px=8, decoder=decoder, hidden=24, invariances=invariances
    )
    model = ShiftVAE(config, torch.Generator().manual_seed(3)).double()
    for weight in model.decoder.parameters():
        weight.data *= 2
    model.gauge.copy_(torch.tensor([[0.0, -1], [1, 0]]))
    return model


def batch(model, count=4):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(count, 2 + model.config.pose_dim, generator=generator).double()
    return values[:, :2], 0.5 * values[:, 2:]


def close(found, expected, tolerance=1e-6):
    found, expected = found.detach().numpy(), expected.detach().numpy()
    scale = np.abs(expected).max()
    assert scale > 1e-3, "nothing to compare"
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)


# --- decoders ----------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["fourier", "coordinate"])
@pytest.mark.parametrize("size", [16, 17])
def test_a_quarter_turn_takes_right_to_down(decoder, size):
    model = made(decoder, size=size, invariances=("rotation",))
    z, _ = batch(model)
    turned = model.decode(z, torch.full((4, 1), torch.pi / 2).double())
    close(turned, torch.rot90(model.decode(z), -1, dims=(1, 2)))


@pytest.mark.parametrize("decoder", ["fourier", "coordinate"])
def test_twice_the_size_shows_every_second_pixel(decoder):
    model = made(decoder, invariances=("scale",))
    z, _ = batch(model)
    large = model.decode(z, torch.full((4, 1), np.log(2)).double())
    close(large[:, ::2, ::2], model.decode(z)[:, 4:13, 4:13])


@pytest.mark.parametrize("decoder", ["fourier", "coordinate"])
def test_a_turned_pattern_is_shifted_along_the_axes_of_the_window(decoder):
    model = made(decoder)
    z, pose = batch(model)
    step = torch.tensor([3.0, -2, 0, 0]).double()
    before, after = model.decode(z, pose), model.decode(z, pose + step)
    close(after[:, 3:, :-2], before[:, :-3, 2:])


def test_no_turn_by_the_long_way_is_no_turn():
    plain, turning = made(invariances=("shift",)), made()
    turning.decoder.load_state_dict(plain.decoder.state_dict())
    z, pose = batch(plain)
    close(turning.decode(z, torch.nn.functional.pad(pose, (0, 2))), plain.decode(z, pose))


@pytest.mark.parametrize("invariances", SETS, ids="+".join)
@pytest.mark.parametrize("decoder", ["fourier", "coordinate"])
def test_derivatives_agree_with_finite_differences(decoder, invariances):
    """Many patches: large batches are worked on in pieces."""
    model = made(decoder, invariances=invariances)
    z, pose = batch(model, 20)
    found = model.linearise(z, pose)
    close(found.pattern, model.decode(z, pose))
    assert found.by_pose.shape == (20, pose.shape[1], 17, 17)
    at, by = torch.cat([pose, z], 1), torch.cat([found.by_pose, found.by_latent], 1)
    for axis in range(at.shape[1]):
        step = torch.zeros_like(at)
        step[:, axis] = 1e-5
        ahead, behind = (
            model.decode(here[:, -2:], here[:, :-2]) for here in (at + step, at - step)
        )
        close(by[:, axis], (ahead - behind) / 2e-5)


def test_coordinate_decoder_at_some_pixels_is_the_same_there():
    model = made("coordinate", size=20)
    z, pose = batch(model)
    x = torch.randn(4, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    residual, pixels = model.residual(z, pose, x, torch.Generator().manual_seed(2))
    assert len(pixels) == len(set(pixels.tolist())) == 256
    close(residual, (model.decode(z, pose) - x).flatten(1)[:, pixels])


@pytest.mark.parametrize("invariances", [("shift", "shift"), ("tilt",), "shift,rotation"])
def test_unknown_invariances_are_refused(invariances):
    with pytest.raises(InputError, match=r"invariances is .*choose any of 'shift', 'rotation'"):
        ModelConfig(patch_size_px=16, separation_px=8, invariances=invariances)


def test_invariances_have_one_order():
    config = ModelConfig(
        patch_size_px=16,
        separation_px=8,
        invariances=("scale", "shift"),
        shift_prior_px=1.5,
        scale_prior=0.2,
    )
    assert config.invariances == ("shift", "scale")
    assert config.pose_priors == (1.5, 1.5, 0.2)


# --- simulated poses ---------------------------------------------------------------------------


def test_simulated_derivatives_agree_with_finite_differences():
    at = np.array([[0.3, -0.7, 0.35, 0.1, 0.9], [-1.2, 0.4, -0.2, -0.05, 1.2]])
    _, by = render_poses(at, 20, 1.5, 6.0)
    for axis in range(5):
        step = np.zeros(5)
        step[axis] = 1e-5
        ahead, behind = (render_poses(here, 20, 1.5, 6.0)[0] for here in (at + step, at - step))
        np.testing.assert_allclose(by[:, axis], (ahead - behind) / 2e-5, atol=1e-8)


# --- recovered ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained model, what it says, and what is true."""

    model: ShiftVAE
    fit: Fit
    reading: Reading
    task: PosePatches


def small_task(seed=0, **settings):
    return pose_patches(
        rng=np.random.default_rng(seed),
        count=COUNT,
        patch_size_px=SIZE,
        sigma_px=1.5,
        ring_px=6.0,
        shift_sd_px=0.7,
        **settings,
    )


def trained(task, invariances, **settings):
    patches = stack_patches(task.patches)
    config = ModelConfig(
        patch_size_px=SIZE,
        separation_px=6.0,
        latent_dim=1,
        shift_prior_px=0.8,
        band_limit=0.33,
        invariances=invariances,
        **settings,
    )
    model = ShiftVAE(config, torch.Generator().manual_seed(0))
    for _ in train(model, patches, TrainConfig(epochs=40, learning_rate=5e-3)):
        pass
    *_, fit = refine(model, patches, encode(model, patches))
    fit = fix_gauge(model, patches, fit)
    return Fitted(model=model, fit=fit, reading=read(model, patches, fit), task=task)


@pytest.fixture(scope="module")
def turned():
    return trained(small_task(), ("shift", "rotation"))


@pytest.fixture(scope="module")
def all_three():
    return trained(small_task(1, log_scale=0.1), ("shift", "rotation", "scale"))


def errors(fitted) -> dict[str, Any]:
    """Error over the bound, and over the standard deviation, of each part of the pose."""
    task, reading = fitted.task, fitted.reading
    shift = reading.shift_yx_px - task.truth[:, :2]
    shift -= shift.mean(axis=0)
    rotation = reading.rotation_rad - (task.truth[:, 2] - task.truth[:, 2].mean())
    found = {
        "shift": (rms(shift) / task.bound(0, 1), rms(shift / reading.shift_sd_yx_px)),
        "rotation": (rms(rotation) / task.bound(2), rms(rotation / reading.rotation_sd_rad)),
    }
    atom = reading.atom_yx_px - (SIZE - 1) / 2 - task.truth[:, :2]
    found["atom"] = (rms(atom) / task.bound(0, 1), rms(atom / reading.atom_sd_yx_px))
    if reading.scale is not None:
        scale = np.log(reading.scale) - (task.truth[:, 3] - task.truth[:, 3].mean())
        found["scale"] = (rms(scale) / task.bound(3), rms(scale / reading.scale_sd))
    return found


@pytest.mark.parametrize("name", ["turned", "all_three"])
def test_poses_reach_the_bound(name, request):
    for part, (over_bound, _) in errors(request.getfixturevalue(name)).items():
        limit = 1.5 if part == "atom" else 1.1  # a Gaussian fit knows less than the whole motif
        assert over_bound <= limit, part


@pytest.mark.parametrize("name", ["turned", "all_three"])
def test_standard_deviations_of_poses_are_those_of_the_errors(name, request):
    for part, (_, over_deviation) in errors(request.getfixturevalue(name)).items():
        assert over_deviation == pytest.approx(1, abs=0.12), part


def test_content_is_left_to_the_latent(turned):
    intensity = turned.task.truth[:, 4]
    z = turned.reading.z[:, 0]
    assert np.corrcoef(z, intensity)[0, 1] > 0.98
    assert abs(np.corrcoef(z, turned.task.truth[:, 2])[0, 1]) < 0.1


def test_means_are_the_gauge(all_three):
    assert abs(all_three.reading.rotation_rad.mean()) < 1e-6
    assert abs(np.log(all_three.reading.scale).mean()) < 1e-6
    assert rms(all_three.reading.rotation_rad) > 0.2


def test_rotation_of_few_patches_counts_from_the_mean_of_the_training(all_three):
    """A run that is applied to other patches says the same of them."""
    fields = ("z", "pose", "covariance", "mean_square")
    some = replace(all_three.fit, **{name: getattr(all_three.fit, name)[:9] for name in fields})
    part = read(all_three.model, stack_patches(all_three.task.patches[:9]), some)
    np.testing.assert_allclose(part.rotation_rad, all_three.reading.rotation_rad[:9], atol=1e-4)
    np.testing.assert_allclose(part.scale, all_three.reading.scale[:9], atol=1e-4)


def test_without_rotation_in_the_model_there_is_none_in_the_reading():
    shifted = trained(small_task(rotation_rad=0.0), ("shift",))
    assert shifted.reading.rotation_rad is None
    assert shifted.reading.scale is None
    plain = trained(small_task(rotation_rad=0.0), ())
    assert plain.fit.pose.shape == (COUNT, 0)
    shift_error = [
        rms(one.reading.shift_yx_px - one.reading.shift_yx_px.mean(axis=0) - truth)
        for one in (shifted, plain)
        for truth in [one.task.truth[:, :2] - one.task.truth[:, :2].mean(axis=0)]
    ]
    # One latent cannot hold the intensity and a shift along two axes.
    assert shift_error[0] < 0.1 * shift_error[1]


def test_whole_analysis_tells_rotation_and_scale(tmp_path):
    """From an image to the table, to the file and back."""
    task = small_task(log_scale=0.05)
    tiles = task.patches.reshape(20, 20, SIZE, SIZE).transpose(0, 2, 1, 3)
    image = MicroscopeImage(data=tiles.reshape(20 * SIZE, 20 * SIZE), name="tiles")
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(20), indexing="ij"), -1).reshape(-1, 2)
    config = AnalysisConfig(
        patch_size_px=SIZE,
        separation_px=6.0,
        invariances=("rotation", "shift", "scale"),
        rotation_prior_rad=0.25,
        train=TrainConfig(epochs=2),
    )
    run = finish(analyse(image, config, positions_yx=grid * SIZE + (SIZE - 1) / 2))
    assert run.model.config.rotation_prior_rad == 0.25
    columns = ["rotation_rad", "rotation_sd_rad", "scale", "scale_sd"]
    assert np.isfinite(run.atoms[columns].to_numpy()).all()
    loaded = load_run(save_run(run, tmp_path / "turned.shiftvae"))
    assert loaded.config == run.config
    np.testing.assert_allclose(loaded.atoms[columns], run.atoms[columns])
