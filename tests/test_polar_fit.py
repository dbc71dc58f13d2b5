"""Polar displacements and standard deviations from steps of known size."""

import numpy as np
import pytest
import torch

from napari_shiftvae.core.alike import compounding, seen_through
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.polar_fit import Polar, settled

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
    polar = Polar(place, torch.from_numpy(step).float(), *cov, torch.ones(COUNT))
    latents = torch.from_numpy(rng.normal(0, 1, (COUNT, 2))).float()
    return polar, latents


def seen(count, *, leverage=0.01):
    """One pattern for all."""
    return torch.full((count, 1), leverage**0.5)


def rms(values):
    return np.sqrt(np.mean(np.asarray(values) ** 2, axis=0))


@pytest.mark.parametrize("off_px", [0.0, 0.15, 0.6])
def test_errors_are_those_stated_and_no_larger_than_with_or_without_steps(off_px):
    polar, latents = drawn(off_px)
    place, sd, _ = settled(polar, latents, seen(COUNT))
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
    place, sd, _ = settled(polar, torch.cat([latents, latents - 40]), seen(2 * COUNT))
    moved = (place - polar.place)[:COUNT]
    assert ((moved - moved.median(dim=0).values).abs() < 1e-6).all(dim=1).float().mean() > 0.7
    assert (place == polar.place)[COUNT:].float().mean() == 0
    assert rms(sd[COUNT:][::2])[1] == pytest.approx(0.5, abs=0.05)
    assert rms(sd[COUNT:][1::2])[1] == pytest.approx(
        0.5 * FREE_PX / np.hypot(0.5, FREE_PX), abs=0.01
    )
    assert place[COUNT:][::2].isnan().all()


def test_what_the_decoder_misses_of_all_alike_atoms_is_mended_and_what_they_share_is_told():
    """Two domains drawn together by 0.1 px, which is less than the noise of one atom."""
    errors = []
    for seed in range(20):
        polar, latents = drawn(0.0, seed)
        side = torch.where(latents[:, :1] > 0, 1.0, -1.0)
        pull = 0.1 * side * torch.tensor([[1.0, 0.0]])
        polar = polar._replace(place=polar.place - pull, step=polar.step + pull)
        two = torch.cat([side.clamp(min=0), (-side).clamp(min=0)], dim=1) / (COUNT / 2) ** 0.5
        place, sd, shared = settled(polar, latents, two)
        own = side[:, 0] > 0
        errors.append(place[own].mean(dim=0) / shared[own].mean(dim=0))
        assert rms(place[own])[0] < 0.11
        assert (shared <= sd).all()
        np.testing.assert_allclose(shared.mean(dim=0), FREE_PX * (2 / COUNT) ** 0.5, rtol=0.03)
    assert rms(torch.stack(errors))[0] < 1.4


def test_leverage_sums_to_what_is_learned():
    """A mean of N patches has a variance of one over N; no patch counts more than one."""
    for decoder in ("fourier", "coordinate"):
        model = ShiftVAE(
            ModelConfig(patch_size_px=12, separation_px=6.0, decoder=decoder),
            torch.Generator().manual_seed(0),
        )
        z = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))

        def leverage(of, model=model):
            with torch.no_grad():
                return torch.cat(seen_through(model, of)).square().sum(dim=1)

        found = leverage(z)
        assert 1 < found.sum() < 40
        assert found.max() < 1
        if decoder == "fourier":
            np.testing.assert_allclose(leverage(torch.zeros(200, 2)), 1 / 200, rtol=0.05)


@pytest.mark.parametrize(
    ("neighbours", "at", "expected"),
    [
        # Of another kind: each is in four cages, and counts as noise of all at once.
        ([(5, 5), (5, -5), (-5, 5), (-5, -5)], 10.0, (1 + 4 / 4) / (1 + 1 / 4)),
        # Of the same kind: each is added once, and taken off in four quarters.
        ([(10, 0), (0, 10), (-10, 0), (0, -10)], 10.0, 0.0),
    ],
)
def test_noise_of_pixels_in_several_patches_is_counted_as_often(neighbours, at, expected):
    size, side = 27, 20
    grid = torch.arange(size) - (size - 1) / 2

    def bell(y, x):
        return torch.exp(-((grid[:, None] - y) ** 2 + (grid - x) ** 2) / (2 * 1.2**2))

    one = bell(0, 0) - sum(bell(*place) for place in neighbours) / 4
    response = torch.stack([one, one]).flatten(1).expand(side**2, 2, -1)
    place = torch.cartesian_prod(torch.arange(side), torch.arange(side)) * at
    axes, same = torch.eye(2).expand(side**2, 2, 2), torch.ones(side**2, 1)
    found = compounding(response, same, place, axes, torch.zeros(side**2))
    inside = ((place > at) & (place < (side - 2) * at)).all(dim=1)
    assert found[inside].nanmean() == pytest.approx(expected, abs=0.03)
    apart = compounding(response, same, place, axes, torch.arange(side**2))
    np.testing.assert_allclose(apart[apart.isfinite()], 1, rtol=1e-5)
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).expand(side**2, 2, 2)
    turned = compounding(response, same, place, quarter, torch.zeros(side**2))
    np.testing.assert_allclose(turned, found, atol=1e-4)
