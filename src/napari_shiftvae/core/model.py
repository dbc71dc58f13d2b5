"""The shift-VAE: an encoder, and a decoder in which the shift is exact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from napari_shiftvae.core.errors import InputError

DecoderKind = Literal["fourier", "coordinate"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that fixes the architecture and the priors.

    Parameters
    ----------
    patch_size_px : int
        Side of the windows [px].
    separation_px : float
        Distance between neighbouring features [px]; bounds the region of the central atom.
    latent_dim : int
        Number of content latents.
    shift_prior_px : float
        Standard deviation of the shift's prior [px].
    decoder : {"fourier", "coordinate"}
        Band-limited Fourier series, or a network on pixel coordinates as in arXiv:2106.12472.
    band_limit : float
        Highest spatial frequency the Fourier decoder can make [cycles/px].
    hidden : int
        Width of the hidden layers.
    """

    patch_size_px: int
    separation_px: float
    latent_dim: int = 2
    shift_prior_px: float = 2.0
    decoder: DecoderKind = "fourier"
    band_limit: float = 0.2
    hidden: int = 128

    def __post_init__(self) -> None:
        for name, low, high in (
            ("patch_size_px", 6, 1024),
            ("separation_px", 1, 1024),
            ("latent_dim", 1, 16),
            ("shift_prior_px", 1e-3, 1024),
            ("band_limit", 0.01, 0.5),
            ("hidden", 1, 4096),
        ):
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"{name} is {getattr(self, name)}: choose one from {low} to {high}."
                )
        if self.decoder not in ("fourier", "coordinate"):
            raise InputError(f"decoder is {self.decoder!r}: choose 'fourier' or 'coordinate'.")


class Linearised(NamedTuple):
    """A decoded batch and its derivatives."""

    pattern: Tensor  # (B, P, P)
    by_shift: Tensor  # (B, 2, P, P), per pixel of shift (y, x)
    by_latent: Tensor  # (B, K, P, P)


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.SiLU(),
        nn.Linear(hidden, hidden),
        nn.SiLU(),
        nn.Linear(hidden, outputs),
    )


def _forward(net: nn.Sequential, value: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
    """Output of a network at a value, and its derivatives along tangents.

    By hand: the first forward-mode derivative of `torch.func` compiles for more than a second.
    """
    for layer in net:
        if isinstance(layer, nn.Linear):
            value, tangent = layer(value), tangent @ layer.weight.T
        elif isinstance(layer, nn.SiLU):
            gate = torch.sigmoid(value)
            tangent = tangent * (gate * (1 + value * (1 - gate)))
            value = value * gate
        else:
            value = torch.tanh(value)
            tangent = tangent * (1 - value.square())
    return value, tangent


def _latent_derivatives(net: nn.Sequential, z: Tensor) -> tuple[Tensor, Tensor]:
    """Output (B, F) of a network and its derivatives (K, B, F) by each latent."""
    directions = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    return _forward(net, z, directions[:, None].expand(-1, len(z), -1))


class FourierDecoder(nn.Module):
    """Latents to a band-limited pattern; a shift is a phase, so it is exact.

    A perceptron makes the coefficients of a Fourier series on a box 1.5 times the window, so that
    nothing wraps into view; two small matrix products evaluate it on the pixels. The series holds
    no frequency above ``band_limit`` (the probe transmits none) and fades towards it.
    """

    box_factor = 1.5

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = config.patch_size_px
        box = math.ceil(self.box_factor * size)
        top = max(2, math.floor(config.band_limit * box))
        ky = torch.arange(-top, top + 1.0)
        kx = torch.arange(0.0, top + 1.0)  # a real pattern needs half the plane only
        self.rows, self.columns, self.size = len(ky), len(kx), size
        self.net = _perceptron(config.latent_dim, config.hidden, 2 * self.rows * self.columns)
        step = 2 * math.pi / box
        pixel = torch.arange(size) - (size - 1) / 2
        radius = torch.hypot(ky[:, None], kx[None, :]) / top
        self.wave_y: Tensor
        self.wave_x: Tensor
        self.fade: Tensor
        self.basis_y: Tensor
        self.basis_x: Tensor
        self.register_buffer("wave_y", step * ky, persistent=False)
        self.register_buffer("wave_x", step * kx, persistent=False)
        self.register_buffer(
            "fade", 0.1 * torch.exp(-2 * radius**2) * (radius <= 1.001), persistent=False
        )
        cos_y, sin_y = torch.cos(step * ky[:, None] * pixel), torch.sin(step * ky[:, None] * pixel)
        cos_x, sin_x = torch.cos(step * kx[:, None] * pixel), torch.sin(step * kx[:, None] * pixel)
        basis_x = torch.cat([torch.cat([cos_x, sin_x], 1), torch.cat([-sin_x, cos_x], 1)])
        basis_y = torch.stack([cos_y, -sin_y], 1).reshape(-1, size).T
        self.register_buffer("basis_x", basis_x, persistent=False)  # (2 X, 2 P)
        self.register_buffer("basis_y", basis_y.contiguous(), persistent=False)  # (P, 2 Y)

    def _coefficients(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Real and imaginary coefficients (..., Y, X) from the perceptron's output."""
        c = output.unflatten(-1, (2, self.rows, self.columns)) * self.fade
        return c.select(-3, 0), c.select(-3, 1)

    def _turned(self, c: tuple[Tensor, Tensor], shift: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply coefficients by ``exp(-i k.shift)``."""
        phase = (shift[:, :1] * self.wave_y)[:, :, None] + (shift[:, 1:] * self.wave_x)[:, None, :]
        cos, sin = torch.cos(phase), torch.sin(phase)  # (B, Y, X)
        return c[0] * cos + c[1] * sin, c[1] * cos - c[0] * sin

    def _evaluate(self, c: tuple[Tensor, Tensor]) -> Tensor:
        """Sum the series on the pixels, (..., Y, X) to (..., P, P)."""
        along_x = torch.cat(c, -1) @ self.basis_x  # (..., Y, 2 P): real, imaginary
        stacked = along_x.reshape(*along_x.shape[:-2], 2 * self.rows, self.size)
        return self.basis_y @ stacked

    def forward(self, z: Tensor, shift: Tensor) -> Tensor:
        """Patterns (B, P, P) of latents (B, K), moved by shifts (B, 2) [px]."""
        return self._evaluate(self._turned(self._coefficients(self.net(z)), shift))

    def linearise(self, z: Tensor, shift: Tensor, *, latents: bool = True) -> Linearised:
        """Return the patterns with their derivatives by shift and, if wanted, by latents."""
        output, by_z = _latent_derivatives(self.net, z) if latents else (self.net(z), ())
        real, imag = self._turned(self._coefficients(output), shift)
        waves = (self.wave_y[:, None], self.wave_x[None, :])
        series = [(real, imag)]
        series += [(imag * wave, -real * wave) for wave in waves]  # times -i k
        series += [self._turned(self._coefficients(column), shift) for column in by_z]
        pattern, *by = (self._evaluate(c) for c in series)
        by_latent = torch.stack(by[2:], 1) if latents else pattern[:, None][:, :0]
        return Linearised(pattern, torch.stack(by[:2], 1), by_latent)


class CoordinateDecoder(nn.Module):
    """Pixel coordinates minus shift, and latents, through a network (arXiv:2106.12472)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size = config.patch_size_px
        pixel = torch.arange(size) - (size - 1) / 2
        # Coordinates in a unit that gives features of atomic size from the start.
        self.size, self.unit = size, size / 12
        self.grid: Tensor
        self.register_buffer(
            "grid", torch.cartesian_prod(pixel, pixel) / self.unit, persistent=False
        )
        self.from_points = nn.Linear(2, config.hidden)
        self.from_latents = nn.Linear(config.latent_dim, config.hidden, bias=False)
        self.net = nn.Sequential(
            nn.Tanh(),
            nn.Linear(config.hidden, config.hidden),
            nn.Tanh(),
            nn.Linear(config.hidden, config.hidden),
            nn.Tanh(),
            nn.Linear(config.hidden, 1),
        )

    def _through(self, z: Tensor, points: Tensor) -> Tensor:
        """Values (B, M) at points (B, M, 2) in the decoder's unit."""
        hidden = self.from_points(points) + self.from_latents(z)[:, None]
        values: Tensor = self.net(hidden)
        return values[..., 0]

    def forward(self, z: Tensor, shift: Tensor) -> Tensor:
        """Patterns (B, P, P) of latents (B, K), moved by shifts (B, 2) [px]."""
        points = self.grid - shift[:, None] / self.unit
        pattern: Tensor = self._through(z, points).unflatten(1, (self.size, self.size))
        return pattern

    def linearise(self, z: Tensor, shift: Tensor, *, latents: bool = True) -> Linearised:
        """Return the patterns with their derivatives by shift and, if wanted, by latents."""
        points = self.grid - shift[:, None] / self.unit
        hidden = self.from_points(points) + self.from_latents(z)[:, None]
        directions = [*(-self.from_points.weight.T / self.unit)]
        directions += [*self.from_latents.weight.T] if latents else []
        # One by one: the hidden values of all pixels are large.
        series = [_forward(self.net, hidden, along) for along in directions]
        shape = (self.size, self.size)
        pattern = series[0][0][..., 0].unflatten(1, shape)
        by = torch.stack([tangent[..., 0] for _, tangent in series], 1).unflatten(2, shape)
        return Linearised(pattern, by[:, :2], by[:, 2:])


class Encoded(NamedTuple):
    """Means and logarithms of standard deviations of the approximate posterior."""

    shift: Tensor  # (B, 2), pixels from the window's centre
    z: Tensor  # (B, K)
    log_sd_shift: Tensor  # (B, 2), of pixels
    log_sd_z: Tensor  # (B, K)


class ShiftVAE(nn.Module):
    """Shift-invariant variational autoencoder.

    Patch ``x(r) = D(z)(r - s) + noise``, with ``z ~ N(0, 1)``, ``s ~ N(0, shift_prior_px)`` and
    Gaussian noise of learned variance (M. Ziatdinov, C. Y. Wong, S. V. Kalinin,
    arXiv:2106.12472). Shifts here are those of the pattern from the window's centre.

    Parameters
    ----------
    config : ModelConfig
    generator : torch.Generator, optional
        Source of the initial weights.

    Examples
    --------
    >>> model = ShiftVAE(ModelConfig(patch_size_px=16, separation_px=8))
    >>> model.decode(torch.zeros(3, 2), torch.zeros(3, 2)).shape
    torch.Size([3, 16, 16])
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        latents = config.latent_dim
        # The pattern is band-limited, so the encoder loses nothing by reading pixels two by two.
        self.binning = 2 if config.patch_size_px >= 16 else 1
        side = config.patch_size_px // self.binning
        self.encoder = nn.Sequential(
            nn.AvgPool2d(self.binning),
            nn.Flatten(),
            _perceptron(side * side, config.hidden, 2 * (2 + latents)),
        )
        self.decoder: FourierDecoder | CoordinateDecoder = (
            FourierDecoder(config) if config.decoder == "fourier" else CoordinateDecoder(config)
        )
        self.variance: Tensor
        self.gauge: Tensor
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("gauge", torch.eye(latents))  # signed permutation of the latents
        # Set by gauge.fix_gauge: mean pattern, its central feature [px], maximum or minimum.
        self.template: Tensor
        self.origin: Tensor
        self.polarity: Tensor
        self.register_buffer("template", torch.zeros(config.patch_size_px, config.patch_size_px))
        self.register_buffer("origin", torch.zeros(2))
        self.register_buffer("polarity", torch.ones(()))
        if generator is not None:
            self._initialise(generator)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                layer.weight.uniform_(-bound, bound, generator=generator)
                if layer.bias is not None:
                    layer.bias.uniform_(-bound, bound, generator=generator)

    def encode(self, patches: Tensor) -> Encoded:
        """Approximate posterior of normalised patches (B, P, P)."""
        mean, log_sd = self.encoder(patches[:, None]).chunk(2, dim=1)
        log_sd = log_sd.clamp(-8.0, 3.0) - 2.0  # starts narrow, so that the mean is learned first
        prior = self.config.shift_prior_px
        return Encoded(
            mean[:, :2] * prior,
            mean[:, 2:] @ self.gauge,
            log_sd[:, :2] + math.log(prior),
            log_sd[:, 2:] @ self.gauge.abs(),
        )

    def decode(self, z: Tensor, shift: Tensor) -> Tensor:
        """Normalised patches (B, P, P) of latents (B, K) and shifts (B, 2) [px]."""
        pattern: Tensor = self.decoder(z @ self.gauge.T, shift)
        return pattern

    def linearise(self, z: Tensor, shift: Tensor, *, latents: bool = True) -> Linearised:
        """Return decoded patches and their derivatives by shift and, if wanted, by latents."""
        pattern, by_shift, by_latent = self.decoder.linearise(
            z @ self.gauge.T, shift, latents=latents
        )
        if latents:
            by_latent = torch.einsum("bkij,kl->blij", by_latent, self.gauge)
        return Linearised(pattern, by_shift, by_latent)
