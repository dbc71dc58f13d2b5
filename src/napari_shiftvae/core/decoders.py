"""What decoders share: they make patterns that can be moved, turned and magnified exactly.

A pattern is a function ``D(z)(u)`` of a place, and a pixel ``r`` shows it at
``u = exp(-l) R(-a) (r - s)``: shift ``s`` [px], rotation ``a`` [rad] (positive from right to down,
which is clockwise on the screen), logarithm of the scale ``l``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

PATCHES_IN_CACHE = 16


class Linearised(NamedTuple):
    """A decoded batch of windows W, that is P x P or P pixels, and its derivatives."""

    pattern: Tensor  # (B, *W)
    by_pose: Tensor  # (B, A, *W); by a decoder only the shift, per pixel of (y, x)
    by_latent: Tensor  # (B, K, *W)


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Make a network with two hidden layers."""
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        nn.Linear(hidden, outputs),
    )


def lean_to_prior(net: nn.Sequential, patches: int) -> None:
    """Add to the gradients that of a prior of the hidden layers' weights, over the patches.

    A priori these are as wide as at the start of training. Without it, patterns come to bend with
    the latents as sharply as the noise of a few hundred patches asks for.
    """
    *hidden, _ = (layer for layer in net if isinstance(layer, nn.Linear))
    for layer in hidden:
        if layer.weight.grad is not None:
            layer.weight.grad += 3 * layer.in_features / patches * layer.weight.detach()


def pixel_grid(window: tuple[int, ...]) -> Tensor:
    """Coordinates (*W, D) of the pixels from the centre of the window."""
    axes = [torch.arange(size) - (size - 1) / 2 for size in window]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def rotation_matrix(angle: Tensor) -> Tensor:
    """Matrices (B, 2, 2) that turn (y, x) by angles (B,), positive from +x to +y."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)


def in_pieces(
    linearise: Callable[..., Linearised],
    z: Tensor,
    shift: Tensor,
    turn: Tensor | None,
    *,
    latents: bool,
) -> Linearised:
    """Linearise a large batch in parts: the values in between are large."""
    parts = [
        linearise(z[rows], shift[rows], None if turn is None else turn[rows], latents=latents)
        for rows in torch.arange(len(z)).split(PATCHES_IN_CACHE)
    ]
    return Linearised(*(torch.cat(part) for part in zip(*parts, strict=True)))


def axes(turn: Tensor) -> Tensor:
    """Matrices (B, 2, 2) that take row vectors of places in the window to the pattern's own."""
    return rotation_matrix(turn[:, 0]) * torch.exp(-turn[:, 1])[:, None, None]
