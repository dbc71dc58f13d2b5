"""The dock. Qt lives in this package only; importing it loads neither Qt nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_shiftvae.widgets.dock import ShiftVAEWidget

__all__ = ["ShiftVAEWidget"]


def __getattr__(name: str) -> type[ShiftVAEWidget]:
    if name == "ShiftVAEWidget":
        from napari_shiftvae.widgets.dock import ShiftVAEWidget

        return ShiftVAEWidget
    raise AttributeError(name)
