"""Patches of two factors to train small models on."""

import numpy as np
import torch

from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.simulate import Motif, factor_patches

MOTIF = Motif(patch_size_px=16, sigma_px=1.1, cage_half_diagonal_px=5.6)


def make_task(count):
    rng = np.random.default_rng(4)
    return factor_patches(
        rng=rng, count=count, motif=MOTIF, shift_sd_px=0.8, displacement_range_px=(-0.8, 0.8)
    )


def make_model(seed=0, **settings):
    config = ModelConfig(
        patch_size_px=16,
        separation_px=5.6,
        shift_prior_px=0.8,
        band_limit=0.4,
        hidden=48,
        **settings,
    )
    return ShiftVAE(config, torch.Generator().manual_seed(seed))


def same_weights(first, second):
    first, second = first.state_dict(), second.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)
