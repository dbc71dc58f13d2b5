"""The band-limited Fourier decoder, of spectra and of images."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from napari_shiftvae.core.decoders import (
    PATCHES_IN_CACHE,
    Linearised,
    in_pieces,
    perceptron,
    rotation_matrix,
)
from napari_shiftvae.core.model_config import ModelConfig


def _latent_derivatives(net: nn.Sequential, z: Tensor, latents: int) -> tuple[Tensor, Tensor]:
    """Output (B, F) of a network and its derivatives (K, B, F) by each of the K latents.

    By hand: the first forward-mode derivative of `torch.func` compiles for more than a second.
    """
    value = z
    tangent = torch.eye(latents, z.shape[1], dtype=z.dtype, device=z.device)
    tangent = tangent[:, None].expand(-1, len(z), -1)
    for layer in net:
        if isinstance(layer, nn.Linear):
            value, tangent = layer(value), tangent @ layer.weight.T
        else:
            gate = torch.sigmoid(value)
            tangent = tangent * (gate * (1 + value * (1 - gate)))
            value = value * gate
    return value, tangent


class _Fourier(nn.Module):
    """What Fourier series of one and two dimensions have in common."""

    net: nn.Sequential
    latents: int
    box_factor = 1.5  # of the window: nothing wraps into view

    @property
    def waves(self) -> tuple[Tensor, ...]:
        """Wave numbers [rad/px] along each axis, to be broadcast against coefficients."""
        raise NotImplementedError

    def _coefficients(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary coefficients from the perceptron's output."""
        raise NotImplementedError

    def _phase(self, shift: Tensor) -> Tensor:
        """Inner product of wave number and shift (B, D), shaped as the coefficients."""
        raise NotImplementedError

    def _evaluate(self, c: tuple[Tensor, Tensor]) -> Tensor:
        """Sum the series on the pixels."""
        raise NotImplementedError

    def _turned(self, series: list[tuple[Tensor, Tensor]], shift: Tensor, turn: Tensor) -> Tensor:
        """Sum S series on the pixels of turned windows, to (B, S, *W)."""
        raise NotImplementedError

    def _moved(self, c: tuple[Tensor, Tensor], shift: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply coefficients by ``exp(-i k.shift)``."""
        phase = self._phase(shift)
        cos, sin = torch.cos(phase), torch.sin(phase)
        return c[0] * cos + c[1] * sin, c[1] * cos - c[0] * sin

    def forward(self, z: Tensor, shift: Tensor, turn: Tensor | None = None) -> Tensor:
        """Patterns (B, *W) of contents (B, K + C), moved by shifts (B, D) [px]."""
        return self._summed(self._coefficients(self.net(z)), shift, turn)

    def _summed(self, c: tuple[Tensor, Tensor], shift: Tensor, turn: Tensor | None) -> Tensor:
        if turn is not None:
            return self._turned([c], shift, turn)[:, 0]
        return self._evaluate(self._moved(c, shift))

    def linearise(
        self, z: Tensor, shift: Tensor, turn: Tensor | None = None, *, latents: bool = True
    ) -> Linearised:
        """Return the patterns with their derivatives by shift and, if wanted, by latents."""
        if turn is not None and len(z) > PATCHES_IN_CACHE:
            return in_pieces(self.linearise, z, shift, turn, latents=latents)
        output, by_z = (
            _latent_derivatives(self.net, z, self.latents) if latents else (self.net(z), ())
        )
        c = self._coefficients(output)
        columns = [self._coefficients(column) for column in by_z]
        dims = shift.shape[1]
        if turn is not None:
            by = self._turned([c, *self._slopes(c), *columns], shift, turn)
            # A slope along the pattern's own axes is one along those of the window, turned.
            axes = rotation_matrix(turn[:, 0]) * torch.exp(-turn[:, 1])[:, None, None]
            by_shift = torch.einsum("bij,bjyx->biyx", axes, by[:, 1 : 1 + dims])
            return Linearised(by[:, 0], by_shift, by[:, 1 + dims :])
        moved = self._moved(c, shift)
        series = [moved, *self._slopes(moved), *(self._moved(column, shift) for column in columns)]
        pattern, *rest = (self._evaluate(one) for one in series)
        by_latent = torch.stack(rest[dims:], 1) if latents else pattern[:, None][:, :0]
        return Linearised(pattern, torch.stack(rest[:dims], 1), by_latent)

    def _slopes(self, c: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Coefficients of the derivatives by shift: times -i k."""
        return [(c[1] * wave, -c[0] * wave) for wave in self.waves]


class FourierLine(_Fourier):
    """Latents to a band-limited spectrum; a shift is a phase, so it is exact.

    A perceptron makes the coefficients of a Fourier series on a box 1.5 times the window, so that
    nothing wraps into view. The series holds no frequency above ``band_limit`` (the instrument
    transmits none) and fades towards it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.size = config.patch_size_px
        box = math.ceil(self.box_factor * self.size)
        top = max(2, math.floor(config.band_limit * box))
        wave = 2 * math.pi / box * torch.arange(0.0, top + 1.0)
        self.columns = len(wave)
        self.latents = config.latent_dim
        self.net = perceptron(config.content_dim, config.hidden, 2 * self.columns)
        radius = torch.arange(0.0, top + 1.0) / top
        angle = wave[:, None] * (torch.arange(self.size) - (self.size - 1) / 2)
        self.wave: Tensor
        self.fade: Tensor
        self.basis: Tensor
        self.register_buffer("wave", wave, persistent=False)
        self.register_buffer("fade", 0.1 * torch.exp(-2 * radius**2), persistent=False)
        basis = torch.cat([torch.cos(angle), -torch.sin(angle)])  # (2 X, P)
        self.register_buffer("basis", basis, persistent=False)

    @property
    def waves(self) -> tuple[Tensor, ...]:
        """Wave number [rad/px]."""
        return (self.wave,)

    def _coefficients(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary coefficients (..., X) from the perceptron's output."""
        c = output.unflatten(-1, (2, self.columns)) * self.fade
        return c.select(-2, 0), c.select(-2, 1)

    def _phase(self, shift: Tensor) -> Tensor:
        return shift * self.wave

    def _evaluate(self, c: tuple[Tensor, Tensor]) -> Tensor:
        """Sum the series on the pixels, (..., X) to (..., P)."""
        return torch.cat(c, -1) @ self.basis


class FourierDecoder(_Fourier):
    """Latents to a band-limited pattern; a shift is a phase, so it is exact.

    A perceptron makes the coefficients of a Fourier series on a box 1.5 times the window, so that
    nothing wraps into view. The series holds no frequency above ``band_limit`` (the probe transmits
    none) and fades towards it.

    Two small matrix products evaluate it on the pixels. A wave that is turned is still a wave along
    y times one along x, though others for every patch: one matrix product a patch evaluates those.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        size = config.patch_size_px
        box = math.ceil(self.box_factor * size)
        top = max(2, math.floor(config.band_limit * box))
        ky = torch.arange(-top, top + 1.0)
        kx = torch.arange(0.0, top + 1.0)  # a real pattern needs half the plane only
        self.rows, self.columns, self.size = len(ky), len(kx), size
        self.latents = config.latent_dim
        self.net = perceptron(config.content_dim, config.hidden, 2 * self.rows * self.columns)
        step = 2 * math.pi / box
        pixel = torch.arange(size) - (size - 1) / 2
        radius = torch.hypot(ky[:, None], kx[None, :]) / top
        self.wave_y: Tensor
        self.wave_x: Tensor
        self.basis_y: Tensor
        self.basis_x: Tensor
        self.fade: Tensor
        self.pixel: Tensor
        self.kept: Tensor
        self.register_buffer("wave_y", step * ky, persistent=False)
        self.register_buffer("wave_x", step * kx, persistent=False)
        self.register_buffer(
            "fade", 0.1 * torch.exp(-2 * radius**2) * (radius <= 1.001), persistent=False
        )
        angle = step * kx[:, None] * pixel
        basis = torch.cat([torch.cos(angle), torch.sin(angle)])  # (2 X, P)
        self.register_buffer("basis_x", basis, persistent=False)
        half = torch.where(kx == 0, 0.5, 1.0).repeat(2)  # that row is both +y and -y
        self.register_buffer("basis_y", (half[:, None] * basis).T.contiguous(), persistent=False)
        self.register_buffer("pixel", pixel, persistent=False)
        # By numpy: how many these are cannot be known on torch's device without memory.
        y, x = np.meshgrid(np.arange(-top, top + 1), np.arange(top + 1), indexing="ij")
        kept = np.flatnonzero(np.hypot(y, x) <= 1.001 * top)
        self.register_buffer("kept", torch.from_numpy(kept), persistent=False)

    @property
    def waves(self) -> tuple[Tensor, ...]:
        """Wave numbers [rad/px] along y and x."""
        return self.wave_y[:, None], self.wave_x[None, :]

    def _coefficients(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary coefficients (..., Y, X) from the perceptron's output."""
        c = output.unflatten(-1, (2, self.rows, self.columns)) * self.fade
        return c.select(-3, 0), c.select(-3, 1)

    def _phase(self, shift: Tensor) -> Tensor:
        return (shift[:, :1] * self.wave_y)[:, :, None] + (shift[:, 1:] * self.wave_x)[:, None, :]

    def _evaluate(self, c: tuple[Tensor, Tensor]) -> Tensor:
        """Sum the series on the pixels, (..., Y, X) to (..., P, P)."""
        # Waves along +y and -y together are products of cosines and sines: real, half as many.
        zero = self.columns - 1  # row of the wave that is constant along y
        (a, b), (u, v) = ((one[..., zero:, :], one[..., : zero + 1, :].flip(-2)) for one in c)
        even = torch.cat([a + b, -(u + v)], -1)  # (..., Y', 2 X)
        odd = torch.cat([v - u, b - a], -1)
        return self.basis_y @ (torch.cat([even, odd], -2) @ self.basis_x)

    def _turned(self, series: list[tuple[Tensor, Tensor]], shift: Tensor, turn: Tensor) -> Tensor:

        plain = torch.stack(torch.broadcast_tensors(*self.waves)).flatten(1)[:, self.kept]
        wave = rotation_matrix(turn[:, 0]) @ plain * torch.exp(-turn[:, 1])[:, None, None]
        angle = wave[..., None] * (self.pixel - shift[..., None])[:, :, None]  # (B, 2, K, P)
        cos, sin = torch.cos(angle), torch.sin(angle)
        real, imag = (  # each (B, S, K, 1)
            torch.stack([c[part].flatten(1)[:, self.kept] for c in series], 1)[..., None]
            for part in (0, 1)
        )
        cos_y, sin_y = cos[:, None, 0], sin[:, None, 0]
        left = torch.cat([real * cos_y - imag * sin_y, -real * sin_y - imag * cos_y], 2)
        right = torch.cat([cos[:, 1], sin[:, 1]], 1)  # (B, 2 K, P)
        rows = left.permute(0, 1, 3, 2).flatten(1, 2)  # (B, S P, 2 K)
        turned: Tensor = (rows @ right).unflatten(1, (len(series), self.size))
        return turned

    def on_basis(self, basis: Tensor) -> FourierDecoder:
        """Make a decoder of the same weights that draws projections on the columns of (P, Q)."""
        other = FourierDecoder(self.config)
        other.net = self.net
        for name, buffer in self.named_buffers(recurse=False):
            setattr(other, name, buffer)
        other.basis_y, other.basis_x = basis.T @ self.basis_y, self.basis_x @ basis
        return other

    @property
    def share(self) -> Tensor:
        """One over the sum of squares of each wave in the box, (2, Y, X)."""
        share = torch.full_like(self.fade, 2 / math.ceil(self.box_factor * self.size) ** 2)
        share[:, 0] /= 2  # waves along +y and -y are the same there
        return share.expand(2, -1, -1)

    @property
    def coefficients_in_view(self) -> float:
        """How many independent coefficients the pixels of a window tell."""
        return 0.5 * self.size**2 * float((self.share * (self.fade > 0)).sum())

    def hidden(self, z: Tensor) -> Tensor:
        """What the output layer sees of contents (B, K + C), and ones for its bias, (B, H + 1)."""
        seen: Tensor = self.net[:-1](z)
        return torch.cat([seen, torch.ones_like(seen[:, :1])], 1)

    def slope_of_output(
        self, z: Tensor, shift: Tensor, turn: Tensor | None, x: Tensor, counts: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Where the coefficients should go so that patterns come nearer to windows (B, P, P).

        Returns
        -------
        hidden : (B, H + 1) tensor
            What the output layer sees, and ones for its bias.
        slope : (B, F) tensor
            Slope of half the sum of squares, of the pixels that count, by each, downwards.
        """
        hidden = self.hidden(z)
        with torch.enable_grad():
            output = self.net[-1](hidden[:, :-1])
            c = [part.detach().requires_grad_() for part in self._coefficients(output)]
            pattern = self._summed((c[0], c[1]), shift, turn)
            residual = x - pattern if counts is None else (x - pattern) * counts
            half = 0.5 * residual.square().sum()
            slope = -torch.stack(torch.autograd.grad(half, c), 1)
        return hidden, slope.flatten(1)

    def add_to_output(self, change: Tensor) -> None:
        """Let coefficients change by the hidden features times a matrix (H + 1, F)."""
        fade = self.fade.expand(2, *self.fade.shape).flatten()
        change = torch.where(fade > 0, change / fade.clamp(min=1e-9), 0.0)
        weight, bias = self.net[-1].parameters()
        with torch.no_grad():
            weight.add_(change[:-1].T)
            bias.add_(change[-1])
