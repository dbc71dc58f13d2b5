"""How atoms looked before they were coloured and ringed for exploring. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Container

    from napari.layers import Layer, Points
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """Colours of a Points layer: (N, 4) each, and widths (N,)."""

    face_color: NDArray[np.float32]
    border_color: NDArray[np.float32]
    border_width: NDArray[np.float64]

    @classmethod
    def of(cls, layer: Points) -> Look:
        """Copy how a layer looks now."""
        return cls(
            face_color=layer.face_color.copy(),
            border_color=layer.border_color.copy(),
            border_width=np.array(layer.border_width, dtype=float),
        )


class Looks:
    """Looks of layers before and after they were changed here."""

    def __init__(self) -> None:
        self._before: dict[Points, Look] = {}
        self._after: dict[Points, Look] = {}

    def of(self, layer: Points) -> Look:
        """How a layer looked before the first change."""
        return self._before.setdefault(layer, Look.of(layer))

    def note(self, layer: Points) -> None:
        """Note how a layer looks after a change."""
        self._after[layer] = Look.of(layer)

    def give_back(self, there: Container[Layer]) -> None:
        """Undo all changes, but for what the user has changed since."""
        for layer, after in self._after.items():
            before = self._before[layer]
            if layer not in there or len(layer.data) != len(before.face_color):
                continue
            if np.array_equal(layer.face_color, after.face_color):
                layer.face_color = before.face_color
            if np.array_equal(layer.border_width, after.border_width):
                layer.border_color = before.border_color
                layer.border_width = before.border_width
        self._before.clear()
        self._after.clear()
