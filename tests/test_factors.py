"""The task with two factors, and its Cramer-Rao bound."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.simulate import (
    Motif,
    cramer_rao,
    factor_patches,
)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_bound_of_a_lone_gaussian_is_the_textbook_one():
    """Position of a Gaussian of height A: variance 2 noise^2 / (pi A^2), whatever its width."""
    y, x = np.indices((61, 61)) - 30.0
    for height, sigma in [(1.0, 3.0), (2.0, 5.0)]:
        spot = height * np.exp(-(y**2 + x**2) / (2 * sigma**2))
        bound = cramer_rao(np.stack([spot * y, spot * x]) / sigma**2, 0.1)
        np.testing.assert_allclose(bound, np.eye(2) * 2 * 0.1**2 / (np.pi * height**2), atol=1e-8)


def test_bound_refuses_parameters_that_pixels_do_not_determine():
    ramp = np.arange(16.0).reshape(4, 4)
    with pytest.raises(InputError, match="do not determine all parameters"):
        cramer_rao(np.stack([ramp, 2 * ramp]), 1.0)
    with pytest.raises(InputError, match="do not determine all parameters"):
        cramer_rao(np.stack([ramp, 0 * ramp]), 1.0)


def test_motif_derivatives_agree_with_differences():
    motif = Motif()
    at = np.array([[0.7, -1.3, 0.8, 1.1], [-2.0, 0.4, 1.2, -1.6]])
    for number, derivative in enumerate(np.moveaxis(motif.derivatives(at), 1, 0)):
        step = 1e-5 * np.eye(4)[number]
        difference = (motif.render(at + step) - motif.render(at - step)) / 2e-5
        np.testing.assert_allclose(derivative, difference, atol=1e-8)


def test_patches_are_the_motif_at_the_true_parameters_plus_noise(rng):
    task = factor_patches(rng=rng, count=300)
    assert task.patches.shape == (300, 40, 40)
    assert task.patches.dtype == np.float32
    clean = Motif().render(np.hstack([task.shift_yx_px, task.factors]))
    assert (task.patches - clean).std() == pytest.approx(task.noise_sigma, rel=0.01)
    relative = task.central_yx_px - task.shift_yx_px
    np.testing.assert_allclose(relative, task.factors[:, 1:] * task.direction_yx, atol=1e-12)
    assert np.linalg.norm(task.direction_yx) == pytest.approx(1)
    assert np.abs(task.shift_yx_px).max() <= 5.0
    assert np.corrcoef(task.factors.T)[0, 1] == pytest.approx(0, abs=0.2)
    # (0, 0) is the window's centre: the motif at rest is the same seen upside down
    rest = Motif().render([(0.0, 0.0, 1.0, 0.0)])[0]
    np.testing.assert_allclose(rest, rest[::-1, ::-1], atol=1e-12)


def test_counted_electrons_scatter_by_the_root_of_their_number(rng):
    task = factor_patches(rng=rng, count=300, electrons=30.0, background=0.2)
    clean = Motif().render(np.hstack([task.shift_yx_px, task.factors])) + 0.2
    counts = 30 * task.patches.astype(np.float64)
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
    relative = (counts - 30 * clean) ** 2 / (30 * clean)
    for part in (clean < 0.3, clean > 0.8):
        assert relative[part].mean() == pytest.approx(1, abs=0.03)
    assert task.noise_sigma == pytest.approx(float((task.patches - clean).std()), rel=0.01)


def test_bound_of_counted_electrons_is_that_of_bright_and_dark_pixels():
    """Gaussian noise of the mean strength is the same to a pattern on a high background only."""

    def made(**noise):
        return factor_patches(rng=np.random.default_rng(0), count=20, **noise)

    high = made(electrons=1000.0, background=99.0)
    even = made(noise=high.noise_sigma)
    assert high.bound_shift_px == pytest.approx(even.bound_shift_px, rel=0.02)
    low = made(electrons=100.0, background=0.1)
    even = made(noise=low.noise_sigma)
    assert low.bound_shift_px > 1.3 * even.bound_shift_px


def test_central_atom_lies_where_the_truth_says():
    motif = Motif(cage_intensity=0.0)
    image = motif.render([(1.5, -2.5, 1.0, 1.0)])[0]
    pixels = np.arange(40) - 19.5
    centroid = np.array([image.sum(axis=1) @ pixels, image.sum(axis=0) @ pixels]) / image.sum()
    np.testing.assert_allclose(centroid, [1.5 + 0.6, -2.5 + 0.8], atol=1e-3)


def test_task_has_the_bounds_the_design_quotes():
    task = factor_patches(rng=np.random.default_rng(0), count=2000)
    assert task.bound_shift_px == pytest.approx(0.0174, abs=0.0001)
    assert task.bound_central_along_px == pytest.approx(0.042, abs=0.0005)
    # the cage does not tell where the central atom is along its displacement, but it does across
    assert task.bound_shift_px < task.bound_central_px < task.bound_central_along_px


def test_maximum_likelihood_fit_scatters_as_the_bound_says(rng):
    task, motif = factor_patches(rng=rng, count=300), Motif()
    truth = np.hstack([task.shift_yx_px, task.factors])

    def fit(patch, start):
        return least_squares(
            lambda at: (motif.render(at)[0] - patch).ravel(),
            start + np.array([0.3, -0.3, 0.1, 0.3]),
            jac=lambda at: motif.derivatives(at)[0].reshape(4, -1).T,
            method="lm",
        ).x

    error = np.array([fit(*pair) for pair in zip(task.patches, truth, strict=True)]) - truth
    chi2 = np.einsum("nj,njk,nk->n", error, np.linalg.inv(task.covariance), error)
    # chi2 has mean 4 and variance 8 where the covariance is right, correlations included
    assert chi2.mean() == pytest.approx(4, abs=3 * np.sqrt(8 / 300))
    central = error[:, :2] + error[:, 3:] * task.direction_yx
    for rms, bound, samples in [
        (np.sqrt((error[:, :2] ** 2).mean()), task.bound_shift_px, 600),
        (np.sqrt((central**2).mean()), task.bound_central_px, 300),
        (np.sqrt(((central @ task.direction_yx) ** 2).mean()), task.bound_central_along_px, 300),
    ]:
        assert rms == pytest.approx(bound, rel=3 / np.sqrt(2 * samples))


def test_patches_depend_on_the_seed_only():
    def make(seed):
        return factor_patches(rng=np.random.default_rng(seed), count=20).patches

    np.testing.assert_array_equal(make(1), make(1))
    assert not np.allclose(make(1), make(2), atol=0.5)
