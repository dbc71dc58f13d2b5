"""Is the installed package whole? Run by `make build` in an environment that has nothing else.

napari must list the plugin, open its widget in a real window, and open its sample data.
"""

import sys
from pathlib import Path

import napari
from npe2 import PluginManager
from qtpy.QtWidgets import QApplication

import napari_shiftvae

NAME = "napari-shiftvae"


def main() -> None:
    """Try the plugin as napari would; any exception ends with status 1."""
    source = Path(__file__).resolve().parents[1] / "src"
    installed = Path(napari_shiftvae.__file__).resolve()
    assert source not in installed.parents, f"the source tree was imported, not {installed}"

    viewer = napari.Viewer()
    plugins = PluginManager.instance()
    assert NAME in plugins, f"napari does not list {NAME}"
    plugins.get_manifest(NAME).validate_imports()

    dock, widget = viewer.window.add_plugin_dock_widget(NAME, "Shift-VAE")
    QApplication.processEvents()
    assert dock.isVisible()
    assert widget.isVisible()
    (layer,) = viewer.open_sample(NAME, "perovskite")
    QApplication.processEvents()
    assert str(layer.units[0]) == "nanometer"
    viewer.close()
    print(f"{NAME} {napari_shiftvae.__version__} in {sys.prefix}: listed, opened, sample shown")


if __name__ == "__main__":
    main()
