"""Refinement: it finds the maximum of the posterior and its width."""

import copy

import numpy as np
import pytest
import torch

from napari_shiftvae.core.infer import Fit, batches, encode, refine
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.patches import extract_patches, stack_patches
from napari_shiftvae.core.simulate import Motif, factor_patches
from napari_shiftvae.core.train import TrainConfig, train

SIZE, COUNT = 16, 600  # more than one batch of 512
PRIOR = 0.8


def refined(model, patches, fit, *, uneven=False):
    """Refine on a copy of the model; return the fit and the copy.

    What is left in the residuals by models that trained for a second would pass for a law.
    """
    model = copy.deepcopy(model)
    *_, fit = refine(model, patches, fit, uneven=uneven)
    return fit, model


def energy(model, patches, fit, remainder=0.0):
    """Minus twice the logarithm of the posterior, (N,), from its definition."""
    with torch.no_grad():
        residual = patches.gather() - model.decode(fit.z, fit.pose)
    off = (fit.pose - remainder) / model.config.shift_prior_px
    return (
        residual.square().sum(dim=(1, 2)) / model.variance
        + fit.z.square().sum(dim=1)
        + off.square().sum(dim=1)
    ).double()


def moved(fit, shift, z):
    return Fit(z=z, pose=shift, covariance=fit.covariance, mean_square=fit.mean_square)


@pytest.fixture(scope="module")
def task():
    motif = Motif(patch_size_px=SIZE, sigma_px=1.3, cage_half_diagonal_px=5.6)
    rng = np.random.default_rng(8)
    return factor_patches(
        rng=rng, count=COUNT, motif=motif, shift_sd_px=0.7, displacement_range_px=(-0.6, 0.6)
    )


@pytest.fixture(scope="module")
def patches(task):
    return stack_patches(task.patches)


@pytest.fixture(scope="module")
def model(patches):
    config = ModelConfig(
        patch_size_px=SIZE, separation_px=5.6, shift_prior_px=PRIOR, band_limit=0.38, hidden=96
    )
    model = ShiftVAE(config, torch.Generator().manual_seed(0))
    for _ in train(model, patches, TrainConfig(epochs=40, learning_rate=5e-3)):
        pass
    return model.eval()


@pytest.fixture(scope="module")
def start(model, patches):
    return encode(model, patches)


# --- encoder -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 511, 512, 513, 2000])
def test_batches_cover_every_row_once_in_order(count):
    pieces = batches(count)
    assert torch.cat(pieces).tolist() == list(range(count))
    assert max(map(len, pieces)) <= 512


def test_encode_is_the_encoder_patch_by_patch(model, patches, start):
    assert len(start) == COUNT
    for rows in (slice(0, 3), slice(509, 515), slice(597, 600)):
        with torch.no_grad():
            x = patches.gather(rows)
            q = model.encode(x)
            rest = (x - model.decode(q.z, q.pose)).square().mean(dim=(1, 2))
        spread = torch.cat([q.log_sd_pose, q.log_sd_z], dim=1).exp()
        torch.testing.assert_close(start.z[rows], q.z, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(start.pose[rows], q.pose, rtol=1e-4, atol=1e-5)
        expected = torch.diag_embed(spread**2)
        torch.testing.assert_close(start.covariance[rows], expected, rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(start.mean_square[rows], rest, rtol=1e-4, atol=1e-6)


# --- the maximum -------------------------------------------------------------------------------


def test_refinement_worsens_no_patch(model, patches, start):
    fit, _ = refined(model, patches, start)
    before, after = energy(model, patches, start), energy(model, patches, fit)
    assert (after <= before * (1 + 1e-5)).all()
    assert (before - after).mean() > 0.5


def test_refinement_worsens_no_patch_from_absurd_starts(model, patches, start):
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(COUNT, 4, generator=generator)
    wild = moved(start, 5 * noise[:, :2], 5 * noise[:, 2:])
    fit, _ = refined(model, patches, wild)
    assert (energy(model, patches, fit) <= energy(model, patches, wild) * (1 + 1e-5)).all()
    assert fit.z.isfinite().all()
    assert fit.pose.isfinite().all()


def test_refined_patches_are_at_a_maximum(model, patches, start):
    """No small step in any direction helps."""
    fit, _ = refined(model, patches, start)
    best = energy(model, patches, fit)
    spread = fit.covariance.diagonal(dim1=1, dim2=2).sqrt()
    for axis in range(4):
        for side in (-0.2, 0.2):
            step = torch.zeros(COUNT, 4)
            step[:, axis] = side * spread[:, axis]
            near = energy(model, patches, moved(fit, fit.pose + step[:, :2], fit.z + step[:, 2:]))
            # Rising by about 0.2 squared; the logarithms themselves are near 256.
            assert ((near - best) > -0.02).float().mean() > 0.98


def test_refinement_finds_the_same_from_elsewhere(model, patches, start):
    fit, _ = refined(model, patches, start)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(COUNT, 4, generator=generator)
    near = moved(start, fit.pose + 0.1 * noise[:, :2], fit.z + 0.1 * noise[:, 2:])
    again, _ = refined(model, patches, near)
    spread = fit.covariance.diagonal(dim1=1, dim2=2).sqrt()
    off = torch.cat([again.pose - fit.pose, again.z - fit.z], dim=1).abs() / spread
    assert (off < 0.5).all(dim=1).float().mean() > 0.95


def test_prior_of_the_shift_is_about_the_pick(task):
    """An untrained decoder knows of no place, so every shift is that of its pick."""
    image = np.concatenate(task.patches[:40], axis=0)
    rng = np.random.default_rng(0)
    centre = np.stack([SIZE * np.arange(2, 38) + 7.5, np.full(36, 7.5)], axis=1)
    offset = np.column_stack([rng.uniform(-0.5, 0.5, 36), np.zeros(36)])
    patches = extract_patches(image, centre + offset, SIZE)
    config = ModelConfig(patch_size_px=SIZE, separation_px=5.6, shift_prior_px=0.2)
    model = ShiftVAE(config, torch.Generator().manual_seed(0))
    fit, _ = refined(model, patches, encode(model, patches))
    assert np.abs(patches.remainder_yx_px).max() > 0.4
    np.testing.assert_allclose(fit.pose, patches.remainder_yx_px, atol=0.05)


# --- its width -------------------------------------------------------------------


def test_covariance_is_the_inverse_of_the_curvature(model, patches, start):
    """Derivatives of the decoder by finite differences, the precision from its definition."""
    fit, after = refined(model, patches, start)
    rows = slice(100, 104)
    exact = copy.deepcopy(after).double()
    at = torch.cat([fit.pose[rows], fit.z[rows]], dim=1).double()
    columns = []
    for axis in range(4):
        step = torch.zeros_like(at)
        step[:, axis] = 1e-4
        ahead, behind = (
            exact.decode(place[:, 2:], place[:, :2]).detach() for place in (at + step, at - step)
        )
        columns.append((ahead - behind).flatten(1) / 2e-4)
    jacobian = torch.stack(columns, dim=2)  # (B, P P, 4)
    prior = torch.diag(torch.tensor([1 / PRIOR**2, 1 / PRIOR**2, 1, 1], dtype=torch.float64))
    precision = jacobian.mT @ jacobian / exact.variance + prior
    expected = torch.linalg.inv(precision)
    scale = expected.diagonal(dim1=1, dim2=2).sqrt()
    outer = scale[:, :, None] * scale[:, None, :]
    torch.testing.assert_close(
        fit.covariance[rows].double() / outer, expected / outer, rtol=0, atol=0.02
    )


def test_mean_square_is_that_of_the_residual(model, patches, start):
    fit, _ = refined(model, patches, start)
    with torch.no_grad():
        residual = patches.gather() - model.decode(fit.z, fit.pose)
    torch.testing.assert_close(
        fit.mean_square, residual.square().mean(dim=(1, 2)), rtol=1e-3, atol=1e-6
    )


def test_uneven_noise_weighs_pixels_in_residual_and_curvature(model, patches, start):
    """What such models leave does depend on intensity."""
    even, _ = refined(model, patches, start)
    fit, after = refined(model, patches, start, uneven=True)
    assert even.noise is None
    assert fit.noise is not None
    rows = torch.arange(100, 104)
    with torch.no_grad():
        # Weighted by the pattern of the even fit, from which the second one starts.
        pattern = model.decode(even.z[rows], even.pose[rows])
        root = fit.noise.reweighted(None, patches, rows, pattern)
        found, by_pose, by_latent = model.linearise(fit.z[rows], fit.pose[rows])
    residual = root * (patches.gather(rows.numpy()) - found).flatten(1)
    torch.testing.assert_close(
        fit.mean_square[rows], residual.square().mean(dim=1), rtol=1e-3, atol=1e-6
    )
    jacobian = root[:, None] * torch.cat([by_pose, by_latent], dim=1).flatten(2)
    precision = jacobian @ jacobian.mT / after.variance
    precision += torch.diag(torch.tensor([1 / PRIOR**2, 1 / PRIOR**2, 1, 1]))
    torch.testing.assert_close(
        fit.covariance[rows], torch.linalg.inv(precision), rtol=0.01, atol=1e-5
    )


def test_refinement_changes_nothing_but_the_noise(model, patches, start):
    _, after = refined(model, patches, start)
    before, after = model.state_dict(), after.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["variance"]


def test_refinement_reports_every_batch_and_yields_the_fit_last(model, patches, start):
    *reports, last = refine(copy.deepcopy(model), patches, start, uneven=False)
    assert reports == [None, None]
    assert isinstance(last, Fit)
    assert len(last) == COUNT


def test_coordinate_decoder_is_refined_as_well(task):
    patches = stack_patches(task.patches[:64])
    config = ModelConfig(patch_size_px=SIZE, separation_px=5.6, decoder="coordinate", hidden=32)
    model = ShiftVAE(config, torch.Generator().manual_seed(0))
    for _ in train(model, patches, TrainConfig(epochs=5, learning_rate=5e-3)):
        pass
    start = encode(model, patches)
    fit, _ = refined(model, patches, start)
    before, after = energy(model, patches, start), energy(model, patches, fit)
    assert (after <= before * (1 + 1e-5)).all()
    assert after.mean() < before.mean()
