"""What a user sees, and could lose: layers, sentences in napari's corner, lines in a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

import napari
import numpy as np
from napari.utils.notifications import notification_manager

from napari_shiftvae.cli import main


def state(viewer: napari.Viewer) -> dict[str, tuple]:
    """Layers by name, in a form that can be compared."""
    return {
        layer.name: (
            type(layer).__name__,
            np.asarray(layer.data).tobytes(),
            getattr(layer, "face_color", np.zeros(0)).tobytes(),
            layer.features.to_csv() if hasattr(layer, "features") else "",
            np.asarray(layer.scale).tobytes(),
            layer.visible,
        )
        for layer in viewer.layers
    }


@contextmanager
def said() -> Iterator[list[str]]:
    """Collect what napari shows in its corner."""
    sentences: list[str] = []
    listen = notification_manager.notification_ready.connect(
        lambda notification: sentences.append(notification.message)
    )
    try:
        yield sentences
    finally:
        notification_manager.notification_ready.disconnect(listen)


def refused(capsys, *arguments: object) -> str:
    """The one line of a command that is refused, without the name of the program."""
    assert main([str(one) for one in arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line.removeprefix("napari-shiftvae: ")
