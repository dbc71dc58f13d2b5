"""Spectra: read along any axis, found to the bound under unequal noise, mapped onto the scan."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.progress import finish
from napari_shiftvae.core.runfile import load_run, load_spectra, save_run
from napari_shiftvae.core.runs import summary
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.spectra import (
    extract_spectra,
    slope_centre,
    spread_of_lags,
    weighted,
)
from napari_shiftvae.core.spectra_run import analyse_spectra
from napari_shiftvae.core.spectra_simulation import peak_spectra
from napari_shiftvae.core.spectrum import line_spectrum
from napari_shiftvae.core.train import TrainConfig

SHAPE = (30, 40)
SCALE = -0.5  # eV per point, on a falling axis
MASKED, CONSTANT = (3, 7), (20, 0)


def rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.fixture(scope="module")
def task():
    return peak_spectra(rng=np.random.default_rng(0), count=SHAPE[0] * SHAPE[1])


@pytest.fixture(scope="module")
def cube(task):
    """Energy first, and two pixels that are of no use."""
    cube = np.moveaxis(task.spectra.reshape(*SHAPE, -1), -1, 0).copy()
    cube[(5, *MASKED)] = np.nan
    cube[(slice(None), *CONSTANT)] = 3.0
    return cube


@pytest.fixture(scope="module")
def run(cube):
    config = AnalysisConfig(train=TrainConfig(epochs=80))
    return finish(analyse_spectra(cube, 0, config, axis_scale=SCALE, axis_unit="eV", name="scan"))


@pytest.fixture(scope="module")
def error(run, task):
    """Error of the shift of each pixel [points]."""
    truth = task.centre / task.step
    return run.atoms["shift"].to_numpy() / SCALE - (truth - truth[run.used].mean())


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_axis_of_the_spectra_may_be_any(axis):
    block = np.random.default_rng(0).normal(size=(4, 6, 50))
    spectra = extract_spectra(np.moveaxis(block, -1, axis), axis)
    assert spectra.grid_shape == (4, 6)
    np.testing.assert_allclose(spectra.values, block.reshape(24, 50), rtol=1e-6)


def test_a_line_of_spectra_is_a_scan_of_one_row():
    spectra = extract_spectra(np.random.default_rng(0).integers(0, 9, size=(20, 50)), 1)
    assert spectra.grid_shape == (1, 20)
    assert spectra.values.dtype == np.float32


def test_dask_is_read_as_numpy_is(cube):
    array = pytest.importorskip("dask.array").from_array(cube, chunks=(64, 10, 10))
    lazy, eager = extract_spectra(array, 0), extract_spectra(cube, 0)
    np.testing.assert_array_equal(lazy.values, eager.values)


def test_useless_spectra_are_set_aside_by_reason(cube):
    spectra = extract_spectra(cube, 0)
    reasons = spectra.set_aside.reshape(SHAPE)
    assert (reasons[MASKED], reasons[CONSTANT]) == ("masked", "constant")
    assert (reasons == "").sum() == len(spectra) == cube[0].size - 2


@pytest.mark.parametrize(
    ("shape", "axis", "message"),
    [
        ((50,), 0, "has 1 dimensions .50.: give one with an axis"),
        ((2, 3, 4, 50), 3, "has 4 dimensions"),
        ((4, 6, 50), 3, "has no axis 3: choose the axis of the spectra from 0 to 2"),
        ((4, 6, 50), -4, "has no axis -4"),
        ((4, 6, 50), 1, "have 6 points .*: choose an axis with 8 to 8192"),
    ],
)
def test_arrays_without_such_spectra_are_refused(shape, axis, message):
    with pytest.raises(InputError, match=message):
        extract_spectra(np.zeros(shape), axis)


def test_spectra_of_nothing_are_refused():
    with pytest.raises(InputError, match="each is constant or has NaN"):
        extract_spectra(np.ones((4, 6, 50)), 2)
    with pytest.raises(InputError, match="holds complex64 values"):
        extract_spectra(np.ones((4, 6, 50), np.complex64), 2)
    few = np.random.default_rng(0).normal(size=(3, 5, 50))
    with pytest.raises(InputError, match=r"There are 15 spectra .* at least 16"):
        finish(analyse_spectra(few, 2, AnalysisConfig()))
    with pytest.raises(InputError, match="step of the axis is 0"):
        finish(analyse_spectra(few, 2, AnalysisConfig(), axis_scale=0))


def test_each_spectrum_may_have_its_own_brightness(cube):
    own = extract_spectra(cube * np.linspace(1, 9, SHAPE[1]), 0, each=True).gather()
    np.testing.assert_allclose(own.mean(dim=1), 0, atol=1e-4)
    np.testing.assert_allclose(own.var(dim=1, correction=0), 1, atol=1e-3)


# --- what the data say -------------------------------------------------------------------------


def test_noise_of_each_spectrum_is_estimated(task):
    limit, noise = line_spectrum(task.spectra)
    assert rms(noise / task.noise_sigma - 1) < 0.25
    assert abs(np.mean(noise / task.noise_sigma) - 1) < 0.05
    assert 0.2 < limit <= 0.35  # the narrowest peaks have a standard deviation of two points


def test_spread_of_shifts_is_estimated(task):
    expected = task.centre.std() / task.step
    assert spread_of_lags(extract_spectra(task.spectra, 1)) == pytest.approx(expected, rel=0.35)


def test_weights_fall_with_the_noise():
    spectra = extract_spectra(np.random.default_rng(0).normal(size=(4, 50)), 1)
    weight = weighted(spectra, np.array([0.0, 1.0, 1.0, 3.0])).weight[:, 0].numpy()
    assert weight[0] / weight[1] == pytest.approx((1 + 0.16) / 0.16, rel=1e-5)  # not without limit
    assert weight[1] / weight[3] == pytest.approx((9 + 0.16) / (1 + 0.16), rel=1e-5)


# --- model -------------------------------------------------------------------------------------


def made(decoder):
    config = ModelConfig(
        patch_size_px=32, separation_px=16, dimensions=1, decoder=decoder, hidden=24
    )
    model = ShiftVAE(config, torch.Generator().manual_seed(3)).double()
    for weight in model.decoder.parameters():
        weight.data *= 2
    return model


def latents(count=4):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("decoder", ["fourier", "coordinate"])
def test_shift_moves_a_spectrum_and_derivatives_are_right(decoder):
    model, z = made(decoder), latents()
    shift = torch.tensor([[0.3], [-1.2], [2.0], [0.0]]).double()
    found = model.linearise(z, shift)
    assert found.pattern.shape == (4, 32)
    moved = model.decode(z, shift + 3)
    np.testing.assert_allclose(moved[:, 3:].detach(), found.pattern[:, :-3].detach(), atol=1e-6)
    by = torch.cat([found.by_pose, found.by_latent], dim=1)
    at = torch.cat([shift, z], dim=1)
    for axis in range(3):
        step = torch.zeros_like(at)
        step[:, axis] = 1e-5
        ahead, behind = (model.decode(one[:, 1:], one[:, :1]) for one in (at + step, at - step))
        expected = (ahead - behind).detach() / 2e-5
        assert expected.abs().max() > 1e-3
        np.testing.assert_allclose(by[:, axis].detach(), expected, atol=1e-7)


def test_spectra_do_not_turn():
    with pytest.raises(InputError, match="Spectra cannot be rotated or scaled"):
        ModelConfig(
            patch_size_px=32, separation_px=16, dimensions=1, invariances=("shift", "rotation")
        )


def test_place_of_a_decoded_spectrum_and_its_derivative(run):
    z = torch.from_numpy(run.atoms.loc[run.used, ["z1", "z2"]].to_numpy(np.float32)[:200].copy())
    with torch.no_grad():
        place, by_latent = slope_centre(run.model, z)
        centred = run.model.decode(z, -place[:, None]).diff(dim=1).square()
        middle = (centred * (torch.arange(99.0) - 49)).sum(dim=1) / centred.sum(dim=1)
        np.testing.assert_allclose(middle, 0, atol=0.02)
        step = torch.tensor([0.02, 0.0])
        ahead, behind = slope_centre(run.model, z + step)[0], slope_centre(run.model, z - step)[0]
        expected = (ahead - behind) / 0.04
    found, expected = by_latent[:, 0].numpy(), expected.numpy()
    assert rms(expected) > 0.005
    assert rms(found - expected) < 0.2 * rms(expected)


# --- recovered ---------------------------------------------------------------------------------


def test_shift_reaches_the_bound(run, task, error):
    assert rms(error[run.used]) <= 1.05 * task.bound_centre / task.step
    own = np.sqrt(task.covariance[:, 0, 0]) / task.step
    assert rms((error / own)[run.used]) <= 1.35  # also where there is little noise


def test_standard_deviations_follow_the_noise_of_each(run, task, error):
    deviation = run.atoms["shift_sd"].to_numpy()[run.used] / abs(SCALE)
    assert rms(error[run.used] / deviation) == pytest.approx(1, abs=0.15)
    own = np.sqrt(task.covariance[:, 0, 0])[run.used] / task.step
    assert spearmanr(deviation, own)[0] > 0.97
    quiet = task.noise_sigma[run.used] < 0.03
    assert rms(deviation[quiet]) < 0.4 * rms(deviation[~quiet])


def test_width_is_the_one_content_and_the_spare_latent_is_none(run, task):
    z1 = run.atoms["z1"].to_numpy()[run.used]
    assert abs(spearmanr(z1, task.width[run.used])[0]) > 0.997
    assert run.diagnostics.active_latents == 1
    assert run.diagnostics.sentences[1].startswith("z2 carries nothing")
    assert run.diagnostics.leakage[0] < 0.05


def test_noise_is_that_of_the_spectra(run, task):
    assert run.diagnostics.noise_sigma == pytest.approx(np.median(task.noise_sigma), rel=0.1)


def test_maps_lie_on_the_scan(run, task):
    assert list(run.maps) == ["shift", "z1", "z2"]
    drawn = run.maps["shift"]
    assert drawn.shape == SHAPE
    assert {tuple(at) for at in np.argwhere(np.isnan(drawn))} == {MASKED, CONSTANT}
    centre = task.centre.reshape(SHAPE) / task.step
    valid = np.isfinite(drawn)
    assert np.corrcoef(drawn[valid], centre[valid])[0, 1] < -0.99  # the axis falls
    assert drawn[valid].std() == pytest.approx(abs(SCALE) * centre[valid].std(), rel=0.05)
    row = run.atoms.iloc[3 * SHAPE[1] + 7]
    assert (row["y_px"], row["x_px"], row["set_aside"]) == (*MASKED, "masked")


def test_stopping_keeps_what_was_learned(cube):
    def stopped():
        steps = analyse_spectra(cube, 0, AnalysisConfig())
        progress = next(steps)
        while True:
            sent = "stop" if progress.stage == "train" else None
            trained.append(sent)
            progress = steps.send(sent)

    trained = []
    with pytest.raises(StopIteration) as stop:
        stopped()
    assert trained.count("stop") == 1
    assert stop.value.value.epochs < 5
    assert np.isfinite(stop.value.value.maps["z1"]).sum() == cube[0].size - 2


def test_coordinate_decoder_and_no_refinement_work(cube):
    config = AnalysisConfig(
        decoder="coordinate", refine=False, latent_dim=1, train=TrainConfig(epochs=2)
    )
    run = finish(analyse_spectra(cube[:, 4:10], 0, config))
    assert list(run.maps) == ["shift", "z1"]
    assert np.isfinite(run.atoms.loc[run.used, "shift_sd"]).all()


# --- files -------------------------------------------------------------------------------------


def test_saved_and_loaded_is_the_same(run, tmp_path):
    path = save_run(run, tmp_path / "scan")
    loaded = load_spectra(path)
    assert (loaded.image, loaded.config) == (run.image, run.config)
    assert loaded.image.axis_unit == "eV"
    assert loaded.diagnostics == run.diagnostics
    assert summary(loaded) == summary(run)
    for name, drawn in run.maps.items():
        np.testing.assert_allclose(loaded.maps[name], drawn, rtol=1e-6)
    z, shift = latents().float(), torch.ones(4, 1)
    assert torch.equal(loaded.model.decode(z, shift), run.model.decode(z, shift))


def test_files_of_spectra_and_of_images_are_told_apart(run, tmp_path):
    path = save_run(run, tmp_path / "scan")
    with pytest.raises(InputError, match="it is of spectra"):
        load_run(path)
    image = replace(run.image, shape=(64, 3, 5))
    path = save_run(replace(run, image=image), tmp_path / "other")
    with pytest.raises(InputError, match="not one row for each pixel"):
        load_spectra(path)


def test_counted_electrons_are_weighed_point_by_point(task):
    """Points on a peak have more noise than those beside it: least squares say 1.5 times too little
    here."""
    u = (task.axis - task.centre[:, None]) / task.width[:, None]
    counts = np.random.default_rng(1).poisson(100 * (0.1 + np.exp(-0.5 * u**2)))
    config = AnalysisConfig(train=TrainConfig(epochs=80))
    run = finish(analyse_spectra(counts.reshape(*SHAPE, -1), 2, config, axis_scale=task.step))
    error = run.atoms["shift"].to_numpy() - (task.centre - task.centre.mean())
    assert rms(error / run.atoms["shift_sd"]) == pytest.approx(1, abs=0.2)
