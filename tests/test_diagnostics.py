"""What a fit says of itself in words."""

import numpy as np
import pytest
import torch

from napari_shiftvae.core.diagnostics import diagnose
from napari_shiftvae.core.infer import Fit
from napari_shiftvae.core.patches import stack_patches
from napari_shiftvae.core.reading import Reading

COUNT = 200


def sentences(z, shift, polar):
    """Findings for latents (N, K), shifts and displacements in the cage (N, 2)."""
    two, sd = np.zeros((COUNT, 2)), np.full_like(z, 0.1)
    reading = Reading(
        z=z,
        z_sd=sd,
        shift_yx_px=shift,
        shift_sd_yx_px=two,
        atom_yx_px=two,
        atom_sd_yx_px=two,
        polar_yx_px=polar,
        polar_sd_yx_px=two,
        polar_shared_sd_yx_px=two,
        residual=np.ones(COUNT),
    )
    fit = Fit(
        z=torch.from_numpy(z),
        pose=torch.from_numpy(shift),
        covariance=0.01 * torch.eye(2 + z.shape[1]).expand(COUNT, -1, -1),
        mean_square=torch.ones(COUNT),
    )
    found = diagnose(
        stack_patches(np.random.default_rng(0).normal(size=(COUNT, 16, 16)).astype(np.float32)),
        fit,
        reading,
        noise_sigma=1.0,
        noise_sigma_independent=1.0,
        separation_px=8.0,
    )
    return [sentence for sentence in found.sentences if "follows the shift" in sentence]


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_atoms_that_move_in_their_cage_are_no_leak(rng):
    """Picked at their own place, they see the cage shift the other way."""
    z = rng.normal(size=(COUNT, 2))
    polar = z[:, :1] * [0.5, 0.2]
    (said,) = sentences(z, 0.15 * rng.normal(size=(COUNT, 2)) - polar, polar)
    assert said.startswith("z1 follows the shift (R² = 0.9")
    assert said.endswith("which it tells (R² = 1.00), and picks are at the atoms.")


@pytest.mark.parametrize("known", [True, False])
def test_a_latent_that_moves_the_whole_pattern_leaks(rng, known):
    z = rng.normal(size=(COUNT, 2))
    shift = rng.normal(size=(COUNT, 2))
    z[:, 1] = shift[:, 0] + 0.5 * z[:, 1]
    polar = 0.1 * rng.normal(size=(COUNT, 2)) if known else np.full((COUNT, 2), np.nan)
    (said,) = sentences(z, shift, polar)
    assert said.startswith("z2 follows the shift (R² = 0.8")
    assert said.endswith("compare with another patch size or seed.")


def test_latents_that_do_not_follow_the_shift_are_not_spoken_of(rng):
    z, shift = rng.normal(size=(COUNT, 2)), rng.normal(size=(COUNT, 2))
    assert sentences(z, shift, z) == []
