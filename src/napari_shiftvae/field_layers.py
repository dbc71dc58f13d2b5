"""Fields of a run to the looks of napari layers. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_shiftvae.layers import LATENT_COLORMAP, arrow_colormap, latent_limits

if TYPE_CHECKING:
    from napari.utils.colormaps import Colormap
    from numpy.typing import NDArray

    from napari_shiftvae.core.readout import Scalar, VectorField

ANGLE_COLORMAP = "hsv"
SIGNED_COLORMAP = "PuOr"  # diverging, and told apart by colour-blind people
NOISE_SD = 2.0


@dataclass(frozen=True, kw_only=True)
class Look:
    """How arrows are drawn.

    Attributes
    ----------
    gain : float
        How many times longer than in the image.
    by_angle : bool
        Whether colour tells the angle instead of the length.
    hide_noise : bool
        Whether arrows below twice their standard deviation are left out.
    """

    gain: float
    by_angle: bool = False
    hide_noise: bool = False


def shown_rows(field: VectorField, look: Look) -> NDArray[np.int64]:
    """Rows of the atoms whose arrows are drawn."""
    from napari_shiftvae.core.displacement import significance

    known = np.isfinite(field.yx_px).all(axis=1)
    if look.hide_noise:
        with np.errstate(invalid="ignore"):
            known &= significance(field.yx_px, field.sd_yx_px) >= NOISE_SD
    return np.flatnonzero(known)


def vectors_look(field: VectorField, look: Look) -> dict[str, Any]:
    """Attributes of a Vectors layer that shows a field: data, features, colours."""
    rows = shown_rows(field, look)
    vectors = field.yx_px[rows]
    length = np.linalg.norm(vectors, axis=1)
    angle = np.rad2deg(np.arctan2(vectors[:, 0], vectors[:, 1]))
    features = {"length_px": length, "angle_degree": angle}
    if not look.by_angle:
        colour, colormap, limits = "length_px", arrow_colormap(), (0.0, longest(field))
    else:
        colour, colormap, limits = "angle_degree", ANGLE_COLORMAP, (-180.0, 180.0)
    return {
        "data": np.stack([field.start_yx[rows], vectors], axis=1),
        "features": features,
        "edge_colormap": colormap,
        "edge_contrast_limits": limits,
        "edge_color": colour,
        "length": look.gain,
    }


def longest(field: VectorField) -> float:
    """Upper end of the arrows' colour scale [px]: the 99th percentile of their lengths."""
    length = np.linalg.norm(field.yx_px, axis=1)
    length = length[np.isfinite(length)]
    return max(1e-9, float(np.percentile(length, 99))) if len(length) else 1.0


def limits(scalar: Scalar) -> tuple[float, float]:
    """Limits of a scale of colours, zero in the middle of signed ones."""
    if not scalar.signed:
        return latent_limits(scalar.values)
    size = np.abs(scalar.values[np.isfinite(scalar.values)])
    most = float(np.percentile(size, 99)) if len(size) else 1.0
    return -max(most, 1e-12), max(most, 1e-12)


def colormap(scalar: Scalar) -> str | Colormap:
    """Colour map of a scalar: diverging for signed ones."""
    return SIGNED_COLORMAP if scalar.signed else LATENT_COLORMAP


def map_look(scalar: Scalar) -> dict[str, Any]:
    """Attributes of an Image layer that shows a scalar as a map."""
    return {"colormap": colormap(scalar), "contrast_limits": limits(scalar)}
