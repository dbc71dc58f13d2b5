"""Masked pixels count neither in training nor in refinement: windows that hold some take part.

The hidden values stay known; the bound on them is worked out from the pixels that are left.
"""

import numpy as np
import pytest
import torch

from napari_shiftvae.core.analyse import analyse, finish
from napari_shiftvae.core.bound import Batch, terms
from napari_shiftvae.core.bounds import cramer_rao
from napari_shiftvae.core.factors import Motif, factor_patches
from napari_shiftvae.core.images import MicroscopeImage
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.settings import AnalysisConfig
from napari_shiftvae.core.train import TrainConfig

SIZE, COUNT, COLUMNS = 24, 500, 25
MOTIF = Motif(patch_size_px=SIZE, sigma_px=1.62, cage_half_diagonal_px=8.4)


@pytest.fixture(scope="module")
def task():
    return factor_patches(
        rng=np.random.default_rng(3),
        count=COUNT,
        motif=MOTIF,
        shift_sd_px=1.0,
        displacement_range_px=(-1.0, 1.0),
    )


@pytest.fixture(scope="module")
def masked(task):
    """Whether each pixel (N, P, P) is: blocks, rows and scattered pixels of half of the windows."""
    rng = np.random.default_rng(4)
    hidden = np.zeros(task.patches.shape, dtype=bool)
    for window in hidden[: COUNT // 2]:
        y, x = rng.integers(0, SIZE - 6, 2)
        window[y : y + 6, x : x + 6] = True
        window[rng.integers(0, SIZE)] = True
        window[rng.random(window.shape) < 0.03] = True
    assert 0.1 < hidden[: COUNT // 2].mean(axis=(1, 2)).max() <= 0.2
    return hidden


def analysed(task, masked):
    pixels = np.where(masked, np.nan, task.patches)
    tiles = pixels.reshape(-1, COLUMNS, SIZE, SIZE).transpose(0, 2, 1, 3)
    image = np.ascontiguousarray(tiles.reshape(-1, COLUMNS * SIZE))
    row, column = np.divmod(np.arange(COUNT), COLUMNS)
    picks = np.column_stack([row, column]) * SIZE + (SIZE - 1) / 2
    config = AnalysisConfig(
        patch_size_px=SIZE,
        separation_px=8.4,
        shift_prior_px=1.0,
        normalisation="global",
        train=TrainConfig(seed=1),
    )
    return finish(analyse(MicroscopeImage(data=image, name="masked"), config, positions_yx=picks))


def test_windows_with_masked_pixels_are_read_at_their_bound(task, masked):
    run = analysed(task, masked)
    assert (run.atoms["set_aside"] == "").all()
    parameters = np.column_stack([task.shift_yx_px, task.factors])
    derivatives = np.where(masked[:, None], 0.0, MOTIF.derivatives(parameters))
    bound = cramer_rao(derivatives, task.noise_sigma)
    jacobian = np.column_stack([np.eye(2), np.zeros(2), task.direction_yx])
    atom_bound = jacobian @ bound @ jacobian.T
    constant = (task.central_yx_px - task.shift_yx_px).mean(axis=0)

    def columns(*names):
        return run.atoms[list(names)].to_numpy()

    shift = columns("shift_y_px", "shift_x_px") - task.shift_yx_px - constant
    atom = columns("atom_y_px", "atom_x_px") - run.picks_yx - task.central_yx_px
    for error, sd, covariance in (
        (shift, columns("shift_y_sd_px", "shift_x_sd_px"), bound[:, :2, :2]),
        (atom, columns("atom_y_sd_px", "atom_x_sd_px"), atom_bound),
    ):
        limit = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        for rows in (slice(0, COUNT // 2), slice(COUNT // 2, None)):
            assert np.sqrt(np.mean((error / limit)[rows] ** 2)) < 1.12
            assert np.sqrt(np.mean((error / sd)[rows] ** 2)) == pytest.approx(1, abs=0.12)
    noise = run.diagnostics.noise_sigma
    assert noise == pytest.approx(task.noise_sigma, rel=0.03)
    residual = columns("residual")[:, 0]
    assert residual[: COUNT // 2].mean() == pytest.approx(residual[COUNT // 2 :].mean(), rel=0.02)


def test_what_lies_under_a_mask_has_no_part_in_the_bound():
    model = ShiftVAE(ModelConfig(patch_size_px=16, separation_px=8), torch.Generator())
    x = torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(0))
    counts = torch.rand(8, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.2
    encoded = model.encode(x)

    def loss(pixels, weight):
        batch = Batch(
            x=pixels,
            centre=torch.zeros(8, 2),
            weight=weight,
            beyond=None,
            given=None,
            label=torch.full((8,), -1),
        )
        found = terms(model, batch, encoded, torch.Generator().manual_seed(0))
        return float(found.loss.detach())

    spoilt = torch.where(counts, x, 1e3)
    assert loss(x, counts) == pytest.approx(loss(spoilt, counts))
    assert loss(spoilt, None) > 10 * loss(x, counts)
    every = torch.ones(8, 16, 16, dtype=torch.bool)
    assert loss(x, every) == pytest.approx(loss(x, None))
