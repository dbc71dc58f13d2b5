"""What is read off a trained model: as exact as can be, and with the gauges that fix its meaning.

Windows of 24 px are cut from a tiled image in which every tile holds one pattern of known shift,
intensity and displacement, and has room for the window to be moved.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from napari_shiftvae.core.gauge import fix_gauge, latent_information
from napari_shiftvae.core.infer import Fit, encode, refine
from napari_shiftvae.core.landmarks import find_landmarks
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.patches import Patches, extract_patches, stack_patches
from napari_shiftvae.core.reading import Reading, read
from napari_shiftvae.core.simulate import Motif, factor_patches
from napari_shiftvae.core.train import TrainConfig, train

TILE, SIZE, COUNT = 32, 24, 500
SEPARATION_PX = 8.4


def draw(size):
    """Draw the task in windows of a size; the hidden values are the same for all sizes."""
    return factor_patches(
        rng=np.random.default_rng(0),
        count=COUNT,
        motif=Motif(patch_size_px=size, sigma_px=1.62, cage_half_diagonal_px=SEPARATION_PX),
        shift_sd_px=1.0,
        intensity_range=(0.4, 1.6),
        displacement_range_px=(-0.7, 0.7),
    )


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Tiled image, picks beside the tiles' centres, and what is true of them."""

    image: Any
    picks_yx: Any
    shift_yx_px: Any  # of the whole pattern from the pick, with the constant part as gauged
    atom_yx_px: Any
    factors: Any
    noise_sigma: float
    bound_shift_px: float  # for windows of 24 px
    bound_atom_px: float


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained model and what it says."""

    model: ShiftVAE
    patches: Patches
    fit: Fit
    reading: Reading


@pytest.fixture(scope="module")
def truth():
    task, bounds = draw(TILE), draw(SIZE)
    assert np.array_equal(task.factors, bounds.factors)
    tiles = task.patches.reshape(20, 25, TILE, TILE)
    grid = np.stack(np.meshgrid(np.arange(20), np.arange(25), indexing="ij"), -1)
    centre = grid.reshape(-1, 2) * TILE + (TILE - 1) / 2
    offset = np.random.default_rng(1).uniform(-0.5, 0.5, centre.shape)
    central = task.central_yx_px - task.shift_yx_px
    return Truth(
        image=tiles.transpose(0, 2, 1, 3).reshape(20 * TILE, 25 * TILE),
        picks_yx=centre + offset,
        shift_yx_px=task.shift_yx_px + central.mean(axis=0) - offset,
        atom_yx_px=centre + task.central_yx_px,
        factors=task.factors,
        noise_sigma=task.noise_sigma,
        bound_shift_px=bounds.bound_shift_px,
        bound_atom_px=bounds.bound_central_px,
    )


def trained(image, picks, *, seed=0, dark=False):
    patches = extract_patches(image, picks, SIZE)
    config = ModelConfig(
        patch_size_px=SIZE, separation_px=SEPARATION_PX, shift_prior_px=1.2, band_limit=0.33
    )
    model = ShiftVAE(config, torch.Generator().manual_seed(seed))
    for _ in train(model, patches, TrainConfig(epochs=60, learning_rate=4e-3, seed=seed)):
        pass
    *_, fit = refine(model, patches, encode(model, patches))
    fit = fix_gauge(model, patches, fit, dark=dark)
    return Fitted(model=model, patches=patches, fit=fit, reading=read(model, patches, fit))


@pytest.fixture(scope="module")
def fitted(truth):
    return trained(truth.image, truth.picks_yx)


@pytest.fixture(scope="module")
def other_seed(truth):
    return trained(truth.image, truth.picks_yx, seed=1)


@pytest.fixture(scope="module")
def inverted(truth):
    return trained(-truth.image, truth.picks_yx, dark=True)


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


# --- exactness ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fitted", "other_seed", "inverted"])
def test_positions_reach_the_bound(name, truth, request):
    reading = request.getfixturevalue(name).reading
    shift_error = reading.shift_yx_px - truth.shift_yx_px
    atom_error = reading.atom_yx_px - truth.atom_yx_px
    assert rms(shift_error) <= 1.1 * truth.bound_shift_px
    assert rms(atom_error) <= 1.15 * truth.bound_atom_px


@pytest.mark.parametrize("name", ["fitted", "other_seed", "inverted"])
def test_standard_deviations_are_those_of_the_errors(name, truth, request):
    reading = request.getfixturevalue(name).reading
    shift_error = reading.shift_yx_px - truth.shift_yx_px
    atom_error = reading.atom_yx_px - truth.atom_yx_px
    for error, deviation in (
        (shift_error - shift_error.mean(axis=0), reading.shift_sd_yx_px),
        (atom_error, reading.atom_sd_yx_px),
    ):
        assert rms(deviation) == pytest.approx(rms(error), rel=0.1)
        assert rms(error / deviation) == pytest.approx(1, abs=0.1)


def test_deviations_tell_sharp_patches_from_blurred_ones(fitted, truth):
    """The central atom is the worse known the weaker it is."""
    weak = truth.factors[:, 0] < 0.7
    strong = truth.factors[:, 0] > 1.3
    error = fitted.reading.atom_yx_px - truth.atom_yx_px
    deviation = fitted.reading.atom_sd_yx_px
    ratio = rms(deviation[weak]) / rms(deviation[strong])
    assert ratio > 1.5
    assert ratio == pytest.approx(rms(error[weak]) / rms(error[strong]), rel=0.25)


def test_hidden_factors_are_found(fitted, truth):
    z = fitted.reading.z
    design = np.column_stack([np.ones(COUNT), z, z**2, z**3, z.prod(axis=1)])
    for factor in truth.factors.T:
        rest = factor - design @ np.linalg.lstsq(design, factor, rcond=None)[0]
        assert 1 - rest.var() / factor.var() > 0.97


def test_noise_is_that_of_the_image(fitted, truth):
    noise = float(fitted.model.variance.sqrt()) * float(fitted.patches.scale[0])
    assert noise == pytest.approx(truth.noise_sigma, rel=0.03)
    assert rms(fitted.reading.residual) == pytest.approx(1, abs=0.02)


# --- moving the window -------------------------------------------------------------------------


@pytest.mark.parametrize("step", [(1, 0), (0, -1), (2, -1)])
def test_moving_the_window_moves_the_shift_and_leaves_the_rest(fitted, truth, step):
    picks = truth.picks_yx + step
    windows = extract_patches(truth.image, picks, SIZE)
    windows = replace(windows, offset=fitted.patches.offset, scale=fitted.patches.scale)
    model = copy.deepcopy(fitted.model)
    *_, fit = refine(model, windows, encode(model, windows))
    moved, still = read(model, windows, fit), fitted.reading
    # Patterns that leave the window have nothing left to be found by.
    inside = np.abs(truth.shift_yx_px - step).max(axis=1) < 2.5
    assert inside.mean() > 0.5
    shift_change = moved.shift_yx_px - (still.shift_yx_px - step)
    assert rms((shift_change / still.shift_sd_yx_px)[inside]) < 0.5
    assert rms(((moved.z - still.z) / still.z_sd)[inside]) < 0.5
    assert rms(((moved.atom_yx_px - still.atom_yx_px) / still.atom_sd_yx_px)[inside]) < 0.5


def test_shifts_count_from_the_picks(fitted, truth):
    """Picks moved by less than a pixel: the atoms stay, the shifts take it up."""
    step = np.array([0.21, -0.3])
    windows = extract_patches(truth.image, truth.picks_yx + step, SIZE)
    windows = replace(windows, offset=fitted.patches.offset, scale=fitted.patches.scale)
    same = (windows.corner_yx == fitted.patches.corner_yx).all(axis=1)
    assert 0.2 < same.mean() < 0.8
    model = copy.deepcopy(fitted.model)
    *_, fit = refine(model, windows, encode(model, windows))
    moved, still = read(model, windows, fit), fitted.reading
    shift_change = moved.shift_yx_px - (still.shift_yx_px - step)
    for rows in (same, ~same):
        assert rms((shift_change / still.shift_sd_yx_px)[rows]) < 0.5
        change = (moved.atom_yx_px - still.atom_yx_px) / still.atom_sd_yx_px
        assert rms(change[rows]) < 0.5


# --- gauges ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fitted", "other_seed", "inverted"])
def test_latents_fall_in_information_and_rise_with_intensity(name, request):
    one = request.getfixturevalue(name)
    information = latent_information(one.fit).mean(dim=0)
    assert information[0] >= information[1]
    windows = one.patches.gather().mean(dim=(1, 2)).numpy()
    for latent in one.reading.z.T:
        assert np.corrcoef(latent, windows)[0, 1] >= 0


def test_information_is_the_divergence_from_the_prior():
    fit = Fit(
        z=torch.tensor([[0.0, 1.0]]),
        pose=torch.zeros(1, 2),
        covariance=torch.diag(torch.tensor([9.0, 9.0, 1.0, 0.01]))[None],
        mean_square=torch.zeros(1),
    )
    expected = [[0.0, 0.5 * (1 + 0.01 - 1 - np.log(0.01))]]
    np.testing.assert_allclose(latent_information(fit), expected, atol=1e-6)


def test_central_atoms_are_on_average_where_the_shift_says(fitted):
    """The constant part: the central feature of the mean pattern sits at the centre."""
    reading = fitted.reading
    central = reading.atom_yx_px - (fitted.patches.pick_yx + reading.shift_yx_px)
    np.testing.assert_allclose(central.mean(axis=0), 0, atol=1e-3)
    assert rms(central) > 0.1


def test_whole_pattern_is_that_of_the_cage(fitted, truth):
    """Displacement and intensity of the central atom do not show in the whole pattern's shift."""
    error = fitted.reading.shift_yx_px - truth.shift_yx_px
    for factor in truth.factors.T:
        for axis in error.T:
            assert abs(np.corrcoef(factor, axis)[0, 1]) < 0.2


@pytest.mark.parametrize("gauge", [[[0.0, 1], [1, 0]], [[-1.0, 0], [0, 1]], [[0.0, -1], [-1, 0]]])
def test_every_gauge_leads_to_the_same_reading(fitted, gauge):
    """Latents renamed and turned about, then fixed: nothing has changed."""
    turn = torch.tensor(gauge)
    model = copy.deepcopy(fitted.model)
    model.gauge.copy_(model.gauge @ turn)
    whole = torch.block_diag(torch.eye(2), turn)
    renamed = replace(
        fitted.fit, z=fitted.fit.z @ turn, covariance=whole.T @ fitted.fit.covariance @ whole
    )
    fixed = fix_gauge(model, fitted.patches, renamed)
    torch.testing.assert_close(model.gauge, fitted.model.gauge)
    torch.testing.assert_close(fixed.z, fitted.fit.z)
    torch.testing.assert_close(fixed.covariance, fitted.fit.covariance)
    again = read(model, fitted.patches, fixed)
    np.testing.assert_allclose(again.shift_yx_px, fitted.reading.shift_yx_px, atol=1e-4)
    np.testing.assert_allclose(again.atom_yx_px, fitted.reading.atom_yx_px, atol=1e-4)


def test_gauge_changes_no_pattern(fitted):
    model = copy.deepcopy(fitted.model)
    model.gauge.copy_(torch.eye(2))
    fit = replace(fitted.fit, z=fitted.fit.z @ fitted.model.gauge.T)
    pattern = model.decode(fit.z, fit.pose).detach()
    fixed = fix_gauge(model, fitted.patches, fit)
    torch.testing.assert_close(model.decode(fixed.z, fixed.pose).detach(), pattern)


def test_two_seeds_agree(fitted, other_seed, truth):
    """Positions to a part of their error; maps to their noise, z2 up to what decides its sign.

    Nothing in the brightness tells a displacement from its opposite.
    """
    first, second = fitted.reading, other_seed.reading
    assert rms(first.shift_yx_px - second.shift_yx_px) < 0.5 * truth.bound_shift_px
    assert rms(first.atom_yx_px - second.atom_yx_px) < 0.5 * truth.bound_atom_px
    between = np.corrcoef(first.z.T, second.z.T)[:2, 2:]
    assert between[0, 0] > 0.98
    assert abs(between[1, 1]) > 0.85
    assert np.corrcoef(first.z[:, 0], truth.factors[:, 0])[0, 1] > 0.98


def test_dark_atoms_are_found_where_bright_ones_were(fitted, inverted, truth):
    bright, dark = fitted.reading, inverted.reading
    assert rms(bright.shift_yx_px - dark.shift_yx_px) < 0.5 * truth.bound_shift_px
    assert rms(bright.atom_yx_px - dark.atom_yx_px) < 0.5 * truth.bound_atom_px


# --- central atom ------------------------------------------------------------------------------


def test_derivative_of_the_central_atom_agrees_with_differences(fitted):
    z = fitted.fit.z[:100]
    with torch.no_grad():
        by_latent = find_landmarks(fitted.model, z).atom_by_latent
        for latent in range(2):
            step = torch.zeros_like(z)
            step[:, latent] = 0.05
            ahead, behind = (find_landmarks(fitted.model, at).atom for at in (z + step, z - step))
            expected = (ahead - behind).numpy() / 0.1
            error = by_latent[:, :, latent].numpy() - expected
            assert rms(error) < 0.1 * max(rms(expected), 0.1)


def test_without_a_central_atom_there_is_no_position():
    """Waves far wider than an atom."""
    stripes = np.cos(2 * np.pi * (np.arange(60 * SIZE) + 6) / 96)[:, None] * np.ones(SIZE)
    rng = np.random.default_rng(0)
    stack = stripes[:1440].reshape(60, SIZE, SIZE) + 0.05 * rng.normal(size=(60, SIZE, SIZE))
    patches = stack_patches(stack.astype(np.float32))
    config = ModelConfig(patch_size_px=SIZE, separation_px=6.0, band_limit=0.1, hidden=32)
    model = ShiftVAE(config, torch.Generator().manual_seed(0))
    for _ in train(model, patches, TrainConfig(epochs=30, learning_rate=5e-3)):
        pass
    fit = fix_gauge(model, patches, encode(model, patches))
    reading = read(model, patches, fit)
    none = np.isnan(reading.atom_yx_px).any(axis=1)
    assert none.mean() > 0.5
    assert np.isnan(reading.atom_sd_yx_px[none]).all()
    assert np.isfinite(reading.shift_yx_px).all()
    assert np.isfinite(reading.z).all()
