"""Simulated images in napari's File > Open Sample menu."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.types import LayerDataTuple


def _simulated(kind: str) -> "list[LayerDataTuple]":
    import numpy as np

    from napari_shiftvae.core.simulate import SIMULATIONS

    made = SIMULATIONS[kind](rng=np.random.default_rng(0))
    size = made.pixel_size_nm
    # units as well as scale: napari drops the units of all layers when one with a scale has none
    place = {"scale": (size, size), "units": ("nm", "nm"), "axis_labels": ("y", "x")}
    return [(made.image, {"name": kind, **place}, "image")]


def perovskite() -> "list[LayerDataTuple]":
    """Two sublattices with ferroelectric domains, as in HAADF-STEM."""
    return _simulated("perovskite")


def graphene() -> "list[LayerDataTuple]":
    """Graphene with dopants and vacancies."""
    return _simulated("graphene")


def stm() -> "list[LayerDataTuple]":
    """Topograph of a superlattice, as in STM."""
    return _simulated("stm")
