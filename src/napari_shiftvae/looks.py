"""How atoms looked before they were coloured and ringed for exploring. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Container

    from napari.layers import Layer, Points
    from numpy.typing import NDArray

NAMES = ("face_color", "border_color", "border_width")


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

    def same_as(self, other: Look) -> list[str]:
        """Names of what is the same in another look."""
        return [name for name in NAMES if np.array_equal(getattr(self, name), getattr(other, name))]


class Looks:
    """Looks of layers before and after they were changed here."""

    def __init__(self) -> None:
        self._before: dict[Points, Look] = {}
        self._after: dict[Points, Look] = {}

    def __contains__(self, layer: Points) -> bool:
        return layer in self._before

    def of(self, layer: Points) -> Look:
        """How a layer would look without the changes made here."""
        now, after = Look.of(layer), self._after.get(layer)
        if after is not None:  # what the user has changed since counts
            kept = {name: getattr(self._before[layer], name) for name in after.same_as(now)}
            now = replace(now, **kept)
        self._before[layer] = now
        return now

    def note(self, layer: Points) -> None:
        """Note how a layer looks after a change."""
        self._after[layer] = Look.of(layer)

    def give_back(self, there: Container[Layer]) -> None:
        """Undo all changes, but for what the user has changed since."""
        for layer in list(self._after):
            if layer in there:
                before = self.of(layer)
                for name in NAMES:
                    setattr(layer, name, getattr(before, name))
        self._before.clear()
        self._after.clear()
