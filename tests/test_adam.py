"""Adam makes the steps that torch's does, and loads no compiler for it."""

import subprocess
import sys

import torch

from napari_shiftvae.core.adam import BETAS, Adam


def test_steps_are_those_of_torch():
    target = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = torch.zeros(3, 4, requires_grad=True), torch.zeros(3, 4, requires_grad=True)
    unused = torch.ones(2, requires_grad=True)
    adam = Adam.of([ours, unused])
    reference = torch.optim.Adam([theirs], betas=BETAS)
    for rate in (0.1, 0.1, 0.03, 0.01):
        for parameter in (ours, theirs):
            parameter.grad = None
            (parameter - target).square().sum().backward()
        adam.step(rate)
        reference.param_groups[0]["lr"] = rate
        reference.step()
        torch.testing.assert_close(ours, theirs)
    assert adam.steps[0] == 4
    assert adam.steps[1] == 0
    assert torch.equal(unused, torch.ones(2))


def test_training_loads_no_compiler():
    script = (
        "import sys, numpy as np\n"
        "from napari_shiftvae.core.model import ModelConfig, ShiftVAE\n"
        "from napari_shiftvae.core.patches import stack_patches\n"
        "from napari_shiftvae.core.train import TrainConfig, train\n"
        "stack = np.random.default_rng(0).normal(size=(32, 16, 16)).astype(np.float32)\n"
        "model = ShiftVAE(ModelConfig(patch_size_px=16, separation_px=8))\n"
        "list(train(model, stack_patches(stack), TrainConfig(epochs=1)))\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)  # noqa: S603
