"""Windows projected on the waves of the decoder: fewer numbers, the same results."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_shiftvae.core import band
from napari_shiftvae.core.band import InBand, in_band
from napari_shiftvae.core.infer import encode, maximise
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.patches import stack_patches
from napari_shiftvae.core.simulate import Motif, factor_patches

MOTIF = Motif(patch_size_px=25, sigma_px=1.8, cage_half_diagonal_px=8.5)


@pytest.fixture(scope="module")
def patches():
    made = factor_patches(rng=np.random.default_rng(0), count=40, noise=0.1, motif=MOTIF)
    return stack_patches(made.patches)


def make_model(**changed):
    settings = {"patch_size_px": 25, "separation_px": 8.5, "band_limit": 0.2} | changed
    return ShiftVAE(ModelConfig(**settings), torch.Generator().manual_seed(1)).eval()


def test_sums_of_squares_maxima_and_derivatives_are_those_of_the_pixels(patches):
    model = make_model()
    seen, windows = in_band(model, patches)
    assert isinstance(windows, InBand)
    rows, pose = torch.arange(40), torch.linspace(-2, 2, 80).view(40, 2)
    z = torch.linspace(-1, 1, 80).view(40, 2)
    assert windows.gather(rows)[0].numel() < 0.6 * patches.gather(rows)[0].numel()
    with torch.no_grad():
        expected = (model.decode(z, pose) - patches.gather(rows)).square().sum(dim=(1, 2))
        found = (seen.decode(z, pose) - windows.gather(rows)).square().sum(dim=(1, 2))
        torch.testing.assert_close(found + windows.beyond(rows), expected, rtol=1e-5, atol=1e-3)
        start = torch.cat([0.1 * pose, z], dim=1)
        for own, other in zip(
            maximise(seen, windows, rows, start), maximise(model, patches, rows, start), strict=True
        ):
            torch.testing.assert_close(own, other, rtol=2e-3, atol=2e-3)


def test_the_encoder_sees_what_is_in_the_band_of_the_same_pixels(patches):
    model = make_model()
    seen, windows = in_band(model, patches)
    inside = windows.basis @ windows.gather() @ windows.basis.T
    with torch.no_grad():
        torch.testing.assert_close(
            seen.encode(windows.gather()).z, model.encode(inside).z, rtol=1e-4, atol=1e-5
        )


def test_weights_are_shared_not_copied(patches):
    model = make_model()
    seen, _ = in_band(model, patches)
    assert {id(one) for one in seen.parameters()} == {id(one) for one in model.parameters()}
    seen.variance.fill_(0.25)
    model.gauge.neg_()
    assert float(model.variance) == 0.25
    assert torch.equal(seen.gauge, -torch.eye(2))


def test_large_sets_are_projected_when_they_are_asked_for(patches, monkeypatch):
    _, kept = in_band(make_model(), patches)
    monkeypatch.setattr(band, "MOST_KEPT_MB", 0)
    _, asked = in_band(make_model(), patches)
    rows = torch.tensor([3, 1, 39])
    assert asked.kept is None
    torch.testing.assert_close(asked.gather(rows), kept.gather(rows))
    torch.testing.assert_close(asked.beyond(rows), kept.beyond(rows))


@pytest.mark.parametrize(
    "changed",
    [
        {"decoder": "coordinate"},
        {"band_limit": 0.45},
        {"invariances": ("shift", "rotation")},
    ],
)
def test_where_nothing_is_gained_model_and_windows_stay(patches, changed):
    model = make_model(**changed)
    assert in_band(model, patches) == (model, patches)


def test_masked_pixels_are_not_projected(patches):
    masked = np.zeros(patches.frames.shape, dtype=bool)
    masked[:, 12, 12] = True
    holed = replace(patches, masked=masked)
    model = make_model()
    assert in_band(model, holed) == (model, holed)
    assert len(encode(model, holed)) == 40
