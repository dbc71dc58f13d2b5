"""The layers of an analysis of spectra. No Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_shiftvae import layers as to_layers
from napari_shiftvae.core.palettes import DIVERGING
from napari_shiftvae.layers import RUN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.types import LayerDataTuple

    from napari_shiftvae.core.spectra_run import SpectraRun


def spectra_layers(run: SpectraRun, name: str, place: Mapping[str, Any]) -> list[LayerDataTuple]:
    """Maps of an analysis of spectra as Image layers, of which the first is visible."""
    unit = run.image.axis_unit
    signed_colormap = to_layers.as_colormap("signed", DIVERGING)
    made = []
    for number, (column, values) in enumerate(run.maps.items()):
        title = f"{column} ({unit})" if unit and column == "shift" else column
        signed = column == "shift"
        size = float(np.nanpercentile(np.abs(values), 99)) or 1.0
        look = {
            "name": f"{name} {title}",
            "colormap": signed_colormap if signed else to_layers.LATENT_COLORMAP,
            "contrast_limits": (-size, size) if signed else to_layers.latent_limits(values),
            "visible": number == 0,
            "metadata": {RUN: run, "latent": column},
        }
        made.append((values, {**look, **place}, "image"))
    return made
