"""Trains pyroVED's shift-VAE on given patches, in the Python that has pyroVED.

python pyroved_process.py PATCHES.npz RESULT.npz EPOCHS SEED
"""

import importlib.util
import sys
import time
import types

import numpy as np
import torch

BATCH_SIZE = 64  # as in pyroVED's own example of the shift-VAE


def import_pyroved() -> types.ModuleType:
    """Import pyroVED, which wants torchvision for a function that draws pictures.

    PyPI's torchvision is built for CUDA's torch and breaks with the CPU build, so this process
    sees an empty one; nothing that is installed is changed.
    """
    vision, vision.utils = types.ModuleType("torchvision"), types.ModuleType("torchvision.utils")
    vision.utils.make_grid = None
    for module in (vision, vision.utils):
        module.__spec__ = importlib.util.spec_from_loader(module.__name__, loader=None)
        sys.modules[module.__name__] = module
    import pyroved

    return pyroved


def main() -> None:
    """Train, and write shifts and latents after each epoch."""
    source, target, epochs, seed = sys.argv[1:]
    pyroved = import_pyroved()
    patches = np.load(source)["patches"]
    size = patches.shape[1]
    # Normalised to (0, 1), its sampler and priors left as they are: as in its examples.
    low, high = patches.min(), patches.max()
    x = torch.from_numpy((patches - low) / (high - low))
    model = pyroved.models.iVAE(
        (size, size), latent_dim=2, invariances=["t"], seed=int(seed), device="cpu"
    )
    trainer = pyroved.trainers.SVItrainer(model, seed=int(seed), device="cpu")
    loader = pyroved.utils.init_dataloader(x, batch_size=BATCH_SIZE)
    seconds, shifts, latents = [], [], []
    for epoch in range(int(epochs)):
        began = time.perf_counter()
        trainer.step(loader)
        seconds.append(time.perf_counter() - began)
        mean, _ = model.encode(x)
        # Its coordinates run from -1 to 1 down the rows and from 1 to -1 along the columns, and the
        # shift is added to them, not taken off.
        scale = model.t_prior * torch.tensor([-1.0, 1.0]) * (size - 1) / 2
        shifts.append((mean[:, :2] * scale).numpy())
        latents.append(mean[:, 2:].numpy())
        print(f"pyroVED: epoch {epoch + 1} of {epochs}, {seconds[-1]:.2f} s", flush=True)
    np.savez(target, seconds=seconds, shift_yx_px=shifts, latents=latents)


if __name__ == "__main__":
    main()
