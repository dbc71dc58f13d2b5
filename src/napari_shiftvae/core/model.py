"""The shift-VAE: an encoder, and a decoder in which the pose is exact."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from napari_shiftvae.core.classes import ClassPrior
from napari_shiftvae.core.coordinate_decoder import CoordinateDecoder
from napari_shiftvae.core.decoders import Linearised, perceptron, pixel_grid
from napari_shiftvae.core.fourier_decoder import FourierDecoder, FourierLine
from napari_shiftvae.core.model_config import DecoderKind, Invariance, ModelConfig

__all__ = ["DecoderKind", "Encoded", "Invariance", "Linearised", "ModelConfig", "ShiftVAE"]


FEWEST_PIXELS = 256


class Encoded(NamedTuple):
    """Means and logarithms of standard deviations of the approximate posterior."""

    pose: Tensor  # (B, A): shift from the window's centre [px], rotation [rad], log scale
    z: Tensor  # (B, K)
    log_sd_pose: Tensor  # (B, A)
    log_sd_z: Tensor  # (B, K)


class ShiftVAE(nn.Module):
    """Variational autoencoder invariant to shift, and if wanted to rotation and scale.

    Patch ``x(r) = D(z)(r - s) + noise``, with ``z ~ N(0, 1)``, ``s ~ N(0, shift_prior_px)`` and
    Gaussian noise of learned variance (M. Ziatdinov, C. Y. Wong, S. V. Kalinin,
    arXiv:2106.12472). Shifts here are those of the pattern from the window's centre. The *pose*
    (A parameters) holds the invariances of the configuration in this order: shift (y, x) [px],
    rotation [rad], logarithm of the scale; rotation and scale are about the pattern's own origin,
    ``x(r) = D(z)(exp(-l) R(-a) (r - s))``. Where classes are given with the windows, encoder and
    decoder know them, and each class has its own gauge: the *content* of a window is its latents,
    followed by one column for each class, 1 in that of its own.

    Parameters
    ----------
    config : ModelConfig
    generator : torch.Generator, optional
        Source of the initial weights.

    Examples
    --------
    >>> model = ShiftVAE(ModelConfig(patch_size_px=16, separation_px=8))
    >>> model.decode(torch.zeros(3, 2)).shape
    torch.Size([3, 16, 16])
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        latents = config.latent_dim
        # The pattern is band-limited, so the encoder loses nothing by reading pixels two by two.
        self.binning = 2 if config.patch_size_px >= 16 else 1
        pool = nn.AvgPool2d if config.dimensions == 2 else nn.AvgPool1d
        inputs = (config.patch_size_px // self.binning) ** config.dimensions
        self.encoder = nn.Sequential(
            pool(self.binning),
            nn.Flatten(),
            perceptron(inputs + len(config.given), config.hidden, 2 * (config.pose_dim + latents)),
        )
        fourier = FourierDecoder if config.dimensions == 2 else FourierLine
        self.decoder: FourierLine | FourierDecoder | CoordinateDecoder = (
            fourier(config) if config.decoder == "fourier" else CoordinateDecoder(config)
        )
        self.variance: Tensor
        self.gauge: Tensor
        self.pose_prior: Tensor
        self.grid: Tensor
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("gauge", torch.eye(latents))  # orthogonal: axes of the latents
        self.register_buffer("pose_prior", torch.tensor(config.pose_priors), persistent=False)
        self.register_buffer("grid", pixel_grid(config.window), persistent=False)
        # Set by gauge.fix_gauge: mean pattern, its central feature [px], maximum or minimum. Of
        # each given class, where there are some.
        self.template: Tensor
        self.origin: Tensor
        self.polarity: Tensor
        each = (len(config.given),) if config.given else ()
        self.register_buffer("template", torch.zeros(*each, *config.window))
        self.register_buffer("origin", torch.zeros(*each, config.dimensions))
        self.register_buffer("polarity", torch.ones(()))
        if turns := config.pose_dim - config.shift_dim:
            self.mean_turn: Tensor  # rotation [rad], log scale of the patches it was trained on
            self.register_buffer("mean_turn", torch.zeros(*each, turns))
        self.classes = ClassPrior(config.classes, latents) if config.classes else None
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

    def encode(self, patches: Tensor, given: Tensor | None = None) -> Encoded:
        """Approximate posterior of normalised windows (B, *W), of given classes (B, C)."""
        *binned, network = self.encoder
        seen = patches[:, None]
        for layer in binned:
            seen = layer(seen)
        if given is not None:
            seen = torch.cat([seen, given], dim=1)
        mean, log_sd = network(seen).chunk(2, dim=1)
        log_sd = log_sd.clamp(-8.0, 3.0) - 2.0  # starts narrow, so that the mean is learned first
        pose = self.config.pose_dim
        return Encoded(
            mean[:, :pose] * self.pose_prior,
            mean[:, pose:] @ self.gauge,
            log_sd[:, :pose] + self.pose_prior.log(),
            0.5 * ((2 * log_sd[:, pose:]).exp() @ self.gauge.square()).log(),
        )

    def placed(self, pose: Tensor) -> tuple[Tensor, Tensor | None]:
        """Shift (B, D) [px], and rotation [rad] and log scale (B, 2) or None, of poses (B, A)."""
        config, count = self.config, self.config.shift_dim
        shift = pose[:, :count] if count else pose.new_zeros(len(pose), config.dimensions)
        if config.pose_dim == count:
            return shift, None
        return shift, self.turn(pose[:, count:])

    def turn(self, values: Tensor) -> Tensor:
        """Rotation [rad] and log scale (B, 2) from those of them that the model has, (B, T)."""
        zero = torch.zeros_like(values[:, 0])
        rotation = values[:, 0] if "rotation" in self.config.invariances else zero
        scale = values[:, -1] if "scale" in self.config.invariances else zero
        return torch.stack([rotation, scale], 1)

    def given_class(self, content: Tensor) -> Tensor:
        """Number (B,) of the given class of each content; the first where it is not told."""
        told = content[:, self.config.latent_dim :]
        return told.argmax(dim=1) if told.shape[1] else told.new_zeros(len(told)).long()

    def of_class(self, values: Tensor, content: Tensor) -> Tensor:
        """Choose for each content (B, ...) what belongs to its class, of the buffers of gauges."""
        if not self.config.given:
            return values.expand(len(content), *values.shape)
        return values[self.given_class(content)]

    def as_decoded(self, content: Tensor) -> Tensor:
        """Contents (B, K + C), or latents (B, K) of the first class, as the decoder has them."""
        z = content[:, : self.config.latent_dim] @ self.gauge.T
        if not self.config.given:
            return z
        told = nn.functional.one_hot(self.given_class(content), len(self.config.given))
        return torch.cat([z, told.to(z)], dim=1)

    def decode(self, z: Tensor, pose: Tensor | None = None) -> Tensor:
        """Normalised windows (B, *W) of contents and of poses (B, A), by default all zero."""
        if pose is None:
            pose = z.new_zeros(len(z), self.config.pose_dim)
        pattern: Tensor = self.decoder(self.as_decoded(z), *self.placed(pose))
        return pattern

    def residual(
        self, z: Tensor, pose: Tensor, patches: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | slice]:
        """Decoded minus given windows (B, M), at the M pixels that a step of training looks at.

        The coordinate decoder pays for each pixel, and an eighth of them, drawn anew for every
        step, tells the slope of the loss as well as all do, without bias.
        """
        flat = patches.flatten(1)
        pixels = flat.shape[1]
        looked_at = max(FEWEST_PIXELS, pixels // 8)
        if isinstance(self.decoder, CoordinateDecoder) and looked_at < pixels:
            order = torch.randperm(pixels, generator=generator, device=flat.device)
            some = order[:looked_at]
            found = self.decoder.at_pixels(some, self.as_decoded(z), *self.placed(pose))
            return found - flat[:, some], some
        return self.decode(z, pose).flatten(1) - flat, slice(None)

    def linearise(self, z: Tensor, pose: Tensor, *, latents: bool = True) -> Linearised:
        """Return decoded windows and their derivatives by pose and, if wanted, by latents."""
        shift, turn = self.placed(pose)
        found = self.linearise_at(z, shift, turn, latents=latents)
        by_pose = found.by_pose if self.config.shift_dim else found.by_pose[:, :0]
        if turn is not None:
            by_pose = torch.cat([by_pose, self.by_turn(found.by_pose, shift)], 1)
        return found._replace(by_pose=by_pose)

    def linearise_at(
        self, z: Tensor, shift: Tensor, turn: Tensor | None = None, *, latents: bool = True
    ) -> Linearised:
        """Return the same for any shift (B, D), with the derivatives by that alone."""
        pattern, by_shift, by_latent = self.decoder.linearise(
            self.as_decoded(z), shift, turn, latents=latents
        )
        if latents:
            by_latent = torch.einsum("bk...,kl->bl...", by_latent, self.gauge)
        return Linearised(pattern, by_shift, by_latent)

    def by_turn(self, by_shift: Tensor, shift: Tensor) -> Tensor:
        """Derivatives by rotation and log scale, those in use, from the ones by shift.

        Turning by a small angle moves the pixel at ``(y, x)`` from the pattern's origin by
        ``(x, -y)`` times that, magnifying it by ``(y, x)``.
        """
        away = (self.grid - shift[:, None, None]).movedim(-1, 1)  # (B, 2, P, P)
        by = []
        if "rotation" in self.config.invariances:
            by.append(by_shift[:, 0] * away[:, 1] - by_shift[:, 1] * away[:, 0])
        if "scale" in self.config.invariances:
            by.append((by_shift * away).sum(dim=1))
        return torch.stack(by, 1)
