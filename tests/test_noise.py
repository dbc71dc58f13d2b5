"""How the noise depends on intensity is found from residuals of known noise."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_shiftvae.core.noise import NoiseSums
from napari_shiftvae.core.patches import stack_patches

COUNT, SIZE = 300, 20


@pytest.fixture(scope="module")
def windows():
    """Smooth patterns of mean zero and spread one."""
    y, x = np.mgrid[:SIZE, :SIZE]
    wave = np.sin(2 * np.pi * x / 7) + np.cos(2 * np.pi * y / 9)
    height = np.linspace(0.5, 1.5, COUNT)[:, None, None]
    return stack_patches((height * wave).astype(np.float32))


def law_of(patches, pattern, variance, *, seed=0, masked=None):
    """Law of Gaussian residuals of this variance, added in two parts."""
    rng = np.random.default_rng(seed)
    residual = torch.from_numpy(rng.normal(size=variance.shape) * np.sqrt(variance)).float()
    if masked is not None:
        residual[masked] = torch.nan
    sums = NoiseSums()
    for rows in torch.arange(len(patches)).tensor_split(2):
        sums.add(patches, rows, pattern[rows].flatten(1), residual[rows].flatten(1))
    return sums.law()


@pytest.mark.parametrize(
    "variance_of",
    [
        lambda i: 0.05 * (i + 5),
        lambda i: 0.3 - 0.05 * i,  # stronger where it is dark
        lambda i: 0.01 * (i + 5) ** 2,
        lambda i: 0.02 + 0.005 * (i + 5) + 0.003 * (i + 5) ** 2,
    ],
)
def test_variance_is_found_as_a_function_of_intensity(windows, variance_of):
    pattern = windows.gather()
    variance = variance_of(pattern.numpy())
    law = law_of(windows, pattern, variance)
    np.testing.assert_allclose(law.relative(pattern), variance / variance.mean(), rtol=0.08)


def test_weights_are_the_inverse_of_the_variance(windows):
    pattern = windows.gather()
    variance = 0.05 * (pattern.numpy() + 5)
    law = law_of(windows, pattern, variance)
    rows = torch.arange(10, 20)
    root = law.reweighted(None, windows, rows, pattern[rows])
    expected = (variance.mean() / variance[10:20]).reshape(10, -1)
    np.testing.assert_allclose(root.square(), expected, rtol=0.08)
    counts = torch.zeros_like(root)
    assert not law.reweighted(counts, windows, rows, pattern[rows]).any()


@pytest.mark.parametrize("seed", range(3))
def test_noise_that_is_the_same_everywhere_has_no_law(windows, seed):
    pattern = windows.gather()
    assert law_of(windows, pattern, np.full(pattern.shape, 0.2), seed=seed) is None


def test_masked_pixels_say_nothing(windows):
    pattern = windows.gather()
    variance = np.full(pattern.shape, 0.2)
    bright = (pattern > 1).numpy()
    variance[bright] = 50.0
    assert law_of(windows, pattern, variance, masked=bright) is None
    assert law_of(windows, pattern, variance) is not None


@pytest.mark.parametrize("slope", [0.0, 0.05])
def test_windows_of_their_own_scale_have_the_noise_of_the_image(windows, slope):
    """Noise that is the same in the image is stronger in a window that was magnified."""
    scale = np.linspace(0.5, 1.5, COUNT).astype(np.float32)
    offset = np.linspace(-0.2, 0.2, COUNT).astype(np.float32)
    own = dataclasses.replace(windows, scale=scale, offset=offset)
    pattern = own.gather()
    intensity = windows.gather().numpy()
    variance = 0.3 + slope * intensity
    law = law_of(own, pattern, variance / scale[:, None, None] ** 2)
    rows = torch.arange(COUNT)
    root = law.reweighted(None, own, rows, pattern)
    expected = (variance.mean() / (variance / scale[:, None, None] ** 2)).reshape(COUNT, -1)
    np.testing.assert_allclose(root.square(), expected, rtol=0.08)


def test_a_law_is_nowhere_negative_and_constant_where_nothing_was_seen(windows):
    pattern = windows.gather()
    variance = 0.05 * np.maximum(pattern.numpy() + 0.5, 0.001)
    law = law_of(windows, pattern, variance)
    far = torch.tensor([-100.0, -3.0, 10.0, 100.0])
    found = law.relative(far)
    assert (found > 0).all()
    assert found[2] == found[3]
    assert found[0] == law.relative(torch.tensor(law.lowest))


def test_windows_with_a_noise_of_their_own_share_the_law(windows):
    """A hundred times more noise in some than in others, and the same dependence on intensity."""
    own = np.geomspace(0.1, 10, COUNT)[:, None, None]
    weighted = SimpleNamespace(scale=windows.scale, offset=windows.offset, weight=1 / own)
    pattern = windows.gather()
    variance = 0.05 * (pattern.numpy() + 5)
    noise = np.random.default_rng(0).normal(size=variance.shape) * np.sqrt(own * variance)
    rows, law = torch.arange(COUNT), None
    for _ in range(3):
        sums = NoiseSums()
        residual = torch.from_numpy(noise).float().flatten(1)
        sums.add(weighted, rows, pattern.flatten(1), residual, before=law)
        law = sums.law()
    found = law.relative(pattern)
    np.testing.assert_allclose(found / found.mean(), variance / variance.mean(), rtol=0.08)
