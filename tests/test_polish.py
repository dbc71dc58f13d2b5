"""The decoder's output layer by least squares, and what keeps its hidden layers smooth."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_shiftvae.core.decoders import lean_to_prior, perceptron
from napari_shiftvae.core.infer import encode, refine
from napari_shiftvae.core.model import ModelConfig, ShiftVAE
from napari_shiftvae.core.patches import stack_patches
from napari_shiftvae.core.polish import polish
from napari_shiftvae.core.simulate import Motif, factor_patches
from napari_shiftvae.core.train import TrainConfig, train

MOTIF = Motif(patch_size_px=24, sigma_px=1.8, cage_half_diagonal_px=8.5)


def trained(seed, decoder="fourier"):
    task = factor_patches(
        rng=np.random.default_rng(seed), count=300, noise=0.2, shift_sd_px=1.0, motif=MOTIF
    )
    patches = stack_patches(task.patches)
    config = ModelConfig(patch_size_px=24, separation_px=8.5, shift_prior_px=1.0, decoder=decoder)
    model = ShiftVAE(config, torch.Generator().manual_seed(seed))
    for _ in train(model, patches, TrainConfig(epochs=12, seed=seed)):
        pass
    return task, patches, model.eval()


def error(model, task, patches, fit):
    """Root mean square of decoded minus noiseless windows."""
    clean = MOTIF.render(np.column_stack([task.shift_yx_px, task.factors]))
    clean = (clean - patches.offset[:, None, None]) / patches.scale[:, None, None]
    with torch.no_grad():
        return np.sqrt(np.mean((model.decode(fit.z, fit.pose).numpy() - clean) ** 2))


@pytest.mark.parametrize("seed", [3, 4])
def test_patterns_come_nearer_to_the_truth_than_training_left_them(seed):
    task, patches, model = trained(seed)
    *_, before = refine(model, patches, encode(model, patches))
    left = error(model, task, patches, before)
    *_, at = polish(model, patches, encode(model, patches))
    *_, after = refine(model, patches, at)
    assert error(model, task, patches, after) < 0.9 * left


def test_a_disturbed_output_layer_is_found_again():
    task, patches, model = trained(5)
    *_, before = refine(model, patches, encode(model, patches))
    left = error(model, task, patches, before)
    bias = model.decoder.net[-1].bias
    with torch.no_grad():
        bias += torch.randn(bias.shape, generator=torch.Generator().manual_seed(0))
    disturbed = error(model, task, patches, before)
    *_, at = polish(model, patches, before)
    assert disturbed > 1.5 * left
    assert error(model, task, patches, at) < 1.1 * left


def test_held_out_patches_are_not_learned_from():
    """Noise in their place changes nothing."""
    _, patches, model = trained(7)
    learn, judge = torch.arange(100), torch.arange(100, 300)
    spoilt = patches.frames.copy()
    spoilt.reshape(300, -1)[judge] = np.random.default_rng(1).normal(size=(200, 24 * 24))
    weights = []
    for these in (patches, replace(patches, frames=spoilt)):
        polished = copy.deepcopy(model)
        for _ in polish(polished, these, encode(polished, these), learn):
            pass
        weights.append(polished.decoder.net[-1].weight)
    assert torch.equal(*weights)
    assert not torch.equal(weights[0], model.decoder.net[-1].weight)


def test_other_decoders_stay_as_they_are():
    _, patches, model = trained(6, "coordinate")
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    *_, fit = polish(model, patches, encode(model, patches))
    assert len(fit) == len(patches)
    assert all(value.equal(weights[name]) for name, value in model.state_dict().items())


def test_the_prior_pulls_hidden_weights_only_and_less_the_more_patches_there_are():
    net = perceptron(2, 8, 5)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    lean_to_prior(net, 100)
    torch.testing.assert_close(net[2].weight.grad, 0.24 * net[2].weight.detach())
    lean_to_prior(net, 1_000_000)
    torch.testing.assert_close(net[2].weight.grad, 0.240024 * net[2].weight.detach())
    assert all(not net[4].weight.grad.any() and not layer.bias.grad.any() for layer in net[::2])
