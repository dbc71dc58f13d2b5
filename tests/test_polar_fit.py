"""Polar displacements and standard deviations from steps of known size."""

import numpy as np
import pytest
import torch

from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.polar_fit import Polar, leverage, settled

COUNT = 1200
FREE_PX, POSTERIOR_PX = 0.15, 0.1  # along y; the model knows x but for what the decoder errs by


def drawn(off_px, seed=0):
    """What is true (N, 2), and what is read of it: the model misses a part `off_px` wide."""
    rng = np.random.default_rng(seed)
    free = np.full(2, FREE_PX**2)
    posterior = np.array([POSTERIOR_PX**2, 0.0])
    missed = rng.normal(0, off_px, (COUNT, 2))
    model_error = rng.normal(0, 1, (COUNT, 2)) * np.sqrt(posterior)
    step = missed + rng.normal(0, 1, (COUNT, 2)) * np.sqrt(free - posterior)
    cov = [
        torch.from_numpy(np.tile(np.diag(each), (COUNT, 1, 1))).float()
        for each in (posterior, free)
    ]
    place = torch.from_numpy(model_error - missed).float()
    polar = Polar(place, torch.from_numpy(step).float(), *cov)
    latents = torch.from_numpy(rng.normal(0, 1, (COUNT, 2))).float()
    return polar, latents


def rms(values):
    return np.sqrt(np.mean(np.asarray(values) ** 2, axis=0))


@pytest.mark.parametrize("off_px", [0.0, 0.15, 0.6])
def test_errors_are_those_stated_and_no_larger_than_with_or_without_steps(off_px):
    polar, latents = drawn(off_px)
    place, sd = settled(polar, latents, torch.full((COUNT,), 0.01))
    ratio = rms(place) / rms(sd)  # the truth is zero
    if off_px:
        np.testing.assert_allclose(ratio, 1, atol=0.08)
    else:
        assert ratio[0] == pytest.approx(1, abs=0.08)
        assert sd[:, 1].median() == pytest.approx(0.1 * FREE_PX, abs=1e-4)  # the decoder's own
    # Chance alone makes one group in ten take a part of its steps.
    assert (rms(place) < 1.01 * rms(polar.place) + 0.08 * FREE_PX).all()
    assert (rms(place) < 1.01 * rms(polar.place + polar.step)).all()


def test_unlike_atoms_are_taken_apart_and_unknown_ones_are_as_uncertain_as_they_are_missed():
    some, latents = drawn(0.0)
    other, _ = drawn(0.5, seed=1)
    latents[:, 0] += 20
    polar = Polar(*(torch.cat(pair) for pair in zip(some, other, strict=True)))
    polar.place[COUNT:][::2] = torch.nan
    place, sd = settled(polar, torch.cat([latents, latents - 40]), torch.full((2 * COUNT,), 0.01))
    assert (place == polar.place)[:COUNT].all(dim=1).float().mean() > 0.7
    assert (place == polar.place)[COUNT:].float().mean() == 0
    assert rms(sd[COUNT:][::2])[1] == pytest.approx(0.5, abs=0.05)
    assert rms(sd[COUNT:][1::2])[1] == pytest.approx(
        0.5 * FREE_PX / np.hypot(0.5, FREE_PX), abs=0.01
    )
    assert place[COUNT:][::2].isnan().all()


def test_leverage_sums_to_what_is_learned():
    """A mean of N patches has a variance of one over N; no patch counts more than one."""
    for decoder in ("fourier", "coordinate"):
        model = ShiftVAE(
            ModelConfig(patch_size_px=12, separation_px=6.0, decoder=decoder),
            torch.Generator().manual_seed(0),
        )
        z = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found = leverage(model, z)
        assert 1 < found.sum() < 40
        assert found.max() < 1
        with torch.no_grad():
            same = leverage(model, torch.zeros(200, 2))
        if decoder == "fourier":
            np.testing.assert_allclose(same, 1 / 200, rtol=0.05)
