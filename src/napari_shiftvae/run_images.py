"""Which image layers there are to analyse, and which of them a run is of. No Qt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from napari.layers import Image

from napari_shiftvae.layers import RUN
from napari_shiftvae.placement import FILE

if TYPE_CHECKING:
    import napari

    from napari_shiftvae.core.images import MicroscopeImage
    from napari_shiftvae.core.runs import Run


def image_layers(viewer: napari.viewer.Viewer) -> Iterator[Image]:
    """Image layers that can be analysed: not those made by an analysis."""
    for layer in viewer.layers:
        if isinstance(layer, Image) and RUN not in layer.metadata:
            yield layer


def image_of(viewer: napari.viewer.Viewer, run: Run, chosen: Image | None) -> Image | None:
    """Find the image of a run among the layers: the chosen one, or another with its pixels."""
    from napari_shiftvae.core.images import checksum

    shape, dtype = tuple(run.image.shape), run.image.dtype
    there = [one for one in image_layers(viewer) if one is not chosen]
    for image in there if chosen is None else [chosen, *there]:
        if image.rgb or image.multiscale or image.data.shape != shape:
            continue
        if str(image.data.dtype) == dtype and checksum(image.data) == run.image.sha256:
            return image
    return None


def add_image_of(viewer: napari.viewer.Viewer, run: Run, image: MicroscopeImage) -> Image:
    """Lay the image of a run, read from its file, beneath all layers."""
    size = run.image.pixel_size_nm
    place = {} if size is None else {"scale": size, "units": ("nm", "nm")}
    layer = Image(image.data, name=run.image.name, metadata={FILE: str(image.path)}, **place)
    viewer.layers.insert(0, layer)
    return layer
