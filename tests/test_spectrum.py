"""Power spectrum: the band limit is where the signal meets the noise, the noise is the true one."""

import numpy as np
import pytest

from napari_shiftvae.core.patches import extract_patches, stack_patches
from napari_shiftvae.core.simulate import Motif, factor_patches
from napari_shiftvae.core.spectrum import NARROWEST, WIDEST, power_spectrum


def task(size=40, sigma=2.7, noise=0.05, count=300):
    motif = Motif(patch_size_px=size, sigma_px=sigma, cage_half_diagonal_px=0.35 * size)
    made = factor_patches(
        rng=np.random.default_rng(0), count=count, motif=motif, noise=noise, shift_sd_px=1.5
    )
    return made, motif.render(np.column_stack([made.shift_yx_px, made.factors]))


def highest_signal_frequency(clean, noise_sigma):
    """Radius of the last ring in which the noise-free patterns are above the noise [cycles/px]."""
    size = clean.shape[1]
    clean = clean - clean.mean(axis=(1, 2), keepdims=True)
    window = np.hanning(size + 2)[1:-1]
    taper = np.outer(window, window)
    power = (np.abs(np.fft.fft2(clean * taper)) ** 2).mean(axis=0) / (taper**2).sum()
    frequency = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(size)], indexing="ij"))
    ring = np.rint(frequency * size).astype(int)
    profile = np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())
    return np.flatnonzero(profile > noise_sigma**2).max() / size


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.2])
@pytest.mark.parametrize(("size", "sigma"), [(24, 1.6), (40, 1.5), (40, 2.7), (41, 4.0), (64, 2.0)])
def test_band_limit_is_just_above_the_signal(size, sigma, noise):
    made, clean = task(size, sigma, noise)
    found = power_spectrum(stack_patches(made.patches)).band_limit
    truth = min(highest_signal_frequency(clean, made.noise_sigma), WIDEST)
    assert truth <= found <= 1.2 * truth + 2 / size  # the rings are 1 / size wide


@pytest.mark.parametrize("size", [12, 13])
def test_atoms_of_less_than_a_pixel_have_no_band_limit(size):
    made, _ = task(size, 0.067 * size)
    assert power_spectrum(stack_patches(made.patches)).band_limit == WIDEST


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("size", [24, 41])
def test_noise_is_the_true_one(size, noise):
    made, _ = task(size, 0.067 * size, noise)
    patches = stack_patches(made.patches)
    found = power_spectrum(patches).noise_sigma * float(patches.scale[0])
    assert found == pytest.approx(made.noise_sigma, rel=0.02)


def test_noise_alone_is_noise():
    noise = np.random.default_rng(2).normal(0, 3.0, (200, 200)).astype(np.float32)
    grid = np.stack(np.meshgrid(*2 * [np.arange(20, 180, 16)], indexing="ij"), -1).reshape(-1, 2)
    patches = extract_patches(noise, grid, 16)
    found = power_spectrum(patches)
    assert found.noise_sigma * float(patches.scale[0]) == pytest.approx(3.0, rel=0.04)
    assert NARROWEST <= found.band_limit <= WIDEST


def test_unit_of_the_image_does_not_matter():
    made, _ = task()
    plain = power_spectrum(stack_patches(made.patches))
    other = power_spectrum(stack_patches(made.patches * 300 - 2000))
    assert other.band_limit == plain.band_limit
    assert other.noise_sigma == pytest.approx(plain.noise_sigma, rel=1e-3)


def test_few_of_many_patches_are_enough():
    made, _ = task(size=16, sigma=1.6, count=1500)
    some, everything = (
        power_spectrum(stack_patches(stack)) for stack in (made.patches[:500], made.patches)
    )
    assert some.band_limit == everything.band_limit


@pytest.mark.parametrize("size", [6, 7, 8])
def test_tiny_patches_have_a_spectrum(size):
    made, _ = task(size=size, sigma=1.0, noise=0.1)
    found = power_spectrum(stack_patches(made.patches))
    assert NARROWEST <= found.band_limit <= WIDEST
    assert 0 < found.noise_sigma < 1
