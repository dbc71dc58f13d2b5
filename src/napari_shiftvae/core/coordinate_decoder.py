"""The decoder of the paper: a network on pixel coordinates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_shiftvae.core.decoders import (
    PATCHES_IN_CACHE,
    Linearised,
    axes,
    in_pieces,
    pixel_grid,
)
from napari_shiftvae.core.model_config import ModelConfig


class CoordinateDecoder(nn.Module):
    """Pixel coordinates minus shift, and latents, through a network (arXiv:2106.12472)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.window = config.window
        # Coordinates in a unit that gives features of atomic size from the start.
        self.unit = config.patch_size_px / 12
        self.grid: Tensor
        grid = pixel_grid(config.window).flatten(0, -2)
        self.register_buffer("grid", grid / self.unit, persistent=False)  # (M, D)
        self.from_points = nn.Linear(config.dimensions, config.hidden)
        self.from_latents = nn.Linear(config.content_dim, config.hidden, bias=False)
        self.latents = config.latent_dim
        self.net = nn.Sequential(
            nn.Tanh(),
            nn.Linear(config.hidden, config.hidden),
            nn.Tanh(),
            nn.Linear(config.hidden, config.hidden),
            nn.Tanh(),
            nn.Linear(config.hidden, 1),
        )

    def _points(self, grid: Tensor, shift: Tensor, turn: Tensor | None) -> Tensor:
        """Places (B, M, D) of pixels in the pattern, in the decoder's unit."""
        points = grid - shift[:, None] / self.unit
        return points if turn is None else points @ axes(turn)

    def forward(self, z: Tensor, shift: Tensor, turn: Tensor | None = None) -> Tensor:
        """Patterns (B, *W) of contents (B, K + C), moved by shifts (B, D) [px] and turned."""
        values = self.at_pixels(slice(None), z, shift, turn)
        pattern: Tensor = values.unflatten(1, self.window)
        return pattern

    def at_pixels(
        self, pixels: Tensor | slice, z: Tensor, shift: Tensor, turn: Tensor | None = None
    ) -> Tensor:
        """Values (B, M) of the same at some pixels, numbered row by row."""
        points = self._points(self.grid[pixels], shift, turn)
        hidden = self.from_points(points) + self.from_latents(z)[:, None]
        values: Tensor = self.net(hidden)
        return values[..., 0]

    def linearise(
        self, z: Tensor, shift: Tensor, turn: Tensor | None = None, *, latents: bool = True
    ) -> Linearised:
        """Return the patterns with their derivatives by shift and, if wanted, by latents."""
        if len(z) > PATCHES_IN_CACHE:
            return in_pieces(self.linearise, z, shift, turn, latents=latents)
        # Forward, and back from the one output: cheaper than forward along each direction.
        points = self._points(self.grid, shift, turn)
        value = self.from_points(points) + self.from_latents(z)[:, None]
        bent: list[Tensor] = []
        for layer in self.net:
            value = layer(value)
            if isinstance(layer, nn.Tanh):
                bent.append(value)
        back = torch.ones_like(value)
        for layer in reversed(self.net):
            if not isinstance(layer, nn.Linear):
                back = back * (1 - bent.pop().square())
            else:
                back = back @ layer.weight
        by_shift = -(back @ self.from_points.weight) / self.unit  # (B, M, D), pattern's own axes
        if turn is not None:
            by_shift = by_shift @ axes(turn).mT
        by_latent = back @ self.from_latents.weight[:, : self.latents if latents else 0]
        shaped = [by.mT.unflatten(2, self.window) for by in (by_shift, by_latent)]
        return Linearised(value[..., 0].unflatten(1, self.window), shaped[0], shaped[1])
