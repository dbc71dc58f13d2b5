"""The model: shifts are exact, derivatives right, the pattern band-limited, the gauge harmless."""

import numpy as np
import pytest
import torch

from napari_shiftvae.core.errors import InputError
from napari_shiftvae.core.model import ModelConfig, ShiftVAE

DECODERS = ["fourier", "coordinate"]
# A signed permutation, no symmetric matrix: transposing it by mistake shows.
GAUGE = torch.tensor([[0.0, -1, 0], [0, 0, 1], [-1, 0, 0]])


@pytest.fixture(autouse=True)
def double_precision():
    """Finite differences need it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def made(decoder="fourier", *, size=17, seed=3, **settings):
    """Make a model with three latents whose patterns are far from constant."""
    config = ModelConfig(
        patch_size_px=size, separation_px=8, latent_dim=3, decoder=decoder, hidden=24, **settings
    )
    model = ShiftVAE(config, torch.Generator().manual_seed(seed))
    for weight in model.decoder.parameters():
        weight.data *= 2
    return model


def batch(count=4, seed=0):
    """Latents (B, 3) and shifts (B, 2) [px]."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, 5, generator=generator)
    return values[:, :3], values[:, 3:]


@pytest.fixture(params=DECODERS)
def turned(request):
    """A model of each kind in a gauge other than the identity."""
    model = made(request.param)
    model.gauge.copy_(GAUGE)
    return model


def close(found, expected, tolerance=1e-8):
    found, expected = found.detach().numpy(), expected.detach().numpy()
    scale = np.abs(expected).max()
    assert scale > 1e-3, "nothing to compare"
    np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)


# --- shifts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [16, 17])
@pytest.mark.parametrize("start", [(0.0, 0.0), (0.37, -1.61)])
def test_shift_by_whole_pixels_moves_the_pattern_by_them(decoder, size, start):
    """Positive is down and right; also on top of a fractional shift."""
    model, (z, _) = made(decoder, size=size), batch()
    start = torch.tensor(start).expand(4, 2)
    before = model.decode(z, start)
    after = model.decode(z, start + torch.tensor([3.0, -2.0]))
    close(after[:, 3:, :-2], before[:, :-3, 2:])
    assert (after - before).abs().max() > 1e-2


@pytest.mark.parametrize("decoder", DECODERS)
def test_pattern_is_one_function_of_pixel_minus_shift(decoder):
    """Every pixel of a shifted pattern is the central pixel of another shift."""
    model, (z, shift) = made(decoder), batch()
    pattern = model.decode(z, shift)
    for y, x in ((0, 0), (3, 11), (16, 8)):
        offset = torch.tensor([y - 8.0, x - 8.0])
        close(pattern[:, y, x], model.decode(z, shift - offset)[:, 8, 8])


def test_fourier_shift_is_exact_in_single_precision():
    torch.set_default_dtype(torch.float32)
    model, (z, _) = made(), batch()
    zero = torch.zeros(4, 2)
    close(model.decode(z, zero + 2)[:, 2:, 2:], model.decode(z, zero)[:, :-2, :-2], 1e-5)


# --- band limit --------------------------------------------------------------------------------


def whole_box(model, z):
    """Patterns (B, L, L) over one period of the Fourier series."""
    size, box = model.config.patch_size_px, model.decoder.box_factor * model.config.patch_size_px
    rows = []
    for y in (0.0, size):
        parts = [model.decode(z, torch.tensor([[-y, -x]]).expand(len(z), 2)) for x in (0.0, size)]
        rows.append(torch.cat(parts, dim=2))
    box = int(box)
    return torch.cat(rows, dim=1)[:, :box, :box].detach().numpy()


@pytest.mark.parametrize("limit", [0.1, 0.2, 0.35])
def test_no_frequency_above_the_band_limit(limit):
    model, (z, _) = made(size=32, band_limit=limit), batch()
    period = whole_box(model, z)
    power = np.abs(np.fft.fft2(period)).max(axis=0)
    frequency = np.hypot(*np.meshgrid(*2 * [np.fft.fftfreq(48)], indexing="ij"))
    assert power[frequency > limit].max() < 1e-6 * power.max()
    assert power[(frequency > limit - 0.04) & (frequency <= limit)].max() > 1e-3 * power.max()


def test_pattern_repeats_only_after_one_and_a_half_windows():
    model, (z, _) = made(size=16), batch()
    zero = torch.zeros(4, 2)
    still = model.decode(z, zero)
    close(model.decode(z, zero + torch.tensor([24.0, 0.0])), still)
    for shift in (8.0, 12.0, 16.0):
        assert (model.decode(z, zero + torch.tensor([shift, 0.0])) - still).abs().max() > 1e-2


# --- derivatives -------------------------------------------------------------------------------

STEP = 1e-5


def by_difference(function, at, axis):
    """Central difference of a function of (B, A) along one of the axes A."""
    step = torch.zeros_like(at)
    step[:, axis] = STEP
    return (function(at + step) - function(at - step)) / (2 * STEP)


def test_linearise_agrees_with_finite_differences(turned):
    z, shift = batch()
    found = turned.linearise(z, shift)
    close(found.pattern, turned.decode(z, shift))
    assert found.by_pose.shape == (4, 2, 17, 17)
    assert found.by_latent.shape == (4, 3, 17, 17)
    for axis in range(2):
        expected = by_difference(lambda s: turned.decode(z, s), shift, axis)
        close(found.by_pose[:, axis], expected, 1e-7)
    for latent in range(3):
        expected = by_difference(lambda at: turned.decode(at, shift), z, latent)
        close(found.by_latent[:, latent], expected, 1e-7)


def test_linearise_without_latents_is_the_same_less_them(turned):
    z, shift = batch()
    full, part = turned.linearise(z, shift), turned.linearise(z, shift, latents=False)
    close(part.pattern, full.pattern)
    close(part.by_pose, full.by_pose)
    assert part.by_latent.shape == (4, 0, 17, 17)


# --- gauge -------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_gauge_renames_latents_and_changes_no_pattern(decoder):
    model = made(decoder)
    x = torch.randn(6, 17, 17, generator=torch.Generator().manual_seed(1))
    plain = model.encode(x)
    pattern = model.decode(plain.z, plain.pose)
    model.gauge.copy_(GAUGE)
    renamed = model.encode(x)
    close(renamed.pose, plain.pose)
    # z1 is minus the old z3, z2 minus the old z1, z3 the old z2; spreads have no sign.
    close(renamed.z, torch.stack([-plain.z[:, 2], -plain.z[:, 0], plain.z[:, 1]], dim=1))
    close(renamed.log_sd_z, plain.log_sd_z[:, [2, 0, 1]])
    close(model.decode(renamed.z, renamed.pose), pattern)


# --- encoder -----------------------------------------------------------------------------------


def test_encoder_s_spread_stays_finite_for_absurd_patches():
    model = made()
    q = model.encode(torch.full((2, 17, 17), 1e6))
    for log_sd in (q.log_sd_pose, q.log_sd_z):
        assert log_sd.exp().isfinite().all()
        assert (log_sd.exp() > 1e-6).all()


def test_encoded_shift_is_in_pixels():
    """The same weights with twice the prior say twice the shift."""
    x = torch.randn(6, 17, 17, generator=torch.Generator().manual_seed(1))
    narrow, wide = (made(shift_prior_px=prior).encode(x) for prior in (1.5, 3.0))
    close(wide.pose, 2 * narrow.pose)
    close(wide.log_sd_pose.exp(), 2 * narrow.log_sd_pose.exp())
    close(wide.z, narrow.z)


# --- weights and settings ----------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_generator_decides_the_weights(decoder):
    torch.manual_seed(1)
    first = made(decoder, seed=5).state_dict()
    torch.manual_seed(2)  # the global generator has no say
    again, other = made(decoder, seed=5).state_dict(), made(decoder, seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.2.0.weight"], other["encoder.2.0.weight"])
    hidden = next(name for name in first if name.startswith("decoder.net"))
    assert not torch.equal(first[hidden], other[hidden])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patch_size_px", 5),
        ("separation_px", 0.0),
        ("separation_px", float("nan")),
        ("latent_dim", 0),
        ("latent_dim", 17),
        ("shift_prior_px", 0.0),
        ("band_limit", 0.6),
        ("hidden", 0),
        ("decoder", "wavelet"),
    ],
)
def test_bad_settings_are_refused_by_name(name, value):
    good = {"patch_size_px": 16, "separation_px": 8.0}
    with pytest.raises(InputError, match=rf"{name} is '?{value}'?: choose"):
        ModelConfig(**(good | {name: value}))
