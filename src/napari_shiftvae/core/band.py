"""Windows in the few numbers that a band-limited decoder can change.

The waves that a Fourier decoder is made of span a small part of all there is on the pixels of a
window. What lies outside of it is noise to the decoder, the same whatever it draws: its square is a
constant of the sum of squares. So windows are projected once, on an orthonormal basis along each
axis, and everything that compares patterns with them goes on with a third of the numbers, and gives
the same result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from napari_shiftvae.core.fourier_decoder import FourierDecoder
from napari_shiftvae.core.model import ShiftVAE
from napari_shiftvae.core.windows import Windows

__all__ = ["InBand", "in_band"]

FAINTEST = 1e-4  # of the most that a wave shows on the pixels: what shows less is left out
WORTH = 0.6  # of the pixels: with more numbers than this, nothing is gained
MOST_KEPT_MB = 128  # of projected windows; of more, each is projected when it is asked for
PIECE = 512  # windows


@dataclass(frozen=True, kw_only=True, eq=False)
class InBand:
    """Windows of an image, projected on Q waves along each axis.

    Attributes
    ----------
    windows : Windows
        N of P x P pixels, which all count alike.
    basis : (P, Q) tensor
        Orthonormal columns.
    kept : (N, Q, Q) tensor or None
        Of all windows, where these are few enough.
    left_out : (N,) tensor or None
        Sum of squares of what lies outside, of the same.
    """

    windows: Windows
    basis: Tensor
    kept: Tensor | None = None
    left_out: Tensor | None = None

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def remainder_yx_px(self) -> NDArray[np.float64]:
        """As of the windows."""
        return self.windows.remainder_yx_px

    @property
    def offset(self) -> NDArray[np.float32]:
        """As of the windows."""
        return self.windows.offset

    @property
    def scale(self) -> NDArray[np.float32]:
        """As of the windows."""
        return self.windows.scale

    @property
    def weight(self) -> None:
        """All pixels count alike."""
        return

    @property
    def given(self) -> Tensor | None:
        """As of the windows."""
        return self.windows.given

    def weigh(self, rows: Tensor) -> None:
        """All pixels count alike."""

    def gather(self, rows: ArrayLike | slice = slice(None)) -> Tensor:
        """Projections of some windows, (B, Q, Q)."""
        if self.kept is None:
            return self._projected(rows)[0]
        return self.kept[rows if isinstance(rows, slice) else torch.as_tensor(rows)]

    def beyond(self, rows: Tensor) -> Tensor:
        """Sum of squares (B,) of what lies outside of the projections of some windows."""
        if self.left_out is None:
            return self._projected(rows.numpy())[1]
        return self.left_out[rows]

    def _projected(self, rows: ArrayLike | slice) -> tuple[Tensor, Tensor]:
        pixels = self.windows.gather(rows).to(self.basis.device)
        inside = self.basis.T @ pixels @ self.basis
        outside = pixels - self.basis @ inside @ self.basis.T
        return inside, outside.square().sum(dim=(1, 2))

    def all_kept(self) -> InBand:
        """Project all windows at once, if they are few enough."""
        count, waves = len(self), self.basis.shape[1]
        if 4e-6 * count * waves**2 > MOST_KEPT_MB:
            return self
        pieces = [self._projected(rows.numpy()) for rows in torch.arange(count).split(PIECE)]
        kept, left_out = (torch.cat(part) for part in zip(*pieces, strict=True))
        return InBand(windows=self.windows, basis=self.basis, kept=kept, left_out=left_out)


class _Pooled(nn.Module):
    """Projections (B, 1, Q, Q) to means of blocks of pixels, (B, 1, P / n, P / n)."""

    def __init__(self, basis: Tensor, block: int) -> None:
        super().__init__()
        whole = len(basis) // block * block
        self.along: Tensor
        self.register_buffer("along", basis[:whole].unflatten(0, (-1, block)).mean(dim=1))

    def forward(self, seen: Tensor) -> Tensor:
        return self.along @ seen @ self.along.T


def in_band(model: ShiftVAE, windows: Windows) -> tuple[ShiftVAE, Windows]:
    """Project windows on the waves of a model, and let the model see and draw projections.

    Parameters
    ----------
    model : ShiftVAE
    windows : Windows

    Returns
    -------
    model : ShiftVAE
        With the weights and buffers of the given one, not copies: what changes these changes both.
    windows : Windows
        The two as they are given, where nothing would be gained: where patterns are turned or
        magnified, pixels are masked or windows have weights, or the decoder is another.
    """
    decoder, config = model.decoder, model.config
    plain = isinstance(decoder, FourierDecoder) and config.pose_dim == config.shift_dim
    alike = windows.weight is None and getattr(windows, "masked", None) is None
    if not (isinstance(decoder, FourierDecoder) and plain and alike):
        return model, windows
    waves = decoder.basis_x.double().cpu()  # (2 X, P)
    _, strength, basis = torch.linalg.svd(waves, full_matrices=False)
    basis = basis[strength > FAINTEST * strength[0]].T.to(decoder.basis_x)  # (P, Q)
    if basis.shape[1] ** 2 > WORTH * config.patch_size_px**2:
        return model, windows
    seen = ShiftVAE(config)
    _, flatten, network = model.encoder
    seen.encoder = nn.Sequential(_Pooled(basis, model.binning), flatten, network)
    seen.decoder = decoder.on_basis(basis)
    for name, buffer in model.named_buffers(recurse=False):
        setattr(seen, name, buffer)
    seen.classes = model.classes
    return seen.train(model.training), InBand(windows=windows, basis=basis).all_kept()
