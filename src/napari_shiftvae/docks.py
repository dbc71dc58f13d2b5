"""Which viewers have a dock that looks after their layers. No Qt."""

from __future__ import annotations

from weakref import WeakSet

_viewers: WeakSet[object] = WeakSet()


def note(viewer: object) -> None:
    """Note that a viewer has a dock now."""
    _viewers.add(_bare(viewer))


def forget(viewer: object) -> None:
    """Note that its dock was closed."""
    _viewers.discard(_bare(viewer))


def has_dock(viewer: object) -> bool:
    """Whether the layers of a viewer are looked after by a dock."""
    return _bare(viewer) in _viewers


def _bare(viewer: object) -> object:
    """Take off the wrapping in which napari hands its viewer to plugins."""
    return getattr(viewer, "__wrapped__", viewer)
