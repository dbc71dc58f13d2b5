"""What the model learns from: windows of an image, or spectra; both look like this."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from napari_shiftvae.core.model import ShiftVAE


class Windows(Protocol):
    """N windows of shape W with D axes, read batch by batch.

    Attributes
    ----------
    remainder_yx_px : (N, D) array
        Where the prior of the shift is centred, from the centre of each window [px].
    offset, scale : (N,) arrays
        Values are handed out as ``(value - offset) / scale``.
    weight : tensor or None
        Weight of each window in the likelihood, (N, 1 ...); None where all are alike. The variance
        of the noise is that of the model over this.
    given : tensor or None
        Given class of each window, (N, C), 1 in the column of its own; None where there are none.
    """

    @property
    def remainder_yx_px(self) -> NDArray[np.float64]: ...  # noqa: D102
    @property
    def offset(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def scale(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def weight(self) -> torch.Tensor | None: ...  # noqa: D102
    @property
    def given(self) -> torch.Tensor | None: ...  # noqa: D102
    def __len__(self) -> int: ...
    def weigh(self, rows: torch.Tensor) -> torch.Tensor | None:
        """Weights of some windows, (B, 1 ...), or (B, *W) bool: whether a value counts at all."""
        ...

    def gather(self, rows: ArrayLike | slice = ...) -> torch.Tensor:
        """Copy the normalised values of some windows, (B, *W)."""
        ...

    def beyond(self, rows: torch.Tensor) -> torch.Tensor | None:
        """Sum of squares (B,) of what windows hold beyond these values; None for nothing."""
        ...


def prior_centre(model: ShiftVAE, patches: Windows) -> torch.Tensor:
    """Centres (N, A) of the pose's prior: the picks, unrotated and in the common scale."""
    centre = torch.zeros(len(patches), model.config.pose_dim)
    count = model.config.shift_dim
    centre[:, :count] = torch.from_numpy(patches.remainder_yx_px)[:, :count]
    return centre
